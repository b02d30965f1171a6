// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/cache.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "attention/data.hpp"
#include "latent/caches.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace latent_cache_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::TensorView;
using pare::latent::LatentCache;
using pare::latent::LatentCacheOptions;
using pare::latent::RopePlace;
using pare::latent::RopeState;
using pare::testing::all_same_bits;
using pare::testing::filled_cache;
using pare::testing::LatentInputs;
using pare::testing::refusal;
using pare::testing::rows_of;

template <class S>
using Apart = LatentCache<S, RopePlace::Apart>;

static_assert(pare::attention::KeyValueSource<LatentCache<float>>);
static_assert(pare::attention::PointsToKeys<LatentCache<f16>> &&
              !pare::attention::LoadsKeys<LatentCache<f16>>);
static_assert(pare::attention::KeyValueSource<Apart<double>>);
static_assert(pare::attention::LoadsKeys<Apart<bf16>> &&
              !pare::attention::PointsToKeys<Apart<bf16>>);
static_assert(LatentCache<bf16>::values_in_keys && !Apart<bf16>::values_in_keys);
static_assert(pare::latent::CacheRows<Eigen::MatrixXf, bf16> &&
              !pare::latent::CacheRows<Eigen::MatrixXf, double>);

template <class Case>
struct LatentCacheTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
using Cases =
    testing::Types<pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, bf16>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, double>>;
TYPED_TEST_SUITE(LatentCacheTest, Cases);

template <class Cache, class B>
void expect_forks_apart(const B& backend, Index size) {
  using S = typename Cache::scalar;
  const LatentInputs<S> x(1, 1, 1, 40, 8, 4), other(1, 1, 1, 40, 8, 4, 9);
  Cache cache({.latent = 8, .rope = 4, .pages = 60, .page_size = size});
  pare::testing::poison(cache);
  cache.append(backend, 0, x.rows(0, 0, 13));
  const Index a = cache.fork(0), b = cache.fork(0, 10);
  cache.append(backend, a, other.latents(0, 13, 30), other.ropes(0, 13, 30));
  cache.append(backend, 0, x.rows(0, 13, 20));
  cache.append(backend, b, other.rows(0, 10, 12));
  cache.append(backend, b, x.rows(0, 12, 20));
  // Tokens [0, n) of one input and [n, end) of the other.
  const auto joined = [&](Index n, Index end) {
    auto rows = std::vector<S>(x.k.list.begin(), x.k.list.begin() + n * 12);
    rows.insert(rows.end(), other.k.list.begin() + n * 12, other.k.list.begin() + end * 12);
    return rows;
  };
  EXPECT_TRUE(all_same_bits(rows_of(cache, a), joined(13, 30))) << size;
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), joined(20, 20))) << size;
  auto third = joined(10, 12);
  third.insert(third.end(), x.k.list.begin() + 12 * 12, x.k.list.begin() + 20 * 12);
  EXPECT_TRUE(all_same_bits(rows_of(cache, b), third)) << size;
  cache.release(0);
  EXPECT_TRUE(all_same_bits(rows_of(cache, a), joined(13, 30))) << size;
}

TYPED_TEST(LatentCacheTest, ForksThatAppendLeaveTheBitsOfTheOther) {
  using S = typename TypeParam::scalar;
  for (const Index size : {1, 3, 8, 64}) {
    expect_forks_apart<LatentCache<S>>(this->backend(), size);
    expect_forks_apart<Apart<S>>(this->backend(), size);
  }
}

TEST(LatentCache, WhatWasTruncatedIsWrittenAnew) {
  const LatentInputs<float> x(1, 1, 1, 40, 8, 4), other(1, 1, 1, 40, 8, 4, 9);
  for (const Index size : {1, 3, 8, 64}) {
    auto cache = filled_cache<LatentCache<float>>(x, {30}, size, RopeState::Rotated, 8);
    const Index branch = cache.fork(0);
    cache.truncate(0, 17);
    EXPECT_EQ(cache.append(0, other.rows(0, 17, 23)), 17);
    std::vector<float> wanted(x.k.list.begin(), x.k.list.begin() + 17 * 12);
    wanted.insert(wanted.end(), other.k.list.begin() + 17 * 12, other.k.list.begin() + 23 * 12);
    EXPECT_TRUE(all_same_bits(rows_of(cache, 0), wanted)) << size;
    wanted.assign(x.k.list.begin(), x.k.list.begin() + 30 * 12);
    EXPECT_TRUE(all_same_bits(rows_of(cache, branch), wanted)) << size;
  }
}

