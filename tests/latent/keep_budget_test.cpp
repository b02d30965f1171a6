// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/attend.hpp>
#include <pare/attention/budget/attend_heads.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/latent/attend_ragged.hpp>
#include <pare/latent/keep_budget.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "attention/attend_calls.hpp"
#include "attention/data.hpp"
#include "support/matrices.hpp"

namespace latent_keep_budget_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::BudgetCount;
using pare::attention::BudgetScope;
using pare::attention::HeadGroups;
using pare::attention::keep_tokens;
using pare::attention::KeptTokens;
using pare::latent::keep_budget;
using pare::latent::RaggedCache;
using pare::testing::refusal;
using pare::testing::Tensor;

constexpr Index layers = 3, heads = 4, tokens = 90, dim = 8;

TensorView<const float, 3> tokens_of(const Tensor<float>& x, Index first, Index n) {
  return {x.list.data() + first * dim, {x.extent[1], n, dim}, {x.stride[1], x.stride[2], 1}};
}

/// Keys and values of all heads, and scores of theirs.
struct Model {
  Tensor<float> k = pare::testing::normal_tensor<float>({1, layers* heads, tokens, dim}, 1);
  Tensor<float> v = pare::testing::normal_tensor<float>({1, layers* heads, tokens, dim}, 2);
  Tensor<float> scores = pare::testing::normal_tensor<float>({1, layers, heads, tokens}, 3);
  Tensor<double> retention = pare::testing::normal_tensor<double>({1, 1, layers, heads}, 4);

  HeadGroups groups(Index group, BudgetScope scope) const {
    return HeadGroups::by_retention(retention.head(0, 0), group, scope);
  }
  TensorView<const float, 3> score_view() const {
    return {scores.list.data(), {layers, heads, tokens}, {heads * tokens, tokens, 1}};
  }
};

/// The heads of all layers.
RaggedCache<float> cache_of(const HeadGroups& groups, Index pages = 400) {
  return RaggedCache<float>({.kv_heads = layers * heads,
                             .group = groups.group(),
                             .key_dim = dim,
                             .value_dim = dim,
                             .pages = pages,
                             .page_size = 5,
                             .order = groups.order()});
}

/// Each head has the rows of the tokens that it keeps, behind `old` tokens from the first on.
void expect_rows(const RaggedCache<float>& cache, const Model& m, const KeptTokens& kept,
                 Index old) {
  for (Index cell = 0; cell < layers * heads; ++cell) {
    const auto head = cache.head(cell);
    const auto list = kept.of(cell / heads, cell % heads);
    ASSERT_EQ(head.length(0), old + static_cast<Index>(list.size()));
    for (Index i = 0; i < head.length(0); ++i) {
      const Index t = i < old ? i : old + list[static_cast<std::size_t>(i - old)];
      for (Index c = 0; c < dim; ++c) {
        ASSERT_EQ(head.key(0, 0, i)[c], m.k(0, cell, t, c)) << cell << ' ' << i;
        ASSERT_EQ(head.value(0, 0, i)[c], m.v(0, cell, t, c)) << cell << ' ' << i;
      }
    }
  }
}

TEST(KeepBudget, HeadsOfAGroupKeepTokensOfTheirOwn) {
  const Model m;
  for (const BudgetScope scope : {BudgetScope::PerLayer, BudgetScope::CrossLayer})
    for (const Index group : {1, 2, 4}) {
      const HeadGroups groups = m.groups(group, scope);
      auto cache = cache_of(groups);
      cache.append(0, tokens_of(m.k, 0, tokens), tokens_of(m.v, 0, tokens));
      const KeptTokens kept = keep_tokens(m.score_view(), groups,
                                          {.ratio = .4, .sinks = 2, .window = 6, .scope = scope});
      keep_budget(cache, 0, kept, groups);
      expect_rows(cache, m, kept, 0);
      Index pages = 0;
      for (Index g = 0; g < groups.groups(); ++g) pages += (cache.length(0, g) + 4) / 5;
      EXPECT_EQ(cache.table().pages() - cache.table().free_pages(), pages);
    }
}

TEST(KeepBudget, TokensOfEarlierChunksStay) {
  const Model m;
  const HeadGroups groups = m.groups(2, BudgetScope::PerLayer);
  auto cache = cache_of(groups);
  cache.append(0, tokens_of(m.k, 0, tokens), tokens_of(m.v, 0, tokens));
  auto chunk = m.score_view();
  chunk.data += 30;
  chunk.extent[2] = 60;
  const KeptTokens kept = keep_tokens(chunk, groups, {.ratio = .5, .sinks = 0, .window = 3});
  keep_budget(cache, 0, kept, groups);
  expect_rows(cache, m, kept, 30);
}

