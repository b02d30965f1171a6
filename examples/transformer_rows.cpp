// SPDX-License-Identifier: Apache-2.0
// The rows of a transformer between its products: norms, rotary embedding, a gate, softmax. One
// decode step of one head: the newest token attends to those before it.
// Prints how much the score of two tokens changes if both move on by 1000 positions: about 1e-6.

#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/softmax.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>

using namespace pare::transformer;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// [tokens, heads * dim] as [1, heads, tokens, dim], which is how rotate sees heads.
pare::TensorView<float, 4> heads_of(Rows& x, Eigen::Index heads) {
  const Eigen::Index dim = x.cols() / heads;
  return {x.data(), {1, heads, x.rows(), dim}, {x.size(), dim, x.cols(), 1}};
}

int main() {
  constexpr Eigen::Index tokens = 6, heads = 2, dim = 64, hidden = 96;
  const Rows w_gate = Rows::Random(heads * dim, hidden), w_up = Rows::Random(heads * dim, hidden);
  const Eigen::VectorXf gain = Eigen::VectorXf::Constant(heads * dim, 0.5f);
  const RotaryTable<float> table(rotary_frequencies(dim), 2000);  // once, for all layers
  Rows x = Rows::Random(tokens, heads * dim), normed(tokens, heads * dim);

  rms_norm(x, gain, normed);
  Rows q = normed, k = normed, later = normed;
  rotate(heads_of(q, heads), table);
  rotate(heads_of(k, heads), table);
  rotate(heads_of(later, heads), table, {.first_position = 1000});

  Rows scores = q.leftCols(dim).bottomRows(1) * k.leftCols(dim).transpose();
  const Rows moved = later.leftCols(dim).bottomRows(1) * later.leftCols(dim).transpose();
  const float change = (scores - moved).cwiseAbs().maxCoeff();
  softmax(scores, scores, {.temperature = std::sqrt(double(dim))});

  Rows attended = Rows::Zero(tokens, heads * dim);
  attended.bottomRows(1).leftCols(dim) = scores * normed.leftCols(dim);
  add_rms_norm(x, attended, gain, normed);  // the residual, and the norm of the next block
  Rows gate = normed * w_gate;
  const Rows up = normed * w_up;
  activate_gated(gate, up, gate, Silu{});  // SwiGLU

  std::printf("change: %.2g\n", double(change));
  const bool right = std::abs(scores.sum() - 1) < 1e-6f && gate.allFinite();
  return right && change < 1e-4f ? 0 : 1;
}