TEST(LatentCache, NumbersAreRoundedToNearestAsTheyAreStored) {
  const LatentInputs<float> x(1, 1, 1, 50, 290, 6);
  const auto expect = [&]<class S>(S) {
    std::vector<S> wanted;
    for (const float v : x.k.list) wanted.push_back(static_cast<S>(v));
    const auto stored = [&](const auto& backend, const auto& rows) {
      LatentCache<S> cache({.latent = 290, .rope = 6, .pages = 13, .page_size = 4});
      cache.append(backend, 0, rows);
      return rows_of(cache, 0);
    };
    const auto bytes = [&](const auto& backend) {
      const auto rows = stored(backend, x.rows(0, 0, 50));
      EXPECT_TRUE(all_same_bits(rows, wanted));
      std::vector<unsigned char> all(rows.size() * sizeof(S));
      std::memcpy(all.data(), rows.data(), all.size());
      return all;
    };
    bytes(pare::reference);
    pare::testing::same_bits_for_any_threads(pare::simd, bytes);
    const Eigen::MatrixXf columns =
        Eigen::Map<const Eigen::MatrixXf>(x.k.list.data(), 296, 50).transpose();
    EXPECT_TRUE(all_same_bits(stored(pare::simd, columns), wanted));
    EXPECT_TRUE(all_same_bits(stored(pare::reference, columns), wanted));
  };
  expect(bf16{});
  expect(f16{});
  expect(float{});
}

TEST(LatentCache, ReadGivesRowsBack) {
  const LatentInputs<double> x(1, 1, 1, 20, 5, 2);
  const auto expect = [&](const auto& cache) {
    Eigen::MatrixXd out = Eigen::MatrixXd::Zero(7, 7);
    cache.read(0, 9, out);
    for (Index t = 0; t < 7; ++t)
      for (Index c = 0; c < 7; ++c) EXPECT_EQ(out(t, c), x.k(0, 0, 9 + t, c));
  };
  expect(filled_cache<LatentCache<double>>(x, {20}, 3));
  expect(filled_cache<Apart<double>>(x, {20}, 3));
}

TEST(LatentCache, ATokenTakesItsNumbersAndNothingElse) {
  EXPECT_EQ((LatentCache<bf16>({.latent = 512, .rope = 64, .pages = 1}).bytes_per_token()), 1152);
  EXPECT_EQ((LatentCache<float>({.latent = 512, .rope = 64, .pages = 1}).bytes_per_token()), 2304);
  EXPECT_EQ((Apart<f16>({.latent = 256, .rope = 0, .pages = 1}).bytes_per_token()), 512);
  // Rows of a page follow one another, and so do pages.
  LatentCache<double> cache({.latent = 5, .rope = 2, .pages = 4, .page_size = 3});
  cache.append(0, LatentInputs<double>(1, 1, 1, 12, 5, 2).rows(0, 0, 12));
  for (Index t = 0; t < 12; ++t) EXPECT_EQ(cache.key(0, 0, t) - cache.key(0, 0, 0), 7 * t) << t;
}

// VideoMLA: 2 x 12 x 128 numbers of a token become 192 + 32.
TEST(LatentCache, VideoMlaKeepsAFourteenthOfADenseCache) {
  const LatentCache<bf16> cache({.latent = 192, .rope = 32, .pages = 1});
  const double dense = 2 * 12 * 128 * sizeof(bf16);
  const double saved = 1 - static_cast<double>(cache.bytes_per_token()) / dense;
  EXPECT_NEAR(100 * saved, 92.7, 0.05);
  EXPECT_NEAR(1 / (1 - saved), 13.71, 0.005);
}

TEST(LatentCache, ExhaustionLeavesEveryByte) {
  const LatentInputs<float> x(1, 1, 1, 40, 6, 2), other(1, 1, 1, 40, 6, 2, 5);
  LatentCache<float> cache({.latent = 6, .rope = 2, .pages = 5, .page_size = 4});
  cache.append(0, x.rows(0, 0, 14));
  const Index branch = cache.fork(0);
  const auto before = rows_of(cache, 0);
  refusal([&] { cache.append(branch, other.rows(0, 0, 3)); }, "latent::LatentCache::append",
          "tokens");
  refusal([&] { cache.append(0, other.rows(0, 0, 7)); }, "latent::LatentCache::append", "tokens");
  EXPECT_EQ(cache.length(0), 14);
  EXPECT_EQ(cache.length(branch), 14);
  EXPECT_EQ(cache.table().free_pages(), 1);
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));
  EXPECT_TRUE(all_same_bits(rows_of(cache, branch), before));
  EXPECT_EQ(cache.append(branch, other.rows(0, 0, 2)), 14);
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));
}

