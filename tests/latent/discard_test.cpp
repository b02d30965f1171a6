// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/cache.hpp>
#include <pare/latent/e4m3_cache.hpp>
#include <pare/transformer/rotary.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

#include "attention/data.hpp"
#include "latent/caches.hpp"
#include "support/matrices.hpp"

namespace latent_discard_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::latent::DeepSeekV32Layout;
using pare::latent::E4m3Cache;
using pare::latent::FlatLayout;
using pare::latent::LatentCache;
using pare::latent::RopePlace;
using pare::latent::RopeState;
using pare::testing::all_same_bits;
using pare::testing::filled_cache;
using pare::testing::LatentInputs;
using pare::testing::refusal;
using pare::testing::rows_of;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryLayout;
using pare::transformer::RotaryTable;

constexpr Index latent = 16, rope = 8, width = latent + rope;

/// Rows without the tokens [first, first + tokens).
template <class S>
std::vector<S> without(std::vector<S> rows, Index row, Index first, Index tokens) {
  rows.erase(rows.begin() + first * row, rows.begin() + (first + tokens) * row);
  return rows;
}

template <class Cache, class S>
void expect_closed_up(const LatentInputs<S>& x, Index row) {
  for (const Index size : {1, 3, 8, 64})
    for (const Index first : {0, 5, 29, 40})
      for (const Index tokens : {0, 1, 8, 11}) {
        if (first + tokens > 40) continue;
        auto cache = filled_cache<Cache>(x, {40}, size, RopeState::Unrotated);
        const auto before = rows_of(cache, 0);
        cache.discard(0, first, tokens);
        EXPECT_EQ(cache.length(0), 40 - tokens);
        EXPECT_TRUE(all_same_bits(rows_of(cache, 0), without(before, row, first, tokens)))
            << size << ' ' << first << ' ' << tokens;
      }
}

TEST(Discard, WhatIsBehindClosesUp) {
  const LatentInputs<double> x(1, 1, 1, 40, latent, rope);
  expect_closed_up<LatentCache<double>>(x, width);
  expect_closed_up<LatentCache<double, RopePlace::Apart>>(x, width);
  const LatentInputs<bf16> y(1, 1, 1, 40, 128, rope);
  expect_closed_up<E4m3Cache<DeepSeekV32Layout>>(y, 128 + rope);
  expect_closed_up<E4m3Cache<FlatLayout>>(y, 128 + rope);
}

/// Rotary keys turned by the table, token t at position t.
template <class S>
LatentInputs<S> rotated(LatentInputs<S> x, const RotaryTable<pare::compute_t<S>>& table,
                        RotaryLayout layout) {
  const pare::TensorView<S, 4> keys{
      &x.k(0, 0, 0, latent), {1, 1, x.sizes.keys, rope}, {0, 0, width, 1}};
  pare::transformer::rotate(pare::reference, keys, table, {.layout = layout});
  return x;
}

// Keys are below 1.3 x 5; either way takes some six roundings of 1.1e-16, together below 1e-14.
TEST(Discard, RotatedKeysAreTurnedToTheirNewPositions) {
  auto angles = rotary_frequencies(rope);
  angles.scale = 1.3;  // as YaRN's
  const RotaryTable<double> table(angles, 40);
  for (const RotaryLayout layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit}) {
    const LatentInputs<double> x(1, 1, 1, 40, latent, rope), turned = rotated(x, table, layout);
    auto cache = filled_cache<LatentCache<double>>(turned, {40}, 6);
    cache.discard(0, 7, 15, table, layout);
    LatentInputs<double> closed(1, 1, 1, 25, latent, rope);
    closed.k.list = without(x.k.list, width, 7, 15);
    const auto wanted = rotated(closed, table, layout);
    const auto got = rows_of(cache, 0);
    ASSERT_EQ(got.size(), wanted.k.list.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted.k.list[i], 1e-14) << i;
  }
}

TEST(Discard, ASharedPageIsCopiedFirst) {
  const LatentInputs<float> x(1, 1, 1, 40, latent, rope);
  auto cache = filled_cache<LatentCache<float>>(x, {10}, 4, RopeState::Unrotated);
  const Index branch = cache.fork(0);
  const auto before = rows_of(cache, 0);
  cache.discard(branch, 5, 2);
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));
  EXPECT_TRUE(all_same_bits(rows_of(cache, branch), without(before, width, 5, 2)));
  EXPECT_EQ(cache.table().page(branch, 0), cache.table().page(0, 0));
}

TEST(Discard, AShiftThatCannotBeIsRefusedAndChangesNothing) {
  constexpr const char* name = "latent::LatentCache::discard";
  const LatentInputs<float> x(1, 1, 1, 40, latent, rope);
  const RotaryTable<float> table(rotary_frequencies(rope), 12);
  auto rotated = filled_cache<LatentCache<float>>(x, {12}, 4);
  auto plain = filled_cache<LatentCache<float>>(x, {12}, 4, RopeState::Unrotated);
  EXPECT_EQ(rotated.rope_state(), RopeState::Rotated);
  EXPECT_EQ(plain.rope_state(), RopeState::Unrotated);
  const auto before = rows_of(rotated, 0);
  refusal([&] { rotated.discard(0, 1, 2); }, name, "cache");
  refusal([&] { plain.discard(0, 1, 2, table); }, name, "cache");
  const RotaryTable<float> narrow(rotary_frequencies(rope - 2), 12);
  refusal([&] { rotated.discard(0, 1, 2, narrow); }, name, "table");
  const RotaryTable<float> brief(rotary_frequencies(rope), 11);
  refusal([&] { rotated.discard(0, 1, 2, brief); }, name, "table");
  refusal([&] { rotated.discard(0, 1, 2, table, static_cast<RotaryLayout>(2)); }, name, "layout");
  refusal([&] { rotated.discard(3, 1, 2, table); }, name, "sequence");
  refusal([&] { rotated.discard(0, -1, 2, table); }, name, "table");
  refusal([&] { plain.discard(0, -1, 2); }, name, "first");
  refusal([&] { rotated.discard(0, 13, 0, table); }, name, "first");
  refusal([&] { rotated.discard(0, 10, 3, table); }, name, "tokens");
  refusal([&] { rotated.discard(0, 10, -1, table); }, name, "tokens");
  // Three pages are shared and three are free, of which another sequence takes one.
  const Index branch = rotated.fork(0);
  rotated.append(rotated.add(), x.rows(0, 0, 1));
  refusal([&] { rotated.discard(branch, 0, 1, table); }, name, "pages");
  EXPECT_TRUE(all_same_bits(rows_of(rotated, 0), before));
  EXPECT_TRUE(all_same_bits(rows_of(rotated, branch), before));
  plain.evict(0, {.window = 4});
  refusal([&] { plain.discard(0, 2, 2); }, name, "first");
  E4m3Cache<FlatLayout> flat({.latent = 8, .rope = 4, .pages = 1});
  refusal([&] { flat.discard(0, 0, 0); }, "latent::E4m3Cache::discard", "cache");
}

}  // namespace
}  // namespace latent_discard_test
