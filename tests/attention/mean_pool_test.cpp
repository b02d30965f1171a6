// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include <pare/attention/attend.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/order_keys.hpp>

#include "attention/heads.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace attention_mean_pool_test {
namespace {

using pare::Index;
using pare::attention::attend;
using pare::attention::BlockMask;
using pare::attention::BlockPadding;
using pare::attention::BlockPooling;
using pare::attention::KeyOrder;
using pare::attention::MeanPool;
using pare::attention::order_keys;
using pare::attention::select_blocks;
using pare::attention::SelectedBlocks;
using pare::testing::Heads;
using pare::testing::normal_heads;
using pare::testing::refusal;
using pare::testing::Tolerance;
using pare::testing::within;

template <class T>
constexpr T nan_value = std::numeric_limits<T>::quiet_NaN();

struct Case {
  Index queries, keys, row_block, column_block, segment;
};
constexpr Case cases[] = {
    {1, 1, 8, 8, 0},       {7, 7, 8, 8, 0},      {8, 8, 8, 8, 16},      {9, 9, 8, 8, 16},
    {15, 15, 8, 8, 16},    {16, 16, 8, 8, 16},   {17, 17, 8, 8, 16},    {35, 35, 8, 8, 16},
    {150, 150, 8, 8, 0},   {150, 150, 8, 8, 16}, {150, 150, 16, 4, 16}, {150, 150, 4, 16, 32},
    {150, 150, 12, 10, 0}, {40, 150, 8, 8, 16},  {41, 150, 8, 8, 0},    {1, 150, 8, 8, 16},
    {3, 149, 16, 8, 24},   {600, 600, 4, 4, 8},
};

template <class T>
struct Problem {
  Case c;
  Heads<T> q, k;
  KeyOrder order;
  explicit Problem(const Case& size)
      : c(size),
        q(normal_heads<T>(1, 4, size.queries, 12, 31)),
        k(normal_heads<T>(1, 2, size.keys, 12, 32)),
        order(
            size.segment > 0
                ? order_keys(
                      pare::reference, q.view(), k.view(),
                      {.segment = size.segment, .queries = 8, .share_kv_heads = true, .scale = 0.9})
                : KeyOrder::identity({1, 1, size.keys})) {}

  MeanPool selector() const {
    return {.row_block = c.row_block, .column_block = c.column_block, .segment = c.segment};
  }
  template <class B>
  SelectedBlocks select(const B& backend, const MeanPool& selector) const {
    if (c.segment == 0)
      return select_blocks(backend, q.view(), k.view(), selector, {.causal = true, .scale = 0.9});
    return select_blocks(backend, q.view(), k.view(), order, selector,
                         {.causal = true, .scale = 0.9});
  }
};

bool has(const BlockMask& mask, Index head, Index m, Index n) {
  const auto row = mask.row(0, head, m);
  return std::binary_search(row.begin(), row.end(), static_cast<std::int32_t>(n));
}

template <class P>
class Pool : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(Pool, pare::testing::BackendsAndScalars);

TYPED_TEST(Pool, KeepsTheBlocksOfTheDefinition) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases)
    for (const auto pooling : {BlockPooling::Mean, BlockPooling::Max})
      for (const auto padding : {BlockPadding::None, BlockPadding::Zeros})
        for (const float mass : {0.3f, 0.9f}) {
          const Problem<T> p(c);
          MeanPool selector = p.selector();
          selector.pooling = pooling;
          selector.padding = padding;
          selector.mass = mass;
          const SelectedBlocks wanted = p.select(pare::reference, selector);
          const SelectedBlocks got = p.select(this->backend(), selector);
          EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted))
              << c.queries << ' ' << c.keys << ' ' << c.segment << ' ' << mass;
          // A score is off by the error of a logit, whose terms are below 40 in sum.
          EXPECT_TRUE(within(got.mass, wanted.mass, 2 * Tolerance<T>::scaled_sum(40, 40)));
          EXPECT_GE(got.mass, static_cast<double>(mass) - 1e-5);
        }
}

