// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which keys each query attends to, one by one, stored as compressed sparse rows.
///
/// ```cpp
/// const KeyLists::Shape shape{.heads = 8, .queries = 4096, .keys = 4096};
/// const auto lists = KeyLists::from_csr(shape, offsets, keys);  // 8 * 4096 + 1 offsets
/// attend(q, k, v, out, lists, {.causal = true});                // attend_key_lists.hpp
/// const auto own = KeyLists::from_predicate({.queries = 64, .keys = 64, .causal = true},
///                                           [](Index, Index, Index i, Index j) {
///                                             return (i - j) % 8 == 0;
///                                           });
/// const std::span<const std::int32_t> row = own.row(0, 0, 63);  // 7, 15, ... 63
/// ```
///
/// A `BlockMask` selects blocks, which the dense engine computes; lists are for keys that lie
/// scattered: SPT's product-quantised selection (product_keys.hpp), the top keys of an indexer over
/// a cache of latents, a graph. Selectors of methods emit them, and `attend` takes them.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention {

namespace detail {
struct KeyListMaker;
}  // namespace detail

PARE_ABI_BEGIN

/// The keys of every (batch, head, query), ascending and each once, immutable once made.
///
/// Stored as compressed rows: row r = (batch, head, query) has the keys `keys()[offsets()[r]]` to
/// `keys()[offsets()[r + 1]]`. A row may be empty. Every way to make lists throws
/// `std::invalid_argument` on negative sizes, 2^30 and more queries or keys, and more rows than
/// memory could address. Memory: 4 bytes a listed key and 8 a row, which `bytes` tells.
class KeyLists {
 public:
  /// The shape that lists are for. With `batch` or `heads` of 1 they serve every batch entry or
  /// head.
  struct Shape {
    Index batch = 1;    ///< 1, or the batch
    Index heads = 1;    ///< 1, the number of key/value heads, or that of query heads
    Index queries = 0;  ///< tokens
    Index keys = 0;     ///< tokens
    /// Whether query i lists no key behind its position i + keys - queries (the last query beside
    /// the last key). It is checked where lists are made; `attend` hides nothing by it.
    bool causal = false;

    /// How many keys query i may list.
    Index listable(Index query) const {
      return causal ? std::clamp(query + 1 + keys - queries, Index{0}, keys) : keys;
    }

    friend bool operator==(const Shape&, const Shape&) = default;
  };

  /// The lists of no queries.
  KeyLists() = default;

  /// Takes compressed rows: `offsets` [batch * heads * queries + 1], `keys` those of each row one
  /// behind the other.
  /// \throws std::invalid_argument if the offsets are not that many, do not start at 0, decrease or
  ///         do not end at the number of keys, or a row holds a key out of range, unsorted, twice,
  ///         or behind its query where the shape is causal. Cost: one pass.
  static KeyLists from_csr(const Shape& shape, std::vector<Index> offsets,
                           std::vector<std::int32_t> keys) {
    const char* const name = "attention::KeyLists::from_csr";
    const Index rows = checked_rows(name, shape);
    check(static_cast<Index>(offsets.size()) == rows + 1, name, "offsets", offsets.size(),
          rows + 1);
    check_offsets(name, "offsets", offsets, static_cast<Index>(keys.size()), "keys");
    for (Index r = 0; r < rows; ++r) check_row(name, "keys", shape, r, row_of(offsets, keys, r));
    return {shape, std::move(offsets), std::move(keys)};
  }

  /// Takes one list of ascending keys for each (batch, head, query), in that order.
  /// \throws std::invalid_argument as `from_csr`, or if the lists are not that many.
  static KeyLists from_lists(const Shape& shape,
                             const std::vector<std::vector<std::int32_t>>& lists) {
    const char* const name = "attention::KeyLists::from_lists";
    const Index rows = checked_rows(name, shape);
    check(static_cast<Index>(lists.size()) == rows, name, "lists", lists.size(), rows);
    std::vector<Index> offsets{0};
    std::vector<std::int32_t> keys;
    for (Index r = 0; r < rows; ++r) {
      const std::vector<std::int32_t>& list = lists[static_cast<std::size_t>(r)];
      check_row(name, "lists", shape, r, list);
      keys.insert(keys.end(), list.begin(), list.end());
      offsets.push_back(static_cast<Index>(keys.size()));
    }
    return {shape, std::move(offsets), std::move(keys)};
  }

