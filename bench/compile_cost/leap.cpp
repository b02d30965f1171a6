// SPDX-License-Identifier: Apache-2.0
#include <pare/feature/leap/leap.hpp>

#include <Eigen/Core>

int main() {
  pare::feature::Leap<float> leap(pare::feature::FieldLayout::scalars(12));
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(16, 12);
  Eigen::MatrixXf mixed(16, 12);
  leap.forward(x, mixed);
  leap.backward_gates(mixed);
  leap.step_gates();
}
