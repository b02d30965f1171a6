// SPDX-License-Identifier: Apache-2.0
#include <pare/dispatch.hpp>
#include <pare/projection/project.hpp>

#include <Eigen/Core>
#include <cstdio>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(4, 32);
  Eigen::MatrixXf chosen(4, 8), reference(4, 8);
  const pare::projection::SparseProjection omega{
      .input_dim = 32, .output_dim = 8, .density = 0.5, .seed = 7};
  pare::projection::project(pare::dispatched, x, omega, chosen);
  pare::projection::project(pare::reference, x, omega, reference);
  const float difference = (chosen - reference).cwiseAbs().maxCoeff();
  std::printf("dispatched against reference: %g\n", static_cast<double>(difference));
  return difference < 1e-4f ? 0 : 1;
}
