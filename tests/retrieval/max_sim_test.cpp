// SPDX-License-Identifier: Apache-2.0
// MaxSim against its loops in double, by its properties, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/max_sim.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_max_sim_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::retrieval::max_sim;
using pare::testing::random_matrix;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Tolerance;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Documents of all lengths, with empty ones at both ends and in between.
const std::vector<Index> ragged{0, 0, 1, 1, 1, 14, 27, 28, 40, 41, 2400, 2403, 3000, 3000};

template <class S>
RowMatrix<S> random_rows(Index rows, Index dim, unsigned seed) {
  const auto from = random_matrix<RowMatrix<pare::compute_t<S>>>(rows, dim, seed);
  RowMatrix<S> to(rows, dim);
  for (Index i = 0; i < from.size(); ++i) to.data()[i] = static_cast<S>(from.data()[i]);
  return to;
}

/// The formula in double, and by how much products in T may be off: two roundings a term.
template <class S>
std::pair<double, double> wanted(const RowMatrix<S>& q, const RowMatrix<S>& t, Index begin,
                                 Index end) {
  using T = pare::compute_t<S>;
  double score = 0, bound = 0;
  for (Index i = 0; i < q.rows(); ++i) {
    double best = -std::numeric_limits<double>::infinity(), off = 0;
    for (Index j = begin; j < end; ++j) {
      double sum = 0, size = 0;
      for (Index c = 0; c < q.cols(); ++c) {
        const double term = static_cast<double>(static_cast<T>(q(i, c))) *
                            static_cast<double>(static_cast<T>(t(j, c)));
        sum += term;
        size += std::abs(term);
      }
      best = std::max(best, sum);
      off = std::max(off, Tolerance<T>::gamma(2 * static_cast<double>(q.cols())) * size);
    }
    score += best;
    bound += off;
  }
  return {score, bound + Tolerance<T>::gamma(2) * std::abs(score)};
}

template <class S>
void expect_loops(Index query_tokens, Index dim) {
  const auto q = random_rows<S>(query_tokens, dim, 1), t = random_rows<S>(3000, dim, 2);
  const auto expect = [&](const auto& backend) {
    const auto scores = max_sim(backend, q, t, ragged);
    ASSERT_EQ(scores.size(), ragged.size() - 1);
    for (std::size_t d = 0; d < scores.size(); ++d) {
      const auto [score, bound] = wanted(q, t, ragged[d], ragged[d + 1]);
      if (ragged[d] == ragged[d + 1])
        EXPECT_EQ(static_cast<double>(scores[d]), score);
      else
        EXPECT_NEAR(static_cast<double>(scores[d]), score, bound)
            << query_tokens << ' ' << dim << ' ' << d;
    }
  };
  expect(pare::simd);
  if (query_tokens == 3) expect(pare::reference);
}

TEST(MaxSim, IsTheSumOfMaximaOfLoopsInDouble) {
  expect_loops<float>(32, 96);
  expect_loops<float>(3, 127);
  expect_loops<float>(70, 5);
  expect_loops<double>(3, 9);
  expect_loops<double>(17, 33);
  expect_loops<bf16>(3, 127);
  expect_loops<bf16>(32, 128);
  expect_loops<bf16>(49, 1);
  // Widened, if not multiplied in pairs, with a tail.
  expect_loops<f16>(3, 37);
  expect_loops<f16>(17, 127);
}

/// Documents belong to the item that they begin in; those that begin with it too.
TEST(MaxSim, CutsDocumentsWhereTheyBegin) {
  const std::vector<Index> offsets{0, 0, 1023, 1024, 1024, 2047, 2048, 5000, 5000};
  const pare::retrieval::detail::DocumentBlocks blocks(offsets);
  ASSERT_EQ(blocks.items(), 5);
  std::vector<Index> begins;
  for (Index item = 0; item <= 5; ++item) begins.push_back(blocks.begin(item));
  EXPECT_EQ(begins, (std::vector<Index>{0, 3, 6, 7, 7, 8}));
}

TEST(MaxSim, HasItsKnownValues) {
  const RowMatrix<float> q = RowMatrix<float>::Identity(2, 2);
  const RowMatrix<float> t = (RowMatrix<float>(3, 2) << .6f, .8f, -1, 0, -.2f, 0).finished();
  const std::vector<Index> offsets{0, 2, 2, 3};
  const auto expect = [&](const auto& backend) {
    const auto scores = max_sim(backend, q, t, offsets);
    EXPECT_FLOAT_EQ(scores[0], 1.4f);
    EXPECT_EQ(scores[1], -infinity);   // of no token
    EXPECT_FLOAT_EQ(scores[2], -.2f);  // not 0, as after padding
    const auto none = max_sim(backend, RowMatrix<float>(0, 2), t, offsets);
    EXPECT_EQ(none, std::vector<float>(3));
    EXPECT_TRUE(max_sim(backend, q, RowMatrix<float>(0, 2), std::vector<Index>{0}).empty());
  };
  expect(pare::reference);
  expect(pare::simd);
}

TEST(MaxSim, HasTheSameBitsForAnyThreadsStridesAndNeighbours) {
  const auto q = random_rows<float>(20, 33, 1), t = random_rows<float>(3000, 33, 2);
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return max_sim(backend, q, t, ragged); });
  const auto scores = max_sim(q, t, ragged);
  RowMatrix<float> wide = RowMatrix<float>::Constant(3000, 40, std::nanf(""));
  wide.leftCols(33) = t;
  EXPECT_EQ(max_sim(q, wide.leftCols(33), ragged), scores);
  for (std::size_t d = 0; d + 1 < ragged.size(); ++d) {
    const std::vector<Index> alone{0, ragged[d + 1] - ragged[d]};
    EXPECT_EQ(max_sim(q, t.middleRows(ragged[d], alone[1]), alone)[0], scores[d]);
  }
}

