// SPDX-License-Identifier: Apache-2.0
// Rows of items against loops in double, gradients against finite differences, refusals.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_embedding_bag_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::retrieval::embedding_bag;
using pare::retrieval::embedding_bag_gradient;
using pare::retrieval::ItemFields;
using pare::testing::equal_bits;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::same_bits;
using pare::testing::Tolerance;

/// Values from a hash: a bag of 0 to 4 and one value, of few; of each item.
ItemFields some_fields(Index items) {
  ItemFields fields(items);
  std::vector<Index> ids, offsets{0}, single;
  for (Index i = 0; i < items; ++i) {
    for (Index n = (i * 7 + 3) % 5; n > 0; --n) ids.push_back((i * 13 + n * n * 5) % 11);
    offsets.push_back(static_cast<Index>(ids.size()));
    single.push_back((i * 5) % 6);
  }
  fields.add(11, std::move(ids), std::move(offsets));
  fields.add(7, std::move(single));
  return fields;
}

template <class S>
std::vector<RowMatrix<S>> some_tables(Index wide, Index narrow) {
  return {random_matrix<RowMatrix<S>>(11, wide, 1), random_matrix<RowMatrix<S>>(7, narrow, 2)};
}

/// The mean of an item's values in a column, from the lists alone.
template <class S>
double mean_of(const ItemFields& fields, const RowMatrix<S>& table, Index j, Index i, Index c) {
  const std::span<const Index> offsets = fields.offsets(j);
  const Index begin = offsets.empty() ? i : offsets[static_cast<std::size_t>(i)],
              end = offsets.empty() ? i + 1 : offsets[static_cast<std::size_t>(i) + 1];
  double sum = 0;
  for (Index p = begin; p < end; ++p)
    sum += static_cast<double>(
        static_cast<pare::compute_t<S>>(table(fields.ids(j)[static_cast<std::size_t>(p)], c)));
  return end > begin ? sum / static_cast<double>(end - begin) : 0;
}

template <class S, class B>
void expect_means(const B& backend, Index items, Index wide, Index narrow) {
  using T = pare::compute_t<S>;
  const ItemFields fields = some_fields(items);
  const auto tables = some_tables<S>(wide, narrow);
  RowMatrix<T> rows = RowMatrix<T>::Constant(items, wide + narrow, T(9));
  embedding_bag(backend, fields, tables, rows);
  // Up to 4 values in [-1, 1].
  const double bound = Tolerance<T>::scaled_sum(4, 1) + Tolerance<double>::scaled_sum(4, 1);
  for (Index i = 0; i < items; ++i)
    for (Index c = 0; c < wide + narrow; ++c) {
      const double wanted = c < wide ? mean_of(fields, tables[0], 0, i, c)
                                     : mean_of(fields, tables[1], 1, i, c - wide);
      ASSERT_NEAR(static_cast<double>(rows(i, c)), wanted, bound) << i << ' ' << c;
    }
}

TEST(EmbeddingBag, IsTheMeanOfEachFieldSideBySide) {
  expect_means<float>(pare::simd, 1, 5, 1);
  expect_means<float>(pare::simd.threads(2), 700, 33, 16);
  expect_means<double>(pare::simd, 23, 9, 2);
  expect_means<bf16>(pare::simd, 260, 17, 64);
  expect_means<pare::f16>(pare::simd, 23, 4, 3);
  expect_means<float>(pare::reference, 23, 4, 3);
  expect_means<bf16>(pare::reference, 23, 4, 3);
  expect_means<float>(pare::simd, 0, 4, 3);
}

TEST(EmbeddingBag, EqualMetadataAreEqualBitsAndAnEmptyBagIsZero) {
  ItemFields fields(600);
  std::vector<Index> ids, offsets{0};
  for (Index i = 0; i < 600; ++i) {
    if (i % 3 != 2)
      for (const Index id : {4, 1, 4}) ids.push_back(id + i % 3);
    offsets.push_back(static_cast<Index>(ids.size()));
  }
  fields.add(6, ids, offsets);
  const std::vector<RowMatrix<float>> tables{random_matrix<RowMatrix<float>>(6, 37, 1)};
  RowMatrix<float> rows(600, 37);
  embedding_bag(fields, tables, rows);
  for (Index i = 3; i < 600; ++i)
    for (Index c = 0; c < 37; ++c) ASSERT_TRUE(same_bits(rows(i, c), rows(i - 3, c)));
  EXPECT_EQ(rows.row(2).cwiseAbs().maxCoeff(), 0);
  EXPECT_NE(rows(0, 0), rows(1, 0));
}