TEST(KeepBudget, ACacheOfALayerKeepsWhatOneOfAllLayersDoes) {
  const Model m;
  const HeadGroups groups = m.groups(2, BudgetScope::PerLayer);
  const KeptTokens kept = keep_tokens(m.score_view(), groups, {.ratio = .4, .window = 5});
  auto all = cache_of(groups);
  all.append(0, tokens_of(m.k, 0, tokens), tokens_of(m.v, 0, tokens));
  keep_budget(all, 0, kept, groups);
  for (Index l = 0; l < layers; ++l) {
    RaggedCache<float> one({.kv_heads = heads,
                            .group = 2,
                            .key_dim = dim,
                            .value_dim = dim,
                            .pages = 100,
                            .page_size = 5,
                            .order = groups.order(l)});
    auto k = tokens_of(m.k, 0, tokens), v = tokens_of(m.v, 0, tokens);
    k.data += l * heads * k.stride[0];
    v.data += l * heads * v.stride[0];
    k.extent[0] = v.extent[0] = heads;
    one.append(0, k, v);
    keep_budget(one, 0, kept, groups, l);
    for (Index h = 0; h < heads; ++h) {
      const auto a = one.head(h), b = all.head(l * heads + h);
      ASSERT_EQ(a.length(0), b.length(0));
      for (Index i = 0; i < a.length(0); ++i) EXPECT_EQ(*a.key(0, 0, i), *b.key(0, 0, i));
    }
  }
}

// Two queries a kv head over all tokens: what is attended to is the full cache, whatever the
// groups.
TEST(KeepBudget, ARatioOfOneIsTheFullCacheWhateverTheGroups) {
  const Model m;
  const Tensor<float> q = pare::testing::normal_tensor<float>({1, 2 * layers * heads, 1, dim}, 5);
  Tensor<float> full({1, 2 * layers * heads, 1, dim});
  pare::attention::attend(q.view(), m.k.view(), m.v.view(), full.writable());
  for (const BudgetScope scope : {BudgetScope::PerLayer, BudgetScope::CrossLayer})
    for (const Index group : {1, 2, 4}) {
      const HeadGroups groups = m.groups(group, scope);
      auto cache = cache_of(groups);
      cache.append(0, tokens_of(m.k, 0, tokens), tokens_of(m.v, 0, tokens));
      keep_budget(cache, 0, keep_tokens(m.score_view(), groups, {.ratio = 1, .scope = scope}),
                  groups);
      Tensor<float> y({1, 2 * layers * heads, 1, dim});
      pare::latent::attend_ragged(q.view(), cache, y.writable());
      EXPECT_TRUE(pare::testing::all_same_bits(y.list, full.list)) << group;
    }
}

// A latent is the key of the one kv head of a layer, and its first numbers are the value.
TEST(KeepBudget, LatentsOfLayersKeepBudgetsOfTheirOwn) {
  constexpr Index latent = 5, queries = 6;
  const Model m;
  std::vector<float> spread(m.scores.list.begin(), m.scores.list.begin() + layers * tokens);
  for (Index t = 0; t < tokens; ++t) spread[static_cast<std::size_t>(t)] *= 4;
  const TensorView<const float, 3> scores{spread.data(), {layers, 1, tokens}, {tokens, tokens, 1}};
  const HeadGroups groups = HeadGroups::natural(layers, 1, 1);
  const KeptTokens kept = keep_tokens(scores, groups,
                                      {.ratio = .3,
                                       .sinks = 1,
                                       .window = 4,
                                       .scope = BudgetScope::CrossLayer,
                                       .count = BudgetCount::Head});
  EXPECT_GT(kept.length(0, 0), 2 * kept.length(1, 0));
  const Tensor<float> q = pare::testing::normal_tensor<float>({1, queries, 1, dim}, 6);
  for (Index l = 0; l < layers; ++l) {
    RaggedCache<float> cache({.kv_heads = 1, .key_dim = dim, .value_dim = latent, .pages = 30});
    auto rows = tokens_of(m.k, 0, tokens);
    rows.data += l * rows.stride[0];
    rows.extent[0] = 1;
    auto values = rows;
    values.extent[2] = latent;
    cache.append(0, rows, values);
    keep_budget(cache, 0, kept, groups, l);
    Tensor<float> y({1, queries, 1, latent});
    pare::latent::attend_ragged(q.view(), cache, y.writable(), {.scale = .2});
    for (Index h = 0; h < queries; ++h) {
      const auto list = kept.of(l, 0);
      const auto wanted = pare::testing::dense_attention(
          q.head(0, h), m.k.head(0, l), {m.k.head(0, l).data, {tokens, latent}, {dim, 1}}, .2,
          [&](Index, Index j) { return std::find(list.begin(), list.end(), j) != list.end(); },
          [](Index, Index, long double score) { return score; });
      for (Index c = 0; c < latent; ++c) EXPECT_NEAR(y(0, h, 0, c), wanted.out(0, c), 1e-5);
    }
  }
}

