// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/pages.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "support/matrices.hpp"

namespace latent_pages_test {
namespace {

using pare::Index;
using pare::attention::KeysRead;
using pare::attention::most_tokens;
using pare::latent::Appended;
using pare::latent::PageTable;
using pare::testing::refusal;

/// All that a table says of its sequences and pages.
std::vector<Index> state_of(const PageTable& table) {
  std::vector<Index> state{table.free_pages(), table.sequences()};
  for (Index s = 0; s < table.sequences(); ++s) {
    state.push_back(table.has(s) ? table.length(s) : -1);
    for (Index i = 0; i * table.page_size() < table.length(s); ++i)
      state.push_back(table.page(s, i));
  }
  for (Index p = 0; p < table.pages(); ++p) state.push_back(table.sharers(p));
  return state;
}

PageTable table_of(Index pages, Index page_size, Index tokens) {
  PageTable table(pages, page_size);
  table.append(table.add(), tokens);
  return table;
}

TEST(Pages, ASequenceTakesAPageWhereOneIsFull) {
  for (const Index size : {1, 2, 7, 64}) {
    PageTable table(200, size);
    const Index a = table.add();
    for (Index n = 0; n < 130; ++n) {
      EXPECT_EQ(table.pages() - table.free_pages(), (n + size - 1) / size);
      const Appended added = table.append(a, 1);
      EXPECT_EQ(added.first, n);
      EXPECT_FALSE(added.copy);
    }
  }
}

TEST(Pages, NoTwoTokensHaveOnePlace) {
  PageTable table(40, 3);
  const Index a = table.add(), b = table.add();
  for (Index n = 0; n < 20; ++n) {
    table.append(a, 1);
    table.append(b, 2);
  }
  std::set<std::pair<Index, Index>> places;
  for (const Index s : {a, b})
    for (Index t = 0; t < table.length(s); ++t) {
      const auto [page, row] = table.row(s, t);
      EXPECT_TRUE(places.insert({page, row}).second);
      EXPECT_LT(page, 40);
      EXPECT_LT(row, 3);
    }
}

TEST(Pages, AForkTakesNoPageAndAnAppendToAFullOneCopiesNone) {
  PageTable table = table_of(8, 4, 8);
  const Index b = table.fork(0);
  EXPECT_EQ(table.free_pages(), 6);
  EXPECT_EQ(table.page(b, 1), table.page(0, 1));
  EXPECT_EQ(table.sharers(table.page(0, 0)), 2);
  EXPECT_FALSE(table.append(b, 1).copy);
  EXPECT_FALSE(table.append(0, 1).copy);
  EXPECT_NE(table.page(b, 2), table.page(0, 2));
}

TEST(Pages, TheFirstWhoWritesIntoASharedPageGetsACopyAndTheLastKeepsIt) {
  PageTable table = table_of(8, 4, 6);
  const Index b = table.fork(0), c = table.fork(0);
  const Index shared = table.page(0, 1);
  const Appended first = table.append(b, 1);
  ASSERT_TRUE(first.copy);
  EXPECT_EQ(first.first, 6);
  EXPECT_EQ(first.copy->from, shared);
  EXPECT_EQ(first.copy->to, table.page(b, 1));
  EXPECT_EQ(first.copy->rows, 2);
  EXPECT_TRUE(table.append(0, 1).copy);
  EXPECT_EQ(table.sharers(shared), 1);
  EXPECT_FALSE(table.append(c, 1).copy);
  EXPECT_EQ(table.page(c, 1), shared);
}

TEST(Pages, AForkOfAPrefixSharesItsLastPageToo) {
  PageTable table = table_of(8, 4, 8);
  const Index b = table.fork(0, 5);
  EXPECT_EQ(table.length(b), 5);
  EXPECT_EQ(table.page(b, 1), table.page(0, 1));
  const Appended added = table.append(b, 1);
  ASSERT_TRUE(added.copy);
  EXPECT_EQ(added.copy->rows, 1);
  const Index empty = table.fork(0, 0);
  EXPECT_EQ(table.length(empty), 0);
  EXPECT_FALSE(table.append(empty, 1).copy);
}

TEST(Pages, ATruncatedSequenceThatSharesItsLastPageDoesNotWriteIntoIt) {
  PageTable table = table_of(8, 4, 8);
  const Index b = table.fork(0);
  table.truncate(0, 6);
  EXPECT_TRUE(table.append(0, 1).copy);
  EXPECT_NE(table.page(0, 1), table.page(b, 1));
}

TEST(Pages, WhatIsGivenBackIsTakenAgainAndTheLowestNumberFirst) {
  PageTable table = table_of(4, 2, 8);
  EXPECT_EQ(table.free_pages(), 0);
  table.truncate(0, 3);
  EXPECT_EQ(table.free_pages(), 2);
  const Index b = table.add(), c = table.add();
  table.append(b, 4);
  table.release(b);
  EXPECT_FALSE(table.has(b));
  EXPECT_EQ(table.length(b), 0);
  EXPECT_EQ(table.free_pages(), 2);
  EXPECT_EQ(table.add(), b);
  table.release(c);
  EXPECT_EQ(table.sequences(), 2);
  table.release(0);
  table.release(b);
  EXPECT_EQ(table.sequences(), 0);
  EXPECT_EQ(table.free_pages(), 4);
}

TEST(Pages, NumbersAreTheLowestThatAreFreeWhateverTheOrderOfReleases) {
  PageTable table(1, 1);
  std::set<Index> used;
  std::mt19937 random(5);
  for (int step = 0; step < 2000; ++step) {
    if (random() % 2 == 0 && !used.empty()) {
      const auto any = std::next(used.begin(), static_cast<Index>(random() % used.size()));
      table.release(*any);
      used.erase(any);
    } else {
      Index lowest = 0;
      while (used.contains(lowest)) ++lowest;
      ASSERT_EQ(used.empty()        ? table.add()
                : random() % 2 == 0 ? table.add()
                                    : table.fork(*used.begin()),
                lowest);
      used.insert(lowest);
    }
    ASSERT_EQ(table.sequences(), used.empty() ? 0 : *used.rbegin() + 1);
    for (Index s = 0; s < table.sequences(); ++s) ASSERT_EQ(table.has(s), used.contains(s));
  }
}

TEST(Pages, APageIsFreeWhenTheLastSharerGivesItBack) {
  PageTable table = table_of(4, 2, 8);
  const Index b = table.fork(0);
  table.truncate(0, 0);
  EXPECT_EQ(table.free_pages(), 0);
  table.release(b);
  EXPECT_EQ(table.free_pages(), 4);
}

/// Tokens whose page holds one that is kept.
bool stays(Index token, Index length, Index size, Index window, Index sinks) {
  for (Index t = token / size * size; t < std::min(length, token / size * size + size); ++t)
    if (t < sinks || t >= length - window) return true;
  return (token / size + 1) * size > length;  // the page that the next token goes into
}

TEST(Pages, EvictionKeepsPagesWithASinkOrATokenOfTheWindow) {
  for (const Index size : {1, 3, 4})
    for (const Index window : {0, 1, 2, 5, 40})
      for (const Index sinks : {0, 1, 4, 40}) {
        PageTable table(40, size);
        const Index a = table.add();
        std::vector<Index> gone;
        for (Index n = 1; n <= 30; ++n) {
          table.append(a, 1);
          const Index free = table.free_pages();
          const Index count = table.evict(a, {.window = window, .sinks = sinks});
          EXPECT_EQ(table.free_pages(), free + count);
          EXPECT_EQ(table.length(a), n);
          for (Index t = 0; t < n; ++t)
            EXPECT_EQ(table.holds(a, t), stays(t, n, size, window, sinks))
                << n << ' ' << t << ' ' << size << ' ' << window << ' ' << sinks;
        }
      }
}

TEST(Pages, AnEvictedPageStaysWithTheSequenceThatSharesIt) {
  PageTable table = table_of(8, 2, 8);
  const Index b = table.fork(0);
  EXPECT_EQ(table.evict(0, {.window = 2}), 3);
  EXPECT_EQ(table.free_pages(), 4);
  EXPECT_TRUE(table.holds(b, 0));
  EXPECT_FALSE(table.holds(0, 0));
  const Index c = table.fork(0);
  EXPECT_FALSE(table.holds(c, 0));
  const auto read_of = [&](Index s) { return KeysRead{0, s == c ? 0 : 8}; };
  refusal([&] { table.check_held("f", read_of); }, "f", "cache");
  EXPECT_EQ(table.append(c, 1).first, 8);
  table.release(b);
  EXPECT_EQ(table.evict(0, {.window = 2}), 0);
}

TEST(Pages, OnlyReadsOfEvictedTokensAreRefused) {
  PageTable table = table_of(8, 2, 12);
  table.evict(0, {.window = 3, .sinks = 1});  // holds 0, 1 and 8 to 11
  for (Index sinks = 0; sinks < 6; ++sinks)
    for (Index first = 0; first < 13; ++first) {
      bool reads_evicted = false;
      for (Index t = 0; t < 12; ++t)
        reads_evicted = reads_evicted || ((t < sinks || t >= first) && !table.holds(0, t));
      const auto read = [&] {
        table.check_held("f", [&](Index) { return KeysRead{sinks, first}; });
      };
      if (reads_evicted)
        refusal(read, "f", "cache");
      else
        EXPECT_NO_THROW(read()) << sinks << ' ' << first;
    }
}

TEST(Pages, UnshareGivesPagesOfItsOwnFromAPositionOn) {
  PageTable table = table_of(10, 2, 8);
  const Index b = table.fork(0);
  const auto copies = table.unshare(b, 5);
  ASSERT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[0].from, table.page(0, 2));
  EXPECT_EQ(copies[0].to, table.page(b, 2));
  EXPECT_EQ(table.page(b, 1), table.page(0, 1));
  EXPECT_EQ(table.sharers(table.page(b, 3)), 1);
  EXPECT_TRUE(table.unshare(b, 5).empty());
}

TEST(Pages, ExhaustionIsRefusedAndChangesNothing) {
  PageTable table = table_of(5, 2, 7);  // one page is free
  const Index b = table.fork(0);
  const auto before = state_of(table);
  EXPECT_EQ(table.pages_for(b, 1), 1);
  EXPECT_EQ(table.pages_for(b, 2), 2);
  refusal([&] { table.append(b, 2); }, "latent::PageTable::append", "tokens");
  refusal([&] { table.append(0, most_tokens - 7); }, "latent::PageTable::append", "tokens");
  refusal([&] { table.unshare(b, 0); }, "latent::PageTable::unshare", "pages");
  EXPECT_EQ(state_of(table), before);
  table.append(b, 1);
  EXPECT_EQ(table.free_pages(), 0);
  const auto full = state_of(table);
  refusal([&] { table.append(0, 2); }, "latent::PageTable::append", "tokens");
  EXPECT_EQ(state_of(table), full);
  EXPECT_EQ(table.append(0, 1).first, 7);
}

TEST(Pages, WhatIsOutOfRangeIsRefusedAndChangesNothing) {
  constexpr Index most = std::numeric_limits<Index>::max();
  for (const Index bad : {Index{0}, Index{-1}, most}) {
    refusal([&] { PageTable(bad, 4); }, "latent::PageTable", "pages");
    refusal([&] { PageTable(4, bad); }, "latent::PageTable", "page_size");
  }
  PageTable table = table_of(8, 2, 7);
  const Index gap = table.add();
  table.add();
  table.release(gap);
  const auto before = state_of(table);
  for (const Index bad : {Index{-1}, gap, Index{3}, most}) {
    refusal([&] { table.append(bad, 1); }, "latent::PageTable::append", "sequence");
    refusal([&] { table.fork(bad); }, "latent::PageTable::fork", "sequence");
    refusal([&] { table.release(bad); }, "latent::PageTable::release", "sequence");
    refusal([&] { table.truncate(bad, 0); }, "latent::PageTable::truncate", "sequence");
    refusal([&] { table.evict(bad, {}); }, "latent::PageTable::evict", "sequence");
    refusal([&] { table.unshare(bad, 0); }, "latent::PageTable::unshare", "sequence");
    EXPECT_FALSE(table.holds(bad, 0)) << bad;
  }
  for (const Index bad : {Index{-1}, Index{8}, most}) {
    refusal([&] { table.truncate(0, bad); }, "latent::PageTable::truncate", "length");
    refusal([&] { table.fork(0, bad); }, "latent::PageTable::fork", "tokens");
    refusal([&] { table.unshare(0, bad); }, "latent::PageTable::unshare", "first");
  }
  refusal([&] { table.append(0, -1); }, "latent::PageTable::append", "tokens");
  refusal([&] { table.append(0, most); }, "latent::PageTable::append", "tokens");
  EXPECT_EQ(table.pages_for(0, most), most / 2);  // 7 tokens, one place left
  refusal([&] { table.evict(0, {.window = -1}); }, "latent::PageTable::evict", "window");
  refusal([&] { table.evict(0, {.sinks = -1}); }, "latent::PageTable::evict", "sinks");
  EXPECT_EQ(state_of(table), before);
}

TEST(Pages, NothingIsAppendedToATokenThatWasEvicted) {
  PageTable table = table_of(8, 3, 12);
  table.evict(0, {.window = 3});  // holds 9 to 11
  const auto before = state_of(table);
  for (const Index n : {1, 2, 4, 7, 8}) {
    refusal([&] { table.truncate(0, n); }, "latent::PageTable::truncate", "length");
    refusal([&] { table.fork(0, n); }, "latent::PageTable::fork", "tokens");
  }
  refusal([&] { table.unshare(0, 8); }, "latent::PageTable::unshare", "first");
  EXPECT_EQ(state_of(table), before);
  EXPECT_NO_THROW(table.unshare(0, 9));
  table.truncate(0, 6);
  EXPECT_EQ(table.append(0, 1).first, 6);
  EXPECT_TRUE(table.holds(0, 6));
}

}  // namespace
}  // namespace latent_pages_test