TEST(EmbeddingBag, ItsGradientsAreThoseOfFiniteDifferences) {
  // Rows are linear in tables: a difference of any step is exact but for rounding.
  const ItemFields fields = some_fields(23);
  auto tables = some_tables<double>(3, 2);
  const auto weights = random_matrix<RowMatrix<double>>(23, 5, 3);
  RowMatrix<double> rows(23, 5);
  const auto loss = [&] {
    embedding_bag(pare::reference, fields, tables, rows);
    return rows.cwiseProduct(weights).sum();
  };
  for (const bool fast : {true, false}) {
    auto by_tables = some_tables<double>(3, 2);
    if (fast)
      embedding_bag_gradient(fields, weights, by_tables);
    else
      embedding_bag_gradient(pare::reference, fields, weights, by_tables);
    for (std::size_t j = 0; j < 2; ++j)
      for (Index k = 0; k < tables[j].size(); ++k) {
        double& at = tables[j].data()[k];
        const double was = at;
        at = was + 1;
        const double above = loss();
        at = was - 1;
        const double below = loss();
        at = was;
        ASSERT_NEAR(by_tables[j].data()[k], (above - below) / 2, 1e-12) << j << ' ' << k;
      }
    EXPECT_EQ(by_tables[1].row(6).cwiseAbs().maxCoeff(), 0);  // no item has it
  }
}

TEST(EmbeddingBag, SameBitsForAnyThreadsAndAllocatesNothingTheSecondTime) {
  const ItemFields fields = some_fields(1000);
  const auto tables = some_tables<float>(19, 40);
  const auto by_rows = random_matrix<RowMatrix<float>>(1000, 59, 3);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> rows(1000, 59);
    embedding_bag(backend, fields, tables, rows);
    return rows;
  });
  auto by_tables = some_tables<float>(19, 40);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    embedding_bag_gradient(backend, fields, by_rows, by_tables);
    return by_tables[0];
  });
  pare::Workspace workspace;
  RowMatrix<float> rows(1000, 59);
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    const auto backend = pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace);
    embedding_bag(backend, fields, tables, rows);
    embedding_bag_gradient(backend, fields, by_rows, by_tables);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(EmbeddingBag, TakesViewsWithGapsBetweenRows) {
  const ItemFields fields = some_fields(23);
  const auto tables = some_tables<float>(5, 3);
  RowMatrix<float> wanted(23, 8), wide = RowMatrix<float>::Constant(23, 11, 7), table(11, 9);
  embedding_bag(fields, tables, wanted);
  table.leftCols(5) = tables[0];
  const std::array<TensorView<const float, 2>, 2> views{
      TensorView<const float, 2>{table.data(), {11, 5}, {9, 1}}, pare::const_view(tables[1])};
  embedding_bag(fields, views, wide.leftCols(8));
  EXPECT_TRUE(equal_bits(RowMatrix<float>(wide.leftCols(8)), wanted));
  EXPECT_EQ(wide.rightCols(3).minCoeff(), 7);
  RowMatrix<float> by_genres(11, 5), by_decades(7, 3), gaps = RowMatrix<float>::Constant(11, 9, 7);
  std::array<TensorView<float, 2>, 2> by{pare::to_view(by_genres), pare::to_view(by_decades)};
  embedding_bag_gradient(fields, wanted, by);
  by[0] = {gaps.data(), {11, 5}, {9, 1}};
  embedding_bag_gradient(fields, wide.leftCols(8), by);
  EXPECT_TRUE(equal_bits(RowMatrix<float>(gaps.leftCols(5)), by_genres));
  EXPECT_EQ(gaps.rightCols(4).minCoeff(), 7);
}

TEST(EmbeddingBag, NaNStaysWithTheItemsOfItsValueInItsColumn) {
  const ItemFields fields = some_fields(40);
  auto tables = some_tables<float>(5, 3);
  tables[1](5, 2) = std::numeric_limits<float>::quiet_NaN();
  RowMatrix<float> rows(40, 8);
  embedding_bag(fields, tables, rows);
  for (Index i = 0; i < 40; ++i)
    for (Index c = 0; c < 8; ++c)
      EXPECT_EQ(pare::is_nan(rows(i, c)), i * 5 % 6 == 5 && c == 7) << i << ' ' << c;
}

