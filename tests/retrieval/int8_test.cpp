// SPDX-License-Identifier: Apache-2.0
// MaxSim and exact search over rows of bytes: against exact integers, what rounding loses, ties,
// numbers that are not finite, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/max_sim.hpp>
#include <pare/retrieval/top_k_dot.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_int8_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::linalg::Int8Rows;
using pare::linalg::Int8View;
using pare::linalg::quantize_rows;
using pare::retrieval::DotHits;
using pare::retrieval::max_sim;
using pare::retrieval::top_k_dot;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;

constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();

const std::vector<Index> ragged{0, 0, 1, 1, 1, 14, 27, 28, 40, 41, 1400, 1403, 1500, 1500};

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Rows of bytes of any kind, -128 among them, with scales of a few sizes.
Int8Rows any_bytes(Index rows, Index dim) {
  Int8Rows x;
  x.codes.resize(rows, dim);
  unsigned random = 3;
  for (Index i = 0; i < x.codes.size(); ++i)
    x.codes.data()[i] = static_cast<std::int8_t>((random = random * 1664525u + 1013904223u) >> 24);
  for (Index r = 0; r < rows; ++r)
    x.scales.push_back(r % 7 == 0 ? 0.0f : .01f + static_cast<float>(r % 5) / 300);
  return x;
}

/// What the headers say, with queries rounded here: an integer, then two products in float.
float wanted_product(const RowMatrix<float>& queries, Index i, const Int8View& rows, Index j) {
  const float scale = queries.row(i).cwiseAbs().maxCoeff() / 127;
  std::int64_t sum = 0;
  for (Index c = 0; c < rows.dim(); ++c)
    if (scale > 0)
      sum += static_cast<std::int64_t>(std::nearbyint(queries(i, c) / scale)) *
             std::int64_t{rows.codes(j, c)};
  return static_cast<float>(sum) * scale * rows.scales[at(j)];
}

void expect_scores(Index query_tokens, Index dim) {
  const Int8Rows rows = any_bytes(1500, dim);
  const auto q = random_matrix<RowMatrix<float>>(query_tokens, dim, 1);
  const auto expect = [&](const auto& backend) {
    const auto scores = max_sim(backend, q, rows, ragged);
    ASSERT_EQ(scores.size(), ragged.size() - 1);
    for (std::size_t d = 0; d < scores.size(); ++d) {
      double wanted = 0;
      for (Index i = 0; i < query_tokens; ++i) {
        double best = -std::numeric_limits<double>::infinity();
        for (Index j = ragged[d]; j < ragged[d + 1]; ++j)
          best = std::max(best, static_cast<double>(wanted_product(q, i, rows, j)));
        wanted += best;
      }
      // Sums in double differ by far less than a float's last bit, but may lie on either side.
      const float score = static_cast<float>(wanted);
      EXPECT_TRUE(scores[d] == score || (std::isfinite(score) &&
                                         std::abs(scores[d] - score) <= std::abs(score) * 0x1p-23f))
          << query_tokens << ' ' << dim << ' ' << d << ": " << scores[d] << ", wanted " << score;
    }
  };
  expect(pare::simd.threads(2));
  if (query_tokens == 3) expect(pare::reference);
}

TEST(Int8MaxSim, IsTheSumOfMaximaOfExactProducts) {
  for (const Index dim : {1, 3, 127, 129}) expect_scores(3, dim);
  expect_scores(32, 128);
  expect_scores(70, 5);
}

TEST(Int8MaxSim, HasItsKnownValues) {
  const RowMatrix<float> q = RowMatrix<float>::Identity(2, 2);
  Int8Rows t;
  t.codes = (RowMatrix<std::int8_t>(3, 2) << 96, 127, -127, 0, -2, 0).finished();
  t.scales = {1 / 127.0f, 1 / 127.0f, .5f};
  const std::vector<Index> offsets{0, 2, 2, 3};
  const auto expect = [&](const auto& backend) {
    const auto scores = max_sim(backend, q, t, offsets);
    EXPECT_FLOAT_EQ(scores[0], 96 / 127.0f + 1);
    EXPECT_EQ(scores[1], -infinity);  // of no token
    EXPECT_FLOAT_EQ(scores[2], -1);   // not 0, as after padding
    EXPECT_EQ(max_sim(backend, RowMatrix<float>(0, 2), t, offsets), std::vector<float>(3));
    EXPECT_TRUE(
        max_sim(backend, q, quantize_rows(RowMatrix<float>(0, 2)), std::vector<Index>{0}).empty());
  };
  expect(pare::reference);
  expect(pare::simd);
}

