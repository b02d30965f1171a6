// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <stdexcept>
#include <vector>

#include <pare/attention/select_blocks.hpp>

#include "attention/heads.hpp"
#include "support/backends.hpp"

namespace attention_select_blocks_test {
namespace {

using pare::Index;
using pare::attention::BlockLists;
using pare::attention::BlockSelector;
using pare::attention::KeyOrder;
using pare::attention::select_blocks;
using pare::attention::SelectedBlocks;
using pare::attention::SelectorCall;
using pare::attention::SelectorHead;
using pare::attention::SelectorHooks;
using pare::attention::SelectorLayer;
using pare::testing::Heads;

/// A user's selector: the diagonal, and how much of it is left to a function.
struct Diagonal : SelectorHooks {
  Index row_block = 4, column_block = 8;

  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
    for (Index m = keep.rows(); m-- > 0;) {
      const Index n = head.position(m * row_block) / column_block;
      keep.add(m, n);
      if (n > 0) keep.add(m, 0);
      keep.add(m, n);  // twice
    }
    return 0.25 + static_cast<double>(head.head + 10 * head.batch + 100 * head.heads);
  }
  void validate(const char* function, const SelectorCall& call) const {
    pare::check(call.queries <= call.keys, function, "queries", call.queries, call.keys);
  }
};

/// Records the first key and query that a head is given, as block numbers.
struct FirstKey : SelectorHooks {
  Index row_block = 1, column_block = 1;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
    keep.add(0, static_cast<Index>(static_cast<double>(head.key(0)[0])));
    keep.add(1, static_cast<Index>(static_cast<double>(head.query(1)[0])));
    return head.scale;
  }
};

struct OutOfRange : SelectorHooks {
  Index row_block = 4, column_block = 4;
  Index column = 0;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
    if (head.head == 1) keep.add(0, column);
    return 1;
  }
};

/// Throws while heads run, maybe on several threads.
struct Refuses : SelectorHooks {
  Index row_block = 4, column_block = 4;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists&) const {
    pare::check(head.heads == 3 && head.head != 2, "test", "head", head.head, "another");
    return 1;
  }
};

/// Counts how many heads run at once by the scratch they are given.
struct WholeHeads : SelectorHooks {
  static constexpr bool shares_rows = true;
  Index row_block = 4, column_block = 4;
  template <class B, class S>
  double select(const B& backend, const SelectorHead<S>&, BlockLists& keep) const {
    keep.add(0, 0);
    if constexpr (pare::KernelBackend<B>) return pare::worker_count(backend.executor, 100);
    return 0;
  }
};

/// A selector of layers: each head keeps the block whose number is the mean of the first scalars of
/// all its queries, of all heads.
struct MeanOfHeads : SelectorHooks {
  Index row_block = 4, column_block = 1;
  template <class B, class S>
  double select_layer(const B&, const SelectorLayer<S>& layer, std::span<BlockLists> keep) const {
    const SelectorCall call = layer.call();
    for (Index b = 0; b < call.batch; ++b)
      for (Index h = 0; h < call.heads; ++h) {
        double mean = 0;
        for (Index other = 0; other < call.heads; ++other)
          mean +=
              static_cast<double>(layer.of(b, other).query(0)[0]) / static_cast<double>(call.heads);
        BlockLists& head = keep[static_cast<std::size_t>(b * call.heads + h)];
        for (Index m = 0; m < head.rows(); ++m)
          head.add(m, static_cast<Index>(mean) + static_cast<Index>(layer.of(b, h).key(0)[0]));
      }
    return layer.scale + static_cast<double>(keep.size());
  }
};

static_assert(BlockSelector<Diagonal> && BlockSelector<FirstKey> && BlockSelector<WholeHeads>);
using pare::attention::HeadSelector;
using pare::attention::LayerSelector;
static_assert(HeadSelector<Diagonal> && !LayerSelector<Diagonal>);
static_assert(LayerSelector<MeanOfHeads> && !HeadSelector<MeanOfHeads>);
static_assert(!BlockSelector<int>);

