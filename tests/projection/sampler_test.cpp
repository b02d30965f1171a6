// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <tuple>
#include <vector>

#include <pare/core/arch.hpp>
#include <pare/projection/detail/sampler.hpp>
#include <pare/projection/materialize.hpp>
#include <pare/projection/reference.hpp>

#include "support/matrices.hpp"

namespace projection_sampler_test {
namespace {

using pare::Index;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
namespace projection = pare::projection;

/// (column, row, sign) of each nonzero, in the order of visits.
using Entries = std::vector<std::tuple<Index, Index, int>>;

template <class R, class Backend>
Entries tile(const R& r, const Backend& backend, Index first, Index last, Index first_row,
             Index last_row) {
  Entries entries;
  projection::detail::visit_columns(projection::detail::make_sampler(r), backend, first, last,
                                    first_row, last_row,
                                    [&](Index column, Index row, bool negative) {
                                      entries.emplace_back(column, row, negative ? -1 : 1);
                                    });
  return entries;
}

template <class R>
Entries whole_by_definition(const R& r) {
  Entries entries;
  for (Index j = 0; j < r.input_dim; ++j)
    projection::detail::reference_column(
        r, j, [&](Index row, int sign) { entries.emplace_back(j, row, sign); });
  return entries;
}

std::vector<SparseProjection> bernoulli_operators() {
  return {projection::achlioptas(150, 200, 42),
          projection::very_sparse(300, 130, 7),
          {.input_dim = 70, .output_dim = 64, .density = 1.0, .seed = 3},
          {.input_dim = 1, .output_dim = 1, .density = 0.5, .seed = 4},
          {.input_dim = 65, .output_dim = 1, .density = 0.5, .seed = 5},
          {.input_dim = 90, .output_dim = 63, .density = 0.9, .seed = ~std::uint64_t{0}},
          {.input_dim = 500, .output_dim = 65, .density = 0.001, .seed = 9}};
}

std::vector<SparseSignProjection> sign_operators() {
  return {{.input_dim = 150, .output_dim = 200, .nonzeros = 8, .seed = 42},
          {.input_dim = 70, .output_dim = 129, .nonzeros = 1, .seed = 1},
          {.input_dim = 70, .output_dim = 130, .nonzeros = 7, .seed = 2},
          {.input_dim = 20, .output_dim = 300, .nonzeros = 300, .seed = 3},
          {.input_dim = 30, .output_dim = 400, .nonzeros = 259, .seed = 4},
          {.input_dim = 1, .output_dim = 1, .nonzeros = 1, .seed = 5}};
}

template <class Arch>
struct SamplerTest : testing::Test {};
using SamplerArchs = ::testing::Types<pare::arch::scalar, pare::arch::best>;
TYPED_TEST_SUITE(SamplerTest, SamplerArchs);

template <class Arch, class R>
void expect_tiles_make_the_whole(const R& r) {
  const pare::simd_for<Arch> backend;
  const Entries whole = tile(r, backend, 0, r.input_dim, 0, r.output_dim);
  ASSERT_EQ(whole, whole_by_definition(r));
  for (const Index height : {1, 50, 63, 64, 100, 192})
    for (const Index width : {Index{1}, Index{3}, Index{64}, Index{100}}) {
      Entries parts;
      for (Index row = 0; row < r.output_dim; row += height)
        for (Index column = 0; column < r.input_dim; column += width) {
          const Entries part = tile(r, backend, column, std::min(r.input_dim, column + width), row,
                                    std::min(r.output_dim, row + height));
          parts.insert(parts.end(), part.begin(), part.end());
        }
      std::sort(parts.begin(), parts.end());
      ASSERT_EQ(parts, whole) << "tiles " << height << " x " << width;
    }
}

TYPED_TEST(SamplerTest, AnyTilingGivesTheOperatorOfTheDefinition) {
  for (const auto& r : bernoulli_operators()) expect_tiles_make_the_whole<TypeParam>(r);
  for (const auto& r : sign_operators()) expect_tiles_make_the_whole<TypeParam>(r);
}

TYPED_TEST(SamplerTest, ColumnsInAnyOrderAreTheSameColumns) {
  const SparseProjection r = projection::achlioptas(Index{1} << 40, 100, 8);
  const SparseSignProjection s{
      .input_dim = Index{1} << 40, .output_dim = 100, .nonzeros = 5, .seed = 8};
  const Index columns[] = {Index{1} << 39, 5, (Index{1} << 32) + 5, 5};
  const auto expect_columns = [&](const auto& op) {
    Entries got, wanted;
    projection::detail::make_sampler(op).sample(
        pare::simd_for<TypeParam>{}, columns, 4, 0, 100,
        [&](Index position, Index row, std::uint64_t mask, std::uint64_t signs) {
          for (int bit = 0; bit < 64; ++bit)
            if (((mask >> bit) & 1u) != 0)
              got.emplace_back(position, row + bit, ((signs >> bit) & 1u) != 0 ? -1 : 1);
        });
    for (Index p = 0; p < 4; ++p)
      projection::detail::reference_column(
          op, columns[p], [&](Index row, int sign) { wanted.emplace_back(p, row, sign); });
    EXPECT_EQ(got, wanted);
    const auto column_of = [&](Index p) {
      Entries one;
      for (const auto& [position, row, sign] : got)
        if (position == p) one.emplace_back(0, row, sign);
      return one;
    };
    EXPECT_EQ(column_of(1), column_of(3));
    EXPECT_NE(column_of(1), column_of(2)) << "the high word of a column must count";
  };
  expect_columns(r);
  expect_columns(s);
}

// Computed independently: word order, Floyd's places and the table.
TYPED_TEST(SamplerTest, GoldenBlocks) {
  const SparseProjection r{.input_dim = 8, .output_dim = 128, .density = 1.0 / 3, .seed = 42};
  const auto block = [&](Index column, Index first_row) {
    std::array<std::uint64_t, 2> words{};
    projection::detail::make_sampler(r).sample(
        pare::simd_for<TypeParam>{}, &column, 1, first_row, first_row + 64,
        [&](Index, Index row, std::uint64_t mask, std::uint64_t signs) {
          EXPECT_EQ(row, first_row);
          words = {mask, signs};
        });
    return words;
  };
  EXPECT_EQ(block(0, 0)[0], 0x080d01190e45d178u);
  EXPECT_EQ(block(0, 0)[1], 0x12bf50ad5742b3d7u);
  EXPECT_EQ(std::popcount(block(0, 0)[0]), 22);
  EXPECT_EQ(block(7, 64)[0], 0x053017a32a0abc13u);
  EXPECT_EQ(block(7, 64)[1], 0x4655c57bc778ce12u);
  EXPECT_EQ(std::popcount(block(7, 64)[0]), 25);
}

template <class R>
void expect_materialize_is_the_definition(const R& r) {
  const auto m = projection::materialize<double>(r);
  ASSERT_EQ(m.rows(), r.output_dim);
  ASSERT_EQ(m.cols(), r.input_dim);
  const Entries wanted = whole_by_definition(r);
  ASSERT_EQ(m.nonZeros(), static_cast<Index>(wanted.size()));
  for (const auto& [column, row, sign] : wanted)
    ASSERT_EQ(m.coeff(row, column), sign * r.entry_scale()) << row << ' ' << column;
}

TEST(Materialize, IsTheDefinitionEntryByEntry) {
  for (const auto& r : bernoulli_operators()) expect_materialize_is_the_definition(r);
  for (const auto& r : sign_operators()) expect_materialize_is_the_definition(r);
}

TEST(Materialize, EmptyColumnsAtBothEnds) {
  const SparseProjection r{.input_dim = 40, .output_dim = 2, .density = 1e-12, .seed = 1};
  const auto m = projection::materialize<float>(r);
  EXPECT_EQ(m.rows(), 2);
  EXPECT_EQ(m.cols(), 40);
  EXPECT_EQ(m.nonZeros(), 0);
}

TEST(Sampler, DistinctSeedsGiveDistinctOperators) {
  std::set<Entries> bernoulli, sign;
  const std::uint64_t high = std::uint64_t{1} << 32;
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, high, high + 1, ~high}) {
    EXPECT_TRUE(bernoulli.insert(whole_by_definition(projection::achlioptas(20, 70, seed))).second);
    EXPECT_TRUE(sign.insert(whole_by_definition(SparseSignProjection{20, 70, 4, seed})).second);
  }
}

