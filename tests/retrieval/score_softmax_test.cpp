// SPDX-License-Identifier: Apache-2.0
// The softmax loss of scores: the definition, sampled softmax, finite differences, far scores,
// refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/objectives/sampled_softmax.hpp>
#include <pare/retrieval/objectives/score_softmax.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_score_softmax_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::retrieval::score_softmax;
using pare::testing::random_matrix;
using pare::testing::refuses_and_leaves_alone;
using Wide = RowMatrix<double>;

/// ln(1 + e^(1 / .5)) and its slope.
TEST(ScoreSoftmax, IsTheGoldenOne) {
  Wide scores(1, 2), gradient(1, 2);
  scores << 2, 3;
  for (const bool fast : {true, false}) {
    const double loss = fast
                            ? score_softmax(scores, gradient, {.temperature = .5})
                            : score_softmax(pare::reference, scores, gradient, {.temperature = .5});
    EXPECT_NEAR(loss, 2.12692801, 5e-9);
    EXPECT_NEAR(gradient(0, 0), -1.76159416, 5e-9);
    EXPECT_NEAR(gradient(0, 1), 1.76159416, 5e-9);
  }
}

/// Central differences, h = 1e-5: off by about h^2 and 1e-15 / h.
TEST(ScoreSoftmax, ItsGradientIsThatOfFiniteDifferences) {
  Wide scores = random_matrix<Wide>(5, 7, 1), gradient(5, 7), slow(5, 7), ignored(5, 7);
  score_softmax(scores, gradient, {.temperature = .3});
  score_softmax(pare::reference, scores, slow, {.temperature = .3});
  EXPECT_LT((slow - gradient).norm(), 1e-14);
  for (Index k = 0; k < scores.size(); ++k) {
    const double at = scores.data()[k], h = 1e-5;
    const auto loss = [&](double x) {
      scores.data()[k] = x;
      return score_softmax(pare::reference, scores, ignored, {.temperature = .3});
    };
    const double above = loss(at + h), below = loss(at - h);
    scores.data()[k] = at;
    EXPECT_NEAR(gradient.data()[k], (above - below) / (2 * h), 1e-8);
  }
}

/// Its logits are scores, and the product of their gradient with the items is that by the users.
TEST(ScoreSoftmax, IsSampledSoftmaxBehindTheProducts) {
  const Wide users = random_matrix<Wide>(6, 4, 1), items = random_matrix<Wide>(9, 4, 2);
  const std::vector<Index> positives{0, 1, 2, 0, 1, 2}, negatives{3, 4, 5, 6, 7, 8};
  Wide by_users(6, 4), by_items(9, 4), scores(6, 7), gradient(6, 7);
  for (Index i = 0; i < 6; ++i) {
    scores(i, 0) = users.row(i).dot(items.row(i % 3));
    scores.row(i).tail(6) = users.row(i) * items.bottomRows(6).transpose();
  }
  EXPECT_NEAR(score_softmax(scores, gradient),
              pare::retrieval::sampled_softmax_gradient(
                  users, items, {positives, negatives, {}, {}}, by_users, by_items),
              1e-15);
  for (Index i = 0; i < 6; ++i)
    EXPECT_LT((gradient(i, 0) * items.row(i % 3) + gradient.row(i).tail(6) * items.bottomRows(6) -
               by_users.row(i))
                  .norm(),
              1e-15);
}

/// Rows over several blocks; a share of a float softmax is off by some 80 u.
TEST(ScoreSoftmax, OfManyRowsIsTheReferences) {
  const RowMatrix<float> scores = random_matrix<RowMatrix<float>>(300, 131, 3);
  RowMatrix<float> gradient(300, 131), wanted(300, 131);
  EXPECT_NEAR(score_softmax(scores, gradient), score_softmax(pare::reference, scores, wanted),
              5e-6);
  EXPECT_LT((gradient - wanted).cwiseAbs().maxCoeff(), 5e-6 / 300);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Wide both(301, 131);
    RowMatrix<float> got(300, 131);
    both(300, 0) = score_softmax(backend, scores, got);
    both.topRows(300) = got.cast<double>();
    both.row(300).tail(130).setZero();
    return both;
  });
  pare::testing::any_stride_same_bits(scores, [](const auto& view) {
    Eigen::MatrixXf got(300, 131);
    score_softmax(view, got);
    return got;
  });
  pare::Workspace workspace;
  score_softmax(pare::simd.with(workspace), scores, gradient);
  const long before = pare::testing::allocations;
  score_softmax(pare::simd.with(workspace), scores, gradient);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(ScoreSoftmax, FarScoresHaveTheirLoss) {
  const double infinity = std::numeric_limits<double>::infinity();
  Wide scores(1, 3), gradient(1, 3);
  for (const bool fast : {true, false}) {
    const auto loss = [&](double a, double b, double c) {
      scores << a, b, c;
      return fast ? score_softmax(scores, gradient)
                  : score_softmax(pare::reference, scores, gradient);
    };
    EXPECT_EQ(loss(-1e30, 1e30, -infinity), 2e30);
    EXPECT_EQ(gradient(0, 0), -1);
    EXPECT_EQ(gradient(0, 1), 1);
    EXPECT_EQ(gradient(0, 2), 0);
    EXPECT_EQ(loss(3, -infinity, -infinity), 0);
    EXPECT_TRUE(gradient.isZero(0));
    for (const double bad : {std::nan(""), infinity}) {
      EXPECT_TRUE(std::isnan(loss(1, bad, 2)));
      EXPECT_TRUE(gradient.array().isNaN().any());
    }
  }
}

TEST(ScoreSoftmax, RefusesWhatDoesNotFit) {
  Wide scores = random_matrix<Wide>(4, 3, 1), gradient = Wide::Zero(4, 3), other(4, 2);
  const char* const f = "retrieval::score_softmax";
  for (const double bad : {0.0, -1.0, 1e31, std::nan("")})
    refuses_and_leaves_alone([&] { score_softmax(scores, gradient, {.temperature = bad}); }, f,
                             "temperature", gradient);
  refuses_and_leaves_alone([&] { score_softmax(scores.topRows(0), gradient); }, f, "scores",
                           gradient);
  refuses_and_leaves_alone([&] { score_softmax(scores.leftCols(1), gradient); }, f, "scores",
                           gradient);
  refuses_and_leaves_alone([&] { score_softmax(scores, other); }, f, "gradient", other);
  refuses_and_leaves_alone([&] { score_softmax(scores, scores); }, f, "gradient", scores);
}

}  // namespace
}  // namespace retrieval_score_softmax_test
