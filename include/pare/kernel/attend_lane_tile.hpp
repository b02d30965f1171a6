// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A tile of attention whose query rows are the lanes of registers: scores, weights, output.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/attend_lanes.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/online_softmax.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/shuffle.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// A row has the bits that a packed tile gives it, but where that multiplies pairs of bf16; no row
/// depends on those beside it.
template <class Arch, class S, class M>
class LaneTile {
  using Tile = AttendTile<S, M>;
  using T = compute_t<S>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr bool widens = !std::is_same_v<S, T>;
  static constexpr bool modified = !std::is_same_v<M, Exact>;
  static constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(S));
  static constexpr T lowest = -std::numeric_limits<T>::infinity();

 public:
  explicit LaneTile(const Tile& tile) noexcept
      : a_(tile),
        stride_(tile.lanes.stride),
        now_(tile.lanes.rows),
        factor_(now_ + stride_),
        shift_(factor_ + stride_),
        rescale_(shift_ + stride_) {}

  void run() noexcept {
    const GroupView view = view_of(0, a_.rows);
    if (unseen(view)) return;
    count_ = seen(view);
    const T factor = modified ? T(log2_e) : a_.scale * T(log2_e);
    take_rows();
    score();
    if (modified || a_.highest > view.min_last || a_.lowest < view.max_first) change_scores();
    advance(factor);
    weigh();
    accumulate();
  }

 private:
  GroupView view_of(std::ptrdiff_t begin, std::ptrdiff_t end) const noexcept {
    GroupView view;
    for (std::ptrdiff_t r = begin; r < end; ++r) view.add(a_.places[r]);
    return view;
  }
  bool unseen(const GroupView& view) const noexcept {
    return a_.lowest > view.max_last || (a_.highest < view.min_first && a_.lowest >= a_.sinks);
  }
  /// Keys that some row of the view may see.
  std::ptrdiff_t seen(const GroupView& view) const noexcept {
    return a_.contiguous && view.max_last - a_.lowest < a_.count - 1 ? view.max_last - a_.lowest + 1
                                                                     : a_.count;
  }

  /// Points to keys and values as T.
  void take_rows() noexcept {
    shared_ = a_.key_depth >= a_.value_columns &&
              std::equal(a_.key_rows, a_.key_rows + count_, a_.value_rows);
    if constexpr (widens) {
      widen_rows<Arch>(a_.key_rows, count_, a_.key_depth, a_.lanes.keys);
      if (!shared_) widen_rows<Arch>(a_.value_rows, count_, a_.value_columns, a_.lanes.values);
      for (std::ptrdiff_t j = 0; j < count_; ++j) {
        keys_[j] = a_.lanes.keys + j * a_.key_depth;
        values_[j] = shared_ ? keys_[j] : a_.lanes.values + j * a_.value_columns;
      }
    } else {
      std::copy_n(a_.key_rows, count_, keys_);
      std::copy_n(a_.value_rows, count_, values_);
    }
    ahead_ = std::min(a_.ahead, tile_keys);
    for (std::ptrdiff_t j = 0; j < ahead_; ++j) {
      ahead_rows_[j] = reinterpret_cast<const char*>(a_.key_rows[a_.count + j]);
      ahead_values_[j] = reinterpret_cast<const char*>(a_.value_rows[a_.count + j]);
    }
    // What is scored beside the last key.
    for (std::ptrdiff_t j = count_; j < count_ + LaneRoom<T>::lane_room; ++j) keys_[j] = keys_[0];
  }

  void score() noexcept {
    constexpr std::ptrdiff_t width = lane_columns<T, Arch>;
    for (std::ptrdiff_t row = 0; row < a_.rows; row += width) {
      const int registers = static_cast<int>((std::min(a_.rows - row, width) + n - 1) / n);
      const std::ptrdiff_t keys = lane_keys<Arch>(registers);
      for (std::ptrdiff_t j = 0; j < count_; j += keys)
        score_lanes<Arch, T>(registers, {.keys = keys_ + j,
                                         .depth = a_.key_depth,
                                         .queries = a_.queries + row * a_.key_depth,
                                         .scores = a_.lanes.scores + j * stride_ + row,
                                         .stride = stride_,
                                         .fetch = row == 0 ? fetch_keys(j, keys) : LaneFetch{}});
    }
  }

  /// Keys of the next tile, beside as many as are scored. Those that are values too are fetched as
  /// such: scoring is short of loads, and weighing values is not.
  LaneFetch fetch_keys(std::ptrdiff_t j, std::ptrdiff_t keys) const noexcept {
    if (shared_ || j + keys > ahead_) return {};
    return {ahead_rows_ + j, keys, 0, a_.key_depth * size};
  }

  /// What a modifier and what is hidden make of scores.
  void change_scores() noexcept {
    for (std::ptrdiff_t r = 0; r < a_.rows; ++r) {
      if constexpr (modified) modify_scores(a_, a_.places[r], count_, a_.lanes.scores + r, stride_);
      hide_keys(a_, a_.places[r], count_, a_.lanes.scores + r, stride_);
    }
  }

  /// Moves the maximum of each row, and says what its weights are: 2^(factor score + shift).
  void advance(T factor) noexcept {
    for (std::ptrdiff_t r = 0; r < a_.rows; r += n) {
      vec<T, Arch> largest = scores(0, r);
      for (std::ptrdiff_t j = 1; j < count_; ++j) largest = maximum<Arch>(largest, scores(j, r));
      store<Arch>(now_ + r, largest);
    }
    for (std::ptrdiff_t r = 0; r < a_.rows; ++r) {
      const T before = a_.maximum[r], tile = in_log2(now_[r], factor);
      const T now = !(tile <= before) ? tile : before;
      now_[r] = now;
      rescale_[r] = now == lowest ? T(0) : before - now;
      factor_[r] = factor;
      shift_[r] = now == lowest ? T(0) : -now;
      if (is_far(now)) shorten(r, factor);
      a_.maximum[r] = now;
    }
    // Lanes without a row.
    for (std::ptrdiff_t r = a_.rows; r < stride_; ++r) factor_[r] = shift_[r] = rescale_[r] = T(0);
  }

  /// Exponents of a row whose maximum is far from 0.
  PARE_NOINLINE void shorten(std::ptrdiff_t r, T factor) noexcept {
    for (std::ptrdiff_t j = 0; j < count_; ++j) {
      T& score = a_.lanes.scores[j * stride_ + r];
      score = in_log2(score, factor) - now_[r];
    }
    factor_[r] = T(1);
    shift_[r] = T(0);
  }

  /// Scores become weights, which are added to the sums in the order of a packed tile's.
  void weigh() noexcept {
    for (std::ptrdiff_t r = 0; r < a_.rows; r += n) {
      weigh_lanes(r);
      store<Arch>(rescale_ + r, exp2<Arch>(load<Arch>(static_cast<const T*>(rescale_) + r)));
    }
    for (T* const sums : {a_.sum, a_.mass}) {
      if (sums == nullptr) continue;
      for (std::ptrdiff_t r = 0; r < a_.rows; ++r) sums[r] *= rescale_[r];
      for (std::ptrdiff_t r = 0; r < a_.rows; ++r) sums[r] += now_[r];
    }
  }

  /// The same of a register of rows; `now_` gets the sums of their weights. Packed, a register has
  /// n keys of a row, and its lanes are added at the end, halves onto halves: here key j goes to
  /// part j modulo n.
  void weigh_lanes(std::ptrdiff_t r) noexcept {
    const vec<T, Arch> factor = load<Arch>(static_cast<const T*>(factor_) + r),
                       shift = load<Arch>(static_cast<const T*>(shift_) + r);
    vec<T, Arch> parts[static_cast<std::size_t>(n)];
    for (vec<T, Arch>& part : parts) part = broadcast<Arch>(T(0));
    for (std::ptrdiff_t begin = 0; begin < count_; begin += n)
      for (std::ptrdiff_t j = begin; j < std::min(begin + n, count_); ++j) {
        const vec<T, Arch> weight = exp2<Arch>(multiply_add<Arch>(scores(j, r), factor, shift));
        store<Arch>(a_.lanes.scores + j * stride_ + r, weight);
        parts[j - begin] = parts[j - begin] + weight;
      }
    for (std::ptrdiff_t half = n / 2; half > 0; half /= 2)
      for (std::ptrdiff_t i = 0; i < half; ++i) parts[i] = parts[i] + parts[i + half];
    store<Arch>(now_ + r, parts[0]);
  }

  /// Adds the weighed values, some columns at a time, which stay in L1 meanwhile.
  void accumulate() noexcept {
    const std::ptrdiff_t columns = a_.value_columns;
    const PanelSplit split{static_cast<int>((columns + n - 1) / n), tile_registers<Arch>};
    std::ptrdiff_t c = 0;
    for (int p = 0; p < split.panels(); ++p) {
      const std::ptrdiff_t width = split.width(p) * n;
      if (c + width > columns) {
        // Rows may end at the end of memory: their ends are copied beside zeros.
        alignas(64) T ends[static_cast<std::size_t>(tile_keys * tile_columns<T, Arch>)];
        const T* rows[static_cast<std::size_t>(tile_keys)];
        for (std::ptrdiff_t j = 0; j < count_; ++j) {
          T* const end = ends + j * width;
          std::fill(std::copy(values_[j] + c, values_[j] + columns, end), end + width, T(0));
          rows[j] = end;
        }
        accumulate_panel(split.width(p), rows, 0, c);
      } else {
        accumulate_panel(split.width(p), values_, c, c);
      }
      c += width;
    }
  }

  /// Column `from` of `values` on goes to column c of the output.
  void accumulate_panel(int registers, const T* const* values, std::ptrdiff_t from,
                        std::ptrdiff_t c) noexcept {
    const std::ptrdiff_t out_stride = padded_columns<T>(a_.value_columns);
    for (std::ptrdiff_t row = 0; row < a_.rows;) {
      const int rows = next_group(a_.rows - row);
      const GroupView view = view_of(row, row + rows);
      if (!unseen(view))
        weigh_values<Arch, T>(rows, registers,
                              {.weights = a_.lanes.scores + row,
                               .stride = stride_,
                               .values = values,
                               .count = std::min(seen(view), count_),
                               .c = from,
                               .out = a_.out + row * out_stride + c,
                               .out_stride = out_stride,
                               .scale = rescale_ + row,
                               .fetch = fetch_values(c, registers * n, row, rows)});
      row += rows;
    }
  }

  /// Values of the next tile: as large a part of each as [row, row + rows) and `width` columns from
  /// c on are of this tile.
  LaneFetch fetch_values(std::ptrdiff_t c, std::ptrdiff_t width, std::ptrdiff_t row,
                         std::ptrdiff_t rows) const noexcept {
    const std::ptrdiff_t bytes = (shared_ ? a_.key_depth : a_.value_columns) * size;
    const std::ptrdiff_t lines = (bytes + 63) / 64, done = c * a_.rows + row * width;
    const std::ptrdiff_t all = (a_.value_columns + n - 1) / n * n * a_.rows;
    const std::ptrdiff_t end = lines * (done + rows * width) / all * 64;
    return {ahead_values_, ahead_, lines * done / all * 64, std::min(end, bytes)};
  }

  vec<T, Arch> scores(std::ptrdiff_t key, std::ptrdiff_t row) const noexcept {
    return load<Arch>(static_cast<const T*>(a_.lanes.scores) + key * stride_ + row);
  }

  const Tile& a_;
  const std::ptrdiff_t stride_;
  std::ptrdiff_t count_ = 0;
  std::ptrdiff_t ahead_ = 0;
  bool shared_ = false;  ///< values are the first scalars of their keys
  T* const now_;
  T* const factor_;
  T* const shift_;
  T* const rescale_;
  const T* keys_[static_cast<std::size_t>(tile_keys + LaneRoom<T>::lane_room)];
  const T* values_[static_cast<std::size_t>(tile_keys)];
  const char* ahead_rows_[static_cast<std::size_t>(tile_keys)];
  const char* ahead_values_[static_cast<std::size_t>(tile_keys)];
};

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