TEST(RaggedCacheRoom, RowsThatAreStoredHeadByHeadAreThoseOfAnAppend) {
  const Model m;
  const HeadGroups groups = m.groups(4, BudgetScope::CrossLayer);
  auto cache = cache_of(groups), whole = cache_of(groups);
  for (Index first = 0; first < tokens; first += 30) {
    cache.grow(0, 30);
    for (Index l = 0; l < layers; ++l) {
      auto k = tokens_of(m.k, first, 30), v = tokens_of(m.v, first, 30);
      k.data += l * heads * k.stride[0];
      v.data += l * heads * v.stride[0];
      k.extent[0] = v.extent[0] = heads;
      cache.store(0, l * heads, k, v);
    }
  }
  whole.append(0, tokens_of(m.k, 0, tokens), tokens_of(m.v, 0, tokens));
  std::vector<std::vector<Index>> lists(layers * heads, std::vector<Index>(tokens));
  for (auto& list : lists) std::iota(list.begin(), list.end(), Index{0});
  expect_rows(cache, m, KeptTokens(layers, heads, tokens, lists), 0);
  cache.drop_last(0, 7);
  whole.drop_last(0, 7);
  EXPECT_EQ(cache.length(0, 1), tokens - 7);
  EXPECT_EQ(cache.table().free_pages(), whole.table().free_pages());
}

TEST(KeepBudget, WhatDoesNotFitIsRefusedAndChangesNothing) {
  const Model m;
  const HeadGroups groups = m.groups(2, BudgetScope::PerLayer);
  const HeadGroups across = m.groups(2, BudgetScope::CrossLayer);
  auto cache = cache_of(groups, 12 * 18);
  cache.append(0, tokens_of(m.k, 0, tokens), tokens_of(m.v, 0, tokens));
  const KeptTokens kept = keep_tokens(m.score_view(), groups, {.ratio = .4});
  constexpr const char* name = "latent::keep_budget";
  refusal([&] { keep_budget(cache, 1, kept, groups); }, name, "sequence");
  refusal([&] { keep_budget(cache, 0, kept, across); }, name, "groups");
  refusal([&] { keep_budget(cache, 0, kept, m.groups(4, BudgetScope::PerLayer)); }, name, "groups");
  refusal([&] { keep_budget(cache, 0, kept, groups, 0); }, name, "cache");
  refusal([&] { keep_budget(cache, 0, kept, groups, 3); }, name, "layer");
  refusal([&] { keep_budget(cache, 0, kept, across, 0); }, name, "groups");
  refusal([&] { keep_budget(cache, 0, kept, HeadGroups::natural(1, 12, 2)); }, name, "kept");
  std::vector<std::vector<Index>> lists(layers * heads);
  lists[0] = {3};
  refusal([&] { keep_budget(cache, 0, KeptTokens(layers, heads, tokens, lists), groups); }, name,
          "kept");
  lists[0] = {};
  refusal([&] { keep_budget(cache, 0, KeptTokens(layers, heads, tokens + 1, lists), groups); },
          name, "kept");
  const std::vector<Index> bad{1, 2, 2, 1};
  refusal([&] { cache.keep_heads(0, 0, {bad.data(), {2, 2}, {2, 1}}); },
          "latent::RaggedCache::keep_heads", "tokens");
  refusal([&] { cache.keep_heads(0, 0, {bad.data(), {1, 2}, {2, 1}}); },
          "latent::RaggedCache::keep_heads", "tokens");
  refusal([&] { cache.drop_last(0, tokens + 1); }, "latent::RaggedCache::drop_last", "tokens");
  refusal([&] { cache.drop_last(0, -1); }, "latent::RaggedCache::drop_last", "tokens");
  refusal([&] { cache.drop_last(2, 1); }, "latent::RaggedCache::drop_last", "sequence");
  refusal([&] { cache.grow(0, 1000); }, "latent::RaggedCache::grow", "tokens");
  refusal([&] { cache.grow(1, 1); }, "latent::RaggedCache::grow", "sequence");
  constexpr const char* store = "latent::RaggedCache::store";
  const auto k = tokens_of(m.k, 0, 3), v = tokens_of(m.v, 0, 3);
  refusal([&] { cache.store(0, 1, k, v); }, store, "first");
  refusal([&] { cache.store(0, -1, k, v); }, store, "first");
  refusal([&] { cache.store(1, 0, k, v); }, store, "sequence");
  refusal([&] { cache.store(0, 0, k, tokens_of(m.v, 0, 2)); }, store, "values");
  auto empty = cache_of(groups);
  refusal([&] { empty.store(0, 0, k, v); }, store, "keys");
  cache.fork(0);
  refusal([&] { cache.store(0, 0, k, v); }, store, "sequence");
  std::vector<std::vector<Index>> all(layers * heads, std::vector<Index>(tokens));
  for (auto& list : all) std::iota(list.begin(), list.end(), Index{0});
  expect_rows(cache, m, KeptTokens(layers, heads, tokens, all), 0);
}

}  // namespace
}  // namespace latent_keep_budget_test