/// Has what a selector has, and no hooks.
struct NoHooks {
  Index row_block = 4, column_block = 4;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>&, BlockLists&) const {
    return 1;
  }
};
struct OwnHooks : NoHooks {
  static constexpr bool shares_rows = true;
  void validate(const char*, const SelectorCall&) const {}
  bool keeps_all(const SelectorCall&) const { return false; }
};
static_assert(!BlockSelector<NoHooks> && BlockSelector<OwnHooks>);

template <class P>
class SelectBlocks : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(SelectBlocks, pare::testing::BackendsAndScalars);

TYPED_TEST(SelectBlocks, CollectsTheBlocksOfEveryHead) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(2, 4, 10, 3), k(2, 2, 20, 3);
  const SelectedBlocks blocks = select_blocks(this->backend(), q.view(), k.view(), Diagonal{});
  EXPECT_EQ(blocks.shape(), (pare::attention::BlockMask::Shape{2, 4, 10, 20, 4, 8}));
  using Row = std::vector<std::int32_t>;
  const Row wanted[3] = {{0, 1}, {0, 1}, {0, 2}};
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 4; ++h)
      for (Index m = 0; m < 3; ++m) {
        const auto row = blocks.row(b, h, m);
        EXPECT_EQ(Row(row.begin(), row.end()), wanted[m]);
      }
  EXPECT_NEAR(blocks.mass, 0.25 + 1.5 + 5 + 400, 1e-12) << "the mean over heads";
  EXPECT_GE(blocks.seconds, 0);
}

TYPED_TEST(SelectBlocks, GivesEachHeadItsKeysInTheirOrder) {
  using T = typename TestFixture::Scalar;
  Heads<T> q(1, 4, 5, 1), k(1, 2, 5, 1);
  for (Index h = 0; h < 4; ++h) q(0, h, 1, 0) = static_cast<T>(h);
  for (Index h = 0; h < 2; ++h)
    for (Index j = 0; j < 5; ++j) k(0, h, j, 0) = static_cast<T>((j + h) % 5);
  const auto first = [](const SelectedBlocks& blocks, Index head, Index row) {
    return Index{blocks.row(0, head, row)[0]};
  };
  const auto plain = select_blocks(this->backend(), q.view(), k.view(), FirstKey{});
  const KeyOrder shared({1, 2, 5}, {2, 0, 1, 3, 4, 3, 0, 1, 2, 4});
  const auto by_kv = select_blocks(this->backend(), q.view(), k.view(), shared, FirstKey{});
  const KeyOrder own({1, 4, 5}, {2, 0, 1, 3, 4, 3, 0, 1, 2, 4, 1, 0, 2, 3, 4, 0, 1, 2, 3, 4});
  const auto by_head =
      select_blocks(this->backend(), q.view(), k.view(), own, FirstKey{}, {.scale = 0.75});
  const Index kv_key[4] = {2, 2, 4, 4}, head_key[4] = {2, 3, 2, 1};
  for (Index h = 0; h < 4; ++h) {
    EXPECT_EQ(first(plain, h, 0), h / 2);
    EXPECT_EQ(first(plain, h, 1), h);
    EXPECT_EQ(first(by_kv, h, 0), kv_key[h]);
    EXPECT_EQ(first(by_head, h, 0), head_key[h]);
  }
  EXPECT_EQ(plain.mass, 1) << "1 / sqrt(dim)";
  EXPECT_EQ(by_head.mass, 0.75);
}

