// SPDX-License-Identifier: Apache-2.0
// What truncated_svd replaces: Eigen's own decomposition.

#include <Eigen/Core>
#include <Eigen/SVD>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(16, 8);
  const Eigen::BDCSVD<Eigen::MatrixXf> svd(w, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return int(svd.rank());
}
