// SPDX-License-Identifier: Apache-2.0
// A metric of one's own: the first outputs of a layer count ten times as much as the others.
// Prints the error of these outputs over that of the plain SVD of the same rank: below 0.5.

#include <pare/factor/metric.hpp>
#include <pare/factor/svd.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <span>
#include <vector>

/// Weights are those of squared errors. What is not overridden is the plain norm.
struct FirstOutputs : pare::factor::Uniform {
  FirstOutputs(int outputs, int first) : weights(std::size_t(outputs), 1.0) {
    for (int i = 0; i < first; ++i) weights[std::size_t(i)] = 100;
  }
  std::span<const double> output_weights() const { return weights; }

  std::vector<double> weights;
};

int main() {
  const Eigen::MatrixXd w = Eigen::MatrixXd::Random(48, 32);

  const auto weighted = pare::factor::factorize(w, FirstOutputs(48, 6), {.rank = 8});
  const auto plain = pare::factor::truncated_svd(w, {.rank = 8});

  const auto error = [&](const auto& f) { return (w - f.left * f.right).topRows(6).norm(); };
  const double ratio = error(weighted) / error(plain);
  std::printf("error of the first outputs over that of the plain SVD: %.3f\n", ratio);
  return ratio < 0.5 ? 0 : 1;
}