TEST(LatentCache, NoTokensAreANoOp) {
  LatentCache<float> cache({.latent = 4, .rope = 2, .pages = 2});
  EXPECT_EQ(cache.append(0, TensorView<const float, 2>{nullptr, {0, 6}, {6, 1}}), 0);
  EXPECT_EQ(cache.table().free_pages(), 2);
  LatentCache<float> plain({.latent = 4, .pages = 2});
  const LatentInputs<float> x(1, 1, 1, 3, 4, 0);
  EXPECT_EQ(plain.append(0, x.latents(0, 0, 3), x.ropes(0, 0, 3)), 0);
  EXPECT_TRUE(all_same_bits(rows_of(plain, 0), x.k.list));
}

TEST(LatentCache, ATokenIsAppendedWithoutAnAllocation) {
  const LatentInputs<float> x(1, 1, 1, 40, 64, 32);
  LatentCache<bf16> cache({.latent = 64, .rope = 32, .pages = 20, .page_size = 4});
  cache.append(0, x.rows(0, 0, 33));
  cache.truncate(0, 5);
  const long before = pare::testing::allocations;
  for (Index t = 5; t < 30; ++t) cache.append(0, x.latents(0, t, t + 1), x.ropes(0, t, t + 1));
  cache.evict(0, {.window = 8});
  EXPECT_EQ(pare::testing::allocations, before);
}

TEST(LatentCache, WhatDoesNotFitIsRefusedAndChangesNothing) {
  constexpr const char* make = "latent::LatentCache";
  constexpr Index most = std::numeric_limits<Index>::max();
  const LatentCacheOptions good{.latent = 6, .rope = 2, .pages = 4, .page_size = 4};
  const auto refused = [&](const char* argument, auto change) {
    LatentCacheOptions bad = good;
    change(bad);
    refusal([&] { LatentCache<float>{bad}; }, make, argument);
    refusal([&] { Apart<bf16>{bad}; }, make, argument);
  };
  for (const Index bad : {Index{0}, Index{-1}}) refused("latent", [&](auto& o) { o.latent = bad; });
  for (const Index bad : {Index{3}, Index{-2}}) refused("rope", [&](auto& o) { o.rope = bad; });
  for (const Index bad : {Index{0}, Index{-1}, most})
    refused("pages", [&](auto& o) { o.pages = bad; });
  for (const Index bad : {Index{0}, Index{-1}, most})
    refused("page_size", [&](auto& o) { o.page_size = bad; });
  for (const Index bad : {Index{-1}, most})
    refused("sequences", [&](auto& o) { o.sequences = bad; });
  refused("latent", [&](auto& o) { o.latent = most; });
  refused("pages", [&](auto& o) { o.latent = most / 16; });
  refused("rope_state", [&](auto& o) { o.rope_state = static_cast<RopeState>(2); });

  constexpr const char* append = "latent::LatentCache::append";
  const LatentInputs<float> x(1, 1, 1, 40, 6, 2);
  LatentCache<float> cache(good);
  cache.append(0, x.rows(0, 0, 5));
  const auto before = rows_of(cache, 0);
  refusal([&] { cache.append(0, x.latents(0, 0, 2)); }, append, "rows");
  refusal([&] { cache.append(0, x.rows(0, 0, 2), x.ropes(0, 0, 2)); }, append, "latent");
  refusal([&] { cache.append(0, x.latents(0, 0, 2), x.rows(0, 0, 2)); }, append, "rope");
  refusal([&] { cache.append(0, x.latents(0, 0, 2), x.ropes(0, 0, 3)); }, append, "rope");
  refusal([&] { cache.append(1, x.rows(0, 0, 2)); }, append, "sequence");
  refusal([&] { cache.append(0, x.rows(0, 0, 12)); }, append, "tokens");
  const TensorView<const float, 2> none{nullptr, {2, 8}, {8, 1}};
  refusal([&] { cache.append(0, none); }, append, "rows");
  const TensorView<const float, 2> inside{cache.key(0, 0, 0), {2, 8}, {8, 1}};
  refusal([&] { cache.append(0, inside); }, append, "latent");
  constexpr const char* read = "latent::LatentCache::read";
  pare::testing::PlainRows<float> out(3, 8), narrow(3, 7);
  refusal([&] { cache.read(1, 0, out.writable()); }, read, "sequence");
  refusal([&] { cache.read(0, 0, narrow.writable()); }, read, "out");
  refusal([&] { cache.read(0, 3, out.writable()); }, read, "first");
  refusal([&] { cache.read(0, -1, out.writable()); }, read, "first");
  auto* own = const_cast<float*>(cache.key(0, 0, 0));
  refusal([&] { cache.read(0, 0, TensorView<float, 2>{own, {3, 8}, {8, 1}}); }, read, "out");
  EXPECT_EQ(cache.length(0), 5);
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), before));
  EXPECT_EQ(cache.table().free_pages(), 2);
}

}  // namespace
}  // namespace latent_cache_test
