// SPDX-License-Identifier: Apache-2.0
// FWSVD: the error of a weight counts by its Fisher information, here that of its input.
// Prints the weighted error over that of the plain SVD of the same rank: below 1.

#include <pare/factor/fisher.hpp>
#include <pare/factor/svd.hpp>
#include <pare/factor/weighted_svd.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  const Eigen::MatrixXd w = Eigen::MatrixXd::Random(48, 32);  // a layer y = w x
  const Eigen::VectorXd size = Eigen::VectorXd::LinSpaced(32, 0.1, 2);
  pare::factor::FisherDiagonal fisher(48, 32);
  for (int example = 0; example < 50; ++example) {
    const Eigen::MatrixXd gradient = Eigen::MatrixXd::Random(48, 32) * size.asDiagonal();
    fisher.add_gradient(gradient);  // of the loss of one example by w
  }
  const auto weighted =
      pare::factor::weighted_svd(w, fisher, {.rank = 8}, pare::factor::Axis::Input);
  const auto plain = pare::factor::truncated_svd(w, {.rank = 8});

  const Eigen::VectorXd root = fisher.sums(pare::factor::Axis::Input).cwiseSqrt();
  const auto error = [&](const auto& f) {
    return ((w - f.left * f.right) * root.asDiagonal()).norm();
  };
  const double ratio = error(weighted) / error(plain);
  std::printf("weighted error over that of the plain SVD: %.3f\n", ratio);
  return ratio < 0.95 ? 0 : 1;
}
