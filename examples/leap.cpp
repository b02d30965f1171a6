// SPDX-License-Identifier: Apache-2.0
// LeAP's layer in a training loop of one's own. The model is y = x w with squared error; three of
// twelve fields decide y.
// Prints how many of the three have the gates that stayed open widest: 3.

#include <pare/feature/leap/leap.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <random>

namespace {

using Matrix = Eigen::MatrixXf;

struct Rows {
  Matrix x;
  Eigen::VectorXf y;
};

Rows planted_rows(unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  const Matrix x = Matrix::NullaryExpr(256, 12, [&] { return normal(bits); });
  return {x, x.leftCols(3).rowwise().sum()};
}

}  // namespace

int main() {
  const Rows train = planted_rows(1), held_out = planted_rows(2);
  pare::feature::Leap<float> leap(pare::feature::FieldLayout::scalars(12),
                                  {.alpha_per_field = 1e-2, .learning_rate = 2e-2});
  Eigen::VectorXf w = Eigen::VectorXf::Zero(12);
  Matrix mixed(256, 12);
  const auto slopes = [&](const Rows& rows) -> Eigen::VectorXf {
    return (mixed * w - rows.y) / 128.0f;  // of the mean squared error, by the model's output
  };

  for (int step = 0; step < 500; ++step) {
    leap.forward(train.x, mixed);  // the model takes its step at `mixed` ...
    w -= 0.05f * mixed.transpose() * slopes(train);

    leap.forward(held_out.x, mixed);  // ... the gates theirs on rows it does not train on
    const Matrix gradient = slopes(held_out) * w.transpose();
    leap.backward_gates(gradient);
    leap.step_gates();
  }

  const auto best = pare::feature::top_k(leap.ranking(), 3);
  const auto found = std::count_if(best.begin(), best.end(), [](auto field) { return field < 3; });
  std::printf("of the three fields that matter, found: %td\n", found);
  return found == 3 ? 0 : 1;
}
