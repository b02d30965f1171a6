// SPDX-License-Identifier: Apache-2.0
#include <pare/factor/covariance.hpp>
#include <pare/factor/covariance_svd.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(16, 8);
  pare::factor::Covariance inputs(8);
  inputs.add(w);
  return int(pare::factor::covariance_svd(w, inputs, {.rank = 4}).rank());
}