TYPED_TEST(SelectBlocks, ShowsASelectorOfLayersAllHeads) {
  using T = typename TestFixture::Scalar;
  Heads<T> q(2, 4, 5, 1), k(2, 2, 20, 1);
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 4; ++h) {
      q(b, h, 0, 0) = static_cast<T>(2 * h + 4 * b);  // means 3 and 7
      k(b, h / 2, 0, 0) = static_cast<T>(h / 2);
      k(b, h / 2, 1, 0) = static_cast<T>(10);
    }
  const SelectedBlocks blocks =
      select_blocks(this->backend(), q.view(), k.view(), MeanOfHeads{}, {.scale = 0.5});
  EXPECT_EQ(blocks.shape(), (pare::attention::BlockMask::Shape{2, 4, 5, 20, 4, 1}));
  EXPECT_EQ(blocks.mass, 0.5 + 8);
  std::vector<std::uint32_t> slots(20);
  std::iota(slots.begin(), slots.end(), 0u);
  std::swap(slots[0], slots[1]);
  const auto ordered = select_blocks(this->backend(), q.view(), k.view(),
                                     KeyOrder({1, 1, 20}, slots), MeanOfHeads{});
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 4; ++h)
      for (Index m = 0; m < 2; ++m) {
        EXPECT_EQ(blocks.row(b, h, m)[0], 3 + 4 * b + h / 2);
        EXPECT_EQ(ordered.row(b, h, m)[0], 3 + 4 * b + 10);
      }
}

/// Says what it was told.
struct Causality : SelectorHooks {
  Index row_block = 4, column_block = 4;
  template <class B, class S>
  double select(const B&, const SelectorHead<S>& head, BlockLists&) const {
    return head.causal ? 1 : 0;
  }
  void validate(const char*, const SelectorCall& call) const {
    if (call.heads != 1 || call.kv_heads != 1 || call.queries != 8 || call.ordered)
      throw std::logic_error("not the call");
    if (seen != nullptr) *seen = call.causal;
  }
  bool* seen = nullptr;
};

TYPED_TEST(SelectBlocks, IsCausalWhereAttentionWithTheSameOptionsIs) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 1, 8, 4);
  const auto causal = [&](const auto&... options) {
    return select_blocks(this->backend(), q.view(), q.view(), Causality{}, options...).mass == 1;
  };
  EXPECT_EQ(causal(), pare::attention::AttendOptions{}.causal.value_or(false));
  EXPECT_EQ(causal(pare::attention::SelectOptions{.scale = 1}),
            pare::attention::AttendOptions{.scale = 1}.causal.value_or(false));
  EXPECT_TRUE(causal(pare::attention::SelectOptions{.causal = true}));
  bool told = false;
  select_blocks(this->backend(), q.view(), q.view(), Causality{{}, 4, 4, &told}, {.causal = true});
  EXPECT_TRUE(told);
}

TYPED_TEST(SelectBlocks, RefusesWhatDoesNotFit) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 2, 8, 4), k(1, 2, 8, 4), other(1, 2, 8, 5), three(1, 3, 8, 4),
      few(1, 2, 4, 4);
  const auto call = [&](const Heads<T>& a, const Heads<T>& b, const auto& selector,
                        const pare::attention::SelectOptions& options = {}) {
    select_blocks(this->backend(), a.view(), b.view(), selector, options);
  };
  EXPECT_NO_THROW(call(q, k, Diagonal{}));
  EXPECT_THROW(call(q, other, Diagonal{}), std::invalid_argument);
  EXPECT_THROW(call(three, k, Diagonal{}), std::invalid_argument);
  EXPECT_THROW(call(q, few, Diagonal{}), std::invalid_argument) << "validate";
  EXPECT_THROW(call(q, k, Diagonal{}, {.scale = -1.0}), std::invalid_argument);
  EXPECT_THROW(call(q, k, Diagonal{{}, 0}), std::invalid_argument);
  EXPECT_NO_THROW(call(q, k, OutOfRange{{}, 4, 4, 1}));
  EXPECT_THROW(call(q, k, OutOfRange{{}, 4, 4, 2}), std::invalid_argument);
  EXPECT_THROW(call(q, k, OutOfRange{{}, 4, 4, -1}), std::invalid_argument);
  EXPECT_THROW(call(three, three, Refuses{}), std::invalid_argument);
  const KeyOrder order = KeyOrder::identity({1, 2, 7});
  EXPECT_THROW(select_blocks(this->backend(), q.view(), k.view(), order, Diagonal{}),
               std::invalid_argument);
}

