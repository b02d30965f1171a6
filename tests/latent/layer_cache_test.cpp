// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/attention_layer.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/e4m3_cache.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <cstddef>
#include <vector>

#include "latent/layers.hpp"
#include "latent/plain_cache.hpp"
#include "support/properties.hpp"

namespace latent_layer_cache_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::rows_of;
using pare::testing::PlainCache;
using pare::testing::random_latent_weights;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::small_latent_config;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryTable;
using namespace pare::latent;

static_assert(LatentStore<LatentCache<float>, float> && LatentStore<LatentCache<double>, double>);
static_assert(LatentStore<LatentCache<bf16, RopePlace::Apart>, float>);
static_assert(LatentStore<E4m3Cache<TokenScaleLayout>, float>);

struct PagedLayer : testing::Test {
  const LatentConfig config = small_latent_config();
  const RotaryTable<float> table{rotary_frequencies(config.rope), 200};
  const LatentAttention<bf16> layer{config, random_latent_weights<bf16>(config), table};

  LatentCacheOptions options(Index pages, Index page_size, Index sequences = 1) const {
    return {.latent = config.latent,
            .rope = config.rope,
            .pages = pages,
            .page_size = page_size,
            .sequences = sequences};
  }
  /// Outputs of a prompt of 20 tokens and of 3 more, each alone.
  template <class C>
  Rows<float> run(C& cache, const LatentForwardOptions& o, Index sequence = 0) const {
    const auto hidden = random_rows<float>(23, config.width, 5);
    Rows<float> out(23, config.width);
    LatentForwardOptions of = o;
    of.sequence = sequence;
    for (Index at = 0; at < 23; at += at == 0 ? 20 : 1) {
      const Index n = at == 0 ? 20 : 1;
      layer.forward(rows_of(hidden.view(), at, n), cache, rows_of(out.view(), at, n), of);
    }
    return out;
  }
};

TEST_F(PagedLayer, PagesOfAnySizeHaveTheBitsOfOneList) {
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    const LatentForwardOptions o{.form = form, .chunk = 7};
    PlainCache<float> plain(1, config);
    PlainCache<bf16> plain_bf16(1, config);
    const auto wanted = pare::testing::bytes_of(run(plain, o));
    const auto wanted_bf16 = pare::testing::bytes_of(run(plain_bf16, o));
    for (const Index page : {1, 8, 100}) {
      LatentCache<float> cache(options(24, page));
      EXPECT_TRUE(pare::testing::bytes_of(run(cache, o)) == wanted) << page;
      LatentCache<bf16> small(options(24, page));
      EXPECT_TRUE(pare::testing::bytes_of(run(small, o)) == wanted_bf16) << page;
    }
    LatentCache<bf16, RopePlace::Apart> apart(options(24, 4));
    EXPECT_TRUE(pare::testing::bytes_of(run(apart, o)) == wanted_bf16);
  }
}

/// A list of rows that went through the 8 bits of an E4m3Cache.
class ThroughEightBits : public PlainCache<bf16> {
 public:
  ThroughEightBits(const LatentConfig& config, const LatentCacheOptions& options)
      : PlainCache(1, config), bytes_(options) {}

  template <class B>
  void append(const B& backend, Index sequence, pare::TensorView<const float, 2> rows) {
    const Index first = bytes_.append(backend, sequence, rows);
    std::vector<bf16> row(static_cast<std::size_t>(key_dim()));
    Rows<float> read(1, key_dim());
    for (Index i = 0; i < rows.rows(); ++i) {
      bytes_.load_key(sequence, 0, first + i, row.data());
      for (Index c = 0; c < key_dim(); ++c)
        read(0, c) = static_cast<float>(row[static_cast<std::size_t>(c)]);
      PlainCache::append(backend, sequence, pare::as_const(read.view()));
    }
  }

 private:
  E4m3Cache<TokenScaleLayout> bytes_;
};

