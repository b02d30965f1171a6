// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/attend_ragged.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/matrices.hpp"

namespace latent_ragged_cache_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::latent::attend_ragged;
using pare::latent::RaggedCache;
using pare::latent::RaggedCacheOptions;
using pare::latent::RaggedHead;
using pare::testing::all_same_bits;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::refusal;
using pare::testing::Sizes;

static_assert(pare::attention::KeyValueSource<RaggedHead<bf16>>);

constexpr Index kv_heads = 6;

/// [kv heads, tokens, dim] of batch entry b, tokens from `first` on.
template <class S>
TensorView<const S, 3> part(const pare::testing::Tensor<S>& x, Index b, Index first, Index tokens) {
  return {&x(b, 0, first, 0),
          {x.extent[1], tokens, x.extent[3]},
          {x.stride[1], x.stride[2], x.stride[3]}};
}

template <class S>
RaggedCache<S> filled(const Inputs<S>& x, Index group, std::vector<Index> order, Index page_size,
                      Index pages = 500) {
  RaggedCache<S> cache({.kv_heads = x.sizes.kv_heads,
                        .group = group,
                        .key_dim = x.sizes.key_dim,
                        .value_dim = x.sizes.value_dim,
                        .pages = pages,
                        .page_size = page_size,
                        .sequences = x.sizes.batch,
                        .order = std::move(order)});
  for (Index first = 0; first < x.sizes.keys; first += 7)
    for (Index b = 0; b < x.sizes.batch; ++b) {
      const Index tokens = std::min<Index>(7, x.sizes.keys - first);
      cache.append(b, part(x.k, b, first, tokens), part(x.v, b, first, tokens));
    }
  return cache;
}

template <class B, class S>
Outputs<S> attended_over(const B& backend, const Inputs<S>& x, const RaggedCache<S>& cache,
                         const pare::attention::AttendOptions& options) {
  Outputs<S> y(x.sizes);
  attend_ragged(backend, x.q.view(), cache, y.out.writable(), options);
  return y;
}

template <class Case>
struct RaggedCacheTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(RaggedCacheTest, pare::testing::AttendSources);

const std::vector<Index> mixed{4, 0, 5, 2, 1, 3};

TYPED_TEST(RaggedCacheTest, WithAllTokensNoOrderOfHeadsChangesABit) {
  using S = typename TypeParam::scalar;
  const Inputs<S> x(Sizes{2, 12, kv_heads, 6, 40, 16, 8});
  const auto wanted = pare::testing::attended(this->backend(), x, {.causal = true});
  for (const Index group : {1, 2, 3, 6})
    for (const auto& order : {std::vector<Index>{}, mixed})
      for (const Index page : {1, 5, 64}) {
        const auto cache = filled(x, group, order, page);
        const auto got = attended_over(this->backend(), x, cache, {.causal = true});
        EXPECT_TRUE(all_same_bits(got.out.list, wanted.out.list)) << group << ' ' << page;
      }
}

/// Tokens that group g of sequence b keeps of 40.
std::vector<Index> kept_tokens(Index b, Index g) {
  std::vector<Index> kept;
  for (Index t = 0; t < 36; ++t)
    if ((t * 7 + 3 * g + b) % (g + 2) == 0) kept.push_back(t);
  for (Index t = 36; t < 40; ++t) kept.push_back(t);  // the last, beside the queries
  return kept;
}

TYPED_TEST(RaggedCacheTest, EachGroupAttendsToTheTokensThatItKeeps) {
  using S = typename TypeParam::scalar;
  const Inputs<S> x(Sizes{2, 12, kv_heads, 4, 40, 16, 8});
  for (const Index group : {1, 2, 3})
    for (const Index page : {1, 5, 64}) {
      auto cache = filled(x, group, mixed, page);
      std::vector<std::vector<bool>> seen(2 * kv_heads, std::vector<bool>(40));
      Index pages = 0;
      for (const Index b : {0, 1})
        for (Index g = 0; g < kv_heads / group; ++g) {
          const auto kept = kept_tokens(b, g);
          cache.keep(b, g, kept);
          const auto n = static_cast<Index>(kept.size());
          EXPECT_EQ(cache.length(b, g), n);
          pages += (n + page - 1) / page;
          for (Index h = 0; h < kv_heads; ++h)
            for (const Index t : kept)
              if (cache.group_of(h) == g)
                seen[static_cast<std::size_t>(b * kv_heads + h)][static_cast<std::size_t>(t)] =
                    true;
        }
      EXPECT_EQ(cache.table().pages() - cache.table().free_pages(), pages);
      auto got = attended_over(this->backend(), x, cache, {.causal = true});
      const auto visible = [&](Index b, Index h, Index i, Index j) {
        return j <= 36 + i &&
               seen[static_cast<std::size_t>(b * kv_heads + h / 2)][static_cast<std::size_t>(j)];
      };
      // The oracle looks at log-sum-exps too, which the call does not give.
      for (Index b = 0; b < 2; ++b)
        for (Index h = 0; h < 12; ++h) {
          const auto wanted = pare::testing::dense_attention(
              x.q.head(b, h), x.k.head(b, h / 2), x.v.head(b, h / 2), 0.25,
              [&](Index i, Index j) { return visible(b, h, i, j); },
              [](Index, Index, long double score) { return score; });
          for (Index i = 0; i < 4; ++i)
            for (Index c = 0; c < 8; ++c)
              ASSERT_NEAR(static_cast<double>(got.out(b, h, i, c)),
                          static_cast<double>(wanted.out(i, c)),
                          pare::testing::attention_bound<TypeParam>())
                  << group << ' ' << page << ' ' << b << ' ' << h;
        }
    }
}

