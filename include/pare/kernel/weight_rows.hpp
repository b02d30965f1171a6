// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A few rows times the rows of a weight, which are read where they lie: y = x W^T for what a model
/// decodes with, one token or some.
///
/// A register runs along the inputs, and each product of a row and an output has one register of
/// sums. Weights are widened, or de-quantised, in registers for up to 6 rows (2 where there are 16
/// registers), and 4 outputs of them once into a buffer in L1 for up to 16.
///
/// Memory is fastest in its own order: a core of Zen 5 reads 41 GB/s of one stream, and 28 to 32 of
/// four. With 32 registers one or two rows of the weight are therefore multiplied from their start
/// to their end before the next, by few rows of x, and what lies 8 KiB ahead is fetched in that
/// order. One row waits for its only sum, 16 inputs for each latency of an addition, which binds
/// weights of 16 bits and those in a cache: they are taken by two.
///
/// What an element of y is summed from, and in which order (weight_reader.hpp), is the same for any
/// number of rows and wherever its output lies.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/weight_reader.hpp>
#include <pare/kernel/weight_tile.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// y_rj = sum_i x_ri W_ji, 0 without inputs. Rows of bf16 as well are multiplied by
/// weight_pairs.hpp.
///
/// Cost: W is read once for every 16 rows. Of one row, reading binds, and of blocks of 4 bits the
/// instructions as well: with AVX-512 some 4 for 16 weights.
template <WeightElement W>
struct MultiplyWeightRows {
  const W* weights = nullptr;  ///< [outputs x inputs / weight_inputs]
  std::ptrdiff_t weight_stride = 0;
  const float* x = nullptr;  ///< [rows x inputs]
  std::ptrdiff_t x_stride = 0;
  float* y = nullptr;  ///< [rows x outputs]
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t inputs = 0;  ///< a multiple of weight_inputs
  std::ptrdiff_t outputs = 0;
  bool from_cache = false;  ///< the weight is likely to be in L2 or L3: 105 to 150 GB/s of one row
};

namespace detail {
PARE_ABI_BEGIN

/// Rows that are multiplied before weights are read again.
inline constexpr std::ptrdiff_t weight_rows_at_once = 16;
/// Bytes of x that are multiplied by several outputs before the next: two thirds of L1.
inline constexpr std::ptrdiff_t weight_x_bytes = 32768;

/// Bytes from the weight that is multiplied to the one that is fetched, where memory is read in its
/// order: best of 2 to 32 KiB on Zen 5.
inline constexpr std::ptrdiff_t weight_bytes_ahead = 8192;

/// Up to 16 rows times as many outputs as a register holds, at least 4.
template <class Arch, class W>
class WeightPanel {
 public:
  static constexpr std::ptrdiff_t n = lanes<float, Arch>;
  static constexpr std::ptrdiff_t width = std::max<std::ptrdiff_t>(n, weight_outputs);

  WeightPanel(const MultiplyWeightRows<W>& a, std::ptrdiff_t row, std::ptrdiff_t rows) noexcept
      : a_(a), x_(a.x + row * a.x_stride), y_(a.y + row * a.y_stride), rows_(rows) {
    const std::ptrdiff_t whole = a.inputs / weight_step * weight_step;
    if (has_end() && whole < a.inputs)
      for (std::ptrdiff_t r = 0; r < rows; ++r)
        copy_end(x_ + r * a.x_stride + whole, a.inputs - whole, x_end_ + r * weight_step);
    constexpr std::ptrdiff_t step_bytes = weight_step * static_cast<std::ptrdiff_t>(sizeof(float));
    most_steps_ = buffered() ? buffered_steps : WeightReader<Arch, W>::most_steps;
    if (!direct() || direct_outputs<Arch, W>(rows, a.from_cache) < weight_outputs)
      most_steps_ = std::min(most_steps_, weight_x_bytes / (step_bytes * rows));
    ahead_ = bytes_ahead();
  }

  /// Outputs [output, output + width), of which those that are there are written.
  void multiply(std::ptrdiff_t output) noexcept {
    const std::ptrdiff_t count = std::min(width, a_.outputs - output);
    if constexpr (std::is_same_v<W, float> && Arch::registers >= 32)
      if (rows_ == 1 && a_.from_cache) return multiply_one(output, count);
    const std::ptrdiff_t steps = a_.inputs / weight_step;
    for (std::ptrdiff_t step = 0; step < steps;) {
      const std::ptrdiff_t now = next_group(steps - step, most_steps_);
      for (std::ptrdiff_t o = 0; o < count; o += weight_outputs)
        add(lines_of_part(output + o, step, now, o + weight_outputs >= count),
            part_of(output + o, o, step, now));
      step += now;
    }
    if constexpr (has_end())
      if (steps * weight_step < a_.inputs)
        for (std::ptrdiff_t o = 0; o < count; o += weight_outputs)
          add_end(lines(output + o, steps * weight_step), part_of(output + o, o, steps, 1));
    if (!totals_from_registers())
      for (std::ptrdiff_t r = 0; r < rows_; ++r) finish(r, count, y_ + r * a_.y_stride + output);
  }

