// SPDX-License-Identifier: Apache-2.0
// Attention over a cache: that over a tensor of its rows.
#include <gtest/gtest.h>

#include <pare/attention/attend.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/chosen_sequences.hpp>

#include <vector>

#include "attention/data.hpp"
#include "latent/caches.hpp"
#include "support/matrices.hpp"

namespace latent_cache_attend_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::latent::ChosenSequences;
using pare::latent::LatentCache;
using pare::latent::RopePlace;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::attended_over;
using pare::testing::filled_cache;
using pare::testing::LatentInputs;
using pare::testing::Outputs;
using pare::testing::refusal;
using pare::testing::rows_of;
using pare::testing::same_outputs;

template <class S>
using Apart = LatentCache<S, RopePlace::Apart>;

template <class Case>
struct LatentCacheAttendTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
using Cases =
    testing::Types<pare::testing::BackendAndScalar<pare::testing::ReferenceBackend, float>,
                   pare::testing::BackendAndScalar<pare::testing::BestBackend, bf16>,
                   pare::testing::BackendAndScalar<pare::testing::ThreadedBackend, double>>;
TYPED_TEST_SUITE(LatentCacheAttendTest, Cases);

TYPED_TEST(LatentCacheAttendTest, PagesOfAnySizeGiveTheBitsOfATensor) {
  using S = typename TypeParam::scalar;
  const LatentInputs<S> x(2, 3, 8, 130, 24, 8);
  const std::vector<Index> lengths{130, 37};
  const auto wanted = attended(this->backend(), x, {.causal = true, .key_lengths = lengths});
  for (const Index size : {1, 16, 32, 64, 100, 256}) {
    const auto cache = filled_cache<LatentCache<S>>(x, lengths, size);
    const auto apart = filled_cache<Apart<S>>(x, lengths, size);
    const pare::attention::AttendOptions options{.causal = true};
    EXPECT_TRUE(same_outputs(attended_over(this->backend(), x, cache, options), wanted)) << size;
    EXPECT_TRUE(same_outputs(attended_over(this->backend(), x, apart, options), wanted)) << size;
  }
}

TYPED_TEST(LatentCacheAttendTest, AWindowWithSinksReadsWhatEvictionKept) {
  using S = typename TypeParam::scalar;
  const LatentInputs<S> x(2, 2, 6, 90, 16, 4);
  const std::vector<Index> lengths{90, 41};
  for (const Index size : {1, 4, 16}) {
    auto cache = filled_cache<LatentCache<S>>(x, lengths, size);
    for (const Index b : {0, 1}) cache.evict(b, {.window = 12 + 5, .sinks = 3});
    pare::attention::AttendOptions options{.causal = true, .window = 12, .sinks = 3};
    const auto got = attended_over(this->backend(), x, cache, options);
    pare::testing::expect_attention(x, got, pare::testing::attention_bound<TypeParam>(),
                                    pare::testing::Sees{6, 90, true, 12, 3, lengths});
    options.key_lengths = lengths;
    EXPECT_TRUE(same_outputs(got, attended(this->backend(), x, options))) << size;
  }
}

TEST(LatentCacheAttend, ATokenThatWasEvictedIsNotRead) {
  const LatentInputs<float> x(1, 1, 5, 60, 8, 2);
  auto cache = filled_cache<LatentCache<float>>(x, {60}, 4);
  cache.evict(0, {.window = 20, .sinks = 2});
  const auto read = [&](const pare::attention::AttendOptions& options) {
    attended_over(pare::simd, x, cache, options);
  };
  read({.causal = true, .window = 16, .sinks = 4});
  refusal([&] { read({.causal = true}); }, "attention::attend", "cache");
  refusal([&] { read({.causal = true, .window = 17, .sinks = 2}); }, "attention::attend", "cache");
  refusal([&] { read({.causal = true, .window = 16, .sinks = 5}); }, "attention::attend", "cache");
  pare::testing::PlainRows<float> out(30, 10);
  refusal([&] { cache.read(0, 30, out.writable()); }, "latent::LatentCache::read", "first");
  EXPECT_EQ(cache.append(0, x.rows(0, 0, 1)), 60);
}

/// Rows are wider than the heads that were trained, so that no default is right.
TEST(LatentCacheAttend, ACallWithoutAScaleIsRefused) {
  const LatentInputs<float> x(1, 3, 5, 10, 8, 4);
  const auto refuses = [&](const auto& source) {
    Outputs<float> y(x.sizes);
    const auto before = y.out.list;
    refusal(
        [&] { pare::attention::attend(x.q.view(), source, y.out.writable(), {.causal = true}); },
        "attention::attend", "scale");
    EXPECT_TRUE(all_same_bits(y.out.list, before));
    refusal(
        [&] {
          pare::attention::select_blocks(x.q.view(), source, pare::attention::MeanPool{},
                                         {.causal = true});
        },
        "attention::select_blocks", "scale");
  };
  const auto cache = filled_cache<LatentCache<float>>(x, {10}, 16);
  refuses(cache);
  refuses(filled_cache<LatentCache<float, RopePlace::Apart>>(x, {10}, 16));
  const std::vector<Index> numbers{0};
  refuses(ChosenSequences(cache, numbers));
}

TEST(LatentCacheAttend, OutputsWithinItAreRefused) {
  const LatentInputs<float> x(1, 1, 5, 10, 8, 0);
  auto cache = filled_cache<LatentCache<float>>(x, {10}, 16);
  auto* own = const_cast<float*>(cache.key(0, 0, 0));
  const TensorView<float, 4> out{own, {1, 1, 5, 8}, {40, 40, 8, 1}};
  refusal([&] { pare::attention::attend(x.q.view(), cache, out, {.scale = 0.3}); },
          "attention::attend", "out");
  EXPECT_TRUE(all_same_bits(rows_of(cache, 0), x.k.list));
}

}  // namespace
}  // namespace latent_cache_attend_test
