// SPDX-License-Identifier: Apache-2.0
// Permutation importance of fields to a trained model: how much worse it scores without each.
// Prints how many of the three fields that decide the labels come first: 3.

#include <pare/feature/importance/permutation_importance.hpp>
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
  const Table train = planted_table(400, 1);
  const auto layout = pare::feature::FieldLayout::scalars(12);
  pare::feature::Logistic<float> model(12, {.adam = {.learning_rate = 3e-2}});
  std::vector<float> logits(train.labels.size()), slopes(train.labels.size());
  for (int step = 0; step < 200; ++step) {  // all rows at once
    model.forward(pare::as_const(pare::to_view(train.x)), logits);
    pare::feature::logistic_gradient<float>(logits, train.labels, slopes);
    model.backward(slopes);
    model.step();
  }

  const Table test = planted_table(400, 2);
  const auto ranking =
      pare::feature::permutation_importance(model, layout, test.x, test.labels, {.repeats = 5})
          .ranking();

  const auto best = pare::feature::top_k(ranking, 3);
  const auto found = std::count_if(best.begin(), best.end(), [](auto field) { return field < 3; });
  std::printf("of the three fields that matter, found: %td\n", found);
  return found == 3 ? 0 : 1;
}