/// Property 12 of the method: what is always in, and what never is.
TYPED_TEST(Pool, KeepsTheOwnSegmentAndTheFirstTokenAndNothingLater) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases) {
    if (c.segment == 0) continue;
    const Problem<T> p(c);
    MeanPool selector = p.selector();
    selector.mass = 0.01f;
    const SelectedBlocks blocks = p.select(this->backend(), selector);
    for (Index h = 0; h < 4; ++h) {
      const auto order = p.order.of(0, h / 2);
      const Index first = (std::ranges::find(order, 0u) - order.begin()) / c.column_block;
      for (Index m = 0; m < blocks.row_blocks(); ++m) {
        const Index low = m * c.row_block + c.keys - c.queries;
        const Index high = std::min((m + 1) * c.row_block, c.queries) - 1 + c.keys - c.queries;
        EXPECT_TRUE(has(blocks, h, m, first));
        for (Index n = 0; n < blocks.column_blocks(); ++n) {
          const Index segment = n * c.column_block / c.segment;
          if (segment >= low / c.segment && segment <= high / c.segment) {
            EXPECT_TRUE(has(blocks, h, m, n)) << m << ' ' << n;
          }
          if (segment > high / c.segment) {
            EXPECT_FALSE(has(blocks, h, m, n)) << m << ' ' << n;
          }
        }
      }
    }
  }
}

TYPED_TEST(Pool, MoreMassKeepsAllOfTheBlocksOfLess) {
  using T = typename TestFixture::Scalar;
  for (const Index segment : {0, 16}) {
    const Problem<T> p({150, 150, 8, 8, segment});
    MeanPool selector = p.selector();
    selector.mass = 0.05f;
    const SelectedBlocks least = p.select(this->backend(), selector);
    SelectedBlocks before = least;
    for (const float mass : {0.2f, 0.5f, 0.8f, 0.9f, 0.99f, 1.0f}) {
      selector.mass = mass;
      const SelectedBlocks blocks = p.select(this->backend(), selector);
      EXPECT_GE(blocks.mass, before.mass);
      for (Index h = 0; h < 4; ++h)
        for (Index m = 0; m < blocks.row_blocks(); ++m)
          EXPECT_TRUE(std::ranges::includes(blocks.row(0, h, m), before.row(0, h, m)));
      before = blocks;
    }
    EXPECT_GT(before.selected(), 2 * least.selected());
  }
}

TYPED_TEST(Pool, TheWholeMassIsExactAttention) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases)
    for (const float mass : {1.0f, 2.0f, std::numeric_limits<float>::infinity()}) {
      const Problem<T> p(c);
      const auto v = normal_heads<T>(1, 2, c.keys, 5, 33);
      MeanPool selector = p.selector();
      selector.mass = mass;
      const SelectedBlocks blocks = p.select(this->backend(), selector);
      EXPECT_EQ(blocks.mass, 1);
      EXPECT_EQ(blocks.density(true), 1);
      Heads<T> exact(1, 4, c.queries, 5), out(1, 4, c.queries, 5);
      attend(this->backend(), p.q.view(), p.k.view(), v.view(), exact.writable(), {.causal = true});
      attend(this->backend(), p.q.view(), p.k.view(), v.view(), out.writable(),
             {.causal = true, .order = &p.order, .mask = &blocks});
      // Two softmaxes of the same scores; a weight is off by the error of its logit.
      for (std::size_t i = 0; i < out.list.size(); ++i)
        ASSERT_TRUE(within(static_cast<double>(out.list[i]), static_cast<double>(exact.list[i]),
                           8 * Tolerance<T>::scaled_sum(static_cast<double>(c.keys) + 40, 5)))
            << c.queries << ' ' << c.keys << ' ' << c.segment;
    }
}

