// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Merges pairs of neighbours by rank: the pair of the lowest rank first, the leftmost among
/// equals, until no pair is left that has a rank.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace language_model {

/// A token's number in the vocabulary.
using Token = std::int32_t;

/// What two neighbours become.
struct Merge {
  Token left, right, merged;
};

/// Merges by the pair, in a hash table of 12 bytes a slot that is at most half full.
class MergeTable {
 public:
  /// Merges in the order of their ranks; of the same pair the first counts.
  explicit MergeTable(std::vector<Merge> merges)
      : merges_(std::move(merges)), slots_(std::bit_ceil(2 * merges_.size() + 2)) {
    for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
      Slot& slot = slots_[place_of(merges_[rank].left, merges_[rank].right)];
      if (slot.rank == none)
        slot = {merges_[rank].left, merges_[rank].right, static_cast<std::uint32_t>(rank)};
    }
  }

  static constexpr std::uint32_t none = ~std::uint32_t{0};

  /// The rank of a pair, or `none`. Tokens that are no token, -1, have none.
  std::uint32_t rank_of(Token left, Token right) const {
    return slots_[place_of(left, right)].rank;
  }

  const Merge& operator[](std::uint32_t rank) const { return merges_[rank]; }

 private:
  struct Slot {
    Token left = -1, right = -1;
    std::uint32_t rank = none;
  };

  /// Where the pair is, or the empty slot where it would be.
  std::size_t place_of(Token left, Token right) const {
    const std::uint64_t pair =
        std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
    // The upper half of a product with 2^64 / golden ratio depends on all bits of the pair.
    std::size_t place = static_cast<std::size_t>((pair * 0x9e3779b97f4a7c15u) >> 32);
    for (;; ++place) {
      place &= slots_.size() - 1;
      const Slot& slot = slots_[place];
      if (slot.rank == none || (slot.left == left && slot.right == right)) return place;
    }
  }

  std::vector<Merge> merges_;
  std::vector<Slot> slots_;
};

/// Merges pieces one after the other in the same memory.
class PairMerger {
 public:
  explicit PairMerger(const MergeTable& table) : table_(table) {}

  /// Appends to `out` what is left of the symbols once all pairs are merged; a symbol -1 merges
  /// with nothing and is left out. Cost: n symbols take O(n log n), 28 bytes each.
  void merge(std::span<const Token> symbols, std::vector<Token>& out) {
    nodes_.clear();
    queue_.clear();
    const auto count = static_cast<std::uint32_t>(symbols.size());
    for (std::uint32_t i = 0; i < count; ++i)
      nodes_.push_back({symbols[i], i == 0 ? end : i - 1, i + 1 == count ? end : i + 1});
    for (std::uint32_t i = 0; i + 1 < count; ++i) add_pair(i);
    // The queue is filled first and made a heap once, which is linear.
    std::make_heap(queue_.begin(), queue_.end(), std::greater<>());
    while (!queue_.empty()) merge_first();
    for (std::uint32_t i = count == 0 ? end : 0; i != end; i = nodes_[i].next)
      if (nodes_[i].token >= 0) out.push_back(nodes_[i].token);
  }

 private:
  /// A symbol in the list of those that are left; the first of a pair takes the second's place.
  struct Node {
    Token token;
    std::uint32_t previous, next;
  };
  static constexpr std::uint32_t end = ~std::uint32_t{0};

  bool add_pair(std::uint32_t left) {
    const std::uint32_t rank = table_.rank_of(nodes_[left].token, nodes_[nodes_[left].next].token);
    if (rank == MergeTable::none) return false;
    queue_.push_back(std::uint64_t{rank} << 32 | left);
    return true;
  }

  void add_pair_to_heap(std::uint32_t left) {
    if (add_pair(left)) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
  }

  void merge_first() {
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    const Merge& merge = table_[static_cast<std::uint32_t>(queue_.back() >> 32)];
    const auto left = static_cast<std::uint32_t>(queue_.back());
    queue_.pop_back();
    Node& node = nodes_[left];
    // One of the pair may have gone into another merge since it was queued.
    if (node.token != merge.left || node.next == end || nodes_[node.next].token != merge.right)
      return;
    Node& gone = nodes_[node.next];
    node = {merge.merged, node.previous, gone.next};
    gone.token = -1;
    if (node.next != end) nodes_[node.next].previous = left;
    if (node.previous != end) add_pair_to_heap(node.previous);
    if (node.next != end) add_pair_to_heap(left);
  }

  const MergeTable& table_;
  std::vector<Node> nodes_;
  std::vector<std::uint64_t>
      queue_;  ///< rank and left node of a pair, a heap with the least on top
};

}  // namespace language_model
