// SPDX-License-Identifier: Apache-2.0
#include <pare/feature/model/mlp.hpp>

#include <Eigen/Core>

#include <vector>

int main() {
  pare::feature::Mlp<float> model(12, {.hidden = {8}});
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(16, 12);
  std::vector<float> logits(16);
  model.forward(pare::as_const(pare::to_view(x)), logits);
}
