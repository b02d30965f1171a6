// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Packing of a 2:4 weight into the panels that product_tile.hpp multiplies by: expanded once for
/// all rows of x, so that a product of many rows takes the time of a dense one.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/pack_lines.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/kernel/two_four_tile.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// The panels of PackRightLines, whose lines are outputs, of the dense weight. With `Pairs`, two
/// bf16 along the inputs make one element where the arch multiplies them natively; for values of
/// bf16. The last panel is as wide as its outputs rounded up to whole registers, with zeros.
///
/// Cost: some 8 instructions for a register with AVX-512, of which 4 are the transposition; without
/// it, some 3 for each value.
template <TwoFourElement S, bool Pairs>
struct PackTwoFour {
  static_assert(!Pairs || std::is_same_v<S, bf16>);
  using T = detail::two_four_sum<S>;

  const S* values = nullptr;  ///< as MultiplyTwoFourRows has them, from any 128 inputs on
  std::ptrdiff_t value_stride = 0;
  const std::uint16_t* mask = nullptr;
  std::ptrdiff_t mask_stride = 0;
  const float* scales = nullptr;
  std::ptrdiff_t scale_stride = 0;
  std::ptrdiff_t outputs = 0;
  std::ptrdiff_t inputs = 0;  ///< a multiple of 4
  T* panels = nullptr;        ///< [inputs * (outputs rounded up to registers)]
};

namespace detail {
PARE_ABI_BEGIN

/// Inputs that are expanded before they are transposed: 16 outputs of them are 4 KiB.
inline constexpr std::ptrdiff_t two_four_pack_inputs = 64;

/// `count` inputs of an output from `input` on, as elements of E with zeros behind them.
template <class Arch, class E, class S, bool Pairs>
void expand_two_four(const PackTwoFour<S, Pairs>& a, std::ptrdiff_t output, std::ptrdiff_t input,
                     std::ptrdiff_t count, E* to) noexcept {
  using T = two_four_sum<S>;
  T dense[static_cast<std::size_t>(two_four_pack_inputs)];
  if (output >= a.outputs) count = 0;
  std::ptrdiff_t i = 0;
  for (; i < count; i += 16)
    expand_kept<Arch>(a.values + output * a.value_stride + (input + i) / 2,
                      a.mask[output * a.mask_stride + (input + i) / 16], dense + i);
  std::fill(dense + i, dense + two_four_pack_inputs, T(0));
  if constexpr (std::is_same_v<S, std::int8_t>) {
    if (count == 0) return static_cast<void>(std::copy_n(dense, two_four_pack_inputs, to));
    const T scale = a.scales[output * a.scale_stride + input / two_four_scale_inputs];
    for (std::ptrdiff_t k = 0; k < two_four_pack_inputs; ++k) to[k] = dense[k] * scale;
  } else if constexpr (std::is_same_v<E, Bf16Pair>) {
    for (std::ptrdiff_t k = 0; k < two_four_pack_inputs / 2; ++k)
      to[k].bits = std::bit_cast<std::uint32_t>(dense[2 * k]) >> 16 |
                   std::bit_cast<std::uint32_t>(dense[2 * k + 1]);
  } else {
    std::copy_n(dense, two_four_pack_inputs, to);
  }
}

/// The same of as many outputs as a register holds, transposed: panel[step * stride + output].
template <class Arch, class E, class S, bool Pairs>
void pack_two_four_block(const PackTwoFour<S, Pairs>& a, std::ptrdiff_t output,
                         std::ptrdiff_t input, two_four_sum<S>* panel,
                         std::ptrdiff_t stride) noexcept {
  using T = two_four_sum<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::ptrdiff_t steps = two_four_pack_inputs / product<E>::depth;
  alignas(64) E elements[static_cast<std::size_t>(n)][static_cast<std::size_t>(steps)];
  const std::ptrdiff_t count = std::min(two_four_pack_inputs, a.inputs - input);
  for (std::ptrdiff_t o = 0; o < n; ++o)
    expand_two_four<Arch>(a, output + o, input, count, elements[o]);
  const std::ptrdiff_t there = steps_of<E>(count);
  for (std::ptrdiff_t s = 0; s < there; s += n) {
    vec<T, Arch> square[static_cast<std::size_t>(n)];
    for (std::ptrdiff_t o = 0; o < n; ++o)
      square[o] = load_elements<Arch>(static_cast<const E*>(elements[o] + s));
    transpose_block<Arch>(square);
    for (std::ptrdiff_t k = 0; k < n && s + k < there; ++k)
      store<Arch>(panel + (s + k) * stride, square[k]);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, bool Pairs>
void run_kernel(Arch, const PackTwoFour<S, Pairs>& a) noexcept {
  using T = typename PackTwoFour<S, Pairs>::T;
  using E = detail::product_element<T, Pairs, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, full = tile_columns<T, Arch>;
  const std::ptrdiff_t padded = (a.outputs + n - 1) / n * n, steps = steps_of<E>(a.inputs);
  for (std::ptrdiff_t begin = 0; begin < padded; begin += full) {
    const std::ptrdiff_t width = std::min(padded - begin, full);
    T* const panel = a.panels + begin * steps;
    for (std::ptrdiff_t j = 0; j < width; j += n)
      for (std::ptrdiff_t i = 0; i < a.inputs; i += detail::two_four_pack_inputs)
        detail::pack_two_four_block<Arch, E>(a, begin + j, i,
                                             panel + i / product<E>::depth * width + j, width);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
