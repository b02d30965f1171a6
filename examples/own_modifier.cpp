// SPDX-License-Identifier: Apache-2.0
// A score modifier of one's own: sees only keys at an even distance. The kernel inlines it.
// Prints the largest difference between the kernel and the definition: about 1e-6.

#include <pare/attention/attend.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
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

/// The score of the query at position p and the key at position j is hidden where p - j is odd.
struct EvenDistance {
  template <class T>
  T modify(T score, const pare::kernel::ScorePlace& place) const noexcept {
    return (place.query_position - place.key) % 2 == 0 ? score
                                                       : -std::numeric_limits<T>::infinity();
  }
};

}  // namespace

int main() {
  const Tensor q = random_tensor(2, 256, 1), k = random_tensor(2, 256, 2);
  const Tensor v = random_tensor(2, 256, 3);
  Tensor out(1, 2, 256, 64), definition(1, 2, 256, 64);

  pare::attention::attend(q, k, v, out, EvenDistance{}, {.causal = true});
  pare::attention::attend(pare::reference, q, k, v, definition, EvenDistance{}, {.causal = true});

  const float difference = largest_difference(out, definition);
  std::printf("largest difference to the definition: %.2g\n", double(difference));
  return difference < 1e-5f ? 0 : 1;
}
