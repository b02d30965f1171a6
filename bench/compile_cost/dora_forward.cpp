// SPDX-License-Identifier: Apache-2.0
#include <pare/factor/dora.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(16, 8);
  const Eigen::MatrixXf a = Eigen::MatrixXf::Ones(4, 8), b = Eigen::MatrixXf::Ones(16, 4);
  const Eigen::VectorXf magnitude = Eigen::VectorXf::Ones(16);
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(10, 8);
  Eigen::MatrixXf y(10, 16);
  pare::factor::dora_forward(x, w, a, b, magnitude, 0.5f, y);
}
