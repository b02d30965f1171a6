// SPDX-License-Identifier: Apache-2.0
// Differential attention: two maps of key dim 32 over values of dim 64, subtracted and normed.
// Prints the largest difference to two calls of attend, a subtraction and a norm: about 1e-5.

#include <pare/attention/differential.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

Tensor random_tensor(Eigen::Index dim, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(1, 2, 200, dim);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

}  // namespace

int main() {
  const Tensor q1 = random_tensor(32, 1), k1 = random_tensor(32, 2);
  const Tensor q2 = random_tensor(32, 3), k2 = random_tensor(32, 4), v = random_tensor(64, 5);
  Tensor out(1, 2, 200, 64), first(1, 2, 200, 64), second(1, 2, 200, 64);

  // The learned vectors of a layer, here all alike: lambda is lambda_init of layer 2 then.
  const std::vector<float> learned(32, 0.1f);
  const auto [lambda, lambda_init] =
      pare::attention::differential_lambda(learned, learned, learned, learned, 2);
  pare::attention::differential(q1, k1, q2, k2, v, out,
                                {.lambda = lambda, .lambda_init = lambda_init});

  pare::attention::attend(q1, k1, v, first);
  pare::attention::attend(q2, k2, v, second);
  double off = 0;
  for (Eigen::Index h = 0; h < 2; ++h)
    for (Eigen::Index i = 0; i < 200; ++i) {
      double squares = 0;
      const auto at = [&, lambda = lambda](Eigen::Index c) {
        return double(first(0, h, i, c)) - lambda * double(second(0, h, i, c));
      };
      for (Eigen::Index c = 0; c < 64; ++c) squares += at(c) * at(c);
      for (Eigen::Index c = 0; c < 64; ++c) {
        const double wanted = at(c) / std::sqrt(squares / 64 + 1e-5) * (1 - lambda_init);
        off = std::max(off, std::abs(double(out(0, h, i, c)) - wanted));
      }
    }
  std::printf("largest difference to two calls: %.2g\n", off);
  return off < 1e-4 ? 0 : 1;
}
