// SPDX-License-Identifier: Apache-2.0
// A text as a few rows: global-query attention (LAMA) over its tokens, padding left out.
// Prints the sum of the weights of 3 heads over 20 tokens of 32: 3.

#include <pare/attention/global_query.hpp>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <cstdio>

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  constexpr Eigen::Index tokens = 32, real = 20, dim = 48, heads = 3;
  Rows h = Rows::Random(tokens, dim);
  h.bottomRows(tokens - real).setConstant(NAN);  // padding, which is not read
  const Rows p = Rows::Random(dim, heads), q = Rows::Random(dim, heads);
  Rows text(heads, dim), weights(heads, tokens);
  std::array<bool, tokens> seen{};
  for (std::size_t t = 0; t < real; ++t) seen[t] = true;

  pare::attention::global_query(
      pare::TensorView<const float, 3>{h.data(), {1, tokens, dim}, {h.size(), dim, 1}}, p, q,
      pare::TensorView<float, 3>{text.data(), {1, heads, dim}, {text.size(), dim, 1}},
      {.seen = pare::TensorView<const bool, 2>{seen.data(), {1, tokens}, {tokens, 1}},
       .weights = pare::TensorView<float, 3>{
           weights.data(), {1, heads, tokens}, {weights.size(), tokens, 1}}});

  std::printf("weights: %.4f\n", double(weights.sum()));
  const bool mean = (text - weights.leftCols(real) * h.topRows(real)).cwiseAbs().maxCoeff() < 1e-5f;
  return mean && std::abs(weights.sum() - 3) < 1e-5f ? 0 : 1;
}
