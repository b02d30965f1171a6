// SPDX-License-Identifier: Apache-2.0
#include <pare/factor/svd.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(16, 8);
  return int(pare::factor::truncated_svd(w, {.rank = 4}).rank());
}
