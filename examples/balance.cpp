// SPDX-License-Identifier: Apache-2.0
// How the load-balance loss fails (Sigma-MoE-Tiny): small logits bring it to its minimum, 1, though
// rows go where they went. Prints the largest load over the mean, and the loss for each scale.

#include <pare/routing/balance.hpp>
#include <pare/routing/gates.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  using namespace pare::routing;
  using Matrix = pare::RowMatrix<double>;
  std::srand(1);
  Matrix logits = Matrix::Random(4096, 16);
  logits.col(3).array() += 1;  // an expert that is liked

  double last = 0, load = 0;
  for (const double scale : {1.0, 0.3, 0.1, 0.01}) {
    const Matrix scaled = scale * logits;
    const RoutePlan plan(route(scaled, TopOne{}).ids, 16);
    const LoadBalance balance = load_balance(scaled, plan);
    std::printf("scale %-4g  max load / mean %.2f  loss %.3f  top-1 loss %.2f\n", scale,
                balance.max_over_mean, balance.loss, top_one_balance(scaled));
    if (load != 0 && balance.max_over_mean != load) return 1;
    load = balance.max_over_mean;
    last = balance.loss;
  }
  return load > 4 && last < 1.02 ? 0 : 1;
}