TEST(RaggedCache, EachHeadHasOnePlace) {
  const RaggedCache<float> cache(
      {.kv_heads = kv_heads, .group = 2, .key_dim = 4, .value_dim = 4, .pages = 6, .order = mixed});
  std::set<std::pair<Index, Index>> places;
  for (Index h = 0; h < kv_heads; ++h) {
    places.insert({cache.group_of(h), cache.column_of(h)});
    EXPECT_EQ(mixed[static_cast<std::size_t>(2 * cache.group_of(h) + cache.column_of(h))], h);
  }
  EXPECT_EQ(places.size(), 6u);
  EXPECT_EQ(cache.groups(), 3);
}

TEST(RaggedCache, AForkKeepsItsBitsWhenTheOtherDropsTokens) {
  const Inputs<float> x(Sizes{1, 6, kv_heads, 2, 20, 4, 3});
  auto cache = filled(x, 2, mixed, 4);
  const auto before = attended_over(pare::simd, x, cache, {});
  const Index branch = cache.fork(0);
  EXPECT_EQ(branch, 1);
  for (Index g = 0; g < 3; ++g) cache.keep(branch, g, std::vector<Index>{0, 3, 4, 11, 19});
  cache.append(branch, part(x.k, 0, 0, 3), part(x.v, 0, 0, 3));
  EXPECT_EQ(cache.length(branch, 1), 8);
  EXPECT_EQ(cache.length(0, 1), 20);
  for (Index h = 0; h < kv_heads; ++h)
    EXPECT_EQ(*cache.head(h).key(branch, 0, 3), x.k(0, h, 11, 0));
  cache.release(branch);
  EXPECT_EQ(cache.sequences(), 1);
  EXPECT_TRUE(all_same_bits(attended_over(pare::simd, x, cache, {}).out.list, before.out.list));
  cache.release(0);
  EXPECT_EQ(cache.table().free_pages(), cache.table().pages());
  EXPECT_EQ(cache.add(), 0);
}

// The last pages have room: who appends first gets copies of them, with all rows of all heads.
TEST(RaggedCache, ForksThatAppendLeaveTheBitsOfTheOther) {
  const Inputs<float> x(Sizes{1, 6, kv_heads, 2, 18, 4, 3});
  auto cache = filled(x, 2, mixed, 4);
  const Index branch = cache.fork(0);
  cache.append(branch, part(x.k, 0, 0, 1), part(x.v, 0, 0, 1));
  cache.append(0, part(x.k, 0, 5, 3), part(x.v, 0, 5, 3));
  for (Index h = 0; h < kv_heads; ++h)
    for (const Index sequence : {Index{0}, branch}) {
      const auto head = cache.head(h);
      const Index appended = sequence == 0 ? 3 : 1, from = sequence == 0 ? 5 : 0;
      ASSERT_EQ(head.length(sequence), 18 + appended);
      for (Index t = 0; t < 18 + appended; ++t) {
        const Index source = t < 18 ? t : from + t - 18;
        for (Index c = 0; c < 4; ++c)
          EXPECT_EQ(head.key(sequence, 0, t)[c], x.k(0, h, source, c)) << sequence << " " << t;
        for (Index c = 0; c < 3; ++c)
          EXPECT_EQ(head.value(sequence, 0, t)[c], x.v(0, h, source, c)) << sequence << " " << t;
      }
    }
}

