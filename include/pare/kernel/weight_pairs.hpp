// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of bf16 times the rows of a weight of bf16, which are read where they lie: y = x W^T in
/// products of pairs, two multiply-adds a lane and instruction.
///
/// A register runs along the inputs, and each product of a row and an output has one register of
/// sums, whose lanes are added up at the end of a block of the inputs (pair_tile.hpp). Blocks
/// depend on the inputs alone, and their totals are added in ascending order: an element of y has
/// the same bits for any number of rows and wherever its output lies.
///
/// Up to 7 rows, reading the weight binds: two of its rows are multiplied from their start to their
/// end, in which order memory is fastest. More rows are taken up to 36 at a time. A block of theirs
/// stays in L1 while tiles of 4 outputs pass, which are fetched evenly beside the products, into L2
/// and then into L1. So both run at nearly their full speed: rows that came from L2 would share its
/// requests with the weight, and each would wait for the other.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/pair_tile.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace pare::kernel {

/// y_rj = sum_i x_ri W_ji, 0 without inputs. Inputs and strides count pairs. Only where the arch
/// has_bf16_dot.
///
/// Cost: W is read once for every 24 to 36 rows, which binds up to some 10 rows on Zen 5; beyond,
/// products do, at 0.8 to 0.87 of their peak, much of the rest being the adding up of lanes. More
/// than 7 rows are fastest where rows of x are `pair_row_stride` apart.
struct MultiplyWeightPairs {
  const Bf16Pair* weights = nullptr;  ///< [outputs x inputs]
  std::ptrdiff_t weight_stride = 0;
  const Bf16Pair* x = nullptr;  ///< [rows x inputs]
  std::ptrdiff_t x_stride = 0;
  float* y = nullptr;  ///< [rows x outputs]
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t inputs = 0;  ///< a multiple of pair_step
  std::ptrdiff_t outputs = 0;
};

PARE_ABI_BEGIN

/// Rows up to which the weight is read in the order of memory.
inline constexpr std::ptrdiff_t streamed_pair_rows = 7;

/// Pairs from a row of x to the next with which the blocks of rows lie evenly over the sets of L1:
/// as many lines, and an odd number, as a block has beyond whole pages.
inline std::ptrdiff_t pair_row_stride(std::ptrdiff_t inputs) noexcept {
  constexpr std::ptrdiff_t line = detail::pairs_of_line, page = 4096 / 64;
  const std::ptrdiff_t lines = (inputs + line - 1) / line;
  const std::ptrdiff_t block =
      lines / std::max<std::ptrdiff_t>(detail::PairBlocks(inputs).count(), 1) | 1;
  return (lines + ((block - lines) % page + page) % page) * line;
}

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// Few rows, two outputs at a time. Rows whose inputs take more of L1 than they should are taken in
/// parts, of the outputs of a panel each.
template <class Arch, int Rows>
class StreamedPairs {
  static constexpr std::ptrdiff_t outputs_at_once = 2, panel_outputs = 64;
  static constexpr std::ptrdiff_t size = sizeof(Bf16Pair);
  /// Bytes of x in a part, and from the weight that is multiplied to the one that is fetched: best
  /// of 12 to 32 KiB, and of 2 to 32, on Zen 5.
  static constexpr std::ptrdiff_t part_bytes = 18 << 10, bytes_ahead = 8192;

 public:
  explicit StreamedPairs(const MultiplyWeightPairs& a) noexcept : a_(a), blocks_(a.inputs) {
    const std::ptrdiff_t bytes = Rows * a.inputs * size;
    parts_ = std::min((bytes + part_bytes - 1) / part_bytes, blocks_.count());
  }

  void run() const noexcept {
    const std::ptrdiff_t width = parts_ == 1 ? a_.outputs : panel_outputs;
    for (std::ptrdiff_t begin = 0; begin < a_.outputs; begin += width)
      for (std::ptrdiff_t part = 0; part < parts_; ++part) {
        const std::ptrdiff_t end = std::min(begin + width, a_.outputs);
        std::ptrdiff_t output = begin;
        for (; output + outputs_at_once <= end; output += outputs_at_once)
          multiply<outputs_at_once, outputs_at_once>(output, part);
        for (; output < end; ++output) multiply<1, 0>(output, part);
      }
  }

