// SPDX-License-Identifier: Apache-2.0
#include <pare/core/version.hpp>
#include <pare/projection/project.hpp>

#include <Eigen/Core>
#include <cstdio>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(4, 32);
  Eigen::MatrixXf y(4, 8);
  const pare::projection::SparseProjection omega{
      .input_dim = 32, .output_dim = 8, .density = 0.5, .seed = 7};
  pare::projection::project(x, omega, y);
  std::printf("pare %d.%d.%d, |y|^2 = %g\n", PARE_VERSION_MAJOR, PARE_VERSION_MINOR,
              PARE_VERSION_PATCH, static_cast<double>(y.squaredNorm()));
  return y.squaredNorm() > 0.0f ? 0 : 1;
}
