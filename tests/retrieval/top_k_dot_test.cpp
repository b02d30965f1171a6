// SPDX-License-Identifier: Apache-2.0
// Exact search against all products in double, its order, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/top_k_dot.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_top_k_dot_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::retrieval::DotHits;
using pare::retrieval::top_k_dot;
using pare::testing::random_matrix;
using pare::testing::refusal;

/// Whole numbers, whose sums have no rounding in any order; many of them are equal.
template <class S>
RowMatrix<S> whole(Index rows, Index dim, unsigned seed) {
  using T = pare::compute_t<S>;
  const auto from = random_matrix<RowMatrix<T>>(rows, dim, seed);
  RowMatrix<S> to(rows, dim);
  for (Index i = 0; i < to.size(); ++i)
    to.data()[i] = static_cast<S>(std::round(3 * from.data()[i]));
  return to;
}

template <class S>
void expect_best(const RowMatrix<S>& table, const RowMatrix<S>& queries, Index k,
                 const DotHits<pare::compute_t<S>>& hits) {
  using T = pare::compute_t<S>;
  ASSERT_EQ(hits.ids.rows(), queries.rows());
  ASSERT_EQ(hits.scores.cols(), k);
  for (Index i = 0; i < queries.rows(); ++i) {
    std::vector<double> products;
    for (Index j = 0; j < table.rows(); ++j) {
      double sum = 0;
      for (Index c = 0; c < table.cols(); ++c)
        sum += static_cast<double>(static_cast<T>(queries(i, c))) *
               static_cast<double>(static_cast<T>(table(j, c)));
      products.push_back(sum);
    }
    std::vector<Index> order(products.size());
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
      const double x = products[static_cast<std::size_t>(a)],
                   y = products[static_cast<std::size_t>(b)];
      return std::isnan(y) ? !std::isnan(x) : x > y;
    });
    for (Index t = 0; t < k; ++t) {
      const Index wanted = order[static_cast<std::size_t>(t)];
      ASSERT_EQ(hits.ids(i, t), wanted) << i << ' ' << t;
      const double score = products[static_cast<std::size_t>(wanted)];
      ASSERT_TRUE(static_cast<double>(hits.scores(i, t)) == score ||
                  (std::isnan(score) && pare::is_nan(hits.scores(i, t))));
    }
  }
}

template <class S>
void expect_shape(Index rows, Index dim, Index queries, Index k) {
  const auto table = whole<S>(rows, dim, 1), q = whole<S>(queries, dim, 2);
  expect_best(table, q, k, top_k_dot(pare::simd.threads(2), table, q, k));
}

TEST(TopKDot, FindsTheLargestOfAllProductsTheLowerRowFirst) {
  expect_shape<float>(30000, 7, 1, 100);  // three items, with a tail
  expect_shape<float>(30000, 3, 17, 10);
  expect_shape<float>(1000, 127, 4, 1000);
  expect_shape<float>(900, 128, 64, 3);
  expect_shape<float>(1, 1, 5, 1);
  expect_shape<double>(2000, 9, 3, 70);
  expect_shape<bf16>(2000, 33, 2, 50);
  expect_shape<bf16>(2000, 33, 33, 50);
  const auto table = whole<float>(500, 5, 1), q = whole<float>(6, 5, 2);
  expect_best(table, q, 40, top_k_dot(pare::reference, table, q, 40));
  EXPECT_EQ(top_k_dot(table, RowMatrix<float>(0, 5), 3).ids.rows(), 0);
}

TEST(TopKDot, OfEqualRowsTakesTheFirstAndPutsNaNLast) {
  for (const Index queries : {2, 20}) {
    RowMatrix<float> table = RowMatrix<float>::Ones(5000, 4);
    const RowMatrix<float> q = RowMatrix<float>::Ones(queries, 4);
    expect_best(table, q, 90, top_k_dot(table, q, 90));
    table.topRows(4000).setConstant(std::nanf(""));
    table(4100, 2) = -std::numeric_limits<float>::infinity();
    expect_best(table, q, 1100, top_k_dot(table, q, 1100));
    expect_best(table, q, 1100, top_k_dot(pare::reference, table, q, 1100));
  }
}

