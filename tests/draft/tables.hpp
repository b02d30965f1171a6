// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace pare::testing {

/// The text of the std::invalid_argument that a call throws; empty: it throws none.
template <class F>
std::string refused(const F& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return {};
}

/// Lists that own their numbers.
template <class T>
struct OwnedTable {
  Index depths, rows, ranks;
  std::vector<std::int32_t> tokens, next;
  std::vector<T> log_probabilities;

  OwnedTable(Index depth_count, Index row_count, Index rank_count)
      : depths(depth_count), rows(row_count), ranks(rank_count) {
    const auto n = static_cast<std::size_t>(depths * rows * ranks);
    tokens.resize(n);
    next.resize(n);
    log_probabilities.resize(n);
  }

  std::size_t at(Index d, Index m, Index r) const {
    return static_cast<std::size_t>((d * rows + m) * ranks + r);
  }
  template <class V>
  TensorView<const V, 3> view(const std::vector<V>& x) const {
    return {x.data(), {depths, rows, ranks}, {rows * ranks, ranks, 1}};
  }
  draft::TransitionTable<T> table() const {
    return {view(tokens), view(log_probabilities), view(next)};
  }
};

/// Random lists. With `grid`, log probabilities are multiples of 1/4, so that many are equal.
template <class T>
OwnedTable<T> random_table(Index depths, Index rows, Index ranks, unsigned seed, bool grid) {
  std::mt19937 random(seed);
  OwnedTable<T> x(depths, rows, ranks);
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(ranks) + 5);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::vector<T> list(static_cast<std::size_t>(ranks));
  for (Index d = 0; d < depths; ++d)
    for (Index m = 0; m < rows; ++m) {
      std::shuffle(numbers.begin(), numbers.end(), random);
      for (T& p : list)
        p = grid ? -T(0.25) * static_cast<T>(random() % 9)
                 : static_cast<T>(std::log((static_cast<double>(random() % 100000) + 1) / 100001));
      std::sort(list.begin(), list.end(), std::greater<>());
      for (Index r = 0; r < ranks; ++r) {
        x.tokens[x.at(d, m, r)] = numbers[static_cast<std::size_t>(r)];
        x.log_probabilities[x.at(d, m, r)] = list[static_cast<std::size_t>(r)];
        x.next[x.at(d, m, r)] =
            static_cast<std::int32_t>(random() % static_cast<unsigned>(rows + 1)) - 1;
      }
    }
  return x;
}

/// Every path of a table: its tokens, and its sum of log probabilities.
struct TablePath {
  std::vector<std::int32_t> tokens{};
  double score = 0;
};

template <class T>
void add_paths(const OwnedTable<T>& x, Index row, const TablePath& before,
               std::vector<TablePath>& paths) {
  const auto d = static_cast<Index>(before.tokens.size());
  if (d == x.depths || row < 0) return;
  for (Index r = 0; r < x.ranks; ++r) {
    const double p = static_cast<double>(x.log_probabilities[x.at(d, row, r)]);
    if (!std::isfinite(p)) continue;
    TablePath path = before;
    path.tokens.push_back(x.tokens[x.at(d, row, r)]);
    path.score += p;
    paths.push_back(path);
    add_paths(x, x.next[x.at(d, row, r)], path, paths);
  }
}

/// The tokens from the root to a node.
inline std::vector<std::int32_t> path_of(const draft::DraftTree& tree, Index node) {
  std::vector<std::int32_t> tokens;
  for (; node > 0; node = tree.parent(node)) tokens.insert(tokens.begin(), tree.token(node));
  return tokens;
}

/// A tree in which each node's parent is any earlier one, with tokens that differ among siblings.
inline draft::DraftTree random_tree(Index nodes, std::mt19937& random, std::int32_t vocabulary) {
  draft::DraftTree tree;
  tree.start(static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary)), nodes);
  while (tree.size() < nodes) {
    const auto parent = static_cast<Index>(random() % static_cast<std::uint64_t>(tree.size()));
    const auto token = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
    if (!tree.child(parent, token))
      tree.add(parent, token, -static_cast<double>(random() % 1000) / 500);
  }
  return tree;
}

/// Whether two trees have the same nodes, in the same order.
inline bool same_nodes(const draft::DraftTree& a, const draft::DraftTree& b) {
  if (a.size() != b.size()) return false;
  for (Index i = 0; i < a.size(); ++i)
    if (a.token(i) != b.token(i) || a.parent(i) != b.parent(i) || a.depth(i) != b.depth(i) ||
        a.log_probability(i) != b.log_probability(i) || a.first_child(i) != b.first_child(i) ||
        a.next_sibling(i) != b.next_sibling(i))
      return false;
  return true;
}

}  // namespace pare::testing