/// The message of the std::invalid_argument that a call throws.
template <class F>
std::string refusal(const F& call) {
  try {
    call();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "nothing was thrown";
}

TEST(BlockLists, RefuseABlockOutsideTheMask) {
  BlockLists lists(3, 5);
  constexpr Index huge = std::numeric_limits<Index>::max(), low = std::numeric_limits<Index>::min();
  for (const Index row : {Index{-1}, Index{3}, huge, low})
    EXPECT_EQ(refusal([&] { lists.add(row, 0); }).rfind("pare::attention::BlockLists: row", 0), 0u);
  for (const Index column : {Index{-1}, Index{5}, Index{1} << 32, huge, low})
    EXPECT_EQ(refusal([&] { lists.add(2, column); }).rfind("pare::attention::BlockLists: row", 0),
              0u);
  lists.add(2, 4);
  lists.add(0, 0);
  using Lists = std::vector<std::vector<std::int32_t>>;
  EXPECT_EQ(lists.take(), (Lists{{0}, {}, {4}}));
  EXPECT_EQ(lists.rows(), 0) << "taken";
  EXPECT_THROW(lists.add(0, 0), std::invalid_argument);
  EXPECT_THROW(BlockLists(-1, 4), std::invalid_argument);
  EXPECT_THROW(BlockLists(4, -1), std::invalid_argument);
  EXPECT_THROW(BlockLists(4, Index{1} << 31), std::invalid_argument);
}

TEST(SelectorHead, RefusesTokensThatAreNotThere) {
  const std::vector<float> tokens(12);
  const std::vector<std::uint32_t> order{2, 0, 1, 3};
  SelectorHead<float> head;
  EXPECT_THROW(head.key(0), std::invalid_argument);
  EXPECT_THROW(head.query(0), std::invalid_argument);
  head.q = {tokens.data(), {2, 3}, {3, 1}};
  head.k = pare::TensorView<const float, 2>{tokens.data(), {4, 3}, {3, 1}};
  EXPECT_EQ(head.key(3), tokens.data() + 9);
  EXPECT_EQ(head.query(1), tokens.data() + 3);
  for (const Index i : {-1, 4}) EXPECT_THROW(head.key(i), std::invalid_argument);
  for (const Index i : {-1, 2}) EXPECT_THROW(head.query(i), std::invalid_argument);
  head.order = order;
  EXPECT_EQ(head.key(0), tokens.data() + 6);
  head.order = head.order.first(3);
  EXPECT_THROW(head.key(3), std::invalid_argument);
}

TYPED_TEST(SelectBlocks, TakesNothing) {
  using T = typename TestFixture::Scalar;
  const Heads<T> none(1, 2, 0, 4), no_batch(0, 2, 8, 4), keys(1, 2, 8, 4);
  EXPECT_EQ(select_blocks(this->backend(), none.view(), keys.view(), Diagonal{}).selected(), 0);
  EXPECT_EQ(select_blocks(this->backend(), no_batch.view(), no_batch.view(), Diagonal{}).selected(),
            0);
}

TEST(SelectBlocksThreads, AreLeftToASelectorThatSharesRows) {
  const Heads<float> q(1, 2, 8, 4);
  const pare::testing::ReversePool four{4}, two{2};
  EXPECT_EQ(select_blocks(pare::simd.on(four), q.view(), q.view(), WholeHeads{}).mass, 4);
  EXPECT_EQ(select_blocks(pare::simd.on(two), q.view(), q.view(), WholeHeads{}).mass, 1);
  EXPECT_EQ(select_blocks(pare::simd, q.view(), q.view(), WholeHeads{}).mass, 1);
}

TEST(SelectBlocksThreads, ReadSixteenBitKeys) {
  const Heads<pare::bf16> q(1, 2, 8, 4);
  EXPECT_EQ(select_blocks(pare::simd, q.view(), q.view(), Diagonal{}).selected(), 4);
}

}  // namespace
}  // namespace attention_select_blocks_test
