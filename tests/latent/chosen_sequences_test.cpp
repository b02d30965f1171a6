// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/cache.hpp>
#include <pare/latent/chosen_sequences.hpp>
#include <pare/latent/e4m3_cache.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "attention/data.hpp"
#include "latent/caches.hpp"
#include "support/matrices.hpp"

namespace latent_chosen_sequences_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::latent::ChosenSequences;
using pare::latent::E4m3Cache;
using pare::latent::FlatLayout;
using pare::latent::LatentCache;
using pare::latent::RopePlace;
using pare::testing::attended_over;
using pare::testing::filled_cache;
using pare::testing::LatentInputs;
using pare::testing::Outputs;
using pare::testing::refusal;

static_assert(pare::attention::PointsToKeys<ChosenSequences<LatentCache<float>>>);
static_assert(!pare::attention::PointsToKeys<ChosenSequences<E4m3Cache<FlatLayout>>>);
static_assert(ChosenSequences<LatentCache<float>>::values_in_keys);

/// Entry i of a batch is sequence numbers[i] of a cache of four, each for itself.
template <class Cache>
void expect_chosen() {
  using S = typename Cache::scalar;
  const LatentInputs<S> x(4, 2, 6, 30, 16, 4);
  auto cache = filled_cache<Cache>(x, {30, 12, 21, 6}, 4);
  const std::vector<Index> numbers{2, 0, 2};
  const pare::attention::AttendOptions options{.causal = true};
  const auto all = attended_over(pare::simd, x, cache, options);
  LatentInputs<S> y(3, 2, 6, 30, 16, 4);
  for (Index i = 0; i < 3; ++i)
    for (Index h = 0; h < 2; ++h)
      for (Index q = 0; q < 6; ++q)
        for (Index c = 0; c < 20; ++c)
          y.q(i, h, q, c) = x.q(numbers[static_cast<std::size_t>(i)], h, q, c);
  const auto got = attended_over(pare::simd, y, ChosenSequences(cache, numbers), options);
  for (Index i = 0; i < 3; ++i)
    EXPECT_EQ(0, std::memcmp(&got.out(i, 0, 0, 0),
                             &all.out(numbers[static_cast<std::size_t>(i)], 0, 0, 0),
                             2 * 6 * 16 * sizeof(got.out(0, 0, 0, 0))));
}

TEST(ChosenSequences, EachEntryIsTheSequenceOfItsNumber) {
  expect_chosen<LatentCache<float>>();
  expect_chosen<LatentCache<bf16, RopePlace::Apart>>();
  expect_chosen<E4m3Cache<FlatLayout>>();
}

TEST(ChosenSequences, OnlyEvictedTokensOfThoseChosenMatter) {
  const LatentInputs<float> x(3, 1, 2, 30, 8, 0), one(1, 1, 2, 30, 8, 0);
  auto cache = filled_cache<LatentCache<float>>(x, {30, 30, 30}, 2);
  cache.evict(1, {.window = 10, .sinks = 2});
  const auto read = [&](Index number, const pare::attention::AttendOptions& options) {
    const std::vector<Index> numbers{number};
    attended_over(pare::simd, one, ChosenSequences(cache, numbers), options);
  };
  read(0, {.causal = true});
  read(1, {.causal = true, .window = 8, .sinks = 2});
  refusal([&] { read(1, {.causal = true}); }, "attention::attend", "cache");
  refusal([&] { read(1, {.causal = true, .window = 8, .sinks = 3}); }, "attention::attend",
          "cache");
}

// What entries of one sequence read counts together, whichever of them comes last.
TEST(ChosenSequences, EntriesOfOneSequenceReadItTogether) {
  const LatentInputs<float> x(1, 1, 2, 30, 8, 0), packed(1, 1, 6, 30, 8, 0);
  auto cache = filled_cache<LatentCache<float>>(x, {30}, 2);
  cache.evict(0, {.window = 10, .sinks = 2});
  const std::vector<Index> numbers{0, 0};
  const auto read = [&](const std::vector<Index>& offsets) {
    attended_over(pare::simd, packed, ChosenSequences(cache, numbers),
                  {.causal = true, .window = 8, .sinks = 2, .query_offsets = offsets});
  };
  read({0, 3, 6});
  refusal([&] { read({0, 5, 6}); }, "attention::attend", "cache");
  refusal([&] { read({0, 1, 6}); }, "attention::attend", "cache");
}

TEST(ChosenSequences, ANumberThatIsNoSequenceIsRefused) {
  const LatentInputs<float> x(1, 1, 2, 10, 8, 0);
  const auto cache = filled_cache<LatentCache<float>>(x, {10}, 2);
  for (const Index bad : {Index{-1}, Index{1}}) {
    const std::vector<Index> numbers{bad};
    refusal([&] { attended_over(pare::simd, x, ChosenSequences(cache, numbers), {}); },
            "attention::attend", "numbers");
  }
}

}  // namespace
}  // namespace latent_chosen_sequences_test