 private:
  /// Sums of a row and 4 outputs lie together, and those of the next row behind them.
  static constexpr std::ptrdiff_t sums_stride = weight_outputs * n;
  float* sums_at(std::ptrdiff_t row, std::ptrdiff_t o) noexcept {
    return sums_ + (o / weight_outputs * rows_ + row) * sums_stride + o % weight_outputs * n;
  }

  bool direct() const noexcept { return rows_ <= direct_rows<Arch, W>; }
  /// Whether weights are widened once for several tiles: floats need not be.
  bool buffered() const noexcept { return !std::is_same_v<W, float> && !direct(); }
  /// Whether inputs need not be whole steps.
  static constexpr bool has_end() noexcept { return !WeightBlock<W>; }

  std::ptrdiff_t row_bytes() const noexcept {
    return a_.weight_stride * static_cast<std::ptrdiff_t>(sizeof(W));
  }
  static std::ptrdiff_t step_bytes(std::ptrdiff_t steps) noexcept {
    return steps * weight_step / weight_inputs<W> * static_cast<std::ptrdiff_t>(sizeof(W));
  }

  /// Whether a row lies behind the other, and is multiplied whole.
  bool in_order() const noexcept {
    return row_bytes() == step_bytes(1) * a_.inputs / weight_step &&
           most_steps_ * weight_step >= a_.inputs;
  }

  /// From a weight to the one that is fetched: whole rows, since others may lie between those of a
  /// weight. Where inputs are taken in parts, the next rows of 4 outputs are next.
  std::ptrdiff_t bytes_ahead() const noexcept {
    const std::ptrdiff_t row = row_bytes();
    const std::ptrdiff_t least = most_steps_ * weight_step < a_.inputs ? weight_outputs : 2;
    return row > 0 ? row * std::max(least, weight_bytes_ahead / row + 1) : 0;
  }

  template <class From>
  static void copy_end(const From* from, std::ptrdiff_t count, From* to) noexcept {
    std::fill(std::copy(from, from + count, to), to + weight_step, From{});
  }

  WeightLines<W> lines(std::ptrdiff_t output, std::ptrdiff_t input) const noexcept {
    WeightLines<W> lines;
    for (std::ptrdiff_t o = 0; o < weight_outputs; ++o)
      lines.line[o] = a_.weights + std::min(output + o, a_.outputs - 1) * a_.weight_stride +
                      input / weight_inputs<W>;
    lines.next = weight_outputs * row_bytes();
    lines.later = weight_tiles_ahead * lines.next;
    lines.ahead = ahead_;
    lines.stepping = in_order() ? step_bytes(1) : 0;
    lines.second = in_order() ? step_bytes(1) : row_bytes();
    return lines;
  }

  /// The same for `now` steps. Where they are not all, the tile behind the `last` outputs of the
  /// panel is that of its next part, or of the next panel, which is fetched into L2 before.
  WeightLines<W> lines_of_part(std::ptrdiff_t output, std::ptrdiff_t step, std::ptrdiff_t now,
                               bool last) const noexcept {
    WeightLines<W> of_part = lines(output, step * weight_step);
    const std::ptrdiff_t steps = a_.inputs / weight_step;
    if (now == steps) return of_part;
    of_part.later = width * row_bytes();
    if (last)
      of_part.next = step + now < steps ? step_bytes(now) - (width - weight_outputs) * row_bytes()
                                        : weight_outputs * row_bytes() - step_bytes(step);
    return of_part;
  }

  /// Whether tiles have 4 outputs, whose totals leave them in registers.
  bool totals_from_registers() const noexcept {
    return !direct() || direct_outputs<Arch, W>(rows_, a_.from_cache) == weight_outputs;
  }

  /// `now` steps from `step` on, of which those behind whole steps are the end.
  WeightPart part_of(std::ptrdiff_t output, std::ptrdiff_t o, std::ptrdiff_t step,
                     std::ptrdiff_t now) noexcept {
    const bool is_end = (step + 1) * weight_step > a_.inputs;
    WeightPart part;
    part.x = is_end ? x_end_ : x_ + step * weight_step;
    part.x_stride = is_end ? weight_step : a_.x_stride;
    part.steps = now;
    part.sums = sums_at(0, o);
    part.sums_stride = sums_stride;
    part.from_cache = a_.from_cache;
    part.first = step == 0;
    if ((step + now) * weight_step >= a_.inputs && totals_from_registers()) part.y = y_ + output;
    part.y_stride = a_.y_stride;
    part.count = a_.outputs - output;
    return part;
  }