/// How far a product of rounded rows may be from that of the rows: what the headers state, and five
/// roundings of float.
double bound_of(const RowMatrix<float>& q, Index i, const RowMatrix<float>& x, Index j,
                const Int8Rows& rows) {
  const auto row = x.row(j).cast<double>().cwiseAbs(), query = q.row(i).cast<double>().cwiseAbs();
  const double of_query = query.maxCoeff() / 127, of_row = static_cast<double>(rows.scales[at(j)]);
  return 1.00001 * (of_query / 2 * row.sum() + of_row / 2 * query.sum() +
                    of_query * of_row * static_cast<double>(q.cols()) / 4) +
         5 * 0x1p-24 * query.dot(row);
}

TEST(Int8MaxSim, IsOffByNoMoreThanItsHeaderSays) {
  const auto q = random_matrix<RowMatrix<float>>(9, 65, 1),
             x = random_matrix<RowMatrix<float>>(1500, 65, 2);
  const Int8Rows rows = quantize_rows(x);
  const auto scores = max_sim(q, rows, ragged);
  const auto exact = max_sim(pare::reference, q, x, ragged);
  for (std::size_t d = 0; d < scores.size(); ++d) {
    if (ragged[d] == ragged[d + 1]) continue;
    double bound = 0;
    for (Index i = 0; i < q.rows(); ++i) {
      double most = 0;
      for (Index j = ragged[d]; j < ragged[d + 1]; ++j)
        most = std::max(most, bound_of(q, i, x, j, rows));
      bound += most;
    }
    EXPECT_NEAR(scores[d], exact[d], bound) << d;
  }
}

TEST(Int8MaxSim, HasTheSameBitsForAnyThreadsStridesAndNeighboursAndAllocatesNothingTwice) {
  const Int8Rows rows = any_bytes(1500, 33);
  const auto q = random_matrix<RowMatrix<float>>(20, 33, 1);
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return max_sim(backend, q, rows, ragged); });
  const auto scores = max_sim(q, rows, ragged);
  RowMatrix<std::int8_t> wide = RowMatrix<std::int8_t>::Constant(1500, 40, 77);
  wide.leftCols(33) = rows.codes;
  RowMatrix<float> wide_q = RowMatrix<float>::Constant(20, 35, nan);
  wide_q.leftCols(33) = q;
  EXPECT_EQ(max_sim(wide_q.leftCols(33), Int8View{{wide.data(), {1500, 33}, {40, 1}}, rows.scales},
                    ragged),
            scores);
  for (std::size_t d = 0; d + 1 < ragged.size(); ++d) {
    const Index count = ragged[d + 1] - ragged[d];
    const Int8View alone{{rows.codes.data() + ragged[d] * 33, {count, 33}, {33, 1}},
                         std::span(rows.scales).subspan(at(ragged[d]), at(count))};
    EXPECT_EQ(max_sim(q, alone, std::vector<Index>{0, count})[0], scores[d]);
  }
  std::vector<float> out(scores.size());
  pare::Workspace workspace;
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    max_sim(pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace), q, rows, ragged, out);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(Int8MaxSim, KeepsWhatIsNotFiniteInItsDocument) {
  auto x = random_matrix<RowMatrix<float>>(100, 33, 2),
       q = random_matrix<RowMatrix<float>>(20, 33, 1);
  const std::vector<Index> offsets{0, 30, 31, 70, 100};
  x(40, 32) = nan;
  x(99, 3) = infinity;
  const Int8Rows rows = quantize_rows(x);
  const auto expect = [&](const auto& backend) {
    const auto scores = max_sim(backend, q, rows, offsets);
    EXPECT_TRUE(std::isfinite(scores[0]) && std::isfinite(scores[1]));
    EXPECT_TRUE(pare::is_nan(scores[2]) && pare::is_nan(scores[3]));
  };
  expect(pare::reference);
  expect(pare::simd);
  q(19, 0) = infinity;
  for (const float score : max_sim(q, rows, offsets)) EXPECT_TRUE(pare::is_nan(score));
  for (const float score : max_sim(pare::reference, q, rows, offsets))
    EXPECT_TRUE(pare::is_nan(score));
}