  /// Lists the keys for which `keep(batch, head, query, key)` is true. It is asked once for every
  /// pair that the shape allows, queries and keys ascending.
  template <class P>
  requires std::predicate<const P&, Index, Index, Index, Index>
  static KeyLists from_predicate(const Shape& shape, const P& keep) {
    const Index rows = checked_rows("attention::KeyLists::from_predicate", shape);
    std::vector<Index> offsets{0};
    std::vector<std::int32_t> keys;
    for (Index r = 0; r < rows; ++r) {
      const Index query = r % shape.queries, bh = r / shape.queries;
      for (Index key = 0; key < shape.listable(query); ++key)
        if (keep(bh / shape.heads, bh % shape.heads, query, key))
          keys.push_back(static_cast<std::int32_t>(key));
      offsets.push_back(static_cast<Index>(keys.size()));
    }
    return {shape, std::move(offsets), std::move(keys)};
  }

  /// The problem the lists are for.
  const Shape& shape() const { return shape_; }
  /// Keys listed, over all rows.
  Index listed() const { return static_cast<Index>(keys_.size()); }
  /// Bytes of offsets and keys.
  Index bytes() const {
    return static_cast<Index>(offsets_.size() * sizeof(Index) +
                              keys_.size() * sizeof(std::int32_t));
  }
  /// The compressed rows.
  std::span<const Index> offsets() const { return offsets_; }
  std::span<const std::int32_t> keys() const { return keys_; }

  /// The keys of a query, ascending. Lists of one batch entry or one head answer for any.
  /// \throws std::invalid_argument if there is no such batch entry, head or query.
  PARE_ALWAYS_INLINE std::span<const std::int32_t> row(Index batch, Index head, Index query) const {
    const Index b = shape_.batch == 1 ? 0 : batch, h = shape_.heads == 1 ? 0 : head;
    check(b >= 0 && b < shape_.batch && h >= 0 && h < shape_.heads && query >= 0 &&
              query < shape_.queries,
          "attention::KeyLists::row", "batch, head, query",
          std::array<Index, 3>{batch, head, query}, "a row of the lists");
    return row_of(offsets_, keys_, (b * shape_.heads + h) * shape_.queries + query);
  }

  friend bool operator==(const KeyLists&, const KeyLists&) = default;

 private:
  friend detail::KeyListMaker;

  KeyLists(const Shape& shape, std::vector<Index> offsets, std::vector<std::int32_t> keys)
      : shape_(shape), offsets_(std::move(offsets)), keys_(std::move(keys)) {}

  PARE_ALWAYS_INLINE static std::span<const std::int32_t> row_of(
      const std::vector<Index>& offsets, const std::vector<std::int32_t>& keys, Index row) {
    const auto r = static_cast<std::size_t>(row);
    return {keys.data() + offsets[r], static_cast<std::size_t>(offsets[r + 1] - offsets[r])};
  }

  /// batch * heads * queries, after the sizes were checked.
  static Index checked_rows(const char* name, const Shape& s) {
    constexpr Index most = std::numeric_limits<std::int32_t>::max() / 2;
    check(s.batch >= 0 && s.heads >= 0 && s.queries >= 0 && s.keys >= 0, name, "shape",
          std::array<Index, 4>{s.batch, s.heads, s.queries, s.keys},
          "batch, heads, queries and keys of at least 0");
    check(s.queries <= most && s.keys <= most, name, "shape",
          std::array<Index, 2>{s.queries, s.keys}, "fewer than 2^30 queries and keys");
    const Index rows =
        checked_product(name, "rows", checked_product(name, "rows", s.batch, s.heads), s.queries);
    checked_product(name, "rows", rows, 2 * static_cast<Index>(sizeof(Index)));
    return rows;
  }

  static void check_row(const char* name, const char* argument, const Shape& shape, Index row,
                        std::span<const std::int32_t> keys) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      check(keys[i] >= 0 && keys[i] < shape.keys, name, argument, keys[i],
            Worded{"keys from 0 to below ", shape.keys});
      check(i == 0 || keys[i] > keys[i - 1], name, argument, keys[i],
            Worded{"ascending keys in a row, each once: this is row ", row});
    }
    if (!shape.causal || keys.empty()) return;
    const Index listable = shape.listable(row % shape.queries);
    check(keys.back() < listable, name, argument, keys.back(),
          Worded{"no key behind its query in causal lists, below ", listable});
  }

  Shape shape_;
  std::vector<Index> offsets_ = {0};
  std::vector<std::int32_t> keys_;
};

PARE_ABI_END

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
