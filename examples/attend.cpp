// SPDX-License-Identifier: Apache-2.0
// Exact causal attention, 4 query heads on 2 key/value heads, against its definition.
// Prints the largest difference between the two: about 1e-6.

#include <pare/attention/attend.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
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

float largest_difference(const Tensor& a, const Tensor& b) {
  float largest = 0;
  for (Eigen::Index i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(a.data()[i] - b.data()[i]));
  return largest;
}

}  // namespace

int main() {
  const Tensor q = random_tensor(4, 300, 1), k = random_tensor(2, 300, 2);
  const Tensor v = random_tensor(2, 300, 3);
  Tensor out(1, 4, 300, 64), definition(1, 4, 300, 64);

  pare::attention::attend(pare::simd.threads(2), q, k, v, out, {.causal = true});
  pare::attention::attend(pare::reference, q, k, v, definition, {.causal = true});

  const float difference = largest_difference(out, definition);
  std::printf("largest difference to the definition: %.2g\n", double(difference));
  return difference < 1e-5f ? 0 : 1;
}