TEST_F(PagedLayer, RowsOfEightBitsAreReadInEitherForm) {
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    const LatentForwardOptions o{.form = form, .chunk = 7};
    ThroughEightBits list(config, options(24, 4));
    E4m3Cache<TokenScaleLayout> cache(options(24, 4));
    const auto wanted = run(list, o), got = run(cache, o);
    EXPECT_TRUE(pare::testing::bytes_of(got) == pare::testing::bytes_of(wanted));
  }
}

TEST_F(PagedLayer, EvictedTokensBehindTheWindowAreNotMissed) {
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    const LatentForwardOptions o{.window = 6, .sinks = 3, .form = form, .chunk = 5};
    PlainCache<float> plain(1, config);
    run(plain, o);
    LatentCache<float> cache(options(24, 2));
    run(cache, o);
    EXPECT_GT(cache.evict(0, {.window = 6, .sinks = 3}), 0);
    const auto hidden = random_rows<float>(1, config.width, 6);
    Rows<float> got(1, config.width), wanted(1, config.width);
    layer.forward(hidden.view(), plain, wanted.view(), o);
    layer.forward(hidden.view(), cache, got.view(), o);
    EXPECT_TRUE(pare::testing::bytes_of(got) == pare::testing::bytes_of(wanted));
    // A token that would see evicted ones is refused, and appends nothing.
    for (const LatentForwardOptions& more :
         {LatentForwardOptions{.form = form},
          LatentForwardOptions{.window = 6, .sinks = 6, .form = form},
          LatentForwardOptions{.window = 12, .sinks = 3, .form = form}}) {
      refuses_and_leaves_alone([&] { layer.forward(hidden.view(), cache, got.view(), more); },
                               "latent::LatentAttention::forward", "cache", got);
      EXPECT_EQ(cache.length(0), 24);
    }
  }
}

TEST_F(PagedLayer, ABranchGoesItsOwnWay) {
  LatentCache<float> cache(options(40, 8));
  run(cache, {});
  const Index branch = cache.fork(0);
  const auto a = random_rows<float>(2, config.width, 6), b = random_rows<float>(2, config.width, 7);
  Rows<float> first(2, config.width), other(2, config.width), again(2, config.width);
  layer.forward(a.view(), cache, first.view());
  layer.forward(b.view(), cache, other.view(), {.sequence = branch});
  LatentCache<float> alone(options(40, 8));
  run(alone, {});
  layer.forward(a.view(), alone, again.view());
  EXPECT_TRUE(pare::testing::bytes_of(first) == pare::testing::bytes_of(again));
  EXPECT_FALSE(pare::testing::bytes_of(first) == pare::testing::bytes_of(other));
}

TEST_F(PagedLayer, WithoutRoomOrOfOtherKeysNothingIsAppended) {
  const auto hidden = random_rows<float>(9, config.width, 6);
  Rows<float> out(9, config.width);
  const auto refused = [&](auto& cache, const LatentForwardOptions& o, const char* argument) {
    const Index before = cache.length(0);
    refuses_and_leaves_alone([&] { layer.forward(hidden.view(), cache, out.view(), o); },
                             "latent::LatentAttention::forward", argument, out);
    EXPECT_EQ(cache.length(0), before);
  };
  LatentCache<float> small(options(2, 4));
  refused(small, {}, "tokens");
  // Each of two sequences has room, both do not.
  LatentCache<float> two(options(3, 4, 2));
  const std::vector<Index> offsets{0, 4, 9};
  layer.forward(rows_of(hidden.view(), 0, 4), two, rows_of(out.view(), 0, 4));
  refused(two, {.offsets = offsets}, "cache");
  EXPECT_EQ(two.length(1), 0);
  LatentCacheOptions unrotated = options(8, 4);
  unrotated.rope_state = RopeState::Unrotated;
  LatentCache<float> raw(unrotated);
  refused(raw, {}, "cache");
  LatentCache<float> released(options(8, 4, 2));
  released.release(0);
  refused(released, {.sequence = 0}, "sequence");
}

}  // namespace
}  // namespace latent_layer_cache_test
