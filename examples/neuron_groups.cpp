// SPDX-License-Identifier: Apache-2.0
// FactorLLM's split: the neurons of a gated layer in 8 groups, the best 2 of them for each row, and
// a linear router fitted to that choice. Prints the relative errors of the oracle, the router and a
// router by chance: the first is the least.

#include <pare/linalg/multiply.hpp>
#include <pare/routing/neuron_groups.hpp>
#include <pare/routing/oracle.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  using namespace pare::routing;
  using Matrix = pare::RowMatrix<float>;
  std::srand(1);
  // Rows of 8 kinds, and neurons that answer to a kind.
  const Matrix kinds = Matrix::Random(8, 64);
  const auto noisy = [&](Eigen::Index rows, float noise) {
    Matrix m = noise * Matrix::Random(rows, 64);
    for (Eigen::Index r = 0; r < rows; ++r) m.row(r) += kinds.row(r % 8);
    return m;
  };
  Matrix gate = noisy(256, 0.3f) * 0.5f, up = noisy(256, 0.5f) * 0.2f;
  Matrix down = Matrix::Random(64, 256);
  const Matrix x = noisy(512, 0.5f);

  const auto whole = neuron_groups(gate, up, down, 1);
  Matrix dense(512, 64);
  whole[0].apply(pare::simd, pare::const_view(x), pare::to_view(dense));
  Matrix g = x * gate.transpose();
  const Matrix u = x * up.transpose();
  pare::transformer::activate_gated(g, u, g, pare::transformer::Silu{});
  const auto order = co_activation_order(g, 8);
  permute_neurons(order, gate, up, down);  // the views of `whole` see it, and so the same layer

  const auto groups = neuron_groups(gate, up, down, 8);
  Matrix errors(512, 8), y(512, 64);
  expert_errors(x, groups, dense, 8, errors);  // each group as it is, without a factor
  const TopBlocks two{.k = 2};
  const auto best = oracle_routes(errors, two);
  const Matrix router = fit_ridge_router(x, best.ids, 8);
  const auto error = [&](const Routes<float>& routes) {
    mixture(x, routes, groups, y);
    return double((y - dense).norm() / dense.norm());
  };
  const double oracle = error(best);
  const double ridge = error(route(Matrix(x * router.transpose()), two));
  const double chance = error(route(Matrix(Matrix::Random(512, 8)), two));
  std::printf("relative error: oracle %.2f, ridge %.2f, by chance %.2f\n", oracle, ridge, chance);
  return oracle <= ridge && ridge < chance ? 0 : 1;
}
