// SPDX-License-Identifier: Apache-2.0
// Covariance-aware factors of a layer y = w x: they change its outputs least over inputs it sees.
// Prints the error of the outputs over that of the plain SVD of the same rank: below 0.5.

#include <pare/factor/covariance.hpp>
#include <pare/factor/covariance_svd.hpp>
#include <pare/factor/svd.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  const Eigen::MatrixXd w = Eigen::MatrixXd::Random(48, 32);
  const Eigen::MatrixXd inputs = Eigen::MatrixXd::Random(500, 6) * Eigen::MatrixXd::Random(6, 32) +
                                 0.1 * Eigen::MatrixXd::Random(500, 32);  // rows are tokens
  pare::factor::Covariance covariance(32);
  covariance.add(inputs);  // as often as batches come

  const auto aware = pare::factor::covariance_svd(w, covariance, {.rank = 8});
  const auto plain = pare::factor::truncated_svd(w, {.rank = 8});

  const auto error = [&](const auto& f) {
    return (inputs * (w - f.left * f.right).transpose()).norm();
  };
  const double ratio = error(aware) / error(plain);
  std::printf("error of the outputs over that of the plain SVD: %.3f\n", ratio);
  return ratio < 0.5 ? 0 : 1;
}
