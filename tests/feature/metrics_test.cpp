// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/feature/metrics.hpp>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_metrics_test {
namespace {

using namespace pare::testing;
using namespace pare::feature;

using List = std::vector<double>;
using Labels = std::vector<int>;

const double nan = std::numeric_limits<double>::quiet_NaN();
const double infinity = std::numeric_limits<double>::infinity();

/// The definition: over all pairs of a one and a zero.
double pairwise_auc(const Labels& labels, const List& scores) {
  double ordered = 0, pairs = 0;
  for (std::size_t i = 0; i < labels.size(); ++i)
    for (std::size_t j = 0; j < labels.size(); ++j) {
      if (labels[i] != 1 || labels[j] != 0) continue;
      ++pairs;
      ordered += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
    }
  return ordered / pairs;
}

TEST(RocAuc, KnownAnswers) {
  EXPECT_EQ(roc_auc(Labels{0, 0, 1, 1}, List{0.1, 0.4, 0.35, 0.8}), 0.75);  // scikit-learn's page
  EXPECT_EQ(roc_auc(Labels{0, 1}, List{1, 2}), 1.0);
  EXPECT_EQ(roc_auc(Labels{1, 0}, List{1, 2}), 0.0);
  EXPECT_EQ(roc_auc(Labels{1, 0, 1, 0, 0}, List{3, 3, 3, 3, 3}), 0.5);
  EXPECT_EQ(roc_auc(Labels{1, 0, 0}, List{2, 2, 1}), 0.75);
}

TEST(RocAuc, CountsPairsWithTies) {
  Engine random(1);
  for (const std::size_t size : {2u, 3u, 17u, 200u})
    for (const std::uint64_t values : {2u, 5u, 1000u}) {
      Labels labels(size);
      List scores(size);
      for (std::size_t i = 0; i < size; ++i) {
        labels[i] = i == 0 ? 1 : i == 1 ? 0 : static_cast<int>(random() % 2);
        scores[i] = static_cast<double>(random() % values);
      }
      const double wanted = pairwise_auc(labels, scores);
      EXPECT_TRUE(within(roc_auc(labels, scores), wanted, Tolerance<double>::gamma(4))) << size;
    }
}

TEST(RocAuc, TakesEigenObjectsOfAnyScalar) {
  const Eigen::VectorXf labels = (Eigen::VectorXf(4) << 0, 0, 1, 1).finished();
  const Eigen::RowVectorXd scores = (Eigen::RowVectorXd(4) << 0.1, 0.4, 0.35, 0.8).finished();
  EXPECT_EQ(roc_auc(labels, scores), 0.75);
}

TEST(RocAuc, RefusesWhatHasNoAnswer) {
  const std::string name = "feature::roc_auc";
  refusal([] { roc_auc(Labels{1, 1}, List{1, 2}); }, name, "labels");
  refusal([] { roc_auc(Labels{}, List{}); }, name, "labels");
  refusal([] { roc_auc(Labels{1, 2}, List{1, 2}); }, name, "labels");
  refusal([] { roc_auc(List{1, nan}, List{1, 2}); }, name, "labels");
  refusal([] { roc_auc(Labels{1, 0}, List{1, nan}); }, name, "scores");
  refusal([] { roc_auc(Labels{1, 0}, List{1, infinity}); }, name, "scores");
  refusal([] { roc_auc(Labels{1, 0}, List{1}); }, name, "scores");
}

/// Lists that are views of nothing, or whose size is none.
TEST(Metrics, RefuseViewsOfNothing) {
  constexpr pare::Index most = std::numeric_limits<pare::Index>::max();
  const double number = 1;
  using View = pare::TensorView<const double, 1>;
  for (const View& bad : {View{nullptr, {2}, {1}}, View{&number, {-1}, {1}},
                          View{&number, {most / 2}, {1}}, View{&number, {3}, {most}}}) {
    refusal([&] { roc_auc(bad, List{1, 2}); }, "feature::roc_auc", "labels");
    refusal([&] { roc_auc(Labels{1, 0}, bad); }, "feature::roc_auc", "scores");
    refusal([&] { log_loss(Labels{1, 0}, bad); }, "feature::log_loss", "probabilities");
    refusal([&] { logistic_loss(Labels{1, 0}, bad); }, "feature::logistic_loss", "logits");
    refusal([&] { aukc(bad, List{1, 1}); }, "feature::aukc", "kept");
    refusal([&] { kendall_tau(List{1, 2}, bad); }, "feature::kendall_tau", "b");
    refusal([&] { spearman(bad, List{1, 2}); }, "feature::spearman", "a");
  }
}

TEST(LogLoss, KnownAnswers) {
  const double wanted = -(std::log(0.1) + std::log(0.1) + std::log(0.8) + std::log(0.65)) / 4;
  EXPECT_TRUE(within(log_loss(Labels{0, 1, 1, 0}, List{0.9, 0.1, 0.8, 0.35}), wanted, 1e-15));
  // Certainty is clipped at 2^-52, certainty that is right costs as little.
  EXPECT_TRUE(within(log_loss(Labels{1}, List{0}), 52 * std::log(2.0), 1e-13));
  EXPECT_TRUE(within(log_loss(Labels{1}, List{1}), 0x1p-52, 1e-30));
}

TEST(LogLoss, OfLogitsIsThatOfProbabilities) {
  Engine random(2);
  Labels labels;
  List logits, probabilities;
  for (int i = 0; i < 100; ++i) {
    labels.push_back(static_cast<int>(random() % 2));
    logits.push_back(4 * uniform(random));  // 1 - p above 0.01
    probabilities.push_back(1 / (1 + std::exp(-logits.back())));
  }
  EXPECT_TRUE(within(logistic_loss(labels, logits), log_loss(labels, probabilities), 1e-13));
  EXPECT_EQ(logistic_loss(Labels{0, 1}, List{1000, -1000}), 1000.0);
  EXPECT_EQ(logistic_loss(Labels{1, 0}, List{1000, -1000}), 0.0);
}

TEST(LogLoss, RefusesBadNumbers) {
  refusal([] { log_loss(Labels{1}, List{1.01}); }, "feature::log_loss", "probabilities");
  refusal([] { log_loss(Labels{1}, List{nan}); }, "feature::log_loss", "probabilities");
  refusal([] { log_loss(Labels{1}, List{0.5, 0.5}); }, "feature::log_loss", "probabilities");
  refusal([] { log_loss(Labels{3}, List{0.5}); }, "feature::log_loss", "labels");
  refusal([] { log_loss(Labels{}, List{}); }, "feature::log_loss", "labels");
  refusal([] { logistic_loss(Labels{1}, List{nan}); }, "feature::logistic_loss", "logits");
  refusal([] { logistic_loss(Labels{1}, List{1, 2}); }, "feature::logistic_loss", "logits");
  refusal([] { logistic_loss(Labels{}, List{}); }, "feature::logistic_loss", "labels");
}

TEST(Aukc, KnownAnswers) {
  EXPECT_EQ(aukc(List{1, 2, 10}, List{0.5, 0.5, 0.5}), 0.0);
  EXPECT_EQ(aukc(Labels{1, 2, 10}, List{1, 1, 1}), 1.0);
  // Trapezoids of 2 a - 1: from 0 to 0.5 over 2 features, from 0.5 to 1 over 6.
  EXPECT_TRUE(within(aukc(List{2, 4, 10}, List{0.5, 0.75, 1}), (2 * 0.25 + 6 * 0.75) / 8, 1e-15));
}

TEST(Aukc, RefusesBadCurves) {
  refusal([] { aukc(List{1}, List{0.5}); }, "feature::aukc", "kept");
  refusal([] { aukc(List{1, 1}, List{0.5, 0.5}); }, "feature::aukc", "kept");
  refusal([] { aukc(List{-1e308, 1e308}, List{0.5, 0.5}); }, "feature::aukc", "kept");
  refusal([] { aukc(List{1, 2}, List{0.5}); }, "feature::aukc", "aucs");
  refusal([] { aukc(List{1, 2}, List{0.5, 1.5}); }, "feature::aukc", "aucs");
}

/// The definition of tau-b over all pairs.
double pairwise_tau(const List& a, const List& b) {
  double sum = 0, untied_a = 0, untied_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const double x = a[i] < a[j] ? -1 : a[i] > a[j] ? 1 : 0;
      const double y = b[i] < b[j] ? -1 : b[i] > b[j] ? 1 : 0;
      sum += x * y;
      untied_a += x * x;
      untied_b += y * y;
    }
  return sum / std::sqrt(untied_a * untied_b);
}

