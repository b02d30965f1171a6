// SPDX-License-Identifier: Apache-2.0
// A sparse random projection that is never stored keeps the distances between vectors.
// Prints the worst relative error of a squared distance: 0.2 to 0.5 at 256 dimensions.

#include <pare/projection/project.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(40, 4000);  // rows are vectors
  Eigen::MatrixXf y(40, 256);
  const pare::projection::SparseProjection omega{.input_dim = 4000, .output_dim = 256, .seed = 7};
  pare::projection::project(x, omega, y);  // y = x omega^T

  float worst = 0;
  for (Eigen::Index i = 0; i < x.rows(); ++i)
    for (Eigen::Index j = 0; j < i; ++j) {
      const float before = (x.row(i) - x.row(j)).squaredNorm();
      const float after = (y.row(i) - y.row(j)).squaredNorm();
      worst = std::max(worst, std::abs(after / before - 1));
    }
  std::printf("worst relative error of a squared distance: %.3f\n", static_cast<double>(worst));
  return worst > 0.05f && worst < 0.6f ? 0 : 1;
}
