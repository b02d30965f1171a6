// SPDX-License-Identifier: Apache-2.0
// Key lists themselves: what they take, what they refuse, what they answer.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <pare/attention/key_lists.hpp>

#include "support/matrices.hpp"

namespace attention_key_lists_test {
namespace {

using pare::Index;
using pare::attention::KeyLists;
using pare::testing::refusal;
using Keys = std::vector<std::int32_t>;

/// (batch, head, query): the key 3 of every row, and those that the numbers of the row choose.
bool some(Index b, Index h, Index i, Index j) { return j == 3 || (b + 2 * h + 3 * i + j) % 4 == 0; }

TEST(KeyLists, EveryWayToMakeThemGivesTheSame) {
  const KeyLists::Shape shape{2, 3, 4, 9, false};
  const KeyLists asked = KeyLists::from_predicate(shape, some);
  std::vector<Keys> lists;
  std::vector<Index> offsets{0};
  Keys keys;
  for (Index r = 0; r < 24; ++r) {
    Keys row;
    for (std::int32_t j = 0; j < 9; ++j)
      if (some(r / 12, r / 4 % 3, r % 4, j)) row.push_back(j);
    keys.insert(keys.end(), row.begin(), row.end());
    offsets.push_back(static_cast<Index>(keys.size()));
    lists.push_back(row);
  }
  EXPECT_EQ(asked, KeyLists::from_lists(shape, lists));
  EXPECT_EQ(asked, KeyLists::from_csr(shape, offsets, keys));
  EXPECT_EQ(asked.listed(), static_cast<Index>(keys.size()));
  EXPECT_EQ(asked.bytes(), static_cast<Index>(25 * sizeof(Index) + keys.size() * 4));
  for (Index r = 0; r < 24; ++r) {
    const auto row = asked.row(r / 12, r / 4 % 3, r % 4);
    EXPECT_EQ(Keys(row.begin(), row.end()), lists[static_cast<std::size_t>(r)]);
  }
}

TEST(KeyLists, OneBatchEntryAndOneHeadAnswerForAll) {
  const auto lists = KeyLists::from_lists({1, 1, 2, 5}, {{0, 4}, {}});
  EXPECT_EQ(lists.row(7, 9, 0).size(), 2u);
  EXPECT_TRUE(lists.row(7, 9, 1).empty());
  refusal([&] { lists.row(0, 0, 2); }, "attention::KeyLists::row", "batch, head, query");
  refusal([&] { lists.row(0, 0, -1); }, "attention::KeyLists::row", "batch, head, query");
}

TEST(KeyLists, CausalRowsEndAtTheirQuery) {
  const KeyLists::Shape shape{1, 1, 4, 6, true};  // query i stands at i + 2
  const auto all = KeyLists::from_predicate(shape, [](Index, Index, Index, Index) { return true; });
  for (Index i = 0; i < 4; ++i) EXPECT_EQ(all.row(0, 0, i).size(), static_cast<std::size_t>(i + 3));
  const auto more = KeyLists::Shape{1, 1, 6, 4, true};
  EXPECT_EQ(more.listable(0), 0);
  EXPECT_EQ(more.listable(1), 0);
  EXPECT_EQ(more.listable(5), 4);
  const auto name = "attention::KeyLists::from_lists";
  refusal([&] { KeyLists::from_lists(shape, {{3}, {}, {}, {}}); }, name, "lists");
  KeyLists::from_lists(shape, {{2}, {3}, {4}, {5}});
  refusal([&] { KeyLists::from_lists(shape, {{2}, {3}, {4, 5}, {5}}); }, name, "lists");
}

TEST(KeyLists, RefusesWhatIsNone) {
  const auto name = "attention::KeyLists::from_csr";
  const auto refuses = [&](const KeyLists::Shape& shape, std::vector<Index> offsets, Keys keys,
                           const std::string& argument) {
    refusal([&] { KeyLists::from_csr(shape, offsets, keys); }, name, argument);
  };
  const KeyLists::Shape two{1, 1, 2, 5};
  refuses({-1, 1, 2, 5}, {0}, {}, "shape");
  refuses({1, -1, 2, 5}, {0}, {}, "shape");
  refuses({1, 1, -2, 5}, {0}, {}, "shape");
  refuses({1, 1, 2, -5}, {0}, {}, "shape");
  refuses({1, 1, Index{1} << 30, 5}, {0}, {}, "shape");
  refuses({1, 1, 2, Index{1} << 30}, {0}, {}, "shape");
  refuses({Index{1} << 40, Index{1} << 40, 2, 5}, {0}, {}, "rows");
  refuses({Index{1} << 40, Index{1} << 20, 2, 5}, {0}, {}, "rows");
  refuses(two, {0, 1}, {1}, "offsets");
  refuses(two, {}, {}, "offsets");
  refuses(two, {1, 1, 1}, {1}, "offsets");
  refuses(two, {0, 2, 1}, {1}, "offsets");
  refuses(two, {0, 1, 1}, {1, 2}, "offsets");
  refuses(two, {0, 1, 3}, {1, 2}, "offsets");
  refuses(two, {0, std::numeric_limits<Index>::max(), 1}, {1}, "offsets");
  refuses(two, {0, 1, 2}, {1, 5}, "keys");
  refuses(two, {0, 1, 2}, {-1, 4}, "keys");
  refuses(two, {0, 2, 2}, {2, 2}, "keys");
  refuses(two, {0, 2, 2}, {2, 1}, "keys");
  EXPECT_EQ(KeyLists::from_csr(two, {0, 1, 3}, {4, 0, 4}).listed(), 3);  // rows for themselves
  refusal([&] { KeyLists::from_lists(two, {{}}); }, "attention::KeyLists::from_lists", "lists");
  EXPECT_EQ(KeyLists().listed(), 0);
  EXPECT_EQ(KeyLists::from_csr({0, 1, 2, 5}, {0}, {}).listed(), 0);
}

}  // namespace
}  // namespace attention_key_lists_test
