// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tiles of sums of rows of x and outputs of a weight, which weight_rows.hpp multiplies by: each
/// sum is a register along the inputs, whose lanes are added at the end.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/weight_reader.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// Steps whose weights are widened into a buffer: 4 outputs of them are 12 KiB.
inline constexpr std::ptrdiff_t buffered_steps = 24;
/// Rows of a tile, and rows up to which weights of numbers are multiplied as they are read.
template <class Arch>
inline constexpr int weight_tile_rows = Arch::registers >= 32 ? 4 : 2;
template <class Arch, class W>
inline constexpr int direct_rows =
    Arch::registers >= 32 && !WeightBlock<W> ? 6 : weight_tile_rows<Arch>;

/// Outputs that `rows` rows are multiplied by at once, up to direct_rows. Numbers of 32 registers
/// are read by two, nearly as they lie, and floats of memory one by one: two streams of them arrive
/// later, of 16 bits they do not. Of 3 or 4 rows, x would be loaded too often for that. With 16
/// registers, a step of two outputs has too few sums to hide their latency, and what blocks need is
/// instructions, not memory.
template <class Arch, class W>
constexpr int direct_outputs(std::ptrdiff_t rows, bool from_cache) noexcept {
  if (Arch::registers < 32 || WeightBlock<W>) return weight_outputs;
  if (std::is_same_v<W, float> && rows <= 2 && !from_cache) return 1;
  return rows == 3 || rows == 4 ? weight_outputs : 2;
}

/// a b + c, rounded once where the processor can. Left to the compiler, a float is rounded once in
/// one loop and twice in another, and bits would depend on the number of rows.
template <class Arch, class V>
PARE_TILE_INLINE V add_product(V a, V b, V c) noexcept {
#if defined(__FP_FAST_FMAF)
  if constexpr (std::is_same_v<V, float>) return __builtin_fmaf(a, b, c);
#endif
#if defined(__FP_FAST_FMA)
  if constexpr (std::is_same_v<V, double>) return __builtin_fma(a, b, c);
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

/// A part of the inputs of some rows of x, and where their products with 4 outputs go. A sum is a
/// register, sums[r * sums_stride + output * lanes], until the last part.
struct WeightPart {
  const float* x = nullptr;
  std::ptrdiff_t x_stride = 0;
  std::ptrdiff_t steps = 0;
  float* sums = nullptr;
  std::ptrdiff_t sums_stride = 0;
  bool from_cache = false;  ///< weights come from a cache
  bool first = false;       ///< sums begin with 0
  float* y = nullptr;       ///< where totals go after the last part, or null
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t count = 0;  ///< outputs that are there

  WeightPart of_rows(std::ptrdiff_t row) const noexcept {
    WeightPart part = *this;
    part.x += row * x_stride;
    part.sums += row * sums_stride;
    if (y != nullptr) part.y += row * y_stride;
    return part;
  }
};

/// y = the totals of the sums of a tile of 4 outputs, straight from its registers: of short inputs
/// a sum has few products, and would be stored and loaded as often.
template <class Arch, int Rows, class Tile>
PARE_TILE_INLINE void store_totals(const Tile& tile, const WeightPart& part) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>, all = Rows * weight_outputs;
  constexpr std::ptrdiff_t whole = (all + n - 1) / n * n;
  alignas(64) float totals[static_cast<std::size_t>(whole)];
  const auto group = [&]<std::size_t... I>(std::index_sequence<I...>,
                                           auto begin) PARE_LAMBDA_INLINE {
    constexpr std::size_t from = decltype(begin)::value;
    constexpr std::size_t last = static_cast<std::size_t>(all) - 1;
    vec<float, Arch> of_each[] = {tile.sum[std::min(from + I, last) / weight_outputs]
                                          [std::min(from + I, last) % weight_outputs]...};
    store<Arch>(totals + from, sum_lanes_of_each<Arch>(of_each));
  };
  [&]<std::size_t... G>(std::index_sequence<G...>) PARE_LAMBDA_INLINE {
    (group(std::make_index_sequence<static_cast<std::size_t>(n)>{},
           std::integral_constant<std::size_t, G* static_cast<std::size_t>(n)>{}),
     ...);
  }(std::make_index_sequence<static_cast<std::size_t>(whole / n)>{});
  for (std::ptrdiff_t r = 0; r < Rows; ++r)
    if (part.count >= weight_outputs)
      std::memcpy(part.y + r * part.y_stride, totals + r * weight_outputs,
                  sizeof(float) * std::size_t{weight_outputs});
    else
      for (std::ptrdiff_t o = 0; o < part.count; ++o)
        part.y[r * part.y_stride + o] = totals[r * weight_outputs + o];
}