  /// One row times `count` outputs whose weights lie in a cache, two at once and without the tiles
  /// of other rows, whose own work takes a fifth of the time that short inputs take. The same sums.
  void multiply_one(std::ptrdiff_t output, std::ptrdiff_t count) noexcept {
    const std::ptrdiff_t whole = a_.inputs / weight_step * weight_step, left = a_.inputs - whole;
    const float *const x = x_, *const x_end = x_end_;
    for (std::ptrdiff_t o = 0; o < count; o += 2) {
      const float* const first = a_.weights + (output + o) * a_.weight_stride;
      const float* const second = first + (o + 1 < count ? a_.weight_stride : 0);
      vec<float, Arch> sum = broadcast<Arch>(0.0f), other = sum;
      const auto add = [&](const float* of_x, const float* w, const float* v) PARE_LAMBDA_INLINE {
        for (std::ptrdiff_t lane = 0; lane < weight_step / 2; lane += n)
          for (const std::ptrdiff_t i : {lane, lane + weight_step / 2}) {
            const vec<float, Arch> value = load<Arch>(of_x + i);
            sum = add_product<Arch>(value, load<Arch>(w + i), sum);
            other = add_product<Arch>(value, load<Arch>(v + i), other);
          }
      };
      for (std::ptrdiff_t i = 0; i < whole; i += weight_step) add(x + i, first + i, second + i);
      if (left > 0) {
        float ends[2][static_cast<std::size_t>(weight_step)];
        copy_end(first + whole, left, ends[0]);
        copy_end(second + whole, left, ends[1]);
        add(x_end, ends[0], ends[1]);
      }
      store<Arch>(sums_at(0, o), sum);
      store<Arch>(sums_at(0, o + 1), other);
    }
    finish(0, count, y_ + output);
  }

  /// The products with 4 outputs over at most as many steps as a reader or the buffer has room for.
  void add(const WeightLines<W>& lines, const WeightPart& part) noexcept {
    const WeightReader<Arch, W> reader(lines, part.steps);
    if (direct()) return add_weight_rows<Arch, W, true, true>(reader, rows_, part);
    if (!buffered()) return add_groups(reader, part);
    widen_weights<Arch>(reader, part.steps, buffer_);
    WeightLines<float> widened;
    for (std::ptrdiff_t o = 0; o < weight_outputs; ++o)
      widened.line[o] = buffer_ + o * buffered_steps * weight_step;
    add_groups(WeightReader<Arch, float>(widened, part.steps), part);
  }

  /// Later weights are fetched beside the first rows.
  template <class Reader>
  void add_groups(const Reader& reader, const WeightPart& part) noexcept {
    for (std::ptrdiff_t r = 0; r < rows_;) {
      const int now = next_group(rows_ - r, weight_tile_rows<Arch>);
      if (r == 0 && !buffered())
        add_weight_rows<Arch, W, false, true>(reader, now, part);
      else
        add_weight_rows<Arch, W, false, false>(reader, now, part.of_rows(r));
      r += now;
    }
  }

  /// Inputs that are no whole step, with zeros behind them.
  void add_end(const WeightLines<W>& lines, const WeightPart& part) noexcept {
    W end[weight_outputs][static_cast<std::size_t>(weight_step)];
    WeightLines<W> padded;
    for (std::ptrdiff_t o = 0; o < weight_outputs; ++o) {
      copy_end(lines.line[o], a_.inputs % weight_step, end[o]);
      padded.line[o] = end[o];
    }
    add(padded, part);
  }

  void finish(std::ptrdiff_t row, std::ptrdiff_t count, float* y) noexcept {
    for (std::ptrdiff_t o = 0; o < count; o += n) {
      vec<float, Arch> of_each[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t i = 0; i < n; ++i)
        of_each[i] = load<Arch>(static_cast<const float*>(sums_at(row, o + i)));
      const vec<float, Arch> total = sum_lanes_of_each<Arch>(of_each);
      if (count - o >= n)
        store<Arch>(y + o, total);
      else
        store_first<Arch>(y + o, count - o, total);
    }
  }

  const MultiplyWeightRows<W>& a_;
  const float* x_;
  float* y_;
  std::ptrdiff_t rows_;
  std::ptrdiff_t most_steps_ = 0, ahead_ = 0;
  alignas(64) float sums_[static_cast<std::size_t>(weight_rows_at_once * width * n)];
  alignas(
      64) float buffer_[static_cast<std::size_t>(weight_outputs * buffered_steps * weight_step)];
  alignas(64) float x_end_[static_cast<std::size_t>(weight_rows_at_once * weight_step)];
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class W>
void run_kernel(Arch, const MultiplyWeightRows<W>& a) noexcept {
  if (a.inputs == 0) {
    for (std::ptrdiff_t r = 0; r < a.rows; ++r) std::fill_n(a.y + r * a.y_stride, a.outputs, 0.0f);
    return;
  }
  using Panel = detail::WeightPanel<Arch, W>;
  for (std::ptrdiff_t row = 0; row < a.rows;) {
    const int rows = next_group(a.rows - row, detail::weight_rows_at_once);
    Panel panel(a, row, rows);
    for (std::ptrdiff_t o = 0; o < a.outputs; o += Panel::width) panel.multiply(o);
    row += rows;
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
