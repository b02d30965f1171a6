// SPDX-License-Identifier: Apache-2.0
// LeAP with a model of one's choice, which trains on one part of the rows, its gates on another.
// Prints how many of the three fields that decide the labels come first: 3.

#include <pare/feature/leap/train_leap.hpp>
#include <pare/feature/model/logistic.hpp>

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
  const Table train = planted_table(400, 1), held_out = planted_table(100, 2);
  pare::feature::Logistic<float> model(12, {.adam = {.learning_rate = 1e-2}});
  pare::feature::Leap<float> leap(pare::feature::FieldLayout::scalars(12),
                                  {.alpha_per_field = 1e-2, .learning_rate = 1e-2});

  pare::feature::train_leap(model, leap, train.x, train.labels, held_out.x, held_out.labels);
  const auto ranking = leap.ranking();

  const auto best = pare::feature::top_k(ranking, 3);
  const auto found = std::count_if(best.begin(), best.end(), [](auto field) { return field < 3; });
  std::printf("of the three fields that matter, found: %td\n", found);
  return found == 3 ? 0 : 1;
}
