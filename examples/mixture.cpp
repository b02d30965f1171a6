// SPDX-License-Identifier: Apache-2.0
// A mixture of experts: 64 rows, each through 2 of 8 gated layers, added up by their weights.
// Prints the largest difference to a loop over rows: below 1e-4.

#include <pare/routing/feed_forward.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <vector>

int main() {
  using namespace pare::routing;
  using Layer = pare::transformer::DenseLinear<float>;
  using Matrix = pare::RowMatrix<float>;
  constexpr Eigen::Index dim = 96, hidden = 128, experts = 8;
  std::srand(1);
  const auto random_layer = [](Eigen::Index outputs, Eigen::Index inputs) {
    return Layer::copy_of(Matrix(Matrix::Random(outputs, inputs) * 0.2f));
  };
  std::vector<GatedFeedForward<Layer>> layers;
  for (Eigen::Index e = 0; e < experts; ++e)
    layers.emplace_back(random_layer(hidden, dim), random_layer(hidden, dim),
                        random_layer(dim, hidden));

  const Matrix x = Matrix::Random(64, dim), router = Matrix::Random(experts, dim);
  const Matrix logits = x * router.transpose();
  const Routes<float> routes = route(logits, TopK{.k = 2});
  Matrix y(64, dim);
  mixture(pare::simd.threads(2), x, routes, layers, y);

  Matrix alone(1, dim), part(1, dim);
  float off = 0;
  for (Eigen::Index r = 0; r < 64; ++r) {
    alone.setZero();
    const Matrix row = x.row(r);
    for (Eigen::Index j = 0; j < 2; ++j) {
      layers[static_cast<std::size_t>(routes.ids(r, j))].apply(pare::simd, pare::const_view(row),
                                                               pare::to_view(part));
      alone += routes.weights(r, j) * part;
    }
    off = std::max(off, (alone - y.row(r)).cwiseAbs().maxCoeff());
  }
  std::printf("largest difference: %.1e\n", double(off));
  return off < 1e-4f ? 0 : 1;
}
