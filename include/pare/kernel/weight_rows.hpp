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
/// four. With 32 registers a row of the weight is therefore multiplied from its start to its end
/// before the next, by few rows of x, and what lies 8 KiB ahead is fetched.
///
/// What an element of y is summed from, and in which order (weight_reader.hpp), is the same for any
/// number of rows and wherever its output lies.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/weight_reader.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// y_rj = sum_i x_ri W_ji.
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
};

namespace detail {
PARE_ABI_BEGIN

/// Rows that are multiplied before weights are read again.
inline constexpr std::ptrdiff_t weight_rows_at_once = 16;
/// Steps whose weights are widened into a buffer: 4 outputs of them are 12 KiB.
inline constexpr std::ptrdiff_t buffered_steps = 24;
/// Bytes of x that are multiplied by several outputs before the next: half of L1.
inline constexpr std::ptrdiff_t weight_x_bytes = 24576;

/// Bytes from the weight that is multiplied to the one that is fetched, where memory is read in its
/// order: best of 2 to 32 KiB on Zen 5.
inline constexpr std::ptrdiff_t weight_bytes_ahead = 8192;

/// Rows of a tile, and rows up to which weights of numbers are multiplied as they are read.
template <class Arch>
inline constexpr int weight_tile_rows = Arch::registers >= 32 ? 4 : 2;
template <class Arch, class W>
inline constexpr int direct_rows =
    Arch::registers >= 32 && !WeightBlock<W> ? 6 : weight_tile_rows<Arch>;

/// Outputs that `rows` rows are multiplied by at once, up to direct_rows. Numbers of 32 registers
/// are read output by output, as they lie, by 1 or 2 rows; of 3 or 4, x would be loaded too often
/// for that. With 16 registers, a step of one output has too few sums to hide their latency, and
/// what blocks need is instructions, not memory.
template <class Arch, class W>
constexpr int direct_outputs(std::ptrdiff_t rows) noexcept {
  if (Arch::registers < 32 || WeightBlock<W>) return weight_outputs;
  return rows <= 2 ? 1 : rows <= 4 ? weight_outputs : 2;
}

/// a b + c, rounded once where the processor can. Left to the compiler, a float is rounded once in
/// one loop and twice in another, and bits would depend on the number of rows.
template <class Arch, class V>
PARE_TILE_INLINE V add_product(V a, V b, V c) noexcept {
#if defined(__FP_FAST_FMAF)
  if constexpr (std::is_same_v<V, float>) return __builtin_fmaf(a, b, c);
#endif
  return multiply_add<Arch>(a, b, c);
}

/// sum += a x for each a of `Outputs` weights, in registers: low ones, then high ones.
template <class Arch, int Rows, int Outputs, bool Held, class Tile>
PARE_TILE_INLINE void add_weight_products(Tile& tile, const vec<float, Arch> (&weights)[Outputs],
                                          const float* x, std::ptrdiff_t x_stride) noexcept {
  RegisterTile<float, Arch, Rows, 1>::each([&](int r, int) PARE_LAMBDA_INLINE {
    vec<float, Arch> value = load<Arch>(x + r * x_stride);
    if constexpr (Held && Outputs > 1) value = held(value);
    RegisterTile<float, Arch, 1, Outputs>::each([&](int, int o) PARE_LAMBDA_INLINE {
      tile.sum[r][o] = add_product<Arch>(value, weights[o], tile.sum[r][o]);
    });
  });
}

/// sums += the products of `Rows` rows of x and `Outputs` outputs from `first` on over `steps`
/// steps. A sum is a register: sums[r * sums_stride + output * lanes].
template <class Arch, int Rows, int Outputs, bool Held, class Reader>
PARE_TILE_INLINE void add_weight_tile(const Reader& weights, int first, const float* x,
                                      std::ptrdiff_t x_stride, std::ptrdiff_t steps, float* sums,
                                      std::ptrdiff_t sums_stride) noexcept {
  using One = RegisterTile<float, Arch, 1, Outputs>;
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  RegisterTile<float, Arch, Rows, Outputs> tile;
  tile.load(sums + first * n, sums_stride);
  for (std::ptrdiff_t step = 0; step < steps; ++step)
    for (std::ptrdiff_t lane = 0; lane < weight_step / 2; lane += n) {
      const float* const at = x + step * weight_step + lane;
      vec<float, Arch> low[Outputs], high[Outputs];
      One::each([&](int, int o) PARE_LAMBDA_INLINE {
        weights.template read<Outputs>(first + o, step, lane, low[o], high[o]);
        if constexpr (Held && Rows > 1) low[o] = held(low[o]), high[o] = held(high[o]);
      });
      add_weight_products<Arch, Rows, Outputs, Held>(tile, low, at, x_stride);
      add_weight_products<Arch, Rows, Outputs, Held>(tile, high, at + weight_step / 2, x_stride);
    }
  tile.store_to(sums + first * n, sums_stride);
}

/// The same for 4 outputs, all of them at once or, of rows that are `Direct`, fewer.
template <class Arch, class W, int Rows, bool Direct, class Reader>
PARE_TILE_INLINE void add_weight_outputs(const Reader& weights, const float* x,
                                         std::ptrdiff_t x_stride, std::ptrdiff_t steps, float* sums,
                                         std::ptrdiff_t sums_stride) noexcept {
  constexpr int outputs = Direct ? direct_outputs<Arch, W>(Rows) : weight_outputs;
  // Of 4 streams of memory, those that are multiplied at leisure arrive sooner: 36 GB/s against 28.
  constexpr bool held = !Direct || outputs < weight_outputs;
  for (int first = 0; first < weight_outputs; first += outputs)
    add_weight_tile<Arch, Rows, outputs, held>(weights, first, x, x_stride, steps, sums,
                                               sums_stride);
}

/// The same for `rows` rows, at most those of a tile, or direct_rows.
template <class Arch, class W, bool Direct, class Reader>
void add_weight_rows(const Reader& weights, const float* x, std::ptrdiff_t x_stride,
                     std::ptrdiff_t rows, std::ptrdiff_t steps, float* sums,
                     std::ptrdiff_t sums_stride) noexcept {
  constexpr int most = Direct ? direct_rows<Arch, W> : weight_tile_rows<Arch>;
  const auto add = [&]<int Rows>(std::integral_constant<int, Rows>) PARE_LAMBDA_INLINE {
    if constexpr (Rows <= most)
      if (rows == Rows)
        add_weight_outputs<Arch, W, Rows, Direct>(weights, x, x_stride, steps, sums, sums_stride);
  };
  add(std::integral_constant<int, 1>{});
  add(std::integral_constant<int, 2>{});
  add(std::integral_constant<int, 3>{});
  add(std::integral_constant<int, 4>{});
  add(std::integral_constant<int, 5>{});
  add(std::integral_constant<int, 6>{});
}

/// Widens `steps` steps of 4 outputs: buffer[output * (buffered_steps * weight_step) + input].
template <class Arch, class Reader>
PARE_TILE_INLINE void widen_weights(const Reader& weights, std::ptrdiff_t steps,
                                    float* buffer) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  for (std::ptrdiff_t step = 0; step < steps; ++step)
    for (std::ptrdiff_t lane = 0; lane < weight_step / 2; lane += n)
      RegisterTile<float, Arch, 1, weight_outputs>::each([&](int, int o) PARE_LAMBDA_INLINE {
        vec<float, Arch> low, high;
        weights.template read<weight_outputs>(o, step, lane, low, high);
        float* const to = buffer + o * buffered_steps * weight_step + step * weight_step + lane;
        store<Arch>(to, low);
        store<Arch>(to + weight_step / 2, high);
      });
}