TEST(KendallTau, KnownAnswers) {
  EXPECT_EQ(kendall_tau(List{1, 2, 3}, List{10, 20, 30}), 1.0);
  EXPECT_EQ(kendall_tau(List{1, 2, 3, 4}, List{4, 3, 2, 1}), -1.0);
  // The example of SciPy's page.
  EXPECT_TRUE(
      within(kendall_tau(List{12, 2, 1, 12, 2}, List{1, 4, 7, 1, 0}), -0.47140452079103173, 1e-15));
}

TEST(KendallTau, CountsPairsWithTies) {
  Engine random(3);
  for (const std::size_t size : {2u, 7u, 64u, 150u})
    for (const std::uint64_t values : {3u, 10000u}) {
      List a{0, 1}, b{1, 0};
      while (a.size() < size) {
        a.push_back(static_cast<double>(random() % values));
        b.push_back(static_cast<double>(random() % values));
      }
      EXPECT_TRUE(within(kendall_tau(a, b), pairwise_tau(a, b), 1e-14)) << size << ' ' << values;
    }
}

TEST(Spearman, KnownAnswers) {
  EXPECT_EQ(spearman(List{1, 2, 3}, List{1, 10, 11}), 1.0);
  EXPECT_TRUE(
      within(spearman(List{1, 2, 3, 4, 5}, List{5, 6, 7, 8, 7}), 0.8207826816681233, 1e-15));
  // Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5 over sqrt(1.5 * 2).
  EXPECT_TRUE(within(spearman(List{4, 4, 9}, List{0, 1, 2}), 1.5 / std::sqrt(3.0), 1e-15));
}

TEST(Correlations, RefuseConstantsAndOtherBadLists) {
  refusal([] { kendall_tau(List{1, 1}, List{1, 2}); }, "feature::kendall_tau", "a");
  refusal([] { kendall_tau(List{1, 2}, List{2, 2}); }, "feature::kendall_tau", "b");
  refusal([] { kendall_tau(List{}, List{}); }, "feature::kendall_tau", "a");
  refusal([] { spearman(List{1, 2}, List{1, 2, 3}); }, "feature::spearman", "b");
  refusal([] { spearman(List{1, nan}, List{1, 2}); }, "feature::spearman", "a");
}

}  // namespace
}  // namespace feature_metrics_test
