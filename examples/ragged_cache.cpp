// SPDX-License-Identifier: Apache-2.0
// Tangram's cache: each group of key heads keeps the tokens that it needs, in pages of its own. Of
// 4 heads two look at few tokens, which their group keeps, and drops the others.
// Prints the pages in use before and after, and how far a step of decode is off: below 1e-3.

#include <pare/latent/attend_ragged.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

using pare::Index;
using Heads = Eigen::Tensor<float, 3, Eigen::RowMajor>;   // [kv heads, tokens, dim]
using Output = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [sequences, heads, queries, dim]

int main() {
  constexpr Index heads = 4, tokens = 640, dim = 32;
  std::mt19937 bits(7);
  std::normal_distribution<float> normal;
  Heads k(heads, tokens, dim), v(heads, tokens, dim);
  Output q(1, 2 * heads, 1, dim), full(1, 2 * heads, 1, dim), out(1, 2 * heads, 1, dim);
  for (Index i = 0; i < k.size(); ++i) k.data()[i] = 0.3f * normal(bits);
  for (Index i = 0; i < v.size(); ++i) v.data()[i] = normal(bits);
  for (Index i = 0; i < q.size(); ++i) q.data()[i] = normal(bits);

  // Two query heads read each key head. Those of heads 1 and 3 look at every tenth token alone.
  for (const Index h : {1, 3})
    for (Index t = 0; t < tokens; t += 10)
      for (Index c = 0; c < dim; ++c) k(h, t, c) += 2 * (q(0, 2 * h, 0, c) + q(0, 2 * h + 1, 0, c));

  pare::latent::RaggedCache<float> cache({.kv_heads = heads,
                                          .group = 2,
                                          .key_dim = dim,
                                          .value_dim = dim,
                                          .pages = 2 * tokens / 16,
                                          .order = {0, 2, 1, 3}});  // groups {0, 2} and {1, 3}
  cache.append(0, k, v);
  const pare::latent::PageTable& table = cache.table();
  const Index before = table.pages() - table.free_pages();
  pare::latent::attend_ragged(q, cache, full, {.causal = true});

  std::vector<Index> kept;  // by whatever rule
  for (Index t = 0; t < tokens; t += 10) kept.push_back(t);
  cache.keep(0, cache.group_of(1), kept);
  const Index after = table.pages() - table.free_pages();
  pare::latent::attend_ragged(q, cache, out, {.causal = true});

  const Eigen::Map<const Eigen::VectorXf> a(out.data(), out.size()), b(full.data(), full.size());
  const double error = double((a - b).norm() / b.norm());
  std::printf("%td pages, then %td; off by %.1e\n", before, after, error);
  return error < 1e-3 && before == 80 && after == 44 ? 0 : 1;
}
