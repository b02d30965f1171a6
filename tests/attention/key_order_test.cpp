// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/attention/key_order.hpp>

namespace attention_key_order_test {
namespace {

using pare::Index;
using pare::attention::KeyOrder;
using Shape = KeyOrder::Shape;
using List = std::vector<std::uint32_t>;

constexpr Index huge = std::numeric_limits<Index>::max();

List list_of(std::span<const std::uint32_t> row) { return {row.begin(), row.end()}; }

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(KeyOrder, GivesEachBatchEntryAndHeadItsRow) {
  const List positions{0, 1, 2, 2, 1, 0, 1, 2, 0, 2, 0, 1};
  const KeyOrder order({.batch = 2, .heads = 2, .keys = 3}, positions);
  EXPECT_EQ(order.shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(list_of(order.positions()), positions);
  EXPECT_EQ(list_of(order.of(0, 0)), (List{0, 1, 2}));
  EXPECT_EQ(list_of(order.of(0, 1)), (List{2, 1, 0}));
  EXPECT_EQ(list_of(order.of(1, 0)), (List{1, 2, 0}));
  EXPECT_EQ(list_of(order.of(1, 1)), (List{2, 0, 1}));
}

TEST(KeyOrder, OneBatchEntryOrHeadServesAll) {
  const KeyOrder heads({.batch = 1, .heads = 2, .keys = 2}, {0, 1, 1, 0});
  const KeyOrder batches({.batch = 2, .heads = 1, .keys = 2}, {0, 1, 1, 0});
  for (Index i = 0; i < 2; ++i)
    for (Index other = 0; other < 5; ++other) {
      const List wanted = i == 0 ? List{0, 1} : List{1, 0};
      EXPECT_EQ(list_of(heads.of(other, i)), wanted);
      EXPECT_EQ(list_of(batches.of(i, other)), wanted);
    }
}

TEST(KeyOrder, RefusesARowThatIsNotThere) {
  const KeyOrder order = KeyOrder::identity({2, 3, 4});
  for (const auto& [batch, head] :
       {std::pair<Index, Index>{-1, 0}, {2, 0}, {0, -1}, {0, 3}, {huge, huge}})
    EXPECT_THROW(order.of(batch, head), std::invalid_argument) << batch << ' ' << head;
  EXPECT_TRUE(KeyOrder{}.of(5, 7).empty()) << "one row of no keys serves all";
  EXPECT_THROW(KeyOrder::identity({0, 2, 4}).of(0, 0), std::invalid_argument);
}

TEST(KeyOrder, IdentityKeepsEveryKeyInItsPlace) {
  const KeyOrder order = KeyOrder::identity({.batch = 2, .heads = 3, .keys = 5});
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 3; ++h) EXPECT_EQ(list_of(order.of(b, h)), (List{0, 1, 2, 3, 4}));
  EXPECT_EQ(order, KeyOrder(order.shape(), list_of(order.positions())));
}

TEST(KeyOrder, TakesJustTheBijections) {
  // All pairs of rows over {0, 1, 2, 3}^3: both must be among the 3! orders of {0, 1, 2}.
  int passed = 0;
  for (std::uint32_t code = 0; code < 64 * 64; ++code) {
    List positions;
    for (std::uint32_t digit = 0, rest = code; digit < 6; ++digit, rest /= 4)
      positions.push_back(rest % 4);
    List first(positions.begin(), positions.begin() + 3),
        second(positions.begin() + 3, positions.end());
    std::sort(first.begin(), first.end());
    std::sort(second.begin(), second.end());
    if (first == List{0, 1, 2} && second == List{0, 1, 2}) {
      EXPECT_NO_THROW((KeyOrder({.heads = 2, .keys = 3}, positions)));
      ++passed;
    } else {
      EXPECT_THROW((KeyOrder({.heads = 2, .keys = 3}, positions)), std::invalid_argument) << code;
    }
  }
  EXPECT_EQ(passed, 36);
  EXPECT_THROW((KeyOrder({.keys = 1}, {0xffffffffu})), std::invalid_argument);
}

TEST(KeyOrder, EmptyShapes) {
  EXPECT_EQ(KeyOrder(), KeyOrder::identity({}));
  EXPECT_EQ(KeyOrder(), KeyOrder(Shape{}, {}));
  EXPECT_TRUE(KeyOrder().of(0, 0).empty());
  EXPECT_NO_THROW((KeyOrder({.batch = 0, .heads = 4, .keys = 9}, {})));
  EXPECT_NO_THROW(KeyOrder::identity({.batch = 3, .heads = 0, .keys = 9}));
  EXPECT_TRUE(KeyOrder::identity({.batch = 3, .heads = 4, .keys = 0}).of(2, 3).empty());
}

TEST(KeyOrder, RefusesBadSizes) {
  for (const Shape& bad :
       {Shape{-1, 1, 3}, Shape{1, -1, 3}, Shape{1, 1, -3}, Shape{-1, -1, 3},
        Shape{1, 1, Index{1} << 32}, Shape{huge, 2, 1}, Shape{huge / 2, 1, 4}, Shape{huge, 1, 1}}) {
    EXPECT_THROW(KeyOrder(bad, {0, 1, 2}), std::invalid_argument);
    EXPECT_THROW(KeyOrder(bad, {}), std::invalid_argument);
    EXPECT_THROW(KeyOrder::identity(bad), std::invalid_argument);
  }
  for (const std::size_t count : {0u, 3u, 5u, 7u, 12u})
    EXPECT_THROW((KeyOrder({.heads = 2, .keys = 3}, List(count))), std::invalid_argument);
}

TEST(KeyOrder, SaysWhatIsWrong) {
  EXPECT_EQ(
      message_of([] { KeyOrder({.keys = 3}, {0, 3, 1}); }),
      "pare::attention::KeyOrder: positions: got 3, wanted positions below the number of keys");
  EXPECT_EQ(message_of([] { KeyOrder({.heads = 2, .keys = 2}, {0, 1, 1, 1}); }),
            "pare::attention::KeyOrder: positions: got 1, wanted every position once in its row");
  EXPECT_EQ(message_of([] { KeyOrder({.heads = 2, .keys = 2}, {0, 1}); }),
            "pare::attention::KeyOrder: positions: got 2, wanted 4");
}

}  // namespace
}  // namespace attention_key_order_test
