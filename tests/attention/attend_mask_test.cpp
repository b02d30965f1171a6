// SPDX-License-Identifier: Apache-2.0
// Block masks and key orders: what is not selected does not exist, and order does not matter.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <pare/attention/attend.hpp>
#include <pare/core/permutation.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_mask_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::testing::attended;
using pare::testing::change;
using pare::testing::Coins;
using pare::testing::difference;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::random_orders;
using pare::testing::same_bits;
using pare::testing::Sees;
using pare::testing::Sizes;

template <class Case>
struct AttendMaskTest : testing::Test {
  using Storage = typename Case::scalar;
  using Compute = compute_t<Storage>;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(AttendMaskTest, pare::testing::AttendBackends);

using Blocks = std::pair<Index, Index>;
const std::vector<Blocks> block_sizes{{128, 128}, {64, 32}, {17, 23}, {400, 16}, {1, 1}, {7, 300}};

BlockMask::Shape shape_of(const Sizes& s, Index batch, Index heads, const Blocks& blocks) {
  return {batch, heads, s.queries, s.keys, blocks.first, blocks.second};
}

/// The slot of a position, for each row of an order.
std::vector<Index> slots_of(const KeyOrder& order) {
  const Index keys = order.shape().keys;
  std::vector<Index> slots(order.positions().size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto row = static_cast<Index>(i) / keys;
    slots[static_cast<std::size_t>(row * keys + order.positions()[i])] =
        static_cast<Index>(i) % keys;
  }
  return slots;
}

/// What positions and a mask of coins let a query see.
struct Selected {
  Sees sees;
  Coins coins;
  BlockMask::Shape shape;
  const KeyOrder* order = nullptr;
  Index heads_of_order_row = 1;  ///< query heads that share a row of the order
  std::vector<Index> slots{};

  Selected(const Sees& s, const Coins& c, const BlockMask::Shape& m)
      : sees(s), coins(c), shape(m) {}
  Selected(const Sees& s, const Coins& c, const BlockMask::Shape& m, const KeyOrder& o, Index heads)
      : sees(s), coins(c), shape(m), order(&o), heads_of_order_row(heads), slots(slots_of(o)) {}

