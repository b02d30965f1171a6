// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Weights read where they lie, 32 of an output at a time: numbers widened, or blocks de-quantised,
/// in registers, while later ones are fetched.
///
/// Inputs are taken in the order of the lanes, the element 16 further behind each: a block of
/// `Q4_0` and `Q4_1` has both in one byte.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/quantized.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// Blocks of quantised weights that kernels multiply by: 32 elements, one scale.
template <class W>
concept WeightBlock = std::is_same_v<W, Q8_0> || std::is_same_v<W, Q4_0> || std::is_same_v<W, Q4_1>;

/// What a weight is stored in: numbers that are widened to float, or blocks.
template <class W>
concept WeightElement = WeightBlock<W> || (StorageScalar<W> && !std::is_same_v<W, double>);

/// Inputs that an element of W holds.
template <WeightElement W>
inline constexpr std::ptrdiff_t weight_inputs = 1;
template <WeightBlock W>
inline constexpr std::ptrdiff_t weight_inputs<W> = W::elements;

namespace detail {
PARE_ABI_BEGIN

/// Inputs that a step takes, in two runs of half as many.
inline constexpr std::ptrdiff_t weight_step = 32;
/// Outputs of a tile.
inline constexpr int weight_outputs = 4;
/// Steps whose scales are read ahead: 2 KiB of them for 4 outputs. Rows of up to 2048 inputs are
/// multiplied whole, which takes a tenth less than in two parts.
inline constexpr std::ptrdiff_t scaled_steps = 64;
/// Tiles from the one that is multiplied to the one that is fetched into L2.
inline constexpr std::ptrdiff_t weight_tiles_ahead = 8;
/// Where the weights of the outputs of a tile begin. One that is not there has those of another;
/// its sums are not used.
template <class W>
struct WeightLines {
  const W* line[weight_outputs];
  std::ptrdiff_t next = 0;   ///< bytes to the weights of the next tile; 0: nothing is fetched
  std::ptrdiff_t later = 0;  ///< bytes to those of one some tiles behind
  std::ptrdiff_t ahead = 0;  ///< bytes to what is fetched where fewer than 4 are read at once
  /// Of 2 outputs at once: bytes from a step's to the next one's beyond those of the step, and from
  /// the first output's to the second's. What lies ahead is so fetched in the order of memory.
  std::ptrdiff_t stepping = 0, second = 0;

  /// Asks for `Bytes` of what is read later, at p for an output and step. Of memory in its order,
  /// one line for each that is read: a second one makes Zen 5 slower. Of 4 outputs at once, the
  /// next tile into L1, and of blocks a later one into L2, since L1 has too few fill buffers to
  /// keep memory busy. Of numbers, L2's lines cost the multiplier a fifth of its time and bring
  /// nothing.
  template <int Outputs, std::ptrdiff_t Bytes>
  PARE_TILE_INLINE void fetch(const void* p, int output, std::ptrdiff_t step) const noexcept {
    if (Outputs == 0 || next == 0) return;
    if (Outputs == 2 && output % 2 != 0) return;
    for (std::ptrdiff_t byte = 0; byte < Bytes; byte += 64) {
      if constexpr (Outputs == 1) {
        prefetch(p, ahead + byte);
      } else if constexpr (Outputs == 2) {
        prefetch(p, ahead + step * stepping + byte);
        prefetch(p, ahead + step * stepping + second + byte);
      } else {
        if constexpr (WeightBlock<W>) prefetch<2>(p, later + byte);
        prefetch(p, next + byte);
      }
    }
  }
};

/// Reads weights of numbers.
template <class Arch, class W>
class WeightReader {
 public:
  using weight = W;
  static constexpr std::ptrdiff_t most_steps = 1 << 20;

  PARE_TILE_INLINE WeightReader(const WeightLines<W>& weights, std::ptrdiff_t) noexcept
      : weights_(weights) {}

  /// The registers at `lane` and 16 behind it of a step, of which `Outputs` outputs are read
  /// while later ones are fetched; 0: nothing is fetched.
  template <int Outputs>
  PARE_TILE_INLINE void read(int output, std::ptrdiff_t step, std::ptrdiff_t lane,
                             vec<float, Arch>& low, vec<float, Arch>& high) const noexcept {
    const W* const p = weights_.line[output] + step * weight_step + lane;
    if (lane == 0)
      weights_.template fetch<Outputs, weight_step* static_cast<std::ptrdiff_t>(sizeof(W))>(
          p, output, step);
    low = load_widened<Arch>(p);
    high = load_widened<Arch>(p + weight_step / 2);
  }

 private:
  WeightLines<W> weights_;
};

/// The elements at `lane` of a block and 16 behind them, for its scale d and, of Q4_1, offset m.
template <class Arch, WeightBlock W>
PARE_TILE_INLINE void widen_block(const W& block, std::ptrdiff_t lane, const float (&scales)[2],
                                  vec<float, Arch>& low, vec<float, Arch>& high) noexcept {
  const auto scale = broadcast<Arch>(scales[0]);
  if constexpr (std::is_same_v<W, Q8_0>) {
    low = load_signed_bytes<Arch>(block.q + lane) * scale;
    high = load_signed_bytes<Arch>(block.q + weight_step / 2 + lane) * scale;
  } else if constexpr (std::is_same_v<W, Q4_1>) {
    load_nibbles<Arch>(block.q + lane, scale, broadcast<Arch>(scales[1]), low, high);
  } else {
    // (q - 8) d = q d - 8 d, all of it exact where d is finite; a zero is +0.
    load_nibbles<Arch>(block.q + lane, scale, scale * broadcast<Arch>(-8.0f), low, high);
  }
}

/// Reads blocks, whose scales it widens ahead: they lie far apart, and are two bytes each.
template <class Arch, WeightBlock W>
class WeightReader<Arch, W> {
 public:
  using weight = W;
  static constexpr std::ptrdiff_t most_steps = scaled_steps;

  PARE_TILE_INLINE WeightReader(const WeightLines<W>& weights, std::ptrdiff_t steps) noexcept
      : weights_(weights) {
    for (int o = 0; o < weight_outputs; ++o)
      widen_halves<Arch>(weights.line[o], sizeof(W), steps, scales_[o]);
  }

  template <int Outputs>
  PARE_TILE_INLINE void read(int output, std::ptrdiff_t step, std::ptrdiff_t lane,
                             vec<float, Arch>& low, vec<float, Arch>& high) const noexcept {
    const W* const block = weights_.line[output] + step;
    if (lane == 0)
      weights_.template fetch<Outputs, static_cast<std::ptrdiff_t>(sizeof(W))>(block, output, step);
    widen_block<Arch>(*block, lane, scales_[output][step], low, high);
  }

 private:
  WeightLines<W> weights_;
  float scales_[weight_outputs][static_cast<std::size_t>(scaled_steps)][2];  ///< d, and m if any
};

PARE_ABI_END
}  // namespace detail
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
