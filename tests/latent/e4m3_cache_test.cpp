// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/attend.hpp>
#include <pare/latent/e4m3_cache.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "attention/data.hpp"
#include "latent/caches.hpp"
#include "support/properties.hpp"

namespace latent_e4m3_cache_test {
namespace {

using pare::bf16;
using pare::e4m3;
using pare::Index;
using pare::TensorView;
using pare::latent::DeepSeekV32Layout;
using pare::latent::E4m3Cache;
using pare::latent::FlatLayout;
using pare::latent::LatentCacheOptions;
using pare::latent::RopeState;
using pare::latent::TokenScaleLayout;
using pare::testing::all_same_bits;
using pare::testing::filled_cache;
using pare::testing::LatentInputs;
using pare::testing::refusal;
using pare::testing::rows_of;

/// One's own: tiles of 16 through latent and rotary key.
struct TilesThrough {
  static constexpr Index tile = 16;
  static constexpr bool keeps_rope = false;
  static constexpr bool power_of_two = true;
};

static_assert(pare::attention::KeyValueSource<E4m3Cache<DeepSeekV32Layout>>);
static_assert(pare::attention::LoadsKeys<E4m3Cache<FlatLayout>> &&
              pare::attention::LoadsValues<E4m3Cache<FlatLayout>>);
static_assert(E4m3Cache<FlatLayout>::values_in_keys);

template <class L>
struct E4m3CacheTest : testing::Test {};
using Layouts = testing::Types<DeepSeekV32Layout, FlatLayout, TokenScaleLayout, TilesThrough>;
TYPED_TEST_SUITE(E4m3CacheTest, Layouts);

/// The smallest power of two that is not below 1e-4 or largest / 448, or largest / 448.
float scale_of(float largest, bool power_of_two) {
  const float ratio = largest / 448;
  return power_of_two ? std::exp2(std::ceil(std::log2(std::max(ratio, 1e-4f)))) : ratio;
}

/// Rows as a layout keeps them: a token after the other, number after number.
template <class L>
std::vector<bf16> rounded_rows(const LatentInputs<bf16>& x, Index batch, Index tokens) {
  std::vector<bf16> rows;
  const Index width = x.latent + x.rope, coded = x.latent + (L::keeps_rope ? 0 : x.rope);
  const Index tile = L::tile == 0 ? coded : L::tile;
  for (Index t = 0; t < tokens; ++t)
    for (Index c = 0; c < width; ++c) {
      const auto value = [&](Index i) { return static_cast<float>(x.k(batch, 0, t, i)); };
      if (c >= coded) {
        rows.push_back(x.k(batch, 0, t, c));
        continue;
      }
      float largest = 0;
      for (Index i = c / tile * tile; i < c / tile * tile + tile; ++i)
        largest = std::max(largest, std::abs(value(i)));
      const float scale = scale_of(largest, L::power_of_two);
      rows.push_back(static_cast<bf16>(static_cast<float>(e4m3(value(c) / scale)) * scale));
    }
  return rows;
}

TYPED_TEST(E4m3CacheTest, RowsAreCodesTimesScales) {
  const LatentInputs<bf16> x(2, 1, 1, 23, 256, 32);
  for (const Index size : {1, 4, 64}) {
    const auto cache = filled_cache<E4m3Cache<TypeParam>>(x, {23, 9}, size);
    EXPECT_TRUE(all_same_bits(rows_of(cache, 0), rounded_rows<TypeParam>(x, 0, 23)));
    EXPECT_TRUE(all_same_bits(rows_of(cache, 1), rounded_rows<TypeParam>(x, 1, 9)));
    std::vector<bf16> value(256);
    cache.load_value(0, 0, 7, value.data());
    const auto rows = rows_of(cache, 0);
    EXPECT_TRUE(std::equal(value.begin(), value.end(), rows.begin() + 7 * 288,
                           [](bf16 a, bf16 b) { return a.bits == b.bits; }));
  }
}

TYPED_TEST(E4m3CacheTest, AttentionHasTheBitsOfATensorOfItsRows) {
  LatentInputs<bf16> x(2, 2, 8, 70, 128, 16);
  const std::vector<Index> lengths{70, 33};
  const auto one = filled_cache<E4m3Cache<TypeParam>>(x, lengths, 1);
  const LatentInputs<bf16> exact = x;
  for (const Index b : {0, 1}) {
    const auto rows = rows_of(one, b);
    std::copy(rows.begin(), rows.end(), x.k.list.begin() + b * 70 * 144);
    for (Index j = 0; j < lengths[static_cast<std::size_t>(b)]; ++j)
      for (Index c = 0; c < 128; ++c) x.v(b, 0, j, c) = x.k(b, 0, j, c);
  }
  const auto wanted =
      pare::testing::attended(pare::simd, x, {.causal = true, .key_lengths = lengths});
  for (const Index size : {1, 16, 100}) {
    const auto cache = filled_cache<E4m3Cache<TypeParam>>(exact, lengths, size);
    const auto got = pare::testing::attended_over(pare::simd, x, cache, {.causal = true});
    EXPECT_TRUE(same_outputs(got, wanted)) << size;
  }
}

TYPED_TEST(E4m3CacheTest, EveryBackendAndStrideStoresTheSameBytes) {
  const LatentInputs<float> x(1, 1, 1, 12, 128, 16);
  const auto bytes = [&](const auto& backend, const auto& latent, const auto& rope) {
    E4m3Cache<TypeParam> cache({.latent = 128, .rope = 16, .pages = 4, .page_size = 5});
    cache.append(backend, 0, latent, rope);
    std::vector<std::byte> rows(static_cast<std::size_t>(12 * cache.bytes_per_token()));
    cache.export_rows(0, 0, rows);
    return rows;
  };
  const auto wanted = bytes(pare::reference, x.latents(0, 0, 12), x.ropes(0, 0, 12));
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return bytes(backend, x.latents(0, 0, 12), x.ropes(0, 0, 12));
  });
  EXPECT_TRUE(bytes(pare::simd, x.latents(0, 0, 12), x.ropes(0, 0, 12)) == wanted);
  std::vector<float> columns(12 * 144);
  for (Index t = 0; t < 12; ++t)
    for (Index c = 0; c < 144; ++c) columns[static_cast<std::size_t>(c * 12 + t)] = x.k(0, 0, t, c);
  const TensorView<const float, 2> latent{columns.data(), {12, 128}, {1, 12}};
  const TensorView<const float, 2> rope{columns.data() + 128 * 12, {12, 16}, {1, 12}};
  EXPECT_TRUE(bytes(pare::simd, latent, rope) == wanted);
  E4m3Cache<TypeParam> cache({.latent = 128, .rope = 16, .pages = 4, .page_size = 5});
  cache.append(0, x.rows(0, 0, 12));
  std::vector<std::byte> rows(wanted.size());
  cache.export_rows(0, 0, rows);
  EXPECT_TRUE(rows == wanted);
}

