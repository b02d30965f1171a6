// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A few rows times the rows of a 2:4 weight, which are read where they lie: y = x W^T for what a
/// model decodes with, one token or some.
///
/// A register runs along the values, and each product of a row and an output has two registers of
/// sums (two_four_tile.hpp). What lies 8 KiB ahead is fetched in the order of memory, by whole rows
/// of the weight: one row of x is multiplied by one output from its start to its end before the
/// next (50 GB/s on a core of Zen 5 that reads 54 of one stream; two outputs 43), or by four where
/// the weight is in a cache; more rows by two.
///
/// What an element of y is summed from, and in which order, is the same for any number of rows and
/// wherever its output lies.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/two_four_tile.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// y_rj = sum over the inputs i that row j keeps of x_ri W_ji. What an output does not keep is not
/// looked at.
///
/// Cost: W is read once for every 6 rows (2 of 16 registers), after the first from L2. Of one row
/// reading binds, 36 bytes for 32 inputs of 16 bits, and from L2 some 9 instructions for them with
/// AVX-512.
template <TwoFourElement S>
struct MultiplyTwoFourRows {
  using T = detail::two_four_sum<S>;

  const S* values = nullptr;  ///< [outputs x 32 ceil(inputs / 64)], zeros at the end
  std::ptrdiff_t value_stride = 0;
  const std::uint16_t* mask = nullptr;  ///< [outputs x ceil(inputs / 16)], two bits in each nibble
  std::ptrdiff_t mask_stride = 0;
  const float* scales = nullptr;  ///< [outputs x ceil(inputs / 128)], of 8 bits
  std::ptrdiff_t scale_stride = 0;
  const T* x = nullptr;  ///< [rows x inputs]
  std::ptrdiff_t x_stride = 0;
  T* y = nullptr;  ///< [rows x outputs]
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t inputs = 0;  ///< a multiple of 4
  std::ptrdiff_t outputs = 0;
  bool from_cache = false;  ///< the weight is likely to be in L2
};

namespace detail {
PARE_ABI_BEGIN

/// Rows of a tile, bytes of x that it takes before the next inputs, two thirds of L1, and bytes
/// from what is multiplied to what is fetched.
template <class Arch>
inline constexpr int two_four_tile_rows = Arch::registers >= 32 ? 6 : 2;
inline constexpr std::ptrdiff_t two_four_x_bytes = 32768;
inline constexpr std::ptrdiff_t two_four_bytes_ahead = 8192;

/// Outputs that a number of rows is multiplied by at once: 6 x 2 x 2 sums, 2 registers of weights,
/// 2 of indices, 2 of x and 1 of those that are kept = 31 of 32.
inline constexpr int two_four_most_outputs = 4;
template <class Arch>
constexpr int two_four_outputs(int rows, bool from_cache) noexcept {
  if (rows > 1) return 2;
  return !from_cache ? 1 : Arch::registers >= 32 ? two_four_most_outputs : 2;
}

/// Up to two_four_tile_rows rows times as many outputs as a register holds, at least 4.
template <class Arch, class S>
class TwoFourPanel {
 public:
  using T = two_four_sum<S>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr std::ptrdiff_t width = std::max<std::ptrdiff_t>(n, two_four_most_outputs);

  /// `fetches`: the weight comes from memory.
  TwoFourPanel(const MultiplyTwoFourRows<S>& a, std::ptrdiff_t row, int rows, bool fetches) noexcept
      : a_(a), x_(a.x + row * a.x_stride), y_(a.y + row * a.y_stride), rows_(rows) {
    const std::ptrdiff_t whole = a.inputs / two_four_step * two_four_step;
    if (whole < a.inputs)
      for (int r = 0; r < rows; ++r) {
        const T* const end = x_ + r * a.x_stride;
        T* const to = x_end_ + r * two_four_step;
        std::fill(std::copy(end + whole, end + a.inputs, to), to + two_four_step, T(0));
      }
    const std::ptrdiff_t row_bytes = a.value_stride * static_cast<std::ptrdiff_t>(sizeof(S));
    if (fetches && row_bytes > 0)
      rows_ahead_ =
          std::max<std::ptrdiff_t>(outputs_at_once(), two_four_bytes_ahead / row_bytes + 1);
  }

  /// Outputs [output, output + width), of which those that are there are written.
  void multiply(std::ptrdiff_t output) noexcept {
    const std::ptrdiff_t count = std::min(width, a_.outputs - output);
    std::fill_n(sums_, rows_ * sums_stride, T(0));
    const std::ptrdiff_t steps = a_.inputs / two_four_step, most = most_steps();
    for (std::ptrdiff_t step = 0; step < steps; step += most)
      each_tile(count, [&](std::ptrdiff_t o, auto outputs) PARE_LAMBDA_INLINE {
        const std::ptrdiff_t now = std::min(most, steps - step);
        add<decltype(outputs)::value>(output + o, o, step, now, x_ + step * two_four_step,
                                      a_.x_stride);
      });
    if (steps * two_four_step < a_.inputs)
      each_tile(count, [&](std::ptrdiff_t o, auto outputs) PARE_LAMBDA_INLINE {
        add<decltype(outputs)::value>(output + o, o, steps, 1, x_end_, two_four_step);
      });
    for (int r = 0; r < rows_; ++r) finish(r, count, y_ + r * a_.y_stride + output);
  }

 private:
  static constexpr std::ptrdiff_t sum_size = two_four_sums * n;
  static constexpr std::ptrdiff_t sums_stride = width * sum_size;
  static constexpr std::ptrdiff_t step_bytes =
      two_four_step * static_cast<std::ptrdiff_t>(sizeof(T));
  static constexpr std::ptrdiff_t longest = two_four_x_bytes / step_bytes;

