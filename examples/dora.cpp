// SPDX-License-Identifier: Apache-2.0
// DoRA: the rows of a layer of weight w + s b a keep a magnitude of their own; b a is not formed.
// Prints the relative difference to the layer with b a formed: about 1e-7.

#include <pare/factor/dora.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(48, 32);  // [outputs x inputs], frozen
  const Eigen::MatrixXf a = Eigen::MatrixXf::Random(4, 32), b = Eigen::MatrixXf::Random(48, 4);
  const Eigen::VectorXf magnitude = Eigen::VectorXf::LinSpaced(48, 1, 2);
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(10, 32);  // rows are tokens
  constexpr float s = 0.5f;
  Eigen::MatrixXf y(10, 48);

  pare::factor::dora_forward(x, w, a, b, magnitude, s, y);

  const Eigen::MatrixXf sum = w + s * b * a;
  const Eigen::VectorXf gain = magnitude.cwiseQuotient(sum.rowwise().norm());
  const Eigen::MatrixXf expected = x * (gain.asDiagonal() * sum).transpose();
  const float difference = (y - expected).norm() / expected.norm();
  std::printf("relative difference: %.2g\n", double(difference));
  return difference < 1e-5f ? 0 : 1;
}