TEST(RaggedCache, WhatDoesNotFitIsRefusedAndChangesNothing) {
  const RaggedCacheOptions good{
      .kv_heads = 6, .group = 2, .key_dim = 4, .value_dim = 3, .pages = 20, .page_size = 4};
  const auto refused = [&](const char* argument, auto change) {
    RaggedCacheOptions bad = good;
    change(bad);
    refusal([&] { RaggedCache<float>{bad}; }, "latent::RaggedCache", argument);
  };
  refused("kv_heads", [](auto& o) { o.kv_heads = 0; });
  refused("group", [](auto& o) { o.group = 4; });
  refused("group", [](auto& o) { o.group = 0; });
  refused("key_dim", [](auto& o) { o.key_dim = 0; });
  refused("value_dim", [](auto& o) { o.value_dim = -1; });
  refused("pages", [](auto& o) { o.pages = 0; });
  refused("page_size", [](auto& o) { o.page_size = 0; });
  refused("sequences", [](auto& o) { o.sequences = -1; });
  refused("pages", [](auto& o) { o.key_dim = std::numeric_limits<Index>::max() / 8; });
  refused("pages", [](auto& o) {  // tables of pages count in 32 bits
    o.kv_heads = o.group = 1 << 20;
    o.pages = 1 << 11;
  });
  refused("order", [](auto& o) { o.order = {0, 1}; });
  refused("order", [](auto& o) { o.order = {0, 1, 2, 3, 4, 4}; });
  refused("order", [](auto& o) { o.order = {0, 1, 2, 3, 4, 6}; });

  const Inputs<float> x(Sizes{1, 12, kv_heads, 2, 22, 4, 3});
  auto cache = filled(x, 2, {}, 4, 20);  // 18 of 20 pages
  const auto before = attended_over(pare::simd, x, cache, {});
  constexpr const char* append = "latent::RaggedCache::append";
  const auto k = part(x.k, 0, 0, 3), v = part(x.v, 0, 0, 3);
  refusal([&] { cache.append(1, k, v); }, append, "sequence");
  refusal([&] { cache.append(0, v, v); }, append, "keys");
  refusal([&] { cache.append(0, k, part(x.v, 0, 0, 2)); }, append, "values");
  refusal([&] { cache.append(0, k, v); }, append, "tokens");
  const TensorView<const float, 3> inside{cache.key(0, 0, 0, 0), {6, 1, 4}, {4, 4, 1}};
  refusal([&] { cache.append(0, inside, part(x.v, 0, 0, 1)); }, append, "keys");
  constexpr const char* keep = "latent::RaggedCache::keep";
  refusal([&] { cache.keep(1, 0, {}); }, keep, "sequence");
  refusal([&] { cache.keep(0, 3, {}); }, keep, "group");
  for (const auto& bad : {std::vector<Index>{1, 1}, {2, 1}, {-1}, {22}})
    refusal([&] { cache.keep(0, 0, bad); }, keep, "tokens");
  refusal([&] { cache.fork(1); }, "latent::RaggedCache::fork", "sequence");
  refusal([&] { cache.release(-1); }, "latent::RaggedCache::release", "sequence");
  const Index branch = cache.fork(0);
  refusal([&] { cache.keep(branch, 0, std::vector<Index>{1, 2}); }, keep, "pages");
  cache.release(branch);
  EXPECT_EQ(cache.table().free_pages(), 2);
  EXPECT_TRUE(all_same_bits(attended_over(pare::simd, x, cache, {}).out.list, before.out.list));
}

TEST(RaggedCache, AttentionThatCannotBeIsRefusedAndWritesNothing) {
  const Inputs<float> x(Sizes{1, 12, kv_heads, 2, 22, 4, 3});
  const auto cache = filled(x, 2, {}, 4);
  Outputs<float> y(x.sizes), untouched(x.sizes);
  const auto refused = [&](const char* argument, const pare::attention::AttendOptions& options) {
    refusal([&] { attend_ragged(x.q.view(), cache, y.out.writable(), options); },
            "latent::attend_ragged", argument);
  };
  const std::vector<float> sinks(12);
  const std::vector<Index> offsets{0, 2};
  refused("window", {.window = 4});
  refused("window", {.window_left = 4});
  refused("sink_logits", {.sink_logits = sinks});
  refused("query_offsets", {.query_offsets = offsets});
  refused("lse", {.lse = y.lse_view()});
  const auto q = x.q.view();
  const auto with = [&](TensorView<const float, 4> queries, TensorView<float, 4> out,
                        const char* argument) {
    refusal([&] { attend_ragged(queries, cache, out); }, "latent::attend_ragged", argument);
  };
  auto few = q;
  few.extent[1] = 5;
  with(few, y.out.writable(), "q");
  auto narrow = q;
  narrow.extent[3] = 3;
  with(narrow, y.out.writable(), "q");
  auto out = y.out.writable();
  out.extent[3] = 2;
  with(q, out, "out");
  auto* own = const_cast<float*>(cache.key(0, 0, 0, 0));
  with(q, {own, {1, 12, 2, 3}, {72, 6, 3, 1}}, "out");
  EXPECT_TRUE(all_same_bits(y.out.list, untouched.out.list));
}

}  // namespace
}  // namespace latent_ragged_cache_test
