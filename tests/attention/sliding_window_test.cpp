// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include <pare/attention/attend.hpp>
#include <pare/attention/sliding_window.hpp>

#include "attention/heads.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace attention_sliding_window_test {
namespace {

using pare::Index;
using pare::attention::attend;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::attention::select_blocks;
using pare::attention::SlidingWindow;
using pare::testing::Heads;
using pare::testing::normal_heads;

template <class P>
class Window : public testing::Test {
 protected:
  using Scalar = typename P::scalar;
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(Window, pare::testing::BackendsAndScalars);

struct Case {
  Index queries, keys, row_block, column_block, window, sinks;
};
constexpr Case cases[] = {
    {50, 50, 8, 8, 1, 0},     {50, 50, 8, 8, 9, 3},  {50, 50, 7, 5, 20, 11},
    {50, 50, 16, 4, 200, 60}, {13, 50, 4, 8, 10, 4}, {1, 50, 128, 128, 5, 0},
    {1, 50, 8, 8, 8, 1},      {30, 12, 8, 8, 4, 2},  {50, 50, 1, 1, 5, 2},
    {0, 50, 8, 8, 4, 2},
};

/// A block is kept exactly if some query of it sees some key of it.
TYPED_TEST(Window, KeepsTheBlocksThatHoldAVisibleKey) {
  using T = typename TestFixture::Scalar;
  for (const Case& c : cases)
    for (const bool causal : {true, false}) {
      const Heads<T> q(1, 1, c.queries, 2), k(1, 1, c.keys, 2);
      const SlidingWindow selector{c.row_block, c.column_block, c.window, c.sinks};
      const auto blocks =
          select_blocks(this->backend(), q.view(), k.view(), selector, {.causal = causal});
      const auto wanted =
          BlockMask::from_predicate(blocks.shape(), [&](Index, Index, Index row, Index column) {
            for (Index i = row * c.row_block; i < std::min((row + 1) * c.row_block, c.queries); ++i)
              for (Index j = column * c.column_block;
                   j < std::min((column + 1) * c.column_block, c.keys); ++j) {
                const Index p = i + c.keys - c.queries;
                const bool near = p - j < c.window && (causal || j - p < c.window);
                if ((!causal || j <= p) && (near || j < c.sinks)) return true;
              }
            return false;
          });
      EXPECT_EQ(static_cast<const BlockMask&>(blocks), wanted)
          << c.queries << ' ' << c.keys << ' ' << c.window << ' ' << c.sinks << ' ' << causal;
      EXPECT_TRUE(std::isnan(blocks.mass));
    }
}

TYPED_TEST(Window, LosesNothingThatTheWindowSees) {
  using T = typename TestFixture::Scalar;
  const auto q = normal_heads<T>(1, 2, 120, 8, 1), k = normal_heads<T>(1, 1, 120, 8, 2),
             v = normal_heads<T>(1, 1, 120, 8, 3);
  Heads<T> masked(1, 2, 120, 8), plain(1, 2, 120, 8);
  const auto blocks = select_blocks(this->backend(), q.view(), k.view(), SlidingWindow{8, 8, 11, 2},
                                    {.causal = true});
  EXPECT_LT(blocks.density(true), 0.5);
  attend(this->backend(), q.view(), k.view(), v.view(), plain.writable(),
         {.causal = true, .window = 11, .sinks = 2});
  attend(this->backend(), q.view(), k.view(), v.view(), masked.writable(),
         {.causal = true, .window = 11, .sinks = 2, .mask = &blocks});
  // Weights are a softmax of 13 scores at most; both calls sum the same terms in tiles of their
  // own.
  for (std::size_t i = 0; i < plain.list.size(); ++i)
    EXPECT_TRUE(pare::testing::within(static_cast<double>(masked.list[i]),
                                      static_cast<double>(plain.list[i]),
                                      pare::testing::Tolerance<T>::scaled_sum(64, 4)));
}

TYPED_TEST(Window, RefusesWhatDoesNotFit) {
  using T = typename TestFixture::Scalar;
  const Heads<T> q(1, 1, 20, 4);
  const auto call = [&](const SlidingWindow& selector) {
    select_blocks(this->backend(), q.view(), q.view(), selector);
  };
  EXPECT_NO_THROW(call({}));
  EXPECT_THROW(call({.row_block = 0}), std::invalid_argument);
  EXPECT_THROW(call({.column_block = -1}), std::invalid_argument);
  EXPECT_THROW(call({.window = 0}), std::invalid_argument);
  EXPECT_THROW(call({.window = std::numeric_limits<Index>::max()}), std::invalid_argument);
  EXPECT_THROW(call({.sinks = -1}), std::invalid_argument);
  const KeyOrder order = KeyOrder::identity({1, 1, 20});
  EXPECT_THROW(select_blocks(this->backend(), q.view(), q.view(), order, SlidingWindow{}),
               std::invalid_argument);
}

}  // namespace
}  // namespace attention_sliding_window_test
