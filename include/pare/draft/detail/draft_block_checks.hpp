// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What calls of a draft block refuse.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/draft_block_cache.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/transformer/linear.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>

namespace pare::draft::detail {
PARE_ABI_BEGIN

/// Block: a DraftBlock.
template <class Block>
struct DraftBlockChecks {
  using T = typename Block::scalar;
  using Rows = TensorView<const T, 2>;

  const char* function;
  const Block& block;
  std::optional<std::span<const Index>> offsets;  ///< of DraftBlockOptions

  template <class S>
  void cache(const DraftBlockCache<S>& cache) const {
    const DraftBlockConfig& c = block.config();
    check_extents<3>(function, "cache", {cache.layers(), cache.kv_heads(), cache.head_dim()},
                     {c.layers, c.kv_heads, c.head_dim});
  }

  /// `tapped` of a checked cache.
  template <class S>
  void context(Rows tapped, const DraftBlockCache<S>& cache) const {
    check_view(function, "tapped", tapped);
    check_extents<2>(function, "tapped", tapped.extent,
                     {tapped.rows(), block.config().tapped_width});
    if (offsets) {
      check(static_cast<Index>(offsets->size()) == cache.sequences() + 1, function, "offsets",
            offsets->size(),
            Worded{"", cache.sequences() + 1, ", one more than there are sequences"});
      check_offsets(function, "offsets", *offsets, tapped.rows());
    } else {
      check(cache.sequences() == 1 || tapped.rows() == 0, function, "offsets", "none",
            Worded{"those of ", cache.sequences(), " sequences"});
    }
    for (Index s = 0; s < cache.sequences(); ++s) {
      const Index n = new_tokens(s, tapped.rows()), length = cache.length(s);
      check(n <= cache.capacity() - length, function, "cache", Worded{"", n, " new tokens"},
            Worded{"at most ", cache.capacity() - length, ", the room of a sequence"});
      positions(length, n);
    }
  }

  /// A block behind `tapped` rows that are yet to be appended, and its output.
  template <class S>
  void block_rows(Rows x, const DraftBlockCache<S>& cache, TensorView<T, 2> out,
                  Index tapped) const {
    const DraftBlockConfig& c = block.config();
    const Index sequences = cache.sequences(), tokens = x.rows() / sequences;
    check_view(function, "embeddings", x);
    check_extents<2>(function, "embeddings", x.extent, {x.rows(), c.width});
    check(x.rows() % sequences == 0, function, "embeddings", x.rows(),
          Worded{"as many rows for each of ", sequences, " sequences"});
    const Index most = std::min(c.block, cache.block());
    check(x.rows() == 0 || (tokens >= 2 && tokens <= most), function, "embeddings", tokens,
          Worded{"blocks of 2 to ", most, " rows"});
    check_writable(function, "out", out);
    check_extents<2>(function, "out", out.extent,
                     {sequences * std::max<Index>(0, tokens - 1), c.width});
    check_no_overlap(function, "out", out, "embeddings", x);
    block.weights().for_each_linear([&](const auto& layer) {
      transformer::check_apart_from_layer(function, "out", out, layer);
    });
    for (Index s = 0; s < sequences; ++s)
      positions(cache.length(s) + new_tokens(s, tapped), tokens);
  }

 private:
  /// New tokens of a sequence.
  Index new_tokens(Index sequence, Index tokens) const {
    if (!offsets) return tokens;
    const auto at = static_cast<std::size_t>(sequence);
    return (*offsets)[at + 1] - (*offsets)[at];
  }

  void positions(Index first, Index count) const {
    if (count == 0) return;
    const auto& table = block.table();
    const Worded wanted{"positions of the table, below ", table.first() + table.count()};
    check(table.has(first), function, "table", first, wanted);
    check(table.has(first + count - 1), function, "table", first + count - 1, wanted);
  }
};

PARE_ABI_END
}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
