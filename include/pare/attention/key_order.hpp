// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// In which order keys and values are read: a checked permutation for every (batch, head).
///
/// ```cpp
/// const KeyOrder order({.keys = 4}, {2, 0, 3, 1});  // slot 0 holds the key at position 2
/// attend(q, k, v, out, {.causal = true, .order = &order, .mask = &mask});  // blocks of slots
/// const auto slots = order.of(0, 0);                // the positions, for any batch entry and head
/// ```
///
/// `order_keys` makes one from queries and keys.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// One permutation of the keys for each (batch, head), immutable once made: slot s holds the key at
/// position `of(batch, head)[s]`.
///
/// Attention does not depend on the order of its keys. An order gathers the keys that matter into
/// few blocks, which a `BlockMask` over slots then selects. Causality and windows go by position,
/// never by slot. Memory: 4 bytes per position.
class KeyOrder {
 public:
  /// The shape that an order is for. With `batch` or `heads` of 1 it serves every batch entry or
  /// head.
  struct Shape {
    Index batch = 1;  ///< 1, or the batch (or number of packed sequences)
    Index heads = 1;  ///< 1, the number of key/value heads, or that of query heads
    Index keys = 0;   ///< tokens, below 2^32

    friend bool operator==(const Shape&, const Shape&) = default;
  };

  /// The order of no keys.
  KeyOrder() = default;

  /// Takes the positions by slot, [batch, heads, keys] one row after the other.
  /// \throws std::invalid_argument if a size is negative or too large, there are not that many
  /// positions, or a row is not a bijection of [0, keys). Cost: one pass.
  KeyOrder(const Shape& shape, std::vector<std::uint32_t> positions)
      : shape_(shape), positions_(std::move(positions)) {
    const Index total = checked_total(shape);
    check(static_cast<Index>(positions_.size()) == total, name_, "positions", positions_.size(),
          total);
    if (total > 0) check_bijections();
  }

  /// Every key in its place.
  /// \throws std::invalid_argument if a size is negative or too large.
  static KeyOrder identity(const Shape& shape) {
    std::vector<std::uint32_t> positions(static_cast<std::size_t>(checked_total(shape)));
    for (std::size_t i = 0; i < positions.size(); ++i)
      positions[i] = static_cast<std::uint32_t>(i % static_cast<std::size_t>(shape.keys));
    return {shape, std::move(positions)};
  }

  /// The problem the order is for.
  const Shape& shape() const { return shape_; }
  /// All positions, [batch, heads, keys].
  std::span<const std::uint32_t> positions() const { return positions_; }

  /// The positions of slots 0 ... keys - 1. An order with one batch entry or one head returns it
  /// for any batch entry or head.
  /// \throws std::invalid_argument if there is no such batch entry or head.
  PARE_ALWAYS_INLINE std::span<const std::uint32_t> of(Index batch, Index head) const {
    const Index b = shape_.batch == 1 ? 0 : batch, h = shape_.heads == 1 ? 0 : head;
    check(b >= 0 && b < shape_.batch && h >= 0 && h < shape_.heads, "attention::KeyOrder::of",
          "batch, head", std::array<Index, 2>{batch, head}, "a row of the order");
    return {positions_.data() + (b * shape_.heads + h) * shape_.keys,
            static_cast<std::size_t>(shape_.keys)};
  }

  friend bool operator==(const KeyOrder&, const KeyOrder&) = default;

 private:
  static constexpr const char* name_ = "attention::KeyOrder";

  /// batch * heads * keys, after the sizes were checked.
  static Index checked_total(const Shape& s) {
    check(s.batch >= 0 && s.heads >= 0, name_, "shape", std::array<Index, 2>{s.batch, s.heads},
          "batch and heads of at least 0");
    check(s.keys >= 0 && s.keys <= Index{std::numeric_limits<std::uint32_t>::max()}, name_, "keys",
          s.keys, "a size in [0, 2^32)");
    const Index total =
        checked_product(name_, "shape", checked_product(name_, "shape", s.batch, s.heads), s.keys);
    checked_product(name_, "shape", total, 2 * static_cast<Index>(sizeof(std::uint32_t)));
    return total;
  }

  void check_bijections() const {
    const auto keys = static_cast<std::size_t>(shape_.keys);
    // Marked with the number of the row, so that it need not be cleared between rows.
    std::vector<std::size_t> seen(keys, 0);
    for (std::size_t i = 0; i < positions_.size(); ++i) {
      const std::uint32_t position = positions_[i];
      check(position < keys, name_, "positions", position, "positions below the number of keys");
      check(seen[position] != i / keys + 1, name_, "positions", position,
            "every position once in its row");
      seen[position] = i / keys + 1;
    }
  }

  Shape shape_;
  std::vector<std::uint32_t> positions_;
};

PARE_ABI_END

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
