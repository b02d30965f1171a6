// SPDX-License-Identifier: Apache-2.0
// Which columns of a table matter? LeAP scores all of them in one training run.
// Prints how many of the three that decide the labels come first: 3.

#include <pare/feature/score.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

namespace {

/// 12 columns of noise and labels that the first three decide.
struct Table {
  Eigen::MatrixXf x;
  std::vector<float> labels;
};

Table planted_table(Eigen::Index rows, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Table table{Eigen::MatrixXf::NullaryExpr(rows, 12, [&] { return normal(bits); }), {}};
  for (Eigen::Index i = 0; i < rows; ++i)
    table.labels.push_back(table.x.row(i).head(3).sum() + 0.3f * normal(bits) > 0 ? 1.0f : 0.0f);
  return table;
}

}  // namespace

int main() {
  const Table table = planted_table(400, 1);

  const auto scores = pare::feature::score_features(table.x, table.labels);
  const auto& ranking = scores.ranking;

  const auto best = pare::feature::top_k(ranking, 3);
  const auto found = std::count_if(best.begin(), best.end(), [](auto field) { return field < 3; });
  std::printf("of the three fields that matter, found: %td\n", found);
  return found == 3 ? 0 : 1;
}