  bool operator()(Index b, Index h, Index i, Index j) const {
    if (!sees(b, h, i, j)) return false;
    Index slot = j;
    if (order != nullptr) {
      const KeyOrder::Shape& o = order->shape();
      const Index row = (o.batch == 1 ? 0 : b) * o.heads + h / heads_of_order_row;
      slot = slots[static_cast<std::size_t>(row * o.keys + j)];
    }
    return coins(shape.batch == 1 ? 0 : b, shape.heads == 1 ? 0 : h, i / shape.row_block,
                 slot / shape.column_block);
  }
};

TYPED_TEST(AttendMaskTest, AFullMaskIsDense) {
  const Sizes sizes{1, 4, 2, 100, 130, 16, 8};
  const Inputs<typename TestFixture::Storage> x(sizes);
  for (const Blocks& blocks : block_sizes) {
    const auto shape = shape_of(sizes, 1, 1, blocks);
    const BlockMask full = BlockMask::from_predicate(shape, Coins{1, 100});
    const BlockMask causal = BlockMask::causal(shape);
    ASSERT_EQ(full.selected(), shape.row_blocks() * shape.column_blocks());
    expect_attention(x, attended(this->backend(), x, {.mask = &full}), this->tolerance,
                     Sees{100, 130});
    for (const BlockMask* mask : {&full, &causal})
      expect_attention(x, attended(this->backend(), x, {.causal = true, .mask = mask}),
                       this->tolerance, Sees{100, 130, true});
  }
}

TYPED_TEST(AttendMaskTest, RandomMasksOfAnyBlockSizes) {
  const Sizes sizes{2, 4, 2, 120, 150, 8, 4};
  const Inputs<typename TestFixture::Storage> x(sizes);
  std::uint64_t seed = 0;
  for (const Blocks& blocks : block_sizes)
    for (const bool causal : {true, false}) {
      const Coins coins{++seed, 60};
      const auto shape =
          shape_of(sizes, seed % 3 == 0 ? 2 : 1, seed % 3 == 1 ? 1 : sizes.heads, blocks);
      const BlockMask mask = BlockMask::from_predicate(shape, coins);
      expect_attention(x, attended(this->backend(), x, {.causal = causal, .mask = &mask}),
                       this->tolerance, Selected({120, 150, causal}, coins, shape));
    }
}

TYPED_TEST(AttendMaskTest, MaskWindowSinksAndLengths) {
  const Sizes sizes{2, 4, 2, 100, 130, 8, 4};
  const Inputs<typename TestFixture::Storage> x(sizes);
  const std::vector<Index> lengths{129, 64};
  for (const Blocks& blocks : block_sizes) {
    const Coins coins{7, 60};
    const auto shape = shape_of(sizes, 1, 4, blocks);
    const BlockMask mask = BlockMask::from_predicate(shape, coins);
    expect_attention(
        x, attended(this->backend(), x, {.causal = true, .window = 40, .sinks = 9, .mask = &mask}),
        this->tolerance, Selected({100, 130, true, 40, 9}, coins, shape));
    expect_attention(
        x, attended(this->backend(), x, {.causal = true, .mask = &mask, .key_lengths = lengths}),
        this->tolerance, Selected({100, 130, true, 0, 0, lengths}, coins, shape));
  }
}

// More query heads on one key head than one item holds, each with blocks of its own.
TYPED_TEST(AttendMaskTest, ManyHeadsOnOneKeyHeadEachWithItsBlocks) {
  for (const Index queries : {1, 5}) {
    const Sizes sizes{1, 70, 1, queries, 60, 4, 3};
    const Inputs<typename TestFixture::Storage> x(sizes);
    const Coins coins{3, 40};
    const auto shape = shape_of(sizes, 1, 70, {2, 8});
    const BlockMask mask = BlockMask::from_predicate(shape, coins);
    expect_attention(x, attended(this->backend(), x, {.mask = &mask}), this->tolerance,
                     Selected({queries, 60}, coins, shape));
  }
}

TYPED_TEST(AttendMaskTest, EmptyRowsAreZero) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const Sizes sizes{1, 4, 2, 100, 100, 8, 5};
  Inputs<S> x(sizes);
  const auto keep = [](Index, Index h, Index r, Index) { return h != 1 && (h != 2 || r != 1); };
  const auto shape = shape_of(sizes, 1, 4, {32, 16});
  const BlockMask mask = BlockMask::from_predicate(shape, keep);
  const auto expect_empty = [&](const Outputs<S>& y) {
    for (Index h = 0; h < 4; ++h)
      for (Index i = 0; i < 100; ++i) {
        const bool empty = h == 1 || (h == 2 && i / 32 == 1);
        EXPECT_EQ(y.lse(0, h, i, 0) == -std::numeric_limits<T>::infinity(), empty) << h << ' ' << i;
        for (Index c = 0; c < 5; ++c)
          EXPECT_EQ(same_bits(y.out(0, h, i, c), T(0)), empty) << h << ' ' << i;
      }
  };
  const Outputs<S> y = attended(this->backend(), x, {.causal = true, .mask = &mask});
  expect_empty(y);
  expect_attention(x, y, this->tolerance, [&](Index b, Index h, Index i, Index j) {
    return j <= i && keep(b, h, i / 32, j / 16);
  });
  // What an unselected row does not see may be anything.
  for (Index i = 0; i < 100; ++i)
    x.q(0, 1, i, 3) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  expect_empty(attended(this->backend(), x, {.causal = true, .mask = &mask}));
  const BlockMask nothing = BlockMask::from_predicate(shape, Coins{1, 0});
  for (const T out : attended(this->backend(), x, {.mask = &nothing}).out.list)
    ASSERT_TRUE(same_bits(out, T(0)));
}

TYPED_TEST(AttendMaskTest, ConstantValuesGiveTheConstantUnderAnyMask) {
  using T = typename TestFixture::Compute;
  const Sizes sizes{1, 4, 1, 150, 300, 16, 8};
  Inputs<typename TestFixture::Storage> x(sizes);
  change(x.v, [](T) { return T(3); });
  const KeyOrder order({1, 1, 300}, random_orders(1, 300, 4));
  const BlockMask mask = BlockMask::from_predicate(shape_of(sizes, 1, 4, {30, 20}), Coins{5, 30});
  const auto y = attended(this->backend(), x, {.causal = true, .order = &order, .mask = &mask});
  // Sums of the same weights, below and above, each with at most 301 roundings.
  const double rounding = 2 * pare::testing::Tolerance<T>::gamma(310) * 3;
  Index constant = 0;
  for (Index h = 0; h < 4; ++h)
    for (Index i = 0; i < 150; ++i) {
      const bool empty = std::isinf(y.lse(0, h, i, 0));
      constant += empty ? 0 : 1;
      for (Index c = 0; c < 8; ++c)
        ASSERT_LE(std::abs(y.out(0, h, i, c) - (empty ? T(0) : T(3))), empty ? 0 : rounding);
    }
  EXPECT_GT(constant, 500);
}

