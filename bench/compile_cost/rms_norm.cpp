// SPDX-License-Identifier: Apache-2.0
#include <pare/transformer/norms.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(4, 8);
  const Eigen::VectorXf gain = Eigen::VectorXf::Ones(8);
  Eigen::MatrixXf y(4, 8);
  pare::transformer::rms_norm(x, gain, y);
}
