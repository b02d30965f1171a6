// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of VideoMLA's window (video_window.hpp), and the mask of chunks that it stands for.
///
/// ```cpp
/// VideoWindow<bf16> window({.latent = 192, .height = 30, .width = 52, .local_frames = 9});
/// const auto mask = chunk_causal_mask(queries, keys, 3 * 30 * 52);  // of a whole video
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/block_mask.hpp>
#include <pare/core/check.hpp>
#include <pare/transformer/rotary_grid.hpp>

namespace pare::latent {

/// Options of VideoWindow: those of the paper, but for the sizes, which must be given.
struct VideoWindowOptions {
  Index latent = 0;        ///< d_c, at least 1
  Index height = 0;        ///< lines of tokens of a frame, at least 1
  Index width = 0;         ///< tokens of a line, at least 1
  Index chunk_frames = 3;  ///< frames that are made at once, at most; at least 1
  Index sink_frames = 1;   ///< at least 0
  Index local_frames = 6;  ///< at least chunk_frames

  /// Whether the frames that are made count as local ones. The paper does not say; with 1 sink, 6
  /// local frames and chunks of 3, a chunk then sees 4 frames before it, else 7.
  bool counts_chunk = true;

  /// The pairs of each axis; d_r is twice their sum.
  transformer::RotaryGridOptions rotary{};

  /// These options, but for what rotary_grid checks.
  /// \throws std::invalid_argument if one is out of its range; `function` is named
  const VideoWindowOptions& validate(const char* function) const {
    check(latent >= 1, function, "latent", latent, "at least 1");
    check(chunk_frames >= 1, function, "chunk_frames", chunk_frames, "at least 1");
    check(sink_frames >= 0, function, "sink_frames", sink_frames, "at least 0");
    check(local_frames >= chunk_frames, function, "local_frames", local_frames,
          Worded{"at least the ", chunk_frames, " frames of a chunk"});
    checked_sum(function, "local_frames",
                checked_sum(function, "sink_frames", sink_frames, local_frames), chunk_frames);
    return *this;
  }
};

/// The blocks that chunks of `chunk` tokens see: their own and those before it. Queries are the
/// last ones of the keys.
/// \throws std::invalid_argument if a number is negative, chunk below 1, there are more queries
///         than keys, or what comes before the queries is no whole number of chunks
inline attention::BlockMask chunk_causal_mask(Index queries, Index keys, Index chunk) {
  constexpr const char* function = "latent::chunk_causal_mask";
  check(chunk >= 1, function, "chunk", chunk, "at least 1 token");
  check(queries >= 0 && queries <= keys, function, "queries", queries,
        Worded{"from 0 to the ", keys, " keys"});
  check((keys - queries) % chunk == 0, function, "keys", keys - queries,
        Worded{"a multiple of ", chunk, " keys before the queries"});
  const Index before = (keys - queries) / chunk;
  return attention::BlockMask::from_predicate(
      {.queries = queries, .keys = keys, .row_block = chunk, .column_block = chunk},
      [&](Index, Index, Index row, Index column) { return column <= before + row; });
}

}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
