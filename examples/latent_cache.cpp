// SPDX-License-Identifier: Apache-2.0
// The paged cache of latent-KV attention (MLA), in bf16 and in the 8 bits of DeepSeek-V3.2: two
// answers share the pages of one prompt, and 16 heads attend to both where the rows lie.
// Prints the relative square error of attention over 656 bytes per token, to 1152: 0.0022.

#include <pare/attention/attend.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/e4m3_cache.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <cstdio>
#include <random>

namespace {

using pare::bf16;
using pare::Index;
using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Output = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [sequences, heads, queries, dim]

Rows random_rows(Index rows, Index dim, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  return Rows::NullaryExpr(rows, dim, [&] { return normal(bits); });
}

/// A prompt of 200 tokens, and two answers of 22 behind it.
template <class Cache>
Cache filled_cache() {
  Cache cache({.latent = 512, .rope = 64, .pages = 7, .page_size = 64});
  const Rows latent = random_rows(244, 512, 1), rope = random_rows(244, 64, 2);
  cache.append(0, latent.topRows(200), rope.topRows(200));
  const Index other = cache.fork(0);  // takes no page
  cache.append(0, latent.middleRows(200, 22), rope.middleRows(200, 22));
  cache.append(other, latent.bottomRows(22), rope.bottomRows(22));
  return cache;  // 3 whole pages are shared, and each has a fourth of its own
}

/// The last token of either answer, 16 heads of absorbed queries.
template <class Cache>
Output attended(const Cache& cache) {
  Eigen::Tensor<Eigen::bfloat16, 4, Eigen::RowMajor> q(2, 16, 1, 576);
  const Rows numbers = random_rows(1, q.size(), 3);
  std::transform(numbers.data(), numbers.data() + q.size(), q.data(),
                 [](float x) { return Eigen::bfloat16(x); });
  Output out(2, 16, 1, 512);
  pare::attention::attend(q, cache, out, {.causal = true, .scale = 0.0722});  // 192^(-1/2)
  return out;
}

}  // namespace

int main() {
  using namespace pare::latent;
  const auto wide = filled_cache<LatentCache<bf16>>();
  const auto small = filled_cache<E4m3Cache<DeepSeekV32Layout>>();
  const Output a = attended(small), b = attended(wide);
  const Eigen::Map<const Eigen::VectorXf> x(a.data(), a.size()), y(b.data(), b.size());
  const double error = double((x - y).squaredNorm() / y.squaredNorm());
  std::printf("relative square error %.4f of %td to %td bytes per token\n", error,
              small.bytes_per_token(), wide.bytes_per_token());
  return error < 0.003 && small.table().free_pages() == 2 ? 0 : 1;
}