 private:
  std::ptrdiff_t first_block(std::ptrdiff_t part) const noexcept {
    return blocks_.count() * part / parts_;
  }
  std::ptrdiff_t row_bytes() const noexcept { return a_.weight_stride * size; }
  /// Whole rows, since others may lie between those of a weight.
  std::ptrdiff_t ahead() const noexcept {
    const std::ptrdiff_t row = row_bytes(), bytes = row / parts_;
    return bytes > 0 ? row * std::max(outputs_at_once, bytes_ahead / bytes + 1) : 0;
  }

  template <int Outputs, int Fetches>
  void multiply(std::ptrdiff_t output, std::ptrdiff_t part) const noexcept {
    const bool in_order = a_.weight_stride == a_.inputs && parts_ == 1;
    PairTile tile;
    tile.weight_stride = a_.weight_stride;
    tile.x_stride = a_.x_stride;
    tile.totals = a_.y + output;
    tile.totals_stride = a_.y_stride;
    tile.fetched = a_.weights + output * a_.weight_stride;
    tile.fetched_step = in_order ? outputs_at_once * 64 : 64;
    tile.fetched_next = in_order ? 64 : row_bytes();
    for (std::ptrdiff_t b = first_block(part); b < first_block(part + 1); ++b) {
      const std::ptrdiff_t begin = blocks_.begin(b);
      tile.weights = a_.weights + output * a_.weight_stride + begin;
      tile.x = a_.x + begin;
      tile.inputs = blocks_.begin(b + 1) - begin;
      tile.adds = b > 0;
      tile.fetched_from = ahead() + begin / pairs_of_line * tile.fetched_step;
      add_pair_tile<Arch, Rows, Outputs, Fetches, false>(tile);
    }
  }

  const MultiplyWeightPairs& a_;
  PairBlocks blocks_;
  std::ptrdiff_t parts_ = 1;
};

/// More rows, and at least 4 outputs.
template <class Arch>
class BlockedPairs {
  static constexpr std::ptrdiff_t outputs_at_once = 4;
  /// Rows whose block stays in L1: so many at most, and as many as take so many bytes.
  static constexpr std::ptrdiff_t most_rows = 6 * tile_rows, rows_bytes = 36 << 10;
  static constexpr std::ptrdiff_t size = sizeof(Bf16Pair);
  /// Outputs of a panel, whose totals lie in L1; where it is passed several times, of so many
  /// bytes, so that it stays in L2.
  static constexpr std::ptrdiff_t most_columns = 64, panel_bytes = std::ptrdiff_t{1} << 18;

  /// A tile of outputs and a block of inputs: all blocks of a panel's tiles for some rows, then for
  /// the next rows, then those of the next panel.
  struct Place {
    std::ptrdiff_t panel = 0, rows = 0, block = 0, output = 0;
  };

 public:
  explicit BlockedPairs(const MultiplyWeightPairs& a) noexcept : a_(a), blocks_(a.inputs) {
    const std::ptrdiff_t fit = rows_bytes / (blocks_.most() * size) / tile_rows * tile_rows;
    const std::ptrdiff_t at_once = std::clamp(fit, std::ptrdiff_t{tile_rows}, most_rows);
    row_groups_ = (a.rows + at_once - 1) / at_once;
    if (row_groups_ > 1)
      columns_ =
          std::clamp(panel_bytes / (a.inputs * size) / 16 * 16, std::ptrdiff_t{16}, most_columns);
  }

  void run() noexcept {
    Place ahead = next({}), later = next(next(ahead));
    for (Place at; at.panel < a_.outputs;) {
      multiply(at, ahead, later);
      if (ahead.panel != at.panel || ahead.rows != at.rows) write(at);
      at = ahead;
      ahead = next(ahead);
      later = next(later);
    }
  }

