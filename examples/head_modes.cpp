// SPDX-License-Identifier: Apache-2.0
// Heads as switches: one head weighs all keys it sees alike, as AttentionInfluence masks retrieval
// heads, and one is off. Prints the largest difference to attention with scores of 0: about 1e-7.

#include <pare/attention/heads/head_modes.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using pare::attention::HeadMode;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

Tensor random_tensor(Eigen::Index heads, Eigen::Index tokens, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(1, heads, tokens, 64);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

/// The same mask as a modifier: it costs as much as attention, the mode a running sum.
struct EqualScores {
  template <class T>
  T modify(T, const pare::attention::ScorePlace&) const noexcept {
    return T(0);
  }
};

}  // namespace

int main() {
  const Tensor q = random_tensor(4, 512, 1), k = random_tensor(2, 512, 2);
  const Tensor v = random_tensor(2, 512, 3);
  Tensor out(1, 4, 512, 64), equal(1, 4, 512, 64);

  const std::vector<HeadMode> modes{HeadMode::Normal, HeadMode::Uniform, HeadMode::Zero,
                                    HeadMode::Normal};
  pare::attention::attend(q, k, v, out, pare::attention::HeadModes{modes}, {.causal = true});
  pare::attention::attend(q, k, v, equal, EqualScores{}, {.causal = true});

  float off = 0, left = 0;
  for (Eigen::Index i = 0; i < 512; ++i)
    for (Eigen::Index c = 0; c < 64; ++c) {
      off = std::max(off, std::abs(out(0, 1, i, c) - equal(0, 1, i, c)));
      left = std::max(left, std::abs(out(0, 2, i, c)));
    }
  std::printf("largest difference to equal scores: %.2g\n", double(off));
  return off < 2e-6f && left == 0 ? 0 : 1;
}
