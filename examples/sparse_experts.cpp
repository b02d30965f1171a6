// SPDX-License-Identifier: Apache-2.0
// Few experts of many: OneRec's decoder layer (2 of 24, the residual outside) and Sigma-MoE-Tiny's
// (1 of 96). Prints how far OneRec's is from a loop over rows, below 1e-4, and how many experts of
// Sigma's a batch reads beside what chance says: some 8, 27 and 89 for 8, 32 and 256 tokens.

#include <pare/routing/combine.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/route_plan.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace pare::routing;
using pare::Index;
using Layer = pare::transformer::DenseLinear<float>;
using Matrix = pare::RowMatrix<float>;

/// The largest difference between the layer and a loop over rows.
float one_rec() {
  constexpr Index tokens = 15, dim = 64, hidden = 96, experts = 24;
  std::vector<FeedForward<Layer>> layers;
  for (Index e = 0; e < experts; ++e)
    layers.emplace_back(Layer::copy_of(Matrix(Matrix::Random(hidden, dim) * 0.2f)),
                        Layer::copy_of(Matrix(Matrix::Random(dim, hidden) * 0.2f)));
  const Matrix x = Matrix::Random(tokens, dim), router = Matrix::Random(experts, dim);
  const Matrix logits = x * router.transpose();

  const Routes<float> routes = route(logits, TopK{.k = 2});
  const RoutePlan plan(routes.ids, experts);
  Matrix parts(plan.routed(), dim), y = x;
  grouped_multiply(x, plan, layers, parts);
  combine(plan, parts, routes.weights, y, {.accumulate = true});  // y = x + the mixture

  float off = 0;
  for (Index r = 0; r < tokens; ++r) {
    const Matrix row = x.row(r);
    Matrix wanted = row, part(1, dim);
    for (Index j = 0; j < 2; ++j) {
      layers[static_cast<std::size_t>(routes.ids(r, j))].apply(pare::simd, pare::const_view(row),
                                                               pare::to_view(part));
      wanted += routes.weights(r, j) * part;
    }
    off = std::max(off, (y.row(r) - wanted).cwiseAbs().maxCoeff());
  }
  return off;
}

/// Experts that have a row, of 96.
Index experts_read(Index tokens) {
  const Matrix logits = Matrix::Random(tokens, 96);
  const RoutePlan plan(route(logits, TopOne{}).ids, 96);
  Index read = 0;
  for (Index e = 0; e < 96; ++e) read += plan.rows_of(e).empty() ? 0 : 1;
  return read;
}

int main() {
  std::srand(2);
  const float off = one_rec();
  std::printf("OneRec: largest difference %.1e\n", double(off));
  bool near = true;
  for (const Index tokens : {8, 32, 256}) {
    const Index read = experts_read(tokens);
    const double expected = expected_experts(tokens, 1, 96);
    std::printf("Sigma: %3td tokens read %2td experts, %.1f by chance\n", tokens, read, expected);
    near = near && std::abs(double(read) - expected) < 8;
  }
  return off < 1e-4f && near ? 0 : 1;
}