TEST(TopKDot, HasTheSameBitsForAnyThreadsAndAllocatesNothingTheSecondTime) {
  const auto table = random_matrix<RowMatrix<float>>(40000, 19, 1);
  for (const Index queries : {3, 21}) {
    const auto q = random_matrix<RowMatrix<float>>(queries, 19, 2);
    pare::testing::same_bits_for_any_threads(
        pare::simd, [&](const auto& backend) { return top_k_dot(backend, table, q, 30).scores; });
    pare::testing::same_bits_for_any_threads(
        pare::simd, [&](const auto& backend) { return top_k_dot(backend, table, q, 30).ids; });
    pare::Workspace workspace;
    DotHits<float> hits;
    long before = 0;
    for (int turn = 0; turn < 3; ++turn) {
      before = pare::testing::allocations;
      top_k_dot(pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace), table, q, 30, hits);
    }
    EXPECT_EQ(pare::testing::allocations, before);
  }
}

TEST(TopKDot, RefusesWhatDoesNotFit) {
  const auto table = whole<float>(9, 4, 1), q = whole<float>(2, 4, 2);
  const auto refuse = [&](const auto& rows, const auto& queries, Index k, const char* argument) {
    refusal([&] { top_k_dot(pare::reference, rows, queries, k); }, "retrieval::top_k_dot",
            argument);
  };
  refuse(table, q, 0, "k");
  refuse(table, q, 10, "k");
  refuse(table, whole<float>(2, 3, 1), 1, "queries");
  refuse(Eigen::MatrixXf(table), q, 1, "table");
  refuse(table, Eigen::MatrixXf(q), 1, "queries");
  refuse(RowMatrix<float>(9, 0), RowMatrix<float>(2, 0), 1, "table");
  refuse(RowMatrix<float>(0, 4), q, 1, "k");
  const Index many = Index{1} << 33;
  refuse(TensorView<const float, 2>{table.data(), {many, 4}, {0, 1}}, q, 1, "table");
  refuse(table, TensorView<const float, 2>{q.data(), {many << 27, 4}, {0, 1}}, 1, "queries");
  refuse(table, TensorView<const float, 2>{q.data(), {-1, 4}, {4, 1}}, 1, "queries");
  DotHits<float> hits;
  hits.scores = table;
  const RowMatrix<float> before = hits.scores;
  const TensorView<const float, 2> inside{hits.scores.data(), {9, 4}, {4, 1}};
  refusal([&] { top_k_dot(pare::reference, inside, q, 1, hits); }, "retrieval::top_k_dot",
          "hits.scores");
  refusal([&] { top_k_dot(pare::reference, q, inside, 1, hits); }, "retrieval::top_k_dot",
          "hits.scores");
  EXPECT_EQ(hits.scores, before);
  // Lists of k entries for each query.
  const Index k = Index{1} << 31;
  refuse(TensorView<const float, 2>{table.data(), {k, 4}, {0, 1}},
         TensorView<const float, 2>{q.data(), {k / 2, 4}, {0, 1}}, k, "k");
  // Ids, whose memory would be taken anew under the table.
  hits.ids = RowMatrix<Index>::Constant(9, 4, 5);
  hits.scores.resize(0, 0);
  const TensorView<const double, 2> ids{
      reinterpret_cast<const double*>(hits.ids.data()), {9, 4}, {4, 1}};
  DotHits<double> wide;
  wide.ids.swap(hits.ids);
  const RowMatrix<double> wide_q = q.cast<double>();
  refusal([&] { top_k_dot(pare::reference, ids, wide_q, 1, wide); }, "retrieval::top_k_dot",
          "hits.ids");
  refusal([&] { top_k_dot(pare::reference, wide_q, ids, 1, wide); }, "retrieval::top_k_dot",
          "hits.ids");
  EXPECT_TRUE((wide.ids.array() == 5).all());
}

}  // namespace
}  // namespace retrieval_top_k_dot_test
