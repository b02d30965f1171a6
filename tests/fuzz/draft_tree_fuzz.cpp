// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of draft trees: arrays of tokens, parents and depths are taken if and only if they
/// are a tree by a second reading, and what is taken verifies and compacts within its bounds. Built
/// with PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid trees:
/// `draft_tree_fuzz [runs] [seed]`.

#include "bytes.hpp"

#include <pare/draft/compact_cache.hpp>
#include <pare/draft/tree.hpp>
#include <pare/draft/verify.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace {

using pare::Index;
using pare::draft::DraftTree;
using pare::fuzz::Bytes;
using pare::fuzz::Data;
using pare::fuzz::require;
using List = std::vector<std::int32_t>;

struct Input {
  bool may_repeat = false;
  List tokens{}, parents{}, depths{}, next{};
  Index kept = 1;

  explicit Input(std::span<const std::uint8_t> data) {
    Bytes bytes(data);
    may_repeat = bytes.number<Index>() % 2 != 0;
    kept = bytes.number<Index>();
    tokens = bytes.list<std::int32_t>();
    parents = bytes.list<std::int32_t>();
    depths = bytes.list<std::int32_t>();
    next = bytes.list<std::int32_t>();
  }
};

/// Whether arrays are a tree, read node by node from below.
bool is_tree(const Input& x) {
  const auto n = static_cast<std::int32_t>(x.tokens.size());
  if (n < 1 || x.parents.size() != x.tokens.size() || x.depths.size() != x.tokens.size())
    return false;
  for (std::int32_t i = n - 1; i >= 0; --i) {
    const auto v = static_cast<std::size_t>(i);
    if (x.tokens[v] < 0 || x.parents[v] >= i || (x.parents[v] < 0) != (i == 0)) return false;
    if (i == 0) return x.parents[0] == -1 && x.depths[0] == 0;
    if (x.depths[v] != std::int64_t{x.depths[static_cast<std::size_t>(x.parents[v])]} + 1)
      return false;
    for (std::size_t w = 0; w < v && !x.may_repeat; ++w)
      if (x.parents[w] == x.parents[v] && x.tokens[w] == x.tokens[v] && w > 0) return false;
  }
  return true;
}

void check_links(const Input& x, const DraftTree& tree) {
  for (Index i = 0; i < tree.size(); ++i) {
    Index seen = 0;
    for (Index j = 0; j < tree.size(); ++j) seen += tree.sees(i, j) ? 1 : 0;
    require(seen == tree.depth(i) + 1, "a node sees its path");
    require(i == 0 || tree.sees(i, tree.parent(i)), "a node sees its parent");
    Index before = i;
    for (Index c = tree.first_child(i); c >= 0; c = tree.next_sibling(c)) {
      require(c > before && c < tree.size() && tree.parent(c) == i, "children are linked in order");
      before = c;
    }
    require(tree.parent(i) == x.parents[static_cast<std::size_t>(i)], "parents are kept");
  }
}

void check_round(const Input& x, const DraftTree& tree) {
  pare::draft::Verified round{{5}, {6}};
  const bool right = static_cast<Index>(x.next.size()) == tree.size() &&
                     std::all_of(x.next.begin(), x.next.end(), [](auto t) { return t >= 0; });
  try {
    verify_match(tree, x.next, round);
    require(right, "a round is taken if there is a token for each node");
  } catch (const std::invalid_argument&) {
    require(!right && round.path.size() == 1 && round.path[0] == 5, "or left as it was");
    return;
  }
  require(round.path.size() == round.tokens.size() && round.path[0] == 0, "a token for each node");
  std::vector<pare::draft::RowMove> moves;
  row_moves(3, tree.size(), round.path, moves);
  for (const auto& m : moves)
    require(m.to >= 3 && m.to < m.from && m.from < 3 + tree.size(), "rows move down");
}

/// True if the tree was taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input x(bytes);
  std::optional<DraftTree> tree;
  try {
    tree = DraftTree::from_parents(
        x.tokens, x.parents, std::span<const std::int32_t>(x.depths), {},
        x.may_repeat ? pare::draft::Siblings::MayRepeat : pare::draft::Siblings::Distinct);
  } catch (const std::invalid_argument&) {
  }
  require(tree.has_value() == is_tree(x), "arrays are taken if and only if they are a tree");
  if (!tree) return false;
  check_links(x, *tree);
  check_round(x, *tree);
  if (x.kept >= 1 && x.kept <= tree->size()) {
    tree->truncate(x.kept);
    check_links(x, *tree);
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes(std::span(data, size));
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
int main(int argc, char** argv) {
  const auto valid = [](unsigned long long run, std::mt19937_64& random) {
    const std::size_t nodes = 1 + random() % 100;
    Data tokens, parents, depths, next;
    for (std::size_t i = 0; i < nodes; ++i) {
      // Tokens that differ: node i's is i.
      tokens.push_back(static_cast<std::uint8_t>(i));
      parents.push_back(static_cast<std::uint8_t>(i == 0 ? 255 : random() % i));
      depths.push_back(static_cast<std::uint8_t>(i == 0 ? 0 : depths[parents[i]] + 1));
      next.push_back(static_cast<std::uint8_t>(random() % (nodes + 1)));
    }
    Data bytes{static_cast<std::uint8_t>(run % 2), static_cast<std::uint8_t>(1 + random() % nodes)};
    for (const Data& list : {tokens, parents, depths, next}) {
      bytes.push_back(static_cast<std::uint8_t>(list.size()));
      bytes.insert(bytes.end(), list.begin(), list.end());
    }
    return bytes;
  };
  return pare::fuzz::run_mutations("draft_tree_fuzz", argc, argv, valid, try_bytes);
}
#endif