/// Sum of (observed - expected)^2 / variance has mean n and, each term being near normal, variance
/// about 2n.
void expect_counts(const std::vector<double>& counts, double mean, double variance) {
  double statistic = 0;
  for (const double count : counts) statistic += (count - mean) * (count - mean) / variance;
  const auto n = static_cast<double>(counts.size());
  EXPECT_NEAR(statistic, n, 5 * std::sqrt(2 * n));
}

TEST(Sampler, CountsOfRowsColumnsAndSignsAreBinomial) {
  for (const double p : {1.0 / 3, 1 / std::sqrt(40.0), 0.02}) {
    const SparseProjection r{.input_dim = 3000, .output_dim = 200, .density = p, .seed = 12};
    std::vector<double> rows(200, 0.0), columns(3000, 0.0), negative_in_row(200, 0.0);
    double total = 0, negative = 0;
    for (const auto& [column, row, sign] : tile(r, pare::simd, 0, 3000, 0, 200)) {
      ++rows[static_cast<std::size_t>(row)];
      ++columns[static_cast<std::size_t>(column)];
      ++total;
      negative += sign < 0 ? 1 : 0;
    }
    expect_counts(rows, 3000 * p, 3000 * p * (1 - p));
    expect_counts(columns, 200 * p, 200 * p * (1 - p));
    EXPECT_NEAR(total, 600000 * p, 5 * std::sqrt(600000 * p * (1 - p)));
    EXPECT_NEAR(negative, total / 2, 5 * std::sqrt(total / 4));
  }
}

