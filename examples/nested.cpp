// SPDX-License-Identifier: Apache-2.0
// Nested factors (Maestro): one pair of factors that can be cut to any width, from the singular
// value decomposition and from training by ordered dropout, which ends there.
// Prints the loss over all widths of both, which agree within 5 %, and the units that the lasso
// leaves: 3 of 6.

#include <pare/factor/structured/nested.hpp>
#include <pare/factor/structured/nested_gradients.hpp>
#include <pare/factor/structured/nested_training.hpp>
#include <pare/factor/structured/ordered_dropout.hpp>

#include <Eigen/Core>

#include <cstdio>

using namespace pare::factor;
using Rows = pare::RowMatrix<double>;

int main() {
  constexpr Eigen::Index out = 12, in = 10, rank = 6, tokens = 200;
  // Three directions of size, and noise.
  const Rows w =
      Rows::Random(out, 3) * Eigen::Vector3d(3, 2, 1).asDiagonal() * Rows::Random(3, in) +
      0.01 * Rows::Random(out, in);
  const Rows x = Rows::Random(tokens, in), targets = x * w.transpose();
  const auto mean_loss = [&](const LowRank<double>& f) {
    return nested_gradients(pare::simd, w, f.left, f.right).loss;
  };
  const LowRank<double> best = nested(w, {.rank = rank});

  LowRank<double> start;
  start.left = 0.3 * Rows::Random(out, rank);
  start.right = 0.3 * Rows::Random(rank, in);
  NestedTraining<double> layer(start, {.lasso = 1e-3, .adam = {.learning_rate = 0.01}});
  const OrderedDropout dropout{.ranks = {rank}, .seed = 7};
  for (pare::Index step = 0; step < 6000; ++step) {
    if (step == 4000) layer.set_learning_rate(0.001);
    const auto units = dropout.widths(step)[0];  // the forward pass runs with so many
    const LowRank<double> part = prefix_of(layer.factors(), units);
    const Rows y = x * part.right.transpose() * part.left.transpose();
    const Rows upstream = 6.0 / tokens * (y - targets);
    layer.step(pare::simd, x, upstream, units);
  }
  const LowRank<double> thin = shrink(layer.factors(), 0.05);
  const double least = mean_loss(best), reached = mean_loss(layer.factors());
  std::printf("loss over all widths: %.4f, trained %.4f; %td of %td units are left\n", least,
              reached, thin.rank(), rank);
  return reached < 1.05 * least && thin.rank() == 3 ? 0 : 1;
}