void expect_best(const Int8Rows& table, const RowMatrix<float>& queries, Index k) {
  const auto hits = top_k_dot(pare::simd.threads(2), table, queries, k);
  ASSERT_EQ(hits.ids.rows(), queries.rows());
  ASSERT_EQ(hits.scores.cols(), k);
  for (Index i = 0; i < queries.rows(); ++i) {
    std::vector<float> products;
    for (Index j = 0; j < table.rows(); ++j)
      products.push_back(wanted_product(queries, i, table, j));
    std::vector<Index> order(products.size());
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
      return std::isnan(products[at(b)]) ? !std::isnan(products[at(a)])
                                         : products[at(a)] > products[at(b)];
    });
    for (Index t = 0; t < k; ++t) {
      ASSERT_EQ(hits.ids(i, t), order[at(t)]) << table.dim() << ' ' << i << ' ' << t;
      const float score = products[at(order[at(t)])];
      ASSERT_TRUE(hits.scores(i, t) == score || std::isnan(score)) << i << ' ' << t;
    }
  }
  const auto defined = top_k_dot(pare::reference, table, queries, k);
  EXPECT_EQ(defined.ids, hits.ids);
}

TEST(Int8TopKDot, FindsTheLargestOfAllExactProductsTheLowerRowFirst) {
  const auto queries = [](Index count, Index dim) {
    return random_matrix<RowMatrix<float>>(count, dim, 5);
  };
  expect_best(any_bytes(14000, 3), queries(1, 3), 100);  // two items, with a tail; many are equal
  expect_best(any_bytes(3000, 1), queries(17, 1), 10);
  expect_best(any_bytes(1000, 127), queries(4, 127), 1000);
  expect_best(any_bytes(900, 129), queries(33, 129), 3);
  expect_best(any_bytes(1, 128), queries(5, 128), 1);
  EXPECT_EQ(top_k_dot(any_bytes(5, 2), RowMatrix<float>(0, 2), 3).ids.rows(), 0);
}

TEST(Int8TopKDot, OfEqualRowsTakesTheFirstAndPutsNaNLast) {
  for (const Index queries : {2, 20}) {
    Int8Rows table;
    table.codes = RowMatrix<std::int8_t>::Ones(5000, 4);
    table.scales.assign(5000, 1);
    const RowMatrix<float> q = RowMatrix<float>::Ones(queries, 4);
    expect_best(table, q, 90);
    std::fill_n(table.scales.begin(), 4000, nan);
    table.scales[4100] = -infinity;
    table.scales[4200] = infinity;
    table.scales[4300] = 0;
    expect_best(table, q, 1100);
    // A query that is zero, or is not finite.
    RowMatrix<float> special = q;
    special.row(0).setZero();
    special(1, 3) = -infinity;
    const auto hits = top_k_dot(table, special, 2),
               defined = top_k_dot(pare::reference, table, special, 2);
    EXPECT_EQ(hits.ids, defined.ids);
    EXPECT_EQ(hits.ids(0, 0), 4000);
    EXPECT_EQ(hits.scores(0, 0), 0);
    EXPECT_EQ(hits.ids(1, 0), 0);
    EXPECT_TRUE(pare::is_nan(hits.scores(1, 0)));
  }
}

TEST(Int8TopKDot, HasTheSameBitsForAnyThreadsAndQueriesBesideAndAllocatesNothingTwice) {
  const Int8Rows table = any_bytes(40000, 19);
  const auto all = random_matrix<RowMatrix<float>>(21, 19, 2);
  const auto together = top_k_dot(table, all, 30);
  for (const Index queries : {3, 21}) {
    const RowMatrix<float> q = all.topRows(queries);
    pare::testing::same_bits_for_any_threads(
        pare::simd, [&](const auto& backend) { return top_k_dot(backend, table, q, 30).scores; });
    const auto hits = top_k_dot(table, q, 30);
    EXPECT_EQ(hits.ids, together.ids.topRows(queries));
    EXPECT_EQ(hits.scores, together.scores.topRows(queries));
    EXPECT_EQ(top_k_dot(pare::reference, table, q, 30).scores, hits.scores);
    pare::Workspace workspace;
    DotHits<float> kept;
    long before = 0;
    for (int turn = 0; turn < 3; ++turn) {
      before = pare::testing::allocations;
      top_k_dot(pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace), table, q, 30, kept);
    }
    EXPECT_EQ(pare::testing::allocations, before);
  }
}