/// Up to 16 rows times as many outputs as a register holds, at least 4.
template <class Arch, class W>
class WeightPanel {
 public:
  static constexpr std::ptrdiff_t n = lanes<float, Arch>;
  static constexpr std::ptrdiff_t width = std::max<std::ptrdiff_t>(n, weight_outputs);

  WeightPanel(const MultiplyWeightRows<W>& a, std::ptrdiff_t row, std::ptrdiff_t rows) noexcept
      : a_(a), x_(a.x + row * a.x_stride), y_(a.y + row * a.y_stride), rows_(rows) {
    const std::ptrdiff_t whole = a.inputs / weight_step * weight_step;
    if (whole < a.inputs)
      for (std::ptrdiff_t r = 0; r < rows; ++r)
        copy_end(x_ + r * a.x_stride + whole, a.inputs - whole, x_end_ + r * weight_step);
    constexpr std::ptrdiff_t step_bytes = weight_step * static_cast<std::ptrdiff_t>(sizeof(float));
    most_steps_ = buffered() ? buffered_steps : WeightReader<Arch, W>::most_steps;
    if (!direct() || direct_outputs<Arch, W>(rows) < weight_outputs)
      most_steps_ = std::min(most_steps_, weight_x_bytes / (step_bytes * rows));
    ahead_ = bytes_ahead();
  }

