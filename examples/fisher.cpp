// SPDX-License-Identifier: Apache-2.0
// The Fisher information of a layer y = w x, from its inputs and the gradients of its outputs: the
// gradient of an example is an outer product that is never formed.
// Prints the relative difference to the sum of squared outer products: about 1e-7.

#include <pare/factor/fisher.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  const Eigen::MatrixXf delta = Eigen::MatrixXf::Random(200, 24);  // [tokens x outputs]
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(200, 16);      // [tokens x inputs]

  pare::factor::FisherDiagonal fisher(24, 16);
  fisher.add_tokens(delta, x);
  const Eigen::VectorXd weights = fisher.sums(pare::factor::Axis::Input);

  Eigen::MatrixXd squares = Eigen::MatrixXd::Zero(24, 16);
  for (Eigen::Index t = 0; t < 200; ++t)
    squares += (delta.row(t).transpose() * x.row(t)).cwiseAbs2().cast<double>() / 200;
  const Eigen::VectorXd expected = squares.colwise().sum();
  const double difference = (weights - expected).norm() / expected.norm();
  std::printf("relative difference: %.2g\n", difference);
  return difference < 1e-5 ? 0 : 1;
}