TYPED_TEST(E4m3CacheTest, ExportedRowsAreImportedToTheBit) {
  const LatentInputs<bf16> x(1, 1, 1, 20, 128, 16);
  const auto cache = filled_cache<E4m3Cache<TypeParam>>(x, {20}, 6);
  const Index row = cache.bytes_per_token();
  std::vector<std::byte> bytes(static_cast<std::size_t>(13 * row)), again(bytes.size());
  cache.export_rows(0, 4, bytes);
  E4m3Cache<TypeParam> other({.latent = 128, .rope = 16, .pages = 9, .page_size = 4});
  EXPECT_EQ(other.import_rows(0, std::span(bytes).first(static_cast<std::size_t>(5 * row))), 0);
  const Index branch = other.fork(0);
  EXPECT_EQ(other.import_rows(0, std::span(bytes).subspan(static_cast<std::size_t>(5 * row))), 5);
  other.export_rows(0, 0, again);
  EXPECT_TRUE(again == bytes);
  other.export_rows(branch, 0, std::span(again).first(static_cast<std::size_t>(5 * row)));
  EXPECT_TRUE(again == bytes);
  const auto all = rows_of(cache, 0), part = rows_of(other, 0);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + 4 * 144,
                         [](bf16 a, bf16 b) { return a.bits == b.bits; }));
}

TEST(E4m3Cache, TokensTakeTheBytesOfTheirLayouts) {
  const LatentCacheOptions options{.latent = 512, .rope = 64, .pages = 1};
  EXPECT_EQ(E4m3Cache<DeepSeekV32Layout>(options).bytes_per_token(), 656);
  EXPECT_EQ(E4m3Cache<FlatLayout>(options).bytes_per_token(), 576 + 4);
  EXPECT_EQ(E4m3Cache<TokenScaleLayout>(options).bytes_per_token(), 512 + 4 + 128);
  const LatentCacheOptions video{.latent = 192, .rope = 32, .pages = 1};
  EXPECT_EQ(E4m3Cache<FlatLayout>(video).bytes_per_token(), 228);
}

// The bytes of a token of DeepSeek-V3.2, written down by hand.
TEST(E4m3Cache, ARowOfDeepSeekIsCodesThenScalesThenRope) {
  std::vector<std::byte> row(656);
  for (std::size_t c = 0; c < 512; ++c) row[c] = std::byte(c % 127);
  const float scales[] = {0.5f, 1.0f, 2.0f, 0.0625f};
  std::memcpy(row.data() + 512, scales, sizeof(scales));
  for (std::size_t c = 0; c < 64; ++c) {
    const bf16 key(static_cast<float>(c) - 20);
    std::memcpy(row.data() + 528 + 2 * c, &key, sizeof(key));
  }
  E4m3Cache<DeepSeekV32Layout> cache({.latent = 512, .rope = 64, .pages = 1});
  cache.import_rows(0, row);
  const auto got = rows_of(cache, 0);
  for (std::size_t c = 0; c < 512; ++c)
    EXPECT_EQ(
        static_cast<float>(got[c]),
        scales[c / 128] * static_cast<float>(e4m3::from_bits(static_cast<std::uint8_t>(c % 127))));
  for (std::size_t c = 0; c < 64; ++c)
    EXPECT_EQ(static_cast<float>(got[512 + c]), static_cast<float>(c) - 20);
}