TEST(MaxSim, DoesNotFallByMoreTokensNorChangeByCopiesAndOrder) {
  const auto q = random_rows<float>(20, 33, 1), t = random_rows<float>(60, 33, 2);
  float before = -infinity;
  for (Index tokens = 1; tokens <= 60; ++tokens) {
    const float now = max_sim(q, t.topRows(tokens), std::vector<Index>{0, tokens})[0];
    EXPECT_GE(now, before);
    before = now;
  }
  RowMatrix<float> twice(120, 33);
  twice << t, t.colwise().reverse();
  EXPECT_EQ(max_sim(q, twice, std::vector<Index>{0, 120})[0], before);
}

template <class S>
void expect_nan_stays() {
  using T = pare::compute_t<S>;
  auto q = random_rows<S>(20, 33, 1), t = random_rows<S>(100, 33, 2);
  const std::vector<Index> offsets{0, 30, 31, 70, 100};
  t(40, 32) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  t(99, 3) = static_cast<S>(std::numeric_limits<T>::infinity());
  const auto expect = [&](const auto& backend) {
    const auto scores = max_sim(backend, q, t, offsets);
    EXPECT_TRUE(std::isfinite(scores[0]) && std::isfinite(scores[1]));
    EXPECT_TRUE(pare::is_nan(scores[2]));
    EXPECT_EQ(scores[3], std::numeric_limits<T>::infinity());
  };
  expect(pare::reference);
  expect(pare::simd);
  q(19, 0) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  for (const T score : max_sim(q, t, offsets)) EXPECT_TRUE(pare::is_nan(score));
}

TEST(MaxSim, KeepsNaNInItsDocument) {
  expect_nan_stays<float>();
  expect_nan_stays<bf16>();
}

TEST(MaxSim, AllocatesNothingTheSecondTime) {
  const auto q = random_rows<float>(20, 33, 1), t = random_rows<float>(3000, 33, 2);
  std::vector<float> scores(ragged.size() - 1);
  pare::Workspace workspace;
  long before = 0;
  for (int turn = 0; turn < 3; ++turn) {
    before = pare::testing::allocations;
    max_sim(pare::simd.threads(PARE_HAS_OPENMP ? 2 : 1).with(workspace), q, t, ragged, scores);
  }
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(MaxSim, RefusesWhatDoesNotFit) {
  const auto q = random_rows<float>(2, 4, 1), t = random_rows<float>(5, 4, 2);
  std::vector<float> memory(20, 7.0f);
  const auto refuse = [&](const auto& queries, const auto& tokens,
                          const std::vector<Index>& offsets, const TensorView<float, 1>& scores,
                          const char* argument) {
    refuses_and_leaves_alone([&] { max_sim(pare::reference, queries, tokens, offsets, scores); },
                             "retrieval::max_sim", argument, memory, q, t);
  };
  const TensorView<float, 1> two{memory.data(), {2}, {1}};
  refuse(q, t, {0, 6, 5}, two, "offsets");
  refuse(q, t, {0, 3, 6}, two, "offsets");
  refuse(q, t, {1, 3, 5}, two, "offsets");
  refuse(q, t, {0, 5}, two, "scores");
  refuse(q, t, {0, 2, 5}, {memory.data(), {2}, {0}}, "scores");
  refuse(q, t, {0, 2, 5}, {nullptr, {2}, {1}}, "scores");
  refuse(q, random_rows<float>(5, 3, 2), {0, 2, 5}, two, "documents");
  refuse(q, Eigen::MatrixXf(t), {0, 2, 5}, two, "documents");
  refuse(Eigen::MatrixXf(q), t, {0, 2, 5}, two, "queries");
  refuse(RowMatrix<float>(2, 0), RowMatrix<float>(5, 0), {0, 2, 5}, two, "queries");
  const TensorView<const float, 2> inside{memory.data() + 1, {2, 4}, {4, 1}};
  refuse(inside, t, {0, 2, 5}, two, "scores");
  refuse(q, TensorView<const float, 2>{memory.data() + 1, {5, 4}, {0, 1}}, {0, 2, 5}, two,
         "scores");
  const Index most = std::numeric_limits<Index>::max();
  refuse(TensorView<const float, 2>{q.data(), {most / 8, 4}, {0, 1}}, t, {0, 2, 5}, two, "queries");
  refuse(TensorView<const float, 2>{q.data(), {-1, 4}, {4, 1}}, t, {0, 2, 5}, two, "queries");
  // Queries of one number, of which each fits alone, but not what is packed and multiplied.
  const TensorView<const float, 2> narrow{t.data(), {5, 1}, {4, 1}};
  refuse(TensorView<const float, 2>{q.data(), {most / 16, 1}, {0, 1}}, narrow, {0, 2, 5}, two,
         "queries");
  std::vector<Index> offsets{0, 2, 5};
  refuses_and_leaves_alone(
      [&] {
        max_sim(pare::reference, q, t, offsets,
                TensorView<float, 1>{reinterpret_cast<float*>(offsets.data()) + 1, {2}, {1}});
      },
      "retrieval::max_sim", "scores", offsets);
}

}  // namespace
}  // namespace retrieval_max_sim_test
