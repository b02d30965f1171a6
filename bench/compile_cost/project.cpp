// SPDX-License-Identifier: Apache-2.0
#include <pare/projection/project.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(8, 100);
  Eigen::MatrixXf y(8, 4);
  const pare::projection::SparseProjection omega{.input_dim = 100, .output_dim = 4, .seed = 7};
  pare::projection::project(x, omega, y);
}