// Neighbouring entries are independent: the product of two is +1 as often as -1, and both are
// nonzero with probability p^2.
TEST(Sampler, NeighboursAreUncorrelated) {
  const double p = 1.0 / 3;
  const SparseProjection r{.input_dim = 2000, .output_dim = 100, .density = p, .seed = 5};
  const Eigen::MatrixXd m =
      (projection::materialize<double>(r).toDense() / r.entry_scale()).array().round();
  for (const auto& [down, right] : {std::pair<Index, Index>{1, 0}, {0, 1}, {64, 0}, {32, 0}}) {
    const Index rows = 100 - down, columns = 2000 - right;
    const auto products =
        (m.topLeftCorner(rows, columns).array() * m.bottomRightCorner(rows, columns).array());
    const auto n = static_cast<double>(rows * columns);
    EXPECT_LE(std::abs(products.sum()), 5 * std::sqrt(n * p * p)) << down << ' ' << right;
    EXPECT_NEAR(products.abs().sum(), n * p * p, 5 * std::sqrt(2 * n * p * p * (1 - p * p)))
        << down << ' ' << right;
  }
}

TEST(Sampler, SignColumnsHoldOneNonzeroInEachGroup) {
  for (const auto& s : sign_operators()) {
    const auto entries = tile(s, pare::simd, 0, s.input_dim, 0, s.output_dim);
    ASSERT_EQ(static_cast<Index>(entries.size()), s.input_dim * s.nonzeros);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const auto& [column, row, sign] = entries[i];
      const Index group = static_cast<Index>(i) % s.nonzeros;
      ASSERT_EQ(column, static_cast<Index>(i) / s.nonzeros);
      ASSERT_GE(row, group * s.output_dim / s.nonzeros);
      ASSERT_LT(row, (group + 1) * s.output_dim / s.nonzeros);
    }
  }
}

TEST(Sampler, SignRowsAndSignsAreUniform) {
  const SparseSignProjection s{.input_dim = 20000, .output_dim = 60, .nonzeros = 6, .seed = 3};
  std::vector<double> rows(60, 0.0), negative(60, 0.0);
  for (const auto& [column, row, sign] : tile(s, pare::simd, 0, s.input_dim, 0, 60)) {
    ++rows[static_cast<std::size_t>(row)];
    negative[static_cast<std::size_t>(row)] += sign < 0 ? 1 : 0;
  }
  // Rows of one group share its 20000 nonzeros: multinomial, so 9 of 10 are free.
  double statistic = 0, sign_statistic = 0;
  for (std::size_t i = 0; i < 60; ++i) {
    statistic += (rows[i] - 2000) * (rows[i] - 2000) / 2000;
    sign_statistic += (negative[i] - rows[i] / 2) * (negative[i] - rows[i] / 2) / (rows[i] / 4);
  }
  EXPECT_NEAR(statistic, 54, 5 * std::sqrt(2 * 54.0));
  EXPECT_NEAR(sign_statistic, 60, 5 * std::sqrt(2 * 60.0));
}

}  // namespace
}  // namespace projection_sampler_test