  /// Steps that x is multiplied by before the next outputs, whole scales of them.
  std::ptrdiff_t most_steps() const noexcept { return longest / rows_ / 2 * 2; }
  int outputs_at_once() const noexcept { return two_four_outputs<Arch>(rows_, a_.from_cache); }

  /// Calls add(output, constant of outputs) for `count` outputs.
  template <class Add>
  void each_tile(std::ptrdiff_t count, const Add& add) noexcept {
    const std::ptrdiff_t now = outputs_at_once();
    for (std::ptrdiff_t o = 0; o < count; o += now) {
      if (now == 4) add(o, std::integral_constant<int, 4>{});
      if (now == 2) add(o, std::integral_constant<int, 2>{});
      if (now == 1) add(o, std::integral_constant<int, 1>{});
    }
  }

  /// The products of `count` steps of the weight from `step` on with those of x. An output that is
  /// not there has the weights of another; its sums are not used.
  template <int Outputs>
  void add(std::ptrdiff_t output, std::ptrdiff_t o, std::ptrdiff_t step, std::ptrdiff_t count,
           const T* x, std::ptrdiff_t x_stride) noexcept {
    const std::ptrdiff_t first = step * two_four_step_words;
    const std::ptrdiff_t words =
        std::min(count * two_four_step_words, (a_.inputs + 15) / 16 - first);
    TwoFourLine<S> lines[Outputs];
    for (int i = 0; i < Outputs; ++i) {
      const std::ptrdiff_t at = std::min(output + i, a_.outputs - 1);
      const std::uint16_t* const mask = a_.mask + at * a_.mask_stride + first;
      index_kept<Arch>(mask, words, indices_[i]);
      std::fill(indices_[i] + 2 * words, indices_[i] + count * two_four_step_indices,
                std::uint8_t{0});
      if (rows_ahead_ > 0)
        for (std::ptrdiff_t word = 0; word < words; word += 32)
          prefetch<2>(mask + word, rows_ahead_ * a_.mask_stride * 2);
      lines[i] = {a_.values + at * a_.value_stride + step * two_four_step_values, indices_[i],
                  scales_of(at, step)};
    }
    TwoFourPart<T> part;
    part.x = x;
    part.x_stride = x_stride;
    part.steps = count;
    part.sums = sums_ + o * sum_size;
    part.sums_stride = sums_stride;
    part.ahead = rows_ahead_ * a_.value_stride * static_cast<std::ptrdiff_t>(sizeof(S));
    add_rows<Outputs>(lines, part);
  }

  template <int Outputs>
  void add_rows(const TwoFourLine<S> (&lines)[Outputs], const TwoFourPart<T>& part) noexcept {
    const auto rows = [&]<int Rows>(std::integral_constant<int, Rows>) PARE_LAMBDA_INLINE {
      if constexpr (Rows <= two_four_tile_rows<Arch> &&
                    (Outputs == two_four_outputs<Arch>(Rows, false) ||
                     Outputs == two_four_outputs<Arch>(Rows, true)))
        if (rows_ == Rows) add_two_four<Arch, Rows, Outputs>(lines, part);
    };
    rows(std::integral_constant<int, 1>{});
    rows(std::integral_constant<int, 2>{});
    rows(std::integral_constant<int, 3>{});
    rows(std::integral_constant<int, 4>{});
    rows(std::integral_constant<int, 5>{});
    rows(std::integral_constant<int, 6>{});
  }

  const float* scales_of(std::ptrdiff_t output, std::ptrdiff_t step) const noexcept {
    return std::is_same_v<S, std::int8_t>
               ? a_.scales + output * a_.scale_stride + step * two_four_step / two_four_scale_inputs
               : nullptr;
  }

  void finish(int row, std::ptrdiff_t count, T* y) noexcept {
    for (std::ptrdiff_t o = 0; o < count; o += n) {
      vec<T, Arch> of_each[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const T* const sums = sums_ + row * sums_stride + (o + i) * sum_size;
        of_each[i] = load<Arch>(sums) + load<Arch>(sums + n);
      }
      const vec<T, Arch> total = sum_lanes_of_each<Arch>(of_each);
      if (count - o >= n)
        store<Arch>(y + o, total);
      else
        store_first<Arch>(y + o, count - o, total);
    }
  }

  const MultiplyTwoFourRows<S>& a_;
  const T* x_;
  T* y_;
  int rows_;
  std::ptrdiff_t rows_ahead_ = 0;
  alignas(64) T sums_[static_cast<std::size_t>(two_four_tile_rows<Arch> * sums_stride)];
  alignas(64) T x_end_[static_cast<std::size_t>(two_four_tile_rows<Arch> * two_four_step)];
  alignas(64) std::uint8_t indices_[two_four_most_outputs]
                                   [static_cast<std::size_t>(longest * two_four_step_indices) + 64];
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const MultiplyTwoFourRows<S>& a) noexcept {
  using Panel = detail::TwoFourPanel<Arch, S>;
  constexpr std::ptrdiff_t most = detail::two_four_tile_rows<Arch>;
  if (a.rows == 0) return;
  if (a.rows <= most) {
    Panel panel(a, 0, static_cast<int>(a.rows), !a.from_cache);
    for (std::ptrdiff_t o = 0; o < a.outputs; o += Panel::width) panel.multiply(o);
    return;
  }
  for (std::ptrdiff_t o = 0; o < a.outputs; o += Panel::width)
    for (std::ptrdiff_t row = 0; row < a.rows;) {
      const int rows = next_group(a.rows - row, most);
      Panel(a, row, rows, row == 0 && !a.from_cache).multiply(o);
      row += rows;
    }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