TYPED_TEST(Pool, TakesAMassForEachHead) {
  using T = typename TestFixture::Scalar;
  const Problem<T> p({150, 150, 8, 8, 16});
  MeanPool selector = p.selector();
  selector.head_masses = {0.2f, 0.9f, 1.0f, 0.5f};
  const SelectedBlocks blocks = p.select(this->backend(), selector);
  for (Index h = 0; h < 4; ++h) {
    MeanPool one = p.selector();
    one.mass = selector.head_masses[static_cast<std::size_t>(h)];
    const SelectedBlocks alone = p.select(this->backend(), one);
    for (Index m = 0; m < blocks.row_blocks(); ++m)
      EXPECT_TRUE(std::ranges::equal(blocks.row(0, h, m), alone.row(0, h, m))) << h << ' ' << m;
  }
}

TYPED_TEST(Pool, LeavesTheFirstTokenToItsScoreIfAsked) {
  using T = typename TestFixture::Scalar;
  const Problem<T> p({150, 150, 8, 8, 16});
  MeanPool selector = p.selector();
  selector.mass = 0.05f;
  const Index with = p.select(this->backend(), selector).selected();
  selector.force_first = false;
  EXPECT_LT(p.select(this->backend(), selector).selected(), with);
}

/// Property 15, not a theorem: on keys that all queries look at, order lowers the density.
TYPED_TEST(Pool, AnOrderLowersTheDensityOnHeavyHitters) {
  using T = typename TestFixture::Scalar;
  auto q = normal_heads<T>(1, 2, 1024, 16, 34), k = normal_heads<T>(1, 2, 1024, 16, 35);
  pare::testing::plant_heavy_hitters(q, k, 30, 100.0);
  const MeanPool selector{.row_block = 32, .column_block = 32, .segment = 128};
  const KeyOrder order = order_keys(this->backend(), q.view(), k.view(), {.segment = 128});
  const auto permuted =
      select_blocks(this->backend(), q.view(), k.view(), order, selector, {.causal = true});
  const auto natural =
      select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
  EXPECT_LT(permuted.density(true), 0.75 * natural.density(true));
}

/// Only the rows that may choose a NaN block are affected, and those keep everything.
TYPED_TEST(Pool, ANanKeepsAllAndStaysWithItsHead) {
  using T = typename TestFixture::Scalar;
  Problem<T> p({150, 150, 8, 8, 0});
  const SelectedBlocks before = p.select(this->backend(), p.selector());
  p.k(0, 1, 80, 2) = nan_value<T>;
  p.q(0, 0, 70, 1) = nan_value<T>;
  const SelectedBlocks blocks = p.select(this->backend(), p.selector());
  EXPECT_TRUE(std::isnan(blocks.mass));
  for (Index h = 0; h < 4; ++h)
    for (Index m = 0; m < blocks.row_blocks(); ++m) {
      const bool hit = h == 0 ? m == 70 / 8 : h >= 2 && m >= 80 / 8;
      if (hit) {
        EXPECT_EQ(static_cast<Index>(blocks.row(0, h, m).size()), m + 1);
      } else {
        EXPECT_TRUE(std::ranges::equal(blocks.row(0, h, m), before.row(0, h, m))) << h << ' ' << m;
      }
    }
}

/// Scores of -infinity weigh nothing, be it all that a row has.
TYPED_TEST(Pool, HiddenBlocksCountForNothing) {
  using T = typename TestFixture::Scalar;
  for (const auto pooling : {BlockPooling::Mean, BlockPooling::Max})
    for (const Case& c : {Case{150, 150, 8, 8, 0}, Case{149, 170, 8, 8, 16}}) {
      Problem<T> p(c);
      for (Index h = 0; h < 4; ++h)
        for (Index i = 0; i < c.queries; ++i) p.q(0, h, i, 0) = 1;
      for (Index h = 0; h < 2; ++h)
        for (Index j = 0; j < 40; ++j) p.k(0, h, j, 0) = -std::numeric_limits<T>::infinity();
      MeanPool selector = p.selector();
      selector.pooling = pooling;
      const SelectedBlocks wanted = p.select(pare::reference, selector);
      const SelectedBlocks blocks = p.select(this->backend(), selector);
      EXPECT_EQ(static_cast<const BlockMask&>(blocks), static_cast<const BlockMask&>(wanted));
      EXPECT_LT(blocks.density(true), 0.95);
      EXPECT_TRUE(within(blocks.mass, wanted.mass, 1e-4));
    }
}

