// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What score_features keeps of tables with planted truth, and what permutation importance of the
/// same model would: the tables, and one comparison.

#include "random_data.hpp"

#include <pare/feature/importance/group_lasso.hpp>
#include <pare/feature/importance/permutation_importance.hpp>
#include <pare/feature/score.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

namespace pare::bench {

/// A table whose first `informative` fields say something of the label. Columns have mean 0 and
/// unit deviation.
struct KeptTable {
  feature::FieldLayout layout;
  Eigen::MatrixXf x;
  std::vector<int> labels;
  Index informative = 0;
};

/// linear: 3 of 30 add up. step: [x_0 > 0] of 10. xor: two signs of 40. rare: flags of 2 % of the
/// rows, 8 of 40. correlated: 5 of 30, of which 5 others are noisy copies. wide: widths 1 to 256, 3
/// of 20. weak: 20 of 200. friedman: Friedman's five of 30. mixed: flags, squares and lines, 6 of
/// 40.
inline const std::vector<std::string>& kept_designs() {
  static const std::vector<std::string> designs{"linear", "step", "xor",      "rare", "correlated",
                                                "wide",   "weak", "friedman", "mixed"};
  return designs;
}

namespace detail {

inline feature::FieldLayout layout_of(const std::string& design) {
  if (design == "wide")
    return feature::FieldLayout(
        {1, 8, 64, 256, 1, 8, 64, 256, 1, 1, 8, 8, 16, 16, 1, 1, 1, 1, 1, 1});
  const bool few = design == "step", many = design == "weak";
  const bool thirty = design == "linear" || design == "correlated" || design == "friedman";
  return feature::FieldLayout::scalars(few ? 10 : many ? 200 : thirty ? 30 : 40);
}

inline Index informative_of(const std::string& design) {
  if (design == "linear" || design == "wide") return 3;
  if (design == "step") return 1;
  if (design == "xor") return 2;
  if (design == "rare") return 8;
  if (design == "weak") return 20;
  return design == "mixed" ? 6 : 5;
}

/// Draws a row of numbers and returns its logit; infinite where the label is certain.
template <class Row>
double fill_row(const std::string& design, const feature::FieldLayout& layout, Row&& x,
                SplitMix64& random) {
  const auto flag = [&](double share) { return random.unit() < share ? 1.0f : 0.0f; };
  const auto at = [&](Index i) { return static_cast<double>(x(i)); };
  for (Index i = 0; i < x.size(); ++i)
    x(i) = design == "friedman"              ? static_cast<float>(random.unit())
           : design == "rare"                ? flag(0.02)
           : design == "xor"                 ? 2 * flag(0.5) - 1
           : design == "mixed" && i % 2 == 1 ? flag(0.1)
                                             : static_cast<float>(random.normal());
  double logit = 0;
  if (design == "linear") return at(0) + 0.8 * at(1) - 0.6 * at(2);
  if (design == "step" || design == "xor")
    return (design == "step" ? at(0) : at(0) * at(1)) > 0 ? 1e9 : -1e9;
  if (design == "rare") {
    for (Index i = 0; i < 8; ++i) logit += (i % 2 == 0 ? 3 : -3) * at(i);
    return logit - 0.3;
  }
  if (design == "correlated") {
    for (Index i = 0; i < 5; ++i) {
      logit += (i % 2 == 0 ? 0.8 : -0.8) * at(i);
      x(5 + i) = 0.8f * x(i) + 0.6f * x(5 + i);
    }
    return logit;
  }
  if (design == "wide") {
    for (Index j = 0; j < 3; ++j)
      for (Index c = 0; c < layout.width(j); ++c)
        logit += (c % 2 == 0 ? 1 : -1) * at(layout.offset(j) + c) /
                 std::sqrt(static_cast<double>(layout.width(j)));
    return logit;
  }
  if (design == "weak") {
    for (Index i = 0; i < 20; ++i) logit += (i % 2 == 0 ? 0.4 : -0.4) * at(i);
    return logit;
  }
  if (design == "friedman")
    return 10 * std::sin(std::numbers::pi * at(0) * at(1)) + 20 * std::pow(at(2) - 0.5, 2) +
           10 * at(3) + 5 * at(4) - 14.4;
  return 1.2 * at(0) + 2 * at(1) + at(2) * at(2) - 2 * at(3) + std::abs(at(4)) + 2 * at(5) - 2;
}

inline KeptTable make_table(const std::string& design, Index rows, std::uint64_t seed) {
  KeptTable table{layout_of(design), {}, {}, informative_of(design)};
  table.x.resize(rows, table.layout.dim());
  SplitMix64 random(seed);
  for (Index b = 0; b < rows; ++b) {
    const double logit = fill_row(design, table.layout, table.x.row(b), random);
    table.labels.push_back(random.unit() < 1 / (1 + std::exp(-logit)) ? 1 : 0);
  }
  for (auto column : table.x.colwise()) {
    column.array() -= column.mean();
    const float deviation = std::sqrt(column.squaredNorm() / static_cast<float>(rows));
    if (deviation > 0) column /= deviation;
  }
  return table;
}

/// The network of score_features, trained on rows by themselves for as many steps.
inline feature::Mlp<float> trained(const feature::FieldLayout& layout, const Eigen::MatrixXf& x,
                                   const std::vector<int>& labels, std::uint64_t seed) {
  feature::Mlp<float> model(layout.dim(), {.seed = seed, .adam = {.learning_rate = 3e-3}});
  const Index batch = std::clamp<Index>(x.rows() / 8, 16, 256);
  const Index epochs = std::max<Index>(15, 1500 / std::max<Index>(x.rows() / batch, 1));
  feature::group_lasso(model, layout, x, labels,
                       {.strength = 0, .epochs = epochs, .batch = batch, .seed = seed});
  return model;
}

/// AUC on other rows of a network that is trained on the first `informative` fields of a ranking.
inline double auc_of_kept(const KeptTable& table, const KeptTable& test,
                          const feature::Ranking& ranking, std::uint64_t seed) {
  std::vector<Index> kept = top_k(ranking, table.informative), widths, columns;
  std::sort(kept.begin(), kept.end());
  for (const Index j : kept) {
    widths.push_back(table.layout.width(j));
    for (Index c = 0; c < widths.back(); ++c) columns.push_back(table.layout.offset(j) + c);
  }
  const Eigen::MatrixXf x = table.x(Eigen::all, columns), y = test.x(Eigen::all, columns);
  feature::Mlp<float> model = trained(feature::FieldLayout(widths), x, table.labels, seed);
  std::vector<float> logits(test.labels.size());
  model.forward(as_const(to_view(y)), logits);
  return feature::roc_auc(test.labels, logits);
}

/// AUC of informative fields against the others by their place.
inline double auc_of_order(const KeptTable& table, const feature::Ranking& ranking) {
  std::vector<double> places(ranking.order.size());
  std::vector<int> truth(places.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    places[static_cast<std::size_t>(ranking.order[i])] = -static_cast<double>(i);
    truth[i] = static_cast<Index>(i) < table.informative ? 1 : 0;
  }
  return feature::roc_auc(truth, places);
}

}  // namespace detail

/// One method's ranking: signal against noise, and a model on as many fields as say something.
struct KeptScores {
  double signal_auc = 0, model_auc = 0;
};

struct KeptComparison {
  KeptScores leap, permutation;
};

/// Both methods on one table, with a fifth of the rows held out.
inline KeptComparison compare_kept(const std::string& design, Index rows, std::uint64_t seed) {
  const KeptTable table = detail::make_table(design, rows, seed),
                  test = detail::make_table(design, 4000, seed + 1'000'000);
  const auto scores_of = [&](const feature::Ranking& ranking) {
    return KeptScores{detail::auc_of_order(table, ranking),
                      detail::auc_of_kept(table, test, ranking, seed)};
  };
  const auto scores =
      feature::score_features(table.x, table.labels, {.layout = table.layout, .seed = seed});
  const Index training = rows - rows / 5;
  const Eigen::MatrixXf x = table.x.topRows(training), holdout = table.x.bottomRows(rows / 5);
  const auto split = table.labels.begin() + training;
  feature::Mlp<float> model = detail::trained(table.layout, x, {table.labels.begin(), split}, seed);
  const auto importance = feature::permutation_importance(
      model, table.layout, holdout, std::vector<int>(split, table.labels.end()),
      {.repeats = 5, .seed = seed, .passes = feature::PermutationPasses::Incremental});
  return {scores_of(scores.ranking), scores_of(importance.ranking())};
}

}  // namespace pare::bench
