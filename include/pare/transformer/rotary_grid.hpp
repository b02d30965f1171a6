// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rotary angles of video and pictures: some pairs of a row turn by the frame, some by the line,
/// some by the column of its token.
///
/// ```cpp
/// const RotaryGrid grid = rotary_grid(30, 52);           // lines and columns of a frame
/// const RotaryTable<float> table(grid, 21 * grid.frame());
/// rotate(q, table);                                      // token t: frame t / frame(), ...
/// rotate(k, table, {.first_position = grid.position(frame, 0, 0)});
/// ```
///
/// Position p is the place of a token in the video, frames first: p = (t height + y) width + x.
/// Pairs [0, n_t) turn by t f_i, the n_h behind them by y g_i, the last n_w by x h_i, so that a
/// product of two rotated rows depends on the distance along each axis alone.
///
/// A large table can be avoided, since an axis turns pairs of its own. With
/// RotaryLayout::Interleaved the numbers of the frame come first, and a table of `grid.frames()`,
/// whose positions are frames, turns those alone; `grid.places()` has the others, for the rest of
/// the row:
///
/// ```cpp
/// rotate(k, RotaryTable<float>(grid.frames(), 1024), {.positions = frame_of_token});
/// rotate(k_behind_the_frame, RotaryTable<float>(grid.places(), grid.frame()), {...});
/// ```
///
/// Source: VideoMLA (arXiv 2605.30351), 2026, of which pairs of the axes are known: 6, 5 and 5
/// of 16. Reconstructed: their frequencies, the first of each axis of Wan 2.1, whose heads of 128
/// numbers have axes of 44, 42 and 42 with base 10000. The paper does not print them.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::transformer {

/// Options of rotary_grid. An axis has frequencies base^(-2i / channels) for i < pairs, the first
/// of those of an axis of so many numbers.
struct RotaryGridOptions {
  /// Pairs of t, y and x, each at least 0, one above 0. VideoMLA's.
  std::array<Index, 3> pairs{6, 5, 5};

  /// Numbers of each axis that its frequencies are spread over: at least twice its pairs.
  /// Reconstructed: Wan 2.1's.
  std::array<Index, 3> channels{44, 42, 42};

  /// Above 0 and finite.
  double base = 10000;
};

PARE_ABI_BEGIN

/// The angles of a grid of tokens: a RotaryAngles.
struct RotaryGrid {
  Index height = 1;                                  ///< lines of a frame, at least 1
  Index width = 1;                                   ///< tokens of a line, at least 1
  std::array<std::vector<double>, 3> frequencies{};  ///< radians per frame, line and token

  /// Tokens of a frame.
  Index frame() const { return height * width; }
  Index position(Index t, Index y, Index x) const { return (t * height + y) * width + x; }

  Index pairs() const { return pairs_of(0) + pairs_of(1) + pairs_of(2); }
  double angle(Index position, Index pair) const {
    const std::array<Index, 3> at{position / frame(), position / width % height, position % width};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (pair < pairs_of(axis))
        return static_cast<double>(at[axis]) * frequencies[axis][static_cast<std::size_t>(pair)];
      pair -= pairs_of(axis);
    }
    return 0;
  }

  /// The angles of frames alone: positions are frames, pairs those of t.
  RotaryFrequencies frames() const { return {frequencies[0], 1}; }
  /// Those of places within a frame alone: positions are y width + x, pairs those of y and x.
  RotaryGrid places() const { return {height, width, {{{}, frequencies[1], frequencies[2]}}}; }

 private:
  Index pairs_of(std::size_t axis) const { return static_cast<Index>(frequencies[axis].size()); }
};

/// The grid of frames of height x width tokens.
///
/// \param height, width at least 1
/// \throws std::invalid_argument if they or an option are out of their range
inline RotaryGrid rotary_grid(Index height, Index width, const RotaryGridOptions& options = {}) {
  constexpr const char* function = "transformer::rotary_grid";
  check(height >= 1, function, "height", height, "at least 1");
  check(width >= 1, function, "width", width, "at least 1");
  checked_product(function, "width", height, width);
  check(is_finite(options.base) && options.base > 0, function, "base", options.base,
        "a finite number above 0");
  RotaryGrid grid{height, width, {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const Index pairs = options.pairs[axis], channels = options.channels[axis];
    check(pairs >= 0, function, "pairs", options.pairs, "at least 0 of each axis");
    check(channels >= 0 && channels / 2 >= pairs, function, "channels", options.channels,
          "at least twice the pairs of each axis");
    for (Index i = 0; i < pairs; ++i)
      grid.frequencies[axis].push_back(
          std::pow(options.base, -2 * static_cast<double>(i) / static_cast<double>(channels)));
  }
  check(grid.pairs() >= 1, function, "pairs", options.pairs, "at least one pair");
  return grid;
}

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
