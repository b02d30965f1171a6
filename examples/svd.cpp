// SPDX-License-Identifier: Apache-2.0
// Truncated SVD: the least rank whose factors are within 5 % of a matrix, here of rank 8 plus
// noise. Prints that rank: 8.

#include <pare/factor/svd.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(96, 8) * Eigen::MatrixXf::Random(8, 64) +
                            0.05f * Eigen::MatrixXf::Random(96, 64);

  const auto factors = pare::factor::truncated_svd(w, {.tolerance = 0.05});

  const float error = (w - factors.left * factors.right).norm() / w.norm();
  std::printf("rank %td, relative error %.4f\n", factors.rank(), double(error));
  return factors.rank() == 8 && error <= 0.05f ? 0 : 1;
}
