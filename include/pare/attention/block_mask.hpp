// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which blocks of queries attend to which blocks of keys, stored as compressed sparse rows.
///
/// ```cpp
/// const BlockMask::Shape shape{.queries = 4096, .keys = 4096};  // for any batch entry and head
/// const auto band = BlockMask::from_predicate(
///     shape, [](Index, Index, Index m, Index n) { return n <= m && m - n < 8; });
/// attend(q, k, v, out, {.causal = true, .mask = &band});
/// const double share = band.density(true);                      // of the causal triangle
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::attention {

/// A rank-4 view or tensor of bool or of bytes.
template <class X>
concept DenseMask =
    requires { typename view_of<const X>; } && view_of<const X>::rank == 4 &&
    (std::same_as<std::remove_const_t<typename view_of<const X>::scalar>, bool> ||
     std::same_as<std::remove_const_t<typename view_of<const X>::scalar>, std::uint8_t>);

PARE_ABI_BEGIN

/// The selected (row block, column block) pairs of every (batch, head), immutable once made.
///
/// Row block m holds queries [m row_block, (m+1) row_block), column block n holds key slots [n
/// column_block, (n+1) column_block); the last of each may be shorter. Slots are the places of a
/// `KeyOrder`, or the keys themselves without one. A mask says which blocks are computed. It says
/// nothing about single keys: causality and windows apply inside a block as usual. A row of blocks
/// may be empty.
///
/// Stored as compressed rows: row r = (batch, head, row block) has the ascending columns
/// `columns()[offsets()[r]]` to `columns()[offsets()[r + 1]]`. Every way to make a mask throws
/// `std::invalid_argument` on negative sizes, block sizes below 1, more than 2^31 - 1 column
/// blocks, and more rows than memory could address. Memory: 4 bytes per selected block and 8 per
/// row of blocks.
class BlockMask {
 public:
  /// The shape that a mask is for. With `batch` or `heads` of 1 it serves every batch entry or
  /// head.
  struct Shape {
    Index batch = 1;           ///< 1, or the batch (or number of packed sequences)
    Index heads = 1;           ///< 1, or the number of query heads
    Index queries = 0;         ///< tokens
    Index keys = 0;            ///< tokens
    Index row_block = 128;     ///< queries in a block
    Index column_block = 128;  ///< key slots in a block

    /// ceil(queries / row_block), and `column_blocks` ceil(keys / column_block).
    /// \throws std::invalid_argument if there is a negative number of tokens or a block of none.
    Index row_blocks() const { return blocks("row_block", queries, row_block); }
    Index column_blocks() const { return blocks("column_block", keys, column_block); }

    /// How many leading column blocks hold a key that some query of the row block may see when
    /// query i stands at position i + keys - queries (bottom-right aligned) and keys lie in
    /// natural order.
    /// \throws std::invalid_argument if there is no such row block.
    Index causal_columns(Index row) const {
      check(row >= 0 && row < row_blocks(), shape_name_, "row", row, "a row block of the shape");
      const Index first = row * row_block;
      const Index last_query = first + std::min(row_block, queries - first) - 1;
      const Index last_position = last_query - queries + keys;  // no sum of two large numbers
      return last_position < 0 ? 0 : last_position / column_block + 1;
    }

    friend bool operator==(const Shape&, const Shape&) = default;

   private:
    static Index blocks(const char* argument, Index tokens, Index block) {
      check(tokens >= 0 && block >= 1, shape_name_, argument, std::array<Index, 2>{tokens, block},
            "at least 0 tokens, and 1 in a block");
      return ceil_div(tokens, block);
    }
  };

  /// The mask of no tokens.
  BlockMask() = default;

  /// Takes compressed rows: `offsets` [batch * heads * row_blocks + 1], `columns` the column blocks
  /// of each row one after the other.
  /// \throws std::invalid_argument if the offsets are not that many, do not start at 0, decrease or
  /// do not end at the number of columns, or a row holds a column out of range, unsorted or twice.
  /// Cost: one pass.
  static BlockMask from_csr(const Shape& shape, std::vector<Index> offsets,
                            std::vector<std::int32_t> columns) {
    const char* const name = "attention::BlockMask::from_csr";
    check_offsets(name, offsets, checked_rows(name, shape), columns.size());
    for (std::size_t r = 0; r + 1 < offsets.size(); ++r)
      check_row(name, "columns", shape, row_of(offsets, columns, r));
    return {shape, std::move(offsets), std::move(columns)};
  }

  /// Takes one list of ascending column blocks for each (batch, head, row block), in that order.
  /// \throws std::invalid_argument as `from_csr`, or if the lists are not that many.
  static BlockMask from_lists(const Shape& shape,
                              const std::vector<std::vector<std::int32_t>>& lists) {
    const char* const name = "attention::BlockMask::from_lists";
    const Index rows = checked_rows(name, shape);
    check(static_cast<Index>(lists.size()) == rows, name, "lists", lists.size(), rows);
    std::vector<Index> offsets{0};
    std::vector<std::int32_t> columns;
    for (const std::vector<std::int32_t>& list : lists) {
      check_row(name, "lists", shape, list);
      columns.insert(columns.end(), list.begin(), list.end());
      offsets.push_back(static_cast<Index>(columns.size()));
    }
    return {shape, std::move(offsets), std::move(columns)};
  }

  /// Reads `dense` [batch, heads, row_blocks, column_blocks] of bool (or of bytes, nonzero meaning
  /// selected): a view or a row-major tensor.
  /// \throws std::invalid_argument if its extents differ from those of the shape, or it is null.
  /// Cost: one pass.
  template <DenseMask X>
  static BlockMask from_dense(const Shape& shape, const X& dense) {
    const char* const name = "attention::BlockMask::from_dense";
    checked_rows(name, shape);
    const auto view = to_view(dense);
    check_extents<4>(name, "dense", view.extent,
                     {shape.batch, shape.heads, shape.row_blocks(), shape.column_blocks()});
    check(view.data != nullptr || std::ranges::count(view.extent, 0) > 0, name, "dense",
          "a null pointer", "data");
    return from_predicate(shape, [&view](Index batch, Index head, Index row, Index column) {
      return static_cast<bool>(view(batch, head, row, column));
    });
  }

  /// Selects the blocks for which `keep(batch, head, row, column)` is true; it is asked once for
  /// every block of the shape, rows and columns ascending.
  template <class P>
  requires std::predicate<const P&, Index, Index, Index, Index>
  static BlockMask from_predicate(const Shape& shape, const P& keep) {
    const Index lines = checked_rows("attention::BlockMask::from_predicate", shape);
    std::vector<Index> offsets{0};
    std::vector<std::int32_t> columns;
    for (Index line = 0; line < lines; ++line) {
      const Index row = line % shape.row_blocks(), bh = line / shape.row_blocks();
      for (Index column = 0; column < shape.column_blocks(); ++column)
        if (keep(bh / shape.heads, bh % shape.heads, row, column))
          columns.push_back(static_cast<std::int32_t>(column));
      offsets.push_back(static_cast<Index>(columns.size()));
    }
    return {shape, std::move(offsets), std::move(columns)};
  }

  /// Every block that some query of its row block can see, keys in natural order, bottom-right
  /// aligned.
  static BlockMask causal(const Shape& shape) {
    return from_predicate(shape, [&shape](Index, Index, Index row, Index column) {
      return column < shape.causal_columns(row);
    });
  }

  /// The problem the mask is for, and its numbers of blocks.
  const Shape& shape() const { return shape_; }
  Index row_blocks() const { return shape_.row_blocks(); }
  Index column_blocks() const { return shape_.column_blocks(); }
  /// The number of blocks selected, over all batch entries and heads of the mask.
  Index selected() const { return static_cast<Index>(columns_.size()); }
  /// The compressed rows: [batch * heads * row_blocks + 1] offsets into the columns, ascending in
  /// each row.
  std::span<const Index> offsets() const { return offsets_; }
  std::span<const std::int32_t> columns() const { return columns_; }

  /// The selected column blocks of a row block, ascending. A mask with one batch entry or one head
  /// answers for any batch entry or head.
  /// \throws std::invalid_argument if there is no such batch entry, head or row block.
  PARE_ALWAYS_INLINE std::span<const std::int32_t> row(Index batch, Index head, Index row) const {
    const Index b = shape_.batch == 1 ? 0 : batch, h = shape_.heads == 1 ? 0 : head;
    check(
        b >= 0 && b < shape_.batch && h >= 0 && h < shape_.heads && row >= 0 && row < row_blocks(),
        "attention::BlockMask::row", "batch, head, row", std::array<Index, 3>{batch, head, row},
        "a row of the mask");
    return row_of(offsets_, columns_,
                  static_cast<std::size_t>((b * shape_.heads + h) * row_blocks() + row));
  }

  /// The selected share of the blocks, in [0, 1], mean over batch entries and heads; 1 if there is
  /// no block. If `causal`, it is the share of the blocks of `causal()`, which are T(T+1)/2 for T
  /// square blocks (the convention of the PBS paper). Selected blocks outside that triangle, which
  /// a key order leaves in the query's own segment, count neither as selected nor as blocks. Cost:
  /// a binary search per row of blocks.
  double density(bool causal) const {
    double kept = 0, blocks = 0;
    for (std::size_t line = 0; line + 1 < offsets_.size(); ++line) {
      const Index row = static_cast<Index>(line) % row_blocks();
      const Index limit = causal ? shape_.causal_columns(row) : column_blocks();
      const auto selected = row_of(offsets_, columns_, line);
      const auto end = std::partition_point(selected.begin(), selected.end(),
                                            [limit](std::int32_t n) { return n < limit; });
      kept += static_cast<double>(end - selected.begin());
      blocks += static_cast<double>(limit);
    }
    return blocks > 0 ? kept / blocks : 1.0;
  }

  friend bool operator==(const BlockMask&, const BlockMask&) = default;

 private:
  static constexpr const char* shape_name_ = "attention::BlockMask::Shape";

  BlockMask(const Shape& shape, std::vector<Index> offsets, std::vector<std::int32_t> columns)
      : shape_(shape), offsets_(std::move(offsets)), columns_(std::move(columns)) {}

  PARE_ALWAYS_INLINE static std::span<const std::int32_t> row_of(
      const std::vector<Index>& offsets, const std::vector<std::int32_t>& columns, std::size_t r) {
    return {columns.data() + offsets[r], static_cast<std::size_t>(offsets[r + 1] - offsets[r])};
  }

  /// batch * heads * row_blocks, after the sizes were checked.
  static Index checked_rows(const char* name, const Shape& s) {
    check(s.row_block >= 1, name, "row_block", s.row_block, "at least 1");
    check(s.column_block >= 1, name, "column_block", s.column_block, "at least 1");
    check(s.batch >= 0 && s.heads >= 0 && s.queries >= 0 && s.keys >= 0, name, "shape",
          std::array<Index, 4>{s.batch, s.heads, s.queries, s.keys},
          "batch, heads, queries and keys of at least 0");
    check(s.column_blocks() <= std::numeric_limits<std::int32_t>::max(), name, "column blocks",
          s.column_blocks(), "at most 2^31 - 1");
    const Index rows = checked_product(
        name, "rows", checked_product(name, "rows", s.batch, s.heads), s.row_blocks());
    checked_product(name, "rows", rows, 2 * static_cast<Index>(sizeof(Index)));
    return rows;
  }

  static void check_offsets(const char* name, const std::vector<Index>& offsets, Index rows,
                            std::size_t columns) {
    check(static_cast<Index>(offsets.size()) == rows + 1, name, "offsets", offsets.size(),
          rows + 1);
    check(offsets.front() == 0, name, "offsets", offsets.front(), "a first offset of 0");
    for (std::size_t r = 0; r + 1 < offsets.size(); ++r)
      check(offsets[r + 1] >= offsets[r], name, "offsets", offsets[r + 1],
            "offsets that never decrease");
    check(offsets.back() == static_cast<Index>(columns), name, "offsets", offsets.back(),
          "the number of columns as the last offset");
  }

  static void check_row(const char* name, const char* argument, const Shape& shape,
                        std::span<const std::int32_t> row) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      check(row[i] >= 0 && row[i] < shape.column_blocks(), name, argument, row[i],
            "column blocks within the shape");
      check(i == 0 || row[i] > row[i - 1], name, argument, row[i],
            "ascending column blocks, each once");
    }
  }

  Shape shape_;
  std::vector<Index> offsets_ = {0};
  std::vector<std::int32_t> columns_;
};

PARE_ABI_END

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
