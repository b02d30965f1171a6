// SPDX-License-Identifier: Apache-2.0
// SoftPAG: two of four heads are blended with the token's own value, by half and wholly.
// Prints the largest difference between the wholly blended head and the values: 0.

#include <pare/attention/heads/soft_identity.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

Tensor random_tensor(Eigen::Index heads, Eigen::Index tokens, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(1, heads, tokens, 64);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

}  // namespace

int main() {
  const Tensor q = random_tensor(4, 256, 1), k = random_tensor(2, 256, 2);
  const Tensor v = random_tensor(2, 256, 3);  // heads 0 and 1 read the first, 2 and 3 the second
  Tensor out(1, 4, 256, 64), plain(1, 4, 256, 64);

  // eps + w (eps - eps_perturbed) of guidance wants both: the model as it is, and with these heads.
  const std::vector<float> shares{0, 0.5f, 0, 1};
  pare::attention::attend(q, k, v, out, pare::attention::SoftIdentity{shares}, {.causal = true});
  pare::attention::attend(q, k, v, plain, {.causal = true});

  float off = 0, wrong = 0;
  for (Eigen::Index i = 0; i < 256; ++i)
    for (Eigen::Index c = 0; c < 64; ++c) {
      off = std::max(off, std::abs(out(0, 3, i, c) - v(0, 1, i, c)));
      wrong = std::max(wrong, std::abs(out(0, 0, i, c) - plain(0, 0, i, c)));
      const float half = 0.5f * (plain(0, 1, i, c) + v(0, 0, i, c));
      wrong = std::max(wrong, std::abs(out(0, 1, i, c) - half));
    }
  std::printf("largest difference to the values: %.2g\n", double(off));
  return off == 0 && wrong < 1e-6f ? 0 : 1;
}
