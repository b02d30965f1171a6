// SPDX-License-Identifier: Apache-2.0
// StreamingLLM: the last 200 tokens and the first 4. The mask skips blocks that the window hides,
// and the options hide the rest of the blocks that it touches. Prints the largest difference to the
// window without a mask, which computes the same: 3e-7.

#include <pare/attention/attend.hpp>
#include <pare/attention/sliding_window.hpp>

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
  const Tensor q = random_tensor(2, 1024, 1), k = random_tensor(2, 1024, 2);
  const Tensor v = random_tensor(2, 1024, 3);
  Tensor out(1, 2, 1024, 64), expected(1, 2, 1024, 64);

  const auto blocks = pare::attention::select_blocks(
      q, k, pare::attention::SlidingWindow{.window = 200, .sinks = 4}, {.causal = true});
  pare::attention::AttendOptions options{.causal = true, .window = 200, .sinks = 4};
  pare::attention::attend(q, k, v, expected, options);
  options.mask = &blocks;
  pare::attention::attend(q, k, v, out, options);

  const float difference = largest_difference(out, expected);
  std::printf("largest difference to the window without a mask: %.2g\n", double(difference));
  return difference < 1e-5f ? 0 : 1;
}