 private:
  Place next(Place at) const noexcept {
    at.output += outputs_at_once;
    if (at.output < std::min(a_.outputs, at.panel + columns_)) return at;
    at.output = at.panel;
    if (++at.block < blocks_.count()) return at;
    at.block = 0;
    if (++at.rows < row_groups_) return at;
    at.rows = 0;
    at.output = at.panel += columns_;
    return at;
  }

  std::ptrdiff_t first_row(std::ptrdiff_t group) const noexcept {
    return a_.rows * group / row_groups_;
  }
  /// Of outputs that are not all there, the last ones that are.
  const Bf16Pair* weights_at(const Place& at) const noexcept {
    return a_.weights + std::min(at.output, a_.outputs - outputs_at_once) * a_.weight_stride +
           blocks_.begin(at.block);
  }

  void multiply(const Place& at, const Place& ahead, const Place& later) noexcept {
    const std::ptrdiff_t begin = blocks_.begin(at.block), first = first_row(at.rows),
                         rows = first_row(at.rows + 1) - first;
    PairTile tile;
    tile.weights = weights_at(at);
    tile.weight_stride = a_.weight_stride;
    tile.inputs = blocks_.begin(at.block + 1) - begin;
    tile.x = a_.x + first * a_.x_stride + begin;
    tile.x_stride = a_.x_stride;
    tile.totals = totals_ + (at.output - at.panel);
    tile.totals_stride = most_columns;
    tile.adds = at.block > 0;
    tile.fetched = weights_at(ahead);
    tile.fetched_later = weights_at(later);
    tile.fetched_step = 64;
    tile.fetched_next = a_.weight_stride * size;
    const std::ptrdiff_t groups = (rows + tile_rows - 1) / tile_rows;
    for (std::ptrdiff_t g = 0, row = 0; g < groups; ++g) {
      const int now = next_group(rows - row);
      const std::ptrdiff_t line = outputs_at_once * g / groups;
      tile.fetched_from = line * tile.fetched_next;
      add_pair_rows<Arch>(now, outputs_at_once * (g + 1) / groups - line, tile);
      tile.x += now * a_.x_stride;
      tile.totals += now * most_columns;
      row += now;
    }
  }

  /// y = the totals of a panel and its rows.
  void write(const Place& at) const noexcept {
    const std::ptrdiff_t columns = std::min(columns_, a_.outputs - at.panel),
                         whole = columns / outputs_at_once * outputs_at_once;
    const std::ptrdiff_t first = first_row(at.rows), rows = first_row(at.rows + 1) - first;
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      float* const y = a_.y + (first + r) * a_.y_stride + at.panel;
      const float* const totals = totals_ + r * most_columns;
      std::copy(totals, totals + whole, y);
      // The last ones stand at the end of their tile.
      const float* const end = totals + whole + outputs_at_once;
      if (whole < columns) std::copy(end - (columns - whole), end, y + whole);
    }
  }

  const MultiplyWeightPairs& a_;
  PairBlocks blocks_;
  std::ptrdiff_t row_groups_ = 1, columns_ = most_columns;
  alignas(64) float totals_[static_cast<std::size_t>(most_rows * most_columns)];
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
requires Arch::has_bf16_dot
void run_kernel(Arch, const MultiplyWeightPairs& a) noexcept {
  if (a.inputs == 0) {
    for (std::ptrdiff_t r = 0; r < a.rows; ++r) std::fill_n(a.y + r * a.y_stride, a.outputs, 0.0f);
    return;
  }
  if (a.rows > streamed_pair_rows && a.outputs >= 4) return detail::BlockedPairs<Arch>(a).run();
  for (std::ptrdiff_t row = 0; row < a.rows;) {
    MultiplyWeightPairs some = a;
    some.x += row * a.x_stride;
    some.y += row * a.y_stride;
    some.rows = next_group(a.rows - row, streamed_pair_rows);
    [&]<int... I>(std::integer_sequence<int, I...>) {
      ((some.rows == I + 1 ? detail::StreamedPairs<Arch, I + 1>(some).run() : void()), ...);
    }(std::make_integer_sequence<int, int{streamed_pair_rows}>{});
    row += some.rows;
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