/// The largest of numbers and a NaN is a NaN.
TYPED_TEST(Pool, AMaximumOverANanIsNone) {
  using T = typename TestFixture::Scalar;
  Problem<T> p({80, 80, 8, 8, 0});
  p.q(0, 0, 43, 1) = nan_value<T>;
  MeanPool selector = p.selector();
  selector.pooling = BlockPooling::Max;
  selector.mass = 0.3f;
  const SelectedBlocks blocks = p.select(this->backend(), selector);
  EXPECT_TRUE(std::isnan(blocks.mass));
  EXPECT_EQ(blocks.row(0, 0, 43 / 8).size(), 43 / 8 + 1);
}

TYPED_TEST(Pool, RefusesWhatDoesNotFit) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 2, 64, 4), k(1, 2, 64, 4), few(1, 2, 60, 4);
  const auto call = [&](const MeanPool& selector) {
    select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
  };
  EXPECT_NO_THROW(call({}));
  EXPECT_THROW(call({.row_block = 0}), std::invalid_argument);
  EXPECT_THROW(call({.column_block = 0}), std::invalid_argument);
  EXPECT_THROW(call({.column_block = -8}), std::invalid_argument);
  EXPECT_THROW(call({.segment = -128}), std::invalid_argument);
  EXPECT_THROW(call({.segment = 64}), std::invalid_argument) << "not a multiple of the block";
  EXPECT_THROW(call({.mass = 0.0f}), std::invalid_argument);
  EXPECT_THROW(call({.mass = -0.5f}), std::invalid_argument);
  EXPECT_THROW(call({.mass = nan_value<float>}), std::invalid_argument);
  EXPECT_THROW(call({.head_masses = {0.5f, nan_value<float>}}), std::invalid_argument);
  EXPECT_THROW(call({.head_masses = {0.5f}}), std::invalid_argument);
  EXPECT_THROW(call({.head_masses = {0.5f, 0.5f, 0.5f}}), std::invalid_argument);
  for (const int number : {-1, 2, 77}) {
    refusal([&] { call({.pooling = static_cast<BlockPooling>(number)}); },
            "attention::select_blocks", "pooling");
    refusal([&] { call({.padding = static_cast<BlockPadding>(number)}); },
            "attention::select_blocks", "padding");
  }
  EXPECT_THROW(select_blocks(this->backend(), q.view(), few.view(), MeanPool{}, {.causal = true}),
               std::invalid_argument);
  EXPECT_THROW(select_blocks(this->backend(), q.view(), k.view(), MeanPool{}, {.causal = false}),
               std::invalid_argument);
}

TYPED_TEST(Pool, RefusesAnOrderThatLeavesItsSegments) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 1, 64, 4);
  std::vector<std::uint32_t> swapped(64);
  for (std::uint32_t j = 0; j < 64; ++j) swapped[j] = j;
  std::swap(swapped[15], swapped[16]);
  const KeyOrder order({1, 1, 64}, swapped);
  const auto call = [&](Index segment) {
    select_blocks(this->backend(), q.view(), q.view(), order,
                  MeanPool{.row_block = 8, .column_block = 8, .segment = segment},
                  {.causal = true});
  };
  EXPECT_NO_THROW(call(32));
  EXPECT_THROW(call(16), std::invalid_argument);
  EXPECT_THROW(call(0), std::invalid_argument);
}

