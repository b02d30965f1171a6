// SPDX-License-Identifier: Apache-2.0
#include <pare/feature/score.hpp>

#include <Eigen/Core>

#include <vector>

int main() {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Ones(16, 12);
  const std::vector<float> labels(16, 1.0f);
  const auto scores = pare::feature::score_features(x, labels);
  return scores.ranking.order.empty() ? 1 : 0;
}