TEST(E4m3Cache, ForksAndEvictionAreThoseOfPages) {
  const LatentInputs<bf16> x(1, 1, 1, 30, 128, 16), other(1, 1, 1, 30, 128, 16, 7);
  auto cache = filled_cache<E4m3Cache<DeepSeekV32Layout>>(x, {14}, 4);
  cache.truncate(0, 10);
  const Index branch = cache.fork(0);
  const auto before = rows_of(cache, 0);
  cache.append(branch, other.latents(0, 0, 2), other.ropes(0, 0, 2));
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));
  EXPECT_TRUE(std::equal(before.begin(), before.end(), rows_of(cache, branch).begin(),
                         [](bf16 a, bf16 b) { return a.bits == b.bits; }));
  cache.append(0, x.latents(0, 10, 14), x.ropes(0, 10, 14));
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), rounded_rows<DeepSeekV32Layout>(x, 0, 14)));
  EXPECT_EQ(cache.evict(0, {.window = 4, .sinks = 1}), 1);
  refusal([&] { cache.validate("f"); }, "f", "cache");
}

TEST(E4m3Cache, WhatDoesNotFitIsRefusedAndChangesNothing) {
  constexpr const char* make = "latent::E4m3Cache";
  const auto refused = [&](const char* argument, const LatentCacheOptions& bad) {
    refusal([&] { E4m3Cache<DeepSeekV32Layout>{bad}; }, make, argument);
  };
  refused("latent", {.latent = 500, .rope = 64, .pages = 4});
  refused("latent", {.latent = 0, .rope = 64, .pages = 4});
  refused("rope", {.latent = 512, .rope = 3, .pages = 4});
  refused("pages", {.latent = 512, .rope = 64});
  refusal([] { E4m3Cache<TilesThrough>({.latent = 32, .rope = 8, .pages = 1}); }, make, "rope");

  const LatentInputs<float> x(1, 1, 1, 30, 128, 16);
  E4m3Cache<DeepSeekV32Layout> cache({.latent = 128, .rope = 16, .pages = 2, .page_size = 4});
  constexpr const char* append = "latent::E4m3Cache::append";
  cache.append(0, x.latents(0, 0, 5), x.ropes(0, 0, 5));
  const auto before = rows_of(cache, 0);
  refusal([&] { cache.append(0, x.rows(0, 0, 1), x.ropes(0, 0, 1)); }, append, "latent");
  refusal([&] { cache.append(0, x.latents(0, 0, 1)); }, append, "rows");
  refusal([&] { cache.append(0, x.latents(0, 0, 1), x.ropes(0, 0, 2)); }, append, "rope");
  refusal([&] { cache.append(3, x.latents(0, 0, 1), x.ropes(0, 0, 1)); }, append, "sequence");
  refusal([&] { cache.append(0, x.latents(0, 0, 4), x.ropes(0, 0, 4)); }, append, "tokens");

  constexpr const char* import = "latent::E4m3Cache::import_rows";
  constexpr const char* send = "latent::E4m3Cache::export_rows";
  const auto row = static_cast<std::size_t>(cache.bytes_per_token());
  std::vector<std::byte> rows(4 * row);
  cache.export_rows(0, 1, rows);
  const std::span<const std::byte> all = rows;
  refusal([&] { cache.import_rows(0, all.first(row - 1)); }, import, "rows");
  refusal([&] { cache.import_rows(0, all); }, import, "tokens");
  refusal([&] { cache.import_rows(1, all.first(row)); }, import, "sequence");
  for (const float scale :
       {0.0f, -1.0f, std::numeric_limits<float>::denorm_min(),
        std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<std::byte> bad(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(2 * row));
    std::memcpy(bad.data() + row + 128, &scale, sizeof(scale));
    refusal([&] { cache.import_rows(0, bad); }, import, "rows");
  }
  refusal([&] { cache.export_rows(0, 0, std::span(rows).first(row + 1)); }, send, "rows");
  refusal([&] { cache.export_rows(0, 2, rows); }, send, "first");
  refusal([&] { cache.export_rows(0, -1, rows); }, send, "first");
  refusal([&] { cache.export_rows(1, 0, rows); }, send, "sequence");
  EXPECT_EQ(cache.length(0), 5);
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));
}

}  // namespace
}  // namespace latent_e4m3_cache_test