// A block larger than the tensors is the one block that there is.
TYPED_TEST(Pool, TakesBlocksOfAnySize) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 2, 40, 8, 38), k = normal_heads<T>(1, 2, 50, 8, 39);
  constexpr Index huge = std::numeric_limits<Index>::max();
  const auto lists = [&](const MeanPool& selector) {
    const auto blocks =
        select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
    std::vector<std::int32_t> columns(blocks.columns().begin(), blocks.columns().end());
    return std::pair{columns, blocks.mass};
  };
  for (const Index block : {huge, huge - 127, Index{1} << 62})
    for (const auto pooling : {BlockPooling::Mean, BlockPooling::Max}) {
      const auto got = [&](Index rows, Index columns, Index segment) {
        return lists({rows, columns, 0.5f, {}, segment, true, pooling});
      };
      EXPECT_EQ(got(block, 16, 0), got(40, 16, 0));
      EXPECT_EQ(got(16, block, 0), got(16, 50, 0));
      EXPECT_EQ(got(block, block, 0), got(40, 50, 0));
      EXPECT_EQ(got(16, block, block), got(16, 50, 50));
      EXPECT_EQ(got(16, 1, block), got(16, 1, 50));
      EXPECT_EQ(got(block, block, 0).first.size(), 2u) << "one block for each head";
    }
}

// Of four equal scores two are half, and no third is needed.
TYPED_TEST(Pool, StopsWhereTheMassIsReachedExactly) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 1, 16, 4), k(1, 1, 16, 4);
  MeanPool selector{.row_block = 4, .column_block = 4, .mass = 0.5f, .force_first = false};
  const auto row = [&] {
    const auto blocks =
        select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = true});
    const auto columns = blocks.row(0, 0, 3);
    return std::vector<std::int32_t>(columns.begin(), columns.end());
  };
  EXPECT_EQ(row(), (std::vector<std::int32_t>{0, 1, 3})) << "the diagonal is not counted";
  selector.mass = 0.75f;
  EXPECT_EQ(row(), (std::vector<std::int32_t>{0, 1, 2, 3}));
}

TEST(PoolThreads, DoNotChangeABit) {
  for (const Index heads : {1, 2, 5}) {
    const auto q = normal_heads<float>(2, heads, 700, 16, 36),
               k = normal_heads<float>(2, heads, 700, 16, 37);
    const KeyOrder order = order_keys(q.view(), k.view(), {.segment = 16});
    const MeanPool selector{.row_block = 8, .column_block = 8, .segment = 16};
    const auto one = select_blocks(q.view(), k.view(), order, selector, {.causal = true});
    for (const int threads : {2, 3, 16}) {
      const auto many = select_blocks(pare::simd.threads(threads), q.view(), k.view(), order,
                                      selector, {.causal = true});
      EXPECT_EQ(static_cast<const BlockMask&>(many), static_cast<const BlockMask&>(one));
      EXPECT_TRUE(pare::testing::same_bits(many.mass, one.mass));
    }
  }
}

template <class S>
class PoolStorage : public testing::Test {};
using Storages = testing::Types<pare::bf16, pare::f16>;
TYPED_TEST_SUITE(PoolStorage, Storages);

/// Means are taken in float, so storage changes nothing but the numbers themselves.
TYPED_TEST(PoolStorage, KeepsTheBlocksOfTheDefinition) {
  for (const Case& c : cases) {
    const Problem<TypeParam> p(c);
    const SelectedBlocks wanted = p.select(pare::reference, p.selector());
    const SelectedBlocks got = p.select(pare::simd, p.selector());
    EXPECT_EQ(static_cast<const BlockMask&>(got), static_cast<const BlockMask&>(wanted))
        << c.queries << ' ' << c.keys << ' ' << c.segment;
  }
}

}  // namespace
}  // namespace attention_mean_pool_test
