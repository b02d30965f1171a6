// SPDX-License-Identifier: Apache-2.0
// How many heads make a state-space model: one with 4 poles is 4 heads of attention by distance, to
// rounding, and no 3. The best 3 heads leave the 4th singular value of its lag operators.
// Prints that error over the singular value: 1.

#include <pare/sequence/dense_scan.hpp>
#include <pare/sequence/heads_of_ssm.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>

using namespace pare::sequence;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

pare::TensorView<double, 3> sequence(Rows& m) {
  return {m.data(), {1, m.rows(), m.cols()}, {m.size(), m.cols(), 1}};
}

int main() {
  constexpr Eigen::Index tokens = 200, width = 3;
  const Rows a = Eigen::Vector4d(0.95, -0.8, 0.6, 0.3).asDiagonal();
  const Rows b = Rows::Random(4, width), c = Rows::Random(width, 4);
  const Rows lags = lag_operators(a, b, c, tokens);
  const OperatorSpan span = operator_span(lags);
  const auto four = heads_of_lags(lags, width);
  const auto three = heads_of_lags(lags, width, {.heads = 3});

  Rows x = Rows::Random(tokens, width), recurrent(tokens, width), attended(tokens, width);
  Rows state = Rows::Zero(1, 4);
  dense_scan(a, b, c, sequence(x), state, sequence(recurrent));
  apply_heads(four, sequence(x), sequence(attended));
  const double rounding = (attended - recurrent).cwiseAbs().maxCoeff();
  const double lost = (three.weights * three.values - lags).norm();

  std::printf("error: %.6f\n", lost / span.singular_values[3]);
  const bool right = four.heads() == 4 && rounding < 1e-12;
  return right && std::abs(lost / span.singular_values[3] - 1) < 1e-9 ? 0 : 1;
}
