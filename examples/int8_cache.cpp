// SPDX-License-Identifier: Apache-2.0
// Attention over a cache of one's own, of 8 bits a number and a scale a row: rows are loaded where
// they are needed, and no tensor of them is made.
// Prints the relative square error to attention over the numbers before they were rounded: 0.0001.

#include <pare/attention/attend.hpp>
#include <pare/attention/key_value_source.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using pare::Index;
using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [batch, heads, tokens, dim]

Tensor random_tensor(Index heads, Index tokens, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  Tensor tensor(1, heads, tokens, 64);
  std::generate_n(tensor.data(), tensor.size(), [&] { return normal(bits); });
  return tensor;
}

struct Int8Rows {
  using scalar = float;

  Index heads, tokens, dim = 64;
  std::vector<std::int8_t> keys{}, values{};  // [heads, tokens, dim]
  std::vector<float> key_scales{}, value_scales{};

  void append(const Tensor& x, std::vector<std::int8_t>& list, std::vector<float>& scales) const {
    const Eigen::Map<const Eigen::MatrixXf> rows(x.data(), dim, heads * tokens);
    for (Index r = 0; r < rows.cols(); ++r) {
      scales.push_back(rows.col(r).cwiseAbs().maxCoeff() / 127);
      for (Index c = 0; c < dim; ++c)
        list.push_back(std::int8_t(std::lround(rows(c, r) / scales.back())));
    }
  }

  Index sequences() const { return 1; }
  Index kv_heads() const { return heads; }
  Index key_dim() const { return dim; }
  Index value_dim() const { return dim; }
  Index length(Index) const { return tokens; }
  void load_key(Index, Index head, Index position, float* out) const {
    const std::size_t row = std::size_t(head * tokens + position), n = std::size_t(dim);
    for (std::size_t c = 0; c < n; ++c) out[c] = key_scales[row] * float(keys[row * n + c]);
  }
  void load_value(Index, Index head, Index position, float* out) const {
    const std::size_t row = std::size_t(head * tokens + position), n = std::size_t(dim);
    for (std::size_t c = 0; c < n; ++c) out[c] = value_scales[row] * float(values[row * n + c]);
  }
  void validate(const char*) const {}
};

}  // namespace

int main() {
  const Tensor q = random_tensor(4, 256, 1), k = random_tensor(2, 256, 2);
  const Tensor v = random_tensor(2, 256, 3);
  Int8Rows cache{.heads = 2, .tokens = 256};
  cache.append(k, cache.keys, cache.key_scales);
  cache.append(v, cache.values, cache.value_scales);
  Tensor out(1, 4, 256, 64), exact(1, 4, 256, 64);
  pare::attention::attend(q, cache, out, {.causal = true});
  pare::attention::attend(q, k, v, exact, {.causal = true});
  const Eigen::Map<const Eigen::VectorXf> a(out.data(), out.size()), b(exact.data(), exact.size());
  const double error = double((a - b).squaredNorm() / b.squaredNorm());
  std::printf("relative square error %.4f\n", error);
  return error < 0.001 ? 0 : 1;
}