TEST(Int8MaxSim, RefusesWhatDoesNotFit) {
  const Int8Rows t = any_bytes(5, 4);
  const auto q = random_matrix<RowMatrix<float>>(2, 4, 1);
  std::vector<float> memory(20, 7.0f);
  const auto refuse = [&](const auto& queries, const Int8View& tokens,
                          const std::vector<Index>& offsets, const TensorView<float, 1>& scores,
                          const char* argument) {
    refuses_and_leaves_alone([&] { max_sim(pare::reference, queries, tokens, offsets, scores); },
                             "retrieval::max_sim", argument, memory, q, t.codes, t.scales);
  };
  const TensorView<float, 1> two{memory.data(), {2}, {1}};
  const Int8View whole = t;
  refuse(q, whole, {0, 6, 5}, two, "offsets");
  refuse(q, whole, {1, 3, 5}, two, "offsets");
  refuse(q, whole, {0, 5}, two, "scores");
  refuse(q, {whole.codes, whole.scales.first(4)}, {0, 2, 5}, two, "documents");
  refuse(q, {{t.codes.data(), {5, 4}, {1, 5}}, whole.scales}, {0, 2, 5}, two, "documents");
  refuse(q, {{t.codes.data(), {5, 0}, {4, 1}}, whole.scales}, {0, 2, 5}, two, "documents");
  refuse(q, {{t.codes.data(), {5, 65536}, {0, 1}}, whole.scales}, {0, 2, 5}, two, "documents");
  refuse(q, {{nullptr, {5, 4}, {4, 1}}, whole.scales}, {0, 2, 5}, two, "documents");
  refuse(random_matrix<RowMatrix<float>>(2, 3, 1), whole, {0, 2, 5}, two, "queries");
  refuse(Eigen::MatrixXf(q), whole, {0, 2, 5}, two, "queries");
  const Index most = std::numeric_limits<Index>::max();
  refuse(TensorView<const float, 2>{q.data(), {most / 8, 4}, {0, 1}}, whole, {0, 2, 5}, two,
         "queries");
  refuse(TensorView<const float, 2>{memory.data() + 1, {2, 4}, {4, 1}}, whole, {0, 2, 5}, two,
         "scores");
  refuse(q, {whole.codes, std::span<const float>(memory).first(5)}, {0, 2, 5}, two, "scores");
  refuse(q, {{reinterpret_cast<const std::int8_t*>(memory.data()), {5, 4}, {0, 1}}, whole.scales},
         {0, 2, 5}, two, "scores");
}

TEST(Int8TopKDot, RefusesWhatDoesNotFit) {
  const Int8Rows table = any_bytes(9, 4);
  const Int8View whole = table;
  const auto q = random_matrix<RowMatrix<float>>(2, 4, 1);
  const auto refuse = [&](const Int8View& rows, const auto& queries, Index k,
                          const char* argument) {
    refusal([&] { top_k_dot(pare::reference, rows, queries, k); }, "retrieval::top_k_dot",
            argument);
  };
  refuse(whole, q, 0, "k");
  refuse(whole, q, 10, "k");
  refuse({whole.codes, whole.scales.first(8)}, q, 1, "table");
  refuse({{table.codes.data(), {9, 4}, {1, 9}}, whole.scales}, q, 1, "table");
  refuse({{table.codes.data(), {9, 0}, {4, 1}}, whole.scales}, q, 1, "table");
  const std::size_t many = std::size_t{1} << 33;
  refuse({{table.codes.data(), {Index(many), 4}, {0, 1}}, {table.scales.data(), many}}, q, 1,
         "table");
  refuse(whole, random_matrix<RowMatrix<float>>(2, 3, 1), 1, "queries");
  refuse(whole, Eigen::MatrixXf(q), 1, "queries");
  refuse(whole, TensorView<const float, 2>{q.data(), {Index(many) << 27, 4}, {0, 1}}, 1, "queries");
  DotHits<float> hits;
  hits.scores = RowMatrix<float>::Constant(3, 3, 7);
  const std::span<const float> inside(hits.scores.data(), 9);
  refusal([&] { top_k_dot(pare::reference, Int8View{whole.codes, inside}, q, 1, hits); },
          "retrieval::top_k_dot", "hits.scores");
  const TensorView<const std::int8_t, 2> codes{
      reinterpret_cast<const std::int8_t*>(hits.scores.data()), {9, 4}, {4, 1}};
  refusal([&] { top_k_dot(pare::reference, Int8View{codes, whole.scales}, q, 1, hits); },
          "retrieval::top_k_dot", "hits.scores");
  EXPECT_TRUE((hits.scores.array() == 7).all());
}

}  // namespace
}  // namespace retrieval_int8_test
