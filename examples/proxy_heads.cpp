// SPDX-License-Identifier: Apache-2.0
// ProxyAttn: 4 heads share the block scores of one proxy, their mean.
// Prints the relative square error at the density that a mass of 0.9 gave: 0.0003 at 0.67.

#include <pare/attention/attend.hpp>
#include <pare/attention/proxy_heads.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cstdio>
#include <random>

namespace {

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

Tensor random_tensor(Eigen::Index heads, Eigen::Index tokens, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(1, heads, tokens, 64);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

/// Gives all queries one direction that a quarter of the blocks of 64 keys have, which is what
/// sparse attention lives on.
void plant_heavy_keys(Tensor& q, Tensor& k) {
  for (Eigen::Index h = 0; h < q.dimension(1); ++h)
    for (Eigen::Index t = 0; t < q.dimension(2); ++t) {
      q(0, h, t, 0) += 4;
      if (t / 64 % 4 == 1) k(0, h, t, 0) += 12;
    }
}

/// sum |a - b|^2 / sum |b|^2
double relative_square_error(const Tensor& a, const Tensor& b) {
  const Eigen::Map<const Eigen::VectorXf> x(a.data(), a.size()), y(b.data(), b.size());
  return double((x - y).squaredNorm() / y.squaredNorm());
}

}  // namespace

int main() {
  Tensor q = random_tensor(4, 1024, 1), k = random_tensor(4, 1024, 2);
  const Tensor v = random_tensor(4, 1024, 3);
  plant_heavy_keys(q, k);
  Tensor exact(1, 4, 1024, 64), out(1, 4, 1024, 64);

  pare::attention::attend(q, k, v, exact, {.causal = true});
  const auto stats = pare::attention::attend(
      q, k, v, out, pare::attention::ProxyHeads{.mass = 0.9f, .min_budget = 128}, {.causal = true});
  const double error = relative_square_error(out, exact);
  std::printf("relative square error %.4f at density %.3f\n", error, stats.density);
  return error < 0.5 && stats.density < 1 ? 0 : 1;
}
