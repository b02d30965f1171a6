// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What becomes of a cache after a round: rows of accepted nodes stay, side by side behind the
/// committed tokens; those of all other nodes go.
///
/// ```cpp
/// compact(latents, 0, past, round.path);                    // a LatentCache or E4m3Cache
/// row_moves(past, tree.size(), round.path, moves);          // a cache of your own:
/// for (const RowMove m : moves) copy_row(m.from, m.to);     // in this order, in place
/// move_rows(moves, 0, keys);                                // [batch, heads, tokens, dim]
/// move_paged_rows(moves, 0, table, key_pages);              // pages of PagedKeyValue
/// ```
///
/// `past` is the number of committed tokens before the root, whose row lies at position past, with
/// node i at past + i. After the round the cache holds past + path.size() tokens, and the round's
/// last token is not among them: it is the next root. An accepted node at depth d moves to past +
/// d, whose rotary angle its key already has.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::draft {

/// A row of a cache that is copied to another position.
struct RowMove {
  Index from = 0;
  Index to = 0;
};

/// A cache of `sequences()` whose `keep(sequence, first, kept)` keeps of the tokens from `first` on
/// those listed.
template <class C>
concept CompactableCache = requires(C& cache, Index i, std::span<const Index> kept) {
  cache.keep(i, i, kept);
  { cache.sequences() } -> std::convertible_to<Index>;
  { cache.length(i) } -> std::convertible_to<Index>;
};

namespace detail {
PARE_ABI_BEGIN

/// Throws unless a path starts at the root and ascends.
inline void check_path(const char* function, Index past, Index nodes, std::span<const Index> path) {
  check(past >= 0, function, "past", past, "at least 0");
  check(nodes >= 1, function, "nodes", nodes, "at least 1");
  checked_sum(function, "past", past, nodes);
  check(!path.empty() && path[0] == 0, function, "path", path.empty() ? -1 : path[0],
        "0, the root, as the first node");
  for (std::size_t i = 1; i < path.size(); ++i)
    check(path[i] > path[i - 1] && path[i] < nodes, function, "path", path[i],
          Worded{"ascending nodes below ", nodes});
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The rows that move: that of the d-th node of the path to position past + d, if it is not there.
/// In this order they may be copied in place.
/// \param past  committed tokens before the root, at least 0
/// \param nodes of the tree
/// \param path  accepted nodes, the root first, ascending (Verified::path)
/// \param moves written; its memory is kept
/// \throws std::invalid_argument if a number is out of its range or the path is none
inline void row_moves(Index past, Index nodes, std::span<const Index> path,
                      std::vector<RowMove>& moves) {
  detail::check_path("draft::row_moves", past, nodes, path);
  moves.clear();
  for (std::size_t d = 0; d < path.size(); ++d)
    if (path[d] != static_cast<Index>(d))
      moves.push_back({past + path[d], past + static_cast<Index>(d)});
}

/// Compacts a sequence of a cache whose last tokens are the nodes of a tree.
/// \param cache   such as latent::LatentCache, latent::E4m3Cache
/// \param past    committed tokens before the root
/// \param path    as of row_moves
/// \throws std::invalid_argument if the path is none, past is not before the sequence's end, or as
///         the cache's `keep`. Nothing is changed then.
/// Cost: rows that move are read and written once.
template <CompactableCache C>
void compact(C& cache, Index sequence, Index past, std::span<const Index> path) {
  constexpr const char* function = "draft::compact";
  check(sequence >= 0 && sequence < cache.sequences(), function, "sequence", sequence,
        Worded{"from 0 to below ", cache.sequences()});
  check(past >= 0 && past < cache.length(sequence), function, "past", past,
        Worded{"from 0 to below the length of the sequence, ", cache.length(sequence)});
  detail::check_path(function, past, cache.length(sequence) - past, path);
  cache.keep(sequence, past, path);
}

/// Moves rows of one batch entry of keys or values in a tensor.
/// \param rows [batch, heads, tokens, dim], any strides
/// \throws std::invalid_argument if there is no such batch entry or token. Nothing is moved then.
template <Out<4> X>
void move_rows(std::span<const RowMove> moves, Index batch, X&& rows) {
  constexpr const char* function = "draft::move_rows";
  const auto x = to_view(rows);
  check_writable(function, "rows", x);
  check(batch >= 0 && batch < x.extent[0], function, "batch", batch,
        Worded{"from 0 to below ", x.extent[0]});
  for (const RowMove m : moves)
    check(std::min(m.from, m.to) >= 0 && std::max(m.from, m.to) < x.extent[2], function, "moves",
          std::max(m.from, m.to), Worded{"tokens below ", x.extent[2]});
  for (const RowMove m : moves)
    for (Index h = 0; h < x.extent[1]; ++h)
      for (Index c = 0; c < x.extent[3]; ++c) x(batch, h, m.to, c) = x(batch, h, m.from, c);
}

/// The same of rows in pages: token t lies in row t % page size of page table(sequence, t / page
/// size), as in attention::PagedKeyValue.
/// \param table [sequences, most pages of one]
/// \param rows  [pages, heads, page size, dim], any strides
/// \throws std::invalid_argument if there is no such sequence, a token's place is beyond the table,
///         or its page is none. Nothing is moved then. Pages that sequences share must not be
///         among those written, which is not checked.
template <Out<4> X>
void move_paged_rows(std::span<const RowMove> moves, Index sequence,
                     TensorView<const std::int32_t, 2> table, X&& rows) {
  constexpr const char* function = "draft::move_paged_rows";
  const auto x = to_view(rows);
  check_writable(function, "rows", x);
  check_view(function, "table", table);
  check(sequence >= 0 && sequence < table.rows(), function, "sequence", sequence,
        Worded{"from 0 to below ", table.rows()});
  const Index size = x.extent[2];
  check(size >= 1, function, "rows", x.extent, "a page size of at least 1");
  for (const RowMove m : moves)
    for (const Index t : {m.from, m.to}) {
      check(t >= 0 && t / size < table.cols(), function, "moves", t, "tokens that the table has");
      const Index page = table(sequence, t / size);
      check(page >= 0 && page < x.extent[0], function, "table", page,
            Worded{"pages from 0 to below ", x.extent[0]});
    }
  for (const RowMove m : moves) {
    const Index from = table(sequence, m.from / size), to = table(sequence, m.to / size);
    for (Index h = 0; h < x.extent[1]; ++h)
      for (Index c = 0; c < x.extent[3]; ++c)
        x(to, h, m.to % size, c) = x(from, h, m.from % size, c);
  }
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
