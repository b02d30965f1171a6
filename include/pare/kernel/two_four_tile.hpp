// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tiles of sums of rows of x and outputs of a 2:4 weight, which two_four_rows.hpp multiplies by.
///
/// Values stay as they lie; what is permuted is x: of each group of four inputs the two that are
/// kept, by indices of 2 bits. That takes one permutation and one multiply-add for 32 inputs with
/// AVX-512, where an expansion of the values would take two of each, and an expansion takes as long
/// as six.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/simd.hpp>
#include <pare/kernel/weight_tile.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// What values of a 2:4 weight are stored in: numbers that are widened, or 8 bits with scales.
template <class S>
concept TwoFourElement = StorageScalar<S> || std::is_same_v<S, std::int8_t>;

/// Inputs that share a scale, of 8 bits.
inline constexpr std::ptrdiff_t two_four_scale_inputs = 128;

namespace detail {
PARE_ABI_BEGIN

template <TwoFourElement S>
using two_four_sum = std::conditional_t<std::is_same_v<S, double>, double, float>;

/// Inputs of a step, the values and words of the mask for them, and the bytes of their indices.
inline constexpr std::ptrdiff_t two_four_step = 64;
inline constexpr std::ptrdiff_t two_four_step_values = two_four_step / 2;
inline constexpr std::ptrdiff_t two_four_step_words = two_four_step / 16;
inline constexpr std::ptrdiff_t two_four_step_indices = two_four_step / 8;

/// Sums of a row and an output: registers of values go to them in turn, so that of one row and one
/// output, which memory arrives fastest for, additions do not wait for each other.
inline constexpr int two_four_sums = 2;

/// Where the weights of the outputs of a tile begin, at a whole number of scales.
template <class S>
struct TwoFourLine {
  const S* values = nullptr;
  const std::uint8_t* indices = nullptr;  ///< as index_kept writes them
  const float* scales = nullptr;          ///< of 8 bits
};

/// A register of values.
template <class Arch, class S>
PARE_TILE_INLINE vec<two_four_sum<S>, Arch> load_values(const S* p,
                                                        [[maybe_unused]] float scale) noexcept {
  if constexpr (std::is_same_v<S, std::int8_t>)
    return load_signed_bytes<Arch>(p) * broadcast<Arch>(scale);
  else
    return load_widened<Arch>(p);
}

/// Asks for `Bytes` of what lies `ahead` bytes behind p, into L2: L1 has too few requests open to
/// memory beside the loads of x, 36 GB/s against 27 on Zen 5.
template <std::ptrdiff_t Bytes>
PARE_TILE_INLINE void fetch_two_four(const void* p, std::ptrdiff_t ahead) noexcept {
  for (std::ptrdiff_t byte = 0; byte < Bytes; byte += 64) prefetch<2>(p, ahead + byte);
}

/// Some rows of x, and where their sums are: two registers of each output, those of a row
/// `sums_stride` apart.
template <class T>
struct TwoFourPart {
  const T* x = nullptr;
  std::ptrdiff_t x_stride = 0;
  std::ptrdiff_t steps = 0;
  T* sums = nullptr;
  std::ptrdiff_t sums_stride = 0;
  std::ptrdiff_t ahead = 0;  ///< bytes to the values that are fetched
};

/// sums += the products of `Rows` rows of x and `Outputs` outputs.
template <class Arch, int Rows, int Outputs, class S>
void add_two_four(const TwoFourLine<S> (&lines)[std::size_t(Outputs)],
                  const TwoFourPart<two_four_sum<S>>& part) noexcept {
  using T = two_four_sum<S>;
  using One = RegisterTile<T, Arch, 1, Outputs>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr auto line_bytes = two_four_step_values * static_cast<std::ptrdiff_t>(sizeof(S));
  const T* const x = part.x;
  const std::ptrdiff_t x_stride = part.x_stride, steps = part.steps, ahead = part.ahead;
  TwoFourLine<S> line[Outputs];
  One::each([&](int, int o) PARE_LAMBDA_INLINE { line[o] = lines[o]; });
  RegisterTile<T, Arch, Rows, two_four_sums * Outputs> tile;
  tile.load(part.sums, part.sums_stride);
  for (std::ptrdiff_t step = 0; step < steps; ++step) {
    float scale[Outputs] = {};
    One::each([&](int, int o) PARE_LAMBDA_INLINE {
      if constexpr (std::is_same_v<S, std::int8_t>)
        scale[o] = line[o].scales[step * two_four_step / two_four_scale_inputs];
      if constexpr (Rows > 1 || Outputs == 1)
        fetch_two_four<line_bytes>(line[o].values + step * two_four_step_values, ahead);
    });
    const auto add = [&](std::ptrdiff_t value, auto of_sum) PARE_LAMBDA_INLINE {
      constexpr int sum = decltype(of_sum)::value;
      using Places = decltype(kept_places<Arch, T>(line[0].indices, value));
      Places places[Outputs];
      vec<T, Arch> weights[Outputs];
      One::each([&](int, int o) PARE_LAMBDA_INLINE {
        places[o] = kept_places<Arch, T>(line[o].indices + step * two_four_step_indices, value);
        weights[o] =
            load_values<Arch>(line[o].values + step * two_four_step_values + value, scale[o]);
        if constexpr (Rows > 1) weights[o] = held(weights[o]);
      });
      RegisterTile<T, Arch, Rows, 1>::each([&](int r, int) PARE_LAMBDA_INLINE {
        auto groups = load_groups<Arch>(x + r * x_stride + step * two_four_step + value / 2 * 4);
        if constexpr (Outputs > 1) groups = held_groups(groups);
        One::each([&](int, int o) PARE_LAMBDA_INLINE {
          auto& to = tile.sum[r][two_four_sums * o + sum];
          to = add_product<Arch>(weights[o], take_kept<Arch, T>(groups, places[o]), to);
        });
      });
    };
    for (std::ptrdiff_t value = 0; value < two_four_step_values; value += two_four_sums * n) {
      add(value, std::integral_constant<int, 0>{});
      add(value + n, std::integral_constant<int, 1>{});
    }
  }
  tile.store_to(part.sums, part.sums_stride);
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
