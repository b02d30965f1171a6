// SPDX-License-Identifier: Apache-2.0

#include "graph/classify.hpp"

#include "graph/baselines.hpp"

#include <gtest/gtest.h>

#include <Eigen/LU>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

namespace studies_classify_test {
namespace {

using graph::F1;
using graph::Split;
using graph::Vectors;

std::vector<int> first_numbers(int n) {
  std::vector<int> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

TEST(F1Score, EqualsTheHandWorkedExample) {
  // Class 0: TP 2, FP 1, FN 1; class 1: TP 1, FP 1, FN 1; class 2: TP 1, no error.
  const F1 f1 = graph::f1_score({0, 0, 0, 1, 1, 2}, {0, 0, 1, 1, 0, 2}, 3);
  EXPECT_DOUBLE_EQ(f1.micro, 4.0 / 6);
  EXPECT_DOUBLE_EQ(f1.macro, (4.0 / 6 + 2.0 / 4 + 1.0) / 3);
}

TEST(F1Score, ClassesThatDoNotOccurAreLeftOut) {
  const F1 f1 = graph::f1_score({0, 0, 3}, {0, 0, 3}, 9);
  EXPECT_DOUBLE_EQ(f1.micro, 1.0);
  EXPECT_DOUBLE_EQ(f1.macro, 1.0);
}

TEST(F1Score, AClassOnlyPredictedCountsAsZero) {
  const F1 f1 = graph::f1_score({0, 0}, {0, 1}, 2);
  EXPECT_DOUBLE_EQ(f1.micro, 0.5);
  EXPECT_DOUBLE_EQ(f1.macro, (2.0 / 3) / 2);
}

TEST(SplitNodes, PartsTheNodes) {
  const Split split = graph::split_nodes(first_numbers(101), 0.1, 7);
  EXPECT_EQ(split.train.size(), 10u);
  std::vector<int> all = split.train;
  all.insert(all.end(), split.test.begin(), split.test.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, first_numbers(101));
}

TEST(SplitNodes, DependsOnTheSeedAlone) {
  const auto train = [](std::uint64_t seed) {
    return graph::split_nodes(first_numbers(1000), 0.1, seed).train;
  };
  EXPECT_EQ(train(7), train(7));
  EXPECT_NE(train(7), train(8));
  // The generator is fixed by the standard, so this split is the same on every platform.
  const std::vector<int> known = graph::split_nodes(first_numbers(10), 0.3, 42).train;
  EXPECT_EQ(known, (std::vector<int>{1, 7, 9}));
}

TEST(SplitNodes, BothPartsNeedANode) {
  EXPECT_THROW(graph::split_nodes({}, 0.5, 1), std::invalid_argument);
  EXPECT_THROW(graph::split_nodes({0}, 0.5, 1), std::invalid_argument);
  EXPECT_THROW(graph::split_nodes({0, 1, 2}, 0.01, 1), std::invalid_argument);
  EXPECT_THROW(graph::split_nodes({0, 1, 2}, 0.99, 1), std::invalid_argument);
}

TEST(Ridge, SolvesTheNormalEquations) {
  const Vectors x = graph::random_vectors(40, 6, 3);
  std::vector<int> label;
  for (int i = 0; i < 40; ++i) label.push_back(i % 3);
  const std::vector<int> train = graph::split_nodes(first_numbers(40), 0.5, 5).train;
  const double lambda = 0.7;
  const Eigen::MatrixXd weights = graph::train_ridge(x, label, 3, train, lambda);

  Eigen::MatrixXd rows = Eigen::MatrixXd::Ones(20, 7), targets = Eigen::MatrixXd::Zero(20, 3);
  for (Eigen::Index i = 0; i < 20; ++i) {
    const int node = train[static_cast<std::size_t>(i)];
    rows.row(i).head(6) = x.row(node).cast<double>();
    targets(i, node % 3) = 1;
  }
  Eigen::MatrixXd penalty = lambda * Eigen::MatrixXd::Identity(7, 7);
  penalty(6, 6) = 0;
  const Eigen::MatrixXd direct =
      (rows.transpose() * rows + penalty).fullPivLu().solve(rows.transpose() * targets);
  EXPECT_LE((weights - direct).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(Ridge, SumsOverBlocksOfRows) {
  const int nodes = 2 * static_cast<int>(graph::detail::rows_at_once) + 5;
  const Vectors x = graph::random_vectors(nodes, 2, 11);
  std::vector<int> label;
  for (int i = 0; i < nodes; ++i) label.push_back(i % 2);
  const Eigen::MatrixXd weights = graph::train_ridge(x, label, 2, first_numbers(nodes), 0);
  // With an intercept, least squares reproduces the mean of each target.
  const Eigen::RowVectorXd mean = x.cast<double>().colwise().mean();
  for (int c = 0; c < 2; ++c) {
    const double share = static_cast<double>((nodes + 1 - c) / 2) / nodes;
    EXPECT_NEAR(mean.dot(weights.col(c).head(2)) + weights(2, c), share, 1e-12);
  }
}

TEST(Classify, SeparableClassesAreFoundAndNoiseIsNot) {
  const int nodes = 5000, classes = 4;
  const std::vector<int> every = first_numbers(nodes);
  std::vector<int> label;
  const Vectors noise = graph::random_vectors(nodes, 8, 1);
  Vectors clustered = noise;
  for (int i = 0; i < nodes; ++i) {
    label.push_back((i / 7) % classes);
    clustered(i, label.back()) += 10;
  }
  const Split split = graph::split_nodes(every, 0.1, 1);
  EXPECT_DOUBLE_EQ(graph::classify(clustered, label, classes, split).micro, 1.0);
  // Chance is 1/4; five standard deviations over 4500 nodes are 0.032.
  EXPECT_NEAR(graph::classify(noise, label, classes, split).micro, 0.25, 0.033);
}

TEST(Baselines, MajorityIsThatOfTheTrainNodes) {
  const std::vector<int> label = {0, 1, 1, 2, 2, 2};
  EXPECT_EQ(graph::predict_majority(label, 3, {{0, 1, 2}, {3, 4, 5}}), (std::vector<int>{1, 1, 1}));
}

TEST(Baselines, RandomVectorsDependOnTheSeedAndFillTheRange) {
  const Vectors x = graph::random_vectors(200, 50, 9);
  EXPECT_TRUE(x == graph::random_vectors(200, 50, 9));
  EXPECT_FALSE(x == graph::random_vectors(200, 50, 10));
  EXPECT_GE(x.minCoeff(), -1.0f);
  EXPECT_LT(x.maxCoeff(), 1.0f);
  // Five standard deviations of the mean of 10^4 uniform numbers of variance 1/3.
  EXPECT_NEAR(x.mean(), 0.0f, 5 * 0.0058f);
}

/// A path of six nodes, and a pair of nodes apart from it.
graph::Adjacency path_and_pair() {
  std::vector<Eigen::Triplet<float>> entries;
  for (const auto& [u, v] : {std::pair{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}, {6, 7}}) {
    entries.emplace_back(u, v, 1.0f);
    entries.emplace_back(v, u, 1.0f);
  }
  graph::Adjacency adjacency(8, 8);
  adjacency.setFromTriplets(entries.begin(), entries.end());
  return adjacency;
}

TEST(LabelPropagation, ReachesTheNearerTrainNode) {
  const std::vector<int> label = {0, 0, 0, 1, 1, 1, 1, 1};
  const Split split{{0, 5, 1, 4}, {2, 3}};
  EXPECT_EQ(graph::propagate_labels(path_and_pair(), label, 2, split), (std::vector<int>{0, 1}));
}

TEST(LabelPropagation, NodesOutOfReachTakeTheMajority) {
  const std::vector<int> label = {1, 0, 0, 1, 1, 1, 0, 0};
  const Split split{{0, 5}, {6, 7}};
  EXPECT_EQ(graph::propagate_labels(path_and_pair(), label, 2, split), (std::vector<int>{1, 1}));
}

TEST(LabelPropagation, DoesNotReadTheLabelsOfTestNodes) {
  std::vector<int> label = {0, 0, 0, 1, 1, 1, 1, 1};
  const Split split{{0, 5}, {1, 2, 3, 4}};
  const std::vector<int> predicted = graph::propagate_labels(path_and_pair(), label, 2, split);
  for (const int u : split.test) label[static_cast<std::size_t>(u)] ^= 1;
  EXPECT_EQ(graph::propagate_labels(path_and_pair(), label, 2, split), predicted);
}

}  // namespace
}  // namespace studies_classify_test