  /// Outputs [output, output + width), of which those that are there are written.
  void multiply(std::ptrdiff_t output) noexcept {
    const std::ptrdiff_t count = std::min(width, a_.outputs - output);
    std::fill(sums_, sums_ + rows_ * sums_stride, 0.0f);
    const std::ptrdiff_t steps = a_.inputs / weight_step;
    for (std::ptrdiff_t step = 0; step < steps;) {
      const std::ptrdiff_t now = next_group(steps - step, most_steps_);
      for (std::ptrdiff_t o = 0; o < count; o += weight_outputs)
        add(lines(output + o, step * weight_step), x_ + step * weight_step, a_.x_stride, now,
            sums_ + o * n);
      step += now;
    }
    if constexpr (!WeightBlock<W>)
      if (steps * weight_step < a_.inputs)
        for (std::ptrdiff_t o = 0; o < count; o += weight_outputs)
          add_end(lines(output + o, steps * weight_step), sums_ + o * n);
    for (std::ptrdiff_t r = 0; r < rows_; ++r)
      finish(sums_ + r * sums_stride, count, y_ + r * a_.y_stride + output);
  }

 private:
  static constexpr std::ptrdiff_t sums_stride = width * n;

  bool direct() const noexcept { return rows_ <= direct_rows<Arch, W>; }
  /// Whether weights are widened once for several tiles: floats need not be.
  bool buffered() const noexcept { return !std::is_same_v<W, float> && !direct(); }

  /// From a weight to the one that is fetched: whole rows, since others may lie between those of a
  /// weight. Where inputs are taken in parts, the next rows of 4 outputs are next.
  std::ptrdiff_t bytes_ahead() const noexcept {
    const std::ptrdiff_t row = a_.weight_stride * static_cast<std::ptrdiff_t>(sizeof(W));
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
    lines.next = weight_outputs * a_.weight_stride * static_cast<std::ptrdiff_t>(sizeof(W));
    lines.ahead = ahead_;
    return lines;
  }

  /// The products with 4 outputs over at most as many steps as a reader or the buffer has room for.
  void add(const WeightLines<W>& lines, const float* x, std::ptrdiff_t x_stride,
           std::ptrdiff_t steps, float* sums) noexcept {
    const WeightReader<Arch, W> reader(lines, steps);
    if (direct())
      return add_weight_rows<Arch, W, true>(reader, x, x_stride, rows_, steps, sums, sums_stride);
    if (!buffered()) return add_groups(reader, x, x_stride, steps, sums);
    widen_weights<Arch>(reader, steps, buffer_);
    WeightLines<float> widened;
    for (std::ptrdiff_t o = 0; o < weight_outputs; ++o)
      widened.line[o] = buffer_ + o * buffered_steps * weight_step;
    add_groups(WeightReader<Arch, float>(widened, steps), x, x_stride, steps, sums);
  }

  template <class Reader>
  void add_groups(const Reader& reader, const float* x, std::ptrdiff_t x_stride,
                  std::ptrdiff_t steps, float* sums) noexcept {
    for (std::ptrdiff_t r = 0; r < rows_;) {
      const int now = next_group(rows_ - r, weight_tile_rows<Arch>);
      add_weight_rows<Arch, W, false>(reader, x + r * x_stride, x_stride, now, steps,
                                      sums + r * sums_stride, sums_stride);
      r += now;
    }
  }

  /// Inputs that are no whole step, with zeros behind them.
  void add_end(const WeightLines<W>& lines, float* sums) noexcept {
    W end[weight_outputs][static_cast<std::size_t>(weight_step)];
    WeightLines<W> padded;
    for (std::ptrdiff_t o = 0; o < weight_outputs; ++o) {
      copy_end(lines.line[o], a_.inputs % weight_step, end[o]);
      padded.line[o] = end[o];
    }
    add(padded, x_end_, weight_step, 1, sums);
  }

  static void finish(const float* sums, std::ptrdiff_t count, float* y) noexcept {
    for (std::ptrdiff_t o = 0; o < count; o += n) {
      vec<float, Arch> of_each[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t i = 0; i < n; ++i) of_each[i] = load<Arch>(sums + (o + i) * n);
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
  alignas(64) float sums_[static_cast<std::size_t>(weight_rows_at_once * sums_stride)];
  alignas(
      64) float buffer_[static_cast<std::size_t>(weight_outputs * buffered_steps * weight_step)];
  alignas(64) float x_end_[static_cast<std::size_t>(weight_rows_at_once * weight_step)];
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class W>
void run_kernel(Arch, const MultiplyWeightRows<W>& a) noexcept {
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