/// sums += the products of `Rows` rows of x and `Outputs` outputs from `first` on.
template <class Arch, int Rows, int Outputs, bool Held, bool Fetch, class Reader>
PARE_TILE_INLINE void add_weight_tile(const Reader& weights, int first,
                                      const WeightPart& part) noexcept {
  using One = RegisterTile<float, Arch, 1, Outputs>;
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float* const sums = part.sums + first * n;
  RegisterTile<float, Arch, Rows, Outputs> tile;
  if (part.first)
    tile.clear();
  else
    tile.load(sums, part.sums_stride);
  const float* const x = part.x;
  const std::ptrdiff_t x_stride = part.x_stride, steps = part.steps;
  for (std::ptrdiff_t step = 0; step < steps; ++step)
    for (std::ptrdiff_t lane = 0; lane < weight_step / 2; lane += n) {
      const float* const at = x + step * weight_step + lane;
      vec<float, Arch> low[Outputs], high[Outputs];
      One::each([&](int, int o) PARE_LAMBDA_INLINE {
        weights.template read<Fetch ? Outputs : 0>(first + o, step, lane, low[o], high[o]);
        if constexpr (Held && Rows > 1) low[o] = held(low[o]), high[o] = held(high[o]);
      });
      add_weight_products<Arch, Rows, Outputs, Held>(tile, low, at, x_stride);
      add_weight_products<Arch, Rows, Outputs, Held>(tile, high, at + weight_step / 2, x_stride);
    }
  if constexpr (Outputs == weight_outputs)
    if (part.y != nullptr) return store_totals<Arch, Rows>(tile, part);
  tile.store_to(sums, part.sums_stride);
}

/// The same for 4 outputs, `Outputs` of them at once.
template <class Arch, int Rows, int Outputs, bool Direct, bool Fetch, class Reader>
PARE_TILE_INLINE void add_weight_outputs(const Reader& weights, const WeightPart& part) noexcept {
  // Of 4 streams of memory, those that are multiplied at leisure arrive sooner: 36 GB/s against 28.
  // Loads bind blocks, whose scales are loaded too: with x in registers, one row takes three
  // quarters of the time, and three take 0.6 of it. 16 registers are too few for that.
  constexpr bool held = !Direct || Outputs < weight_outputs ||
                        (Arch::registers >= 32 && WeightBlock<typename Reader::weight>);
  for (int first = 0; first < weight_outputs; first += Outputs)
    add_weight_tile<Arch, Rows, Outputs, held, Fetch>(weights, first, part);
}

/// The same for `rows` rows, at most those of a tile, or direct_rows.
template <class Arch, class W, bool Direct, bool Fetch, class Reader>
void add_weight_rows(const Reader& weights, std::ptrdiff_t rows, const WeightPart& part) noexcept {
  constexpr int most = Direct ? direct_rows<Arch, W> : weight_tile_rows<Arch>;
  const auto add = [&]<int Rows>(std::integral_constant<int, Rows>) PARE_LAMBDA_INLINE {
    if constexpr (Rows <= most)
      if (rows == Rows) {
        constexpr int cached = Direct ? direct_outputs<Arch, W>(Rows, true) : weight_outputs;
        constexpr int streamed = Direct ? direct_outputs<Arch, W>(Rows, false) : weight_outputs;
        if (cached == streamed || part.from_cache)
          add_weight_outputs<Arch, Rows, cached, Direct, Fetch>(weights, part);
        else
          add_weight_outputs<Arch, Rows, streamed, Direct, Fetch>(weights, part);
      }
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

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
