// SPDX-License-Identifier: Apache-2.0
// A trie of ids against lists of the ids themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include <pare/retrieval/semantic/id_trie.hpp>

#include "support/matrices.hpp"

namespace retrieval_id_trie_test {
namespace {

using pare::Index;
using pare::retrieval::IdTrie;
using pare::testing::refusal;

using Path = std::vector<std::int32_t>;

/// A trie as the ids say: every prefix, with the tokens behind it and the items below it.
void expect_trie(const std::vector<Path>& ids, Index vocabulary) {
  Path tokens;
  std::map<Path, std::set<std::int32_t>> behind;
  std::map<Path, std::set<Index>> below;
  const auto levels = static_cast<int>(ids[0].size());
  for (std::size_t item = 0; item < ids.size(); ++item)
    for (std::size_t length = 0; length <= ids[item].size(); ++length) {
      const Path prefix(ids[item].begin(), ids[item].begin() + static_cast<std::ptrdiff_t>(length));
      below[prefix].insert(static_cast<Index>(item));
      if (length < ids[item].size()) behind[prefix].insert(ids[item][length]);
      if (length > 0) tokens.push_back(ids[item][length - 1]);
    }
  const IdTrie trie(tokens, levels, vocabulary);
  EXPECT_EQ(trie.levels(), levels);
  EXPECT_EQ(trie.vocabulary(), vocabulary);
  ASSERT_EQ(trie.nodes(), static_cast<Index>(below.size()));
  std::set<IdTrie::Node> seen;
  Index leaves = 0;
  for (const auto& [prefix, items] : below) {
    const std::optional<IdTrie::Node> node = trie.find(prefix);
    ASSERT_TRUE(node.has_value());
    EXPECT_TRUE(seen.insert(*node).second);
    EXPECT_EQ(trie.token(*node), prefix.empty() ? -1 : prefix.back());
    const std::set<std::int32_t>& wanted = behind[prefix];
    const auto may = trie.tokens(*node);
    EXPECT_EQ(Path(may.begin(), may.end()), Path(wanted.begin(), wanted.end()));
    EXPECT_EQ(trie.is_leaf(*node), wanted.empty());
    const auto held = trie.items(*node);
    ASSERT_LE(held.size(), ids.size());
    EXPECT_EQ(std::set<Index>(held.begin(), held.end()), items);
    EXPECT_EQ(held.size(), items.size());
    if (wanted.empty()) {
      ++leaves;
      EXPECT_TRUE(std::is_sorted(held.begin(), held.end()));
      EXPECT_EQ(trie.leaves_of(*node).first, *node - (trie.nodes() - trie.leaves()));
      EXPECT_EQ(trie.leaves_of(*node).end, trie.leaves_of(*node).first + 1);
    }
    const IdTrie::Children children = trie.children(*node);
    for (Index i = 0; i < children.count; ++i) {
      Path longer = prefix;
      longer.push_back(may[static_cast<std::size_t>(i)]);
      EXPECT_EQ(trie.find(longer), children.first + static_cast<IdTrie::Node>(i));
      EXPECT_EQ(trie.child(*node, longer.back()), trie.find(longer));
    }
    for (std::int32_t token = -1; token <= vocabulary; ++token)
      if (wanted.count(token) == 0) {
        EXPECT_FALSE(trie.child(*node, token).has_value());
      }
  }
  EXPECT_EQ(trie.leaves(), leaves);
  EXPECT_EQ(trie.leaves_of(IdTrie::root).end, leaves);
}

TEST(IdTrie, HasThePrefixesOfAllIdsAndNoOthers) {
  expect_trie({{0}}, 1);
  expect_trie({{4}, {2}, {4}, {0}}, 5);
  expect_trie({{1, 2, 3}, {1, 2, 3}, {1, 2, 3}}, 9);  // one path
  expect_trie({{3, 0}, {0, 3}, {3, 3}, {0, 0}}, 4);
  std::mt19937_64 random(1);
  for (const int vocabulary : {1, 2, 3, 20})
    for (const int levels : {1, 2, 3, 5}) {
      std::vector<Path> ids(60, Path(static_cast<std::size_t>(levels)));
      for (Path& id : ids)
        for (std::int32_t& token : id)
          token = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary));
      expect_trie(ids, vocabulary);
    }
}

TEST(IdTrie, FindsNoPathThatIsLongerThanAll) {
  const Path tokens{1, 0};
  const IdTrie trie(tokens, 2, 2);
  EXPECT_FALSE(trie.find(Path{1, 0, 0}).has_value());
  EXPECT_FALSE(trie.child(*trie.find(tokens), 0).has_value());
}

TEST(IdTrie, RefusesWhatDoesNotFit) {
  const Path tokens{1, 0, 2, 2};
  const auto refuse = [](const Path& of, int levels, Index vocabulary, const char* argument) {
    refusal([&] { const IdTrie trie(of, levels, vocabulary); }, "retrieval::IdTrie", argument);
  };
  refuse({}, 2, 3, "tokens");
  refuse(tokens, 0, 3, "levels");
  refuse(tokens, -1, 3, "levels");
  refuse(tokens, 3, 3, "tokens");
  refuse(tokens, 2, 2, "tokens");
  refuse(tokens, 2, 0, "vocabulary");
  refuse({1, -1}, 2, 3, "tokens");
  refuse({1, std::numeric_limits<std::int32_t>::min()}, 2, 3, "tokens");
  const IdTrie trie(tokens, 2, 3);
  for (const IdTrie::Node node : {-1, 5, std::numeric_limits<IdTrie::Node>::max()}) {
    refusal([&] { trie.tokens(node); }, "retrieval::IdTrie::children", "node");
    refusal([&] { trie.child(node, 1); }, "retrieval::IdTrie::children", "node");
    refusal([&] { trie.token(node); }, "retrieval::IdTrie::token", "node");
    refusal([&] { trie.items(node); }, "retrieval::IdTrie::leaves_of", "node");
    refusal([&] { trie.is_leaf(node); }, "retrieval::IdTrie::is_leaf", "node");
  }
}

}  // namespace
}  // namespace retrieval_id_trie_test
