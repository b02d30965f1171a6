// SPDX-License-Identifier: Apache-2.0
// Tangram: each kv head keeps as many tokens of a prompt as its scores ask for, 30 % of all
// together. Head 0 of 4 looks at many tokens, the others at few. Prints what heads keep, the pages
// left, and how far a step of decode is off with budgets of their own and with equal ones: it is
// further.

#include <pare/attention/attend.hpp>
#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/attention/budget/snap_kv.hpp>
#include <pare/latent/attend_ragged.hpp>
#include <pare/latent/keep_budget.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <cstdio>
#include <random>

using pare::Index;
using Heads = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // [sequences, heads, tokens, dim]

constexpr Index kv_heads = 4, heads = 8, tokens = 1200, dim = 32, last = 32;

Eigen::Map<const Eigen::VectorXf> numbers(const Heads& x) { return {x.data(), x.size()}; }

int main() {
  std::mt19937 bits(7);
  std::normal_distribution<float> normal;
  Heads q(1, heads, last, dim), k(1, kv_heads, tokens, dim), v(1, kv_heads, tokens, dim);
  for (Heads* x : {&q, &k, &v})
    for (Index i = 0; i < x->size(); ++i) x->data()[i] = normal(bits);
  for (Index h = 0; h < heads; ++h)  // queries of a head look in one direction
    for (Index i = 0; i < last; ++i) q(0, h, i, 0) = 6;
  for (Index h = 0; h < kv_heads; ++h)  // where few keys lie, but those of head 0
    for (Index t = 0; t < tokens; ++t) k(0, h, t, 0) = t % (h == 0 ? 2 : 20) == 0 ? 6.0f : -6.0f;

  Eigen::Tensor<float, 3, Eigen::RowMajor> scores(1, kv_heads, tokens);
  pare::attention::score_tokens(q, k, scores, pare::attention::SnapKV{.pool = 1});
  const auto groups = pare::attention::HeadGroups::natural(1, kv_heads, 1);

  Heads query(1, heads, 1, dim), all(1, heads, 1, dim);
  for (Index h = 0; h < heads; ++h)
    for (Index c = 0; c < dim; ++c) query(0, h, 0, c) = q(0, h, last - 1, c);
  pare::attention::attend(query, k, v, all);

  double off[2] = {};
  for (const bool equal : {false, true}) {
    const auto kept =
        pare::attention::keep_tokens(scores, groups,
                                     {.ratio = 0.3,
                                      .count = equal ? pare::attention::BudgetCount::Uniform
                                                     : pare::attention::BudgetCount::Head});
    pare::latent::RaggedCache<float> cache(
        {.kv_heads = kv_heads, .key_dim = dim, .value_dim = dim, .pages = kv_heads * tokens / 16});
    cache.append(0,
                 Eigen::TensorMap<const Eigen::Tensor<float, 3, Eigen::RowMajor>>(
                     k.data(), kv_heads, tokens, dim),
                 Eigen::TensorMap<const Eigen::Tensor<float, 3, Eigen::RowMajor>>(
                     v.data(), kv_heads, tokens, dim));
    pare::latent::keep_budget(cache, 0, kept, groups, 0);
    Heads out(1, heads, 1, dim);
    pare::latent::attend_ragged(query, cache, out);
    off[equal] = double((numbers(out) - numbers(all)).norm() / numbers(all).norm());
    const auto& table = cache.table();
    std::printf("%s: heads keep %td, %td, %td and %td of %td tokens, %td pages; off by %.3f\n",
                equal ? "equal budgets" : "own budgets", kept.length(0, 0), kept.length(0, 1),
                kept.length(0, 2), kept.length(0, 3), tokens, table.pages() - table.free_pages(),
                off[equal]);
  }
  return off[0] < 0.1 && off[1] > 2 * off[0] ? 0 : 1;
}