TYPED_TEST(AttendMaskTest, AnyKeyOrderIsDense) {
  const Sizes sizes{2, 6, 2, 100, 140, 8, 4};
  const Inputs<typename TestFixture::Storage> x(sizes);
  const std::vector<Index> lengths{140, 55};
  for (const Index batch : {1, 2})
    for (const Index heads : {1, 2, 6}) {
      const KeyOrder order({batch, heads, 140}, random_orders(batch * heads, 140, 9));
      expect_attention(x, attended(this->backend(), x, {.causal = true, .order = &order}),
                       this->tolerance, Sees{100, 140, true});
      if (batch == 1) continue;
      expect_attention(
          x,
          attended(this->backend(), x, {.causal = true, .window = 50, .sinks = 7, .order = &order}),
          this->tolerance, Sees{100, 140, true, 50, 7});
      expect_attention(
          x,
          attended(this->backend(), x, {.causal = true, .order = &order, .key_lengths = lengths}),
          this->tolerance, Sees{100, 140, true, 0, 0, lengths});
    }
}

TYPED_TEST(AttendMaskTest, TheNaturalOrderIsNoOrder) {
  const Inputs<typename TestFixture::Storage> x(Sizes{1, 2, 1, 130, 170, 8, 4});
  const KeyOrder order = KeyOrder::identity({1, 1, 170});
  EXPECT_LE(difference(attended(this->backend(), x, {.causal = true, .order = &order}),
                       attended(this->backend(), x, {.causal = true})),
            2 * this->tolerance);
}

TYPED_TEST(AttendMaskTest, AMaskIsOverSlotsOfTheOrder) {
  const Sizes sizes{2, 6, 2, 90, 120, 8, 4};
  const Inputs<typename TestFixture::Storage> x(sizes);
  for (const Blocks& blocks : {Blocks{64, 32}, Blocks{17, 1}})
    for (const Index order_heads : {1, 2, 6})
      for (const Index mask_heads : {1, 6}) {
        const KeyOrder order({2, order_heads, 120}, random_orders(2 * order_heads, 120, 11));
        const Coins coins{static_cast<std::uint64_t>(blocks.first), 50};
        const auto shape = shape_of(sizes, 2, mask_heads, blocks);
        const BlockMask mask = BlockMask::from_predicate(shape, coins);
        expect_attention(
            x, attended(this->backend(), x, {.causal = true, .order = &order, .mask = &mask}),
            this->tolerance, Selected({90, 120, true}, coins, shape, order, 6 / order_heads));
      }
}

TYPED_TEST(AttendMaskTest, AnyOrderOfQueriesGivesTheSameRows) {
  using S = typename TestFixture::Storage;
  const Inputs<S> x(Sizes{1, 1, 1, 100, 80, 8, 4});
  const auto order = random_orders(1, 100, 3);
  Inputs<S> moved = x;
  for (Index i = 0; i < 100; ++i)
    for (Index c = 0; c < 8; ++c)
      moved.q(0, 0, i, c) = x.q(0, 0, order[static_cast<std::size_t>(i)], c);
  const Outputs<S> y = attended(this->backend(), moved);
  Outputs<S> back = y;
  for (Index i = 0; i < 100; ++i) {
    const Index to = order[static_cast<std::size_t>(i)];
    back.lse(0, 0, to, 0) = y.lse(0, 0, i, 0);
    for (Index c = 0; c < 4; ++c) back.out(0, 0, to, c) = y.out(0, 0, i, c);
  }
  EXPECT_LE(difference(back, attended(this->backend(), x)), 2 * this->tolerance);
}

TYPED_TEST(AttendMaskTest, StatsTellTheShareOfBlocks) {
  const Sizes sizes{1, 3, 1, 70, 70, 4, 3};
  const Inputs<typename TestFixture::Storage> x(sizes);
  const Coins coins{21, 50};
  const BlockMask mask = BlockMask::from_predicate(shape_of(sizes, 1, 3, {16, 16}), coins);
  double all = 0, below = 0;
  for (Index h = 0; h < 3; ++h)
    for (Index r = 0; r < 5; ++r)
      for (Index c = 0; c < 5; ++c) {
        all += coins(0, h, r, c) ? 1.0 / 75 : 0;
        below += c <= r && coins(0, h, r, c) ? 1.0 / 45 : 0;
      }
  ASSERT_NE(all, below);
  const auto density = [&](pare::attention::AttendOptions options) {
    const auto stats = attended(this->backend(), x, options).stats;
    EXPECT_TRUE(std::isnan(stats.selected_mass));
    EXPECT_EQ(stats.select_seconds, 0);
    return stats.density;
  };
  EXPECT_NEAR(density({.mask = &mask}), all, 1e-15);
  EXPECT_NEAR(density({.causal = true, .mask = &mask}), below, 1e-15);
  EXPECT_EQ(density({.causal = true}), 1);
  EXPECT_EQ(density({}), 1);
}

}  // namespace
}  // namespace attention_attend_mask_test
