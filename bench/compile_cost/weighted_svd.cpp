// SPDX-License-Identifier: Apache-2.0
#include <pare/factor/weighted_svd.hpp>

#include <Eigen/Core>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Ones(16, 8);
  pare::factor::FisherDiagonal fisher(16, 8);
  fisher.add_gradient(w);
  const auto factors =
      pare::factor::weighted_svd(w, fisher, {.rank = 4}, pare::factor::Axis::Input);
  return int(factors.rank());
}