TEST(ItemFields, RefuseWhatNoItemHas) {
  ItemFields fields(3);
  const char* const f = "retrieval::ItemFields::add";
  refusal([&] { fields.add(0, {0, 0, 0}); }, f, "values");
  refusal([&] { fields.add(std::numeric_limits<Index>::max(), {0, 0, 0}); }, f, "values");
  refusal([&] { fields.add(4, {0, 4, 0}); }, f, "ids");
  refusal([&] { fields.add(4, {0, -1, 0}); }, f, "ids");
  refusal([&] { fields.add(4, {0, 1}); }, f, "ids");
  refusal([&] { fields.add(4, {0, 1}, {0, 1, 2}); }, f, "offsets");
  refusal([&] { fields.add(4, {0, 1}, {0, 2, 1, 2}); }, f, "offsets");
  refusal([&] { fields.add(4, {0, 1}, {1, 1, 1, 2}); }, f, "offsets");
  refusal([&] { fields.add(4, {0, 1}, {0, 1, 1, 3}); }, f, "offsets");
  refusal([&] { fields.add(4, {0, 7}, {0, 1, 1, 2}); }, f, "ids");
  EXPECT_EQ(fields.fields(), 0);
  ItemFields most(std::numeric_limits<Index>::max());
  refusal([&] { most.add(4, {0}, {0, 1}); }, f, "offsets");
  refusal([&] { ItemFields(-1); }, "retrieval::ItemFields", "items");
  refusal([&] { (void)fields.values(0); }, "retrieval::ItemFields", "j");
  fields.add(4, {3, 1, 3}, {0, 2, 2, 3});
  EXPECT_EQ(fields.count(0, 1), 0);
  EXPECT_EQ(fields.items_of_values(0)[2], 2);
  EXPECT_EQ(fields.value_offsets(0)[3], 1);
}

TEST(EmbeddingBag, RefusesWhatDoesNotFit) {
  const ItemFields fields = some_fields(23), none(23);
  auto tables = some_tables<float>(5, 3);
  RowMatrix<float> rows = RowMatrix<float>::Ones(23, 8);
  const char* const f = "retrieval::embedding_bag";
  const auto refused = [&](const ItemFields& of, const std::vector<RowMatrix<float>>& by, auto&& to,
                           const char* argument) {
    refuses_and_leaves_alone([&] { embedding_bag(of, by, to); }, f, argument, rows, tables[1]);
  };
  refused(none, {}, rows, "fields");
  refused(fields, {tables[0]}, rows, "tables");
  refused(fields, {tables[1], tables[0]}, rows, "tables");
  refused(fields, {tables[0], RowMatrix<float>(7, 0)}, rows, "tables");
  refused(fields, tables, rows.leftCols(7), "rows");
  refused(fields, tables, rows.topRows(22), "rows");
  Eigen::MatrixXf by_columns(23, 8);
  refused(fields, tables, by_columns, "rows");
  std::vector<Eigen::MatrixXf> columns{tables[0], tables[1]};
  refuses_and_leaves_alone([&] { embedding_bag(fields, columns, rows); }, f, "tables", rows);
  RowMatrix<float> big = RowMatrix<float>::Ones(34, 8);
  const std::array<TensorView<float, 2>, 2> inside{
      TensorView<float, 2>{&big(20, 0), {11, 5}, {8, 1}}, pare::to_view(tables[1])};
  refuses_and_leaves_alone([&] { embedding_bag(fields, inside, big.topRows(23)); }, f, "rows", big);
}

TEST(EmbeddingBag, ItsGradientRefusesWhatDoesNotFit) {
  const ItemFields fields = some_fields(23), none(23);
  auto tables = some_tables<float>(5, 3);
  RowMatrix<float> by_rows = RowMatrix<float>::Ones(23, 8);
  const auto refused = [&](const ItemFields& of, const auto& by, auto& to, const char* argument) {
    refuses_and_leaves_alone([&] { embedding_bag_gradient(of, by, to); },
                             "retrieval::embedding_bag_gradient", argument, tables[0], tables[1],
                             by_rows);
  };
  std::vector<RowMatrix<float>> empty, one{tables[0]};
  refused(none, by_rows, empty, "fields");
  refused(fields, by_rows, one, "by_tables");
  refused(fields, by_rows.leftCols(7), tables, "by_rows");
  refused(fields, by_rows.topRows(22), tables, "by_rows");
  refused(fields, Eigen::MatrixXf(by_rows), tables, "by_rows");
  std::array<TensorView<float, 2>, 2> twice{TensorView<float, 2>{by_rows.data(), {11, 5}, {8, 1}},
                                            pare::to_view(tables[1])};
  refused(fields, by_rows, twice, "by_tables");
  twice[0] = pare::to_view(tables[0]);
  twice[1] = {tables[0].data() + 8, {7, 3}, {5, 1}};
  refused(fields, by_rows, twice, "by_tables");
}

}  // namespace
}  // namespace retrieval_embedding_bag_test
