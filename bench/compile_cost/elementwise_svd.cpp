// SPDX-License-Identifier: Apache-2.0
#include <pare/factor/elementwise.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(16, 8);
  return int(pare::factor::elementwise_svd(w, w, {.rank = 4}).factors.rank());
}
