// SPDX-License-Identifier: Apache-2.0
// Decoding from a paged cache: keys and values lie in pages of 16 tokens, in any order.
// Prints the largest difference to attention over the same keys in one tensor: 0.

#include <pare/attention/attend.hpp>
#include <pare/attention/key_value.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;

Tensor random_tensor(Eigen::Index a, Eigen::Index b, Eigen::Index c, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(a, b, c, 64);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

}  // namespace

int main() {
  constexpr Eigen::Index pages = 8, page = 16, kv_heads = 2;
  const Tensor key_pages = random_tensor(pages, kv_heads, page, 1);
  const Tensor value_pages = random_tensor(pages, kv_heads, page, 2);
  const Tensor q = random_tensor(1, 4, 1, 3);  // one new token of 4 heads
  Eigen::Matrix<std::int32_t, 1, 6, Eigen::RowMajor> table;
  table << 5, 0, 7, 2, 4, 1;  // page t of the sequence
  const std::vector<pare::Index> lengths{90};

  const pare::attention::PagedKeyValue<float> cache{.keys = pare::to_view(key_pages),
                                                    .values = pare::to_view(value_pages),
                                                    .table = pare::to_view(table),
                                                    .lengths = lengths};
  Tensor out(1, 4, 1, 64), expected(1, 4, 1, 64);
  pare::attention::attend(pare::simd, q, cache, out, {.causal = true});

  Tensor k(1, kv_heads, 90, 64), v(1, kv_heads, 90, 64);
  for (Eigen::Index h = 0; h < kv_heads; ++h)
    for (Eigen::Index t = 0; t < 90; ++t)
      for (Eigen::Index d = 0; d < 64; ++d) {
        k(0, h, t, d) = key_pages(table(t / page), h, t % page, d);
        v(0, h, t, d) = value_pages(table(t / page), h, t % page, d);
      }
  pare::attention::attend(q, k, v, expected, {.causal = true});

  float largest = 0;
  for (Eigen::Index i = 0; i < out.size(); ++i)
    largest = std::max(largest, std::abs(out.data()[i] - expected.data()[i]));
  std::printf("largest difference to one tensor: %g\n", double(largest));
  return largest == 0 ? 0 : 1;
}
