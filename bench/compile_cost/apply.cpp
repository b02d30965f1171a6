// SPDX-License-Identifier: Apache-2.0
#include <pare/factor/apply.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf left = Eigen::MatrixXf::Ones(16, 4), right = Eigen::MatrixXf::Ones(4, 8);
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(10, 8);
  Eigen::MatrixXf y(10, 16);
  pare::factor::apply(pare::simd, left, right, x, y);
}
