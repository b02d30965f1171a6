// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Packing of quantised weights into the panels that product_tile.hpp multiplies by.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/product_tile.hpp>
#include <pare/kernel/weight_rows.hpp>

#include <algorithm>
#include <cstddef>

namespace pare::kernel {

/// The panels of PackRightLines, whose lines are outputs, of de-quantised blocks. The last panel is
/// as wide as its outputs rounded up to whole registers, with zeros.
///
/// Cost: some 5 instructions for a register, of which 4 are the transposition. A product with 512
/// rows makes 512 multiply-adds of each.
template <WeightBlock W>
struct PackWeights {
  const W* weights = nullptr;  ///< [outputs x inputs / 32]
  std::ptrdiff_t weight_stride = 0;
  std::ptrdiff_t outputs = 0;
  std::ptrdiff_t inputs = 0;  ///< a multiple of 32
  float* panels = nullptr;    ///< [inputs * (outputs rounded up to registers)]
};

namespace detail {
PARE_ABI_BEGIN

/// 32 inputs of as many outputs as a register holds, transposed: panel[input * stride + output].
template <class Arch, class W>
void pack_weight_block(const W* weights, std::ptrdiff_t weight_stride, std::ptrdiff_t outputs,
                       float* panel, std::ptrdiff_t stride) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  alignas(64) float values[static_cast<std::size_t>(n)][static_cast<std::size_t>(weight_step)];
  for (std::ptrdiff_t o = 0; o < n; ++o) {
    if (o >= outputs) {
      std::fill(values[o], values[o] + weight_step, 0.0f);
      continue;
    }
    const W& block = weights[o * weight_stride];
    float scales[1][2];
    widen_halves<Arch>(&block, sizeof(W), 1, scales);
    for (std::ptrdiff_t lane = 0; lane < weight_step / 2; lane += n) {
      vec<float, Arch> low, high;
      widen_block<Arch>(block, lane, scales[0], low, high);
      store<Arch>(values[o] + lane, low);
      store<Arch>(values[o] + lane + weight_step / 2, high);
    }
  }
  for (std::ptrdiff_t i = 0; i < weight_step; i += n) {
    vec<float, Arch> square[static_cast<std::size_t>(n)];
    for (std::ptrdiff_t o = 0; o < n; ++o)
      square[o] = load<Arch>(static_cast<const float*>(values[o] + i));
    transpose_block<Arch>(square);
    for (std::ptrdiff_t k = 0; k < n; ++k) store<Arch>(panel + (i + k) * stride, square[k]);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class W>
void run_kernel(Arch, const PackWeights<W>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>, full = tile_columns<float, Arch>;
  const std::ptrdiff_t padded = (a.outputs + n - 1) / n * n;
  for (std::ptrdiff_t begin = 0; begin < padded; begin += full) {
    const std::ptrdiff_t width = std::min(padded - begin, full);
    float* const panel = a.panels + begin * a.inputs;
    for (std::ptrdiff_t j = 0; j < width; j += n)
      for (std::ptrdiff_t i = 0; i < a.inputs; i += detail::weight_step)
        detail::pack_weight_block<Arch>(
            a.weights + (begin + j) * a.weight_stride + i / detail::weight_step, a.weight_stride,
            a.outputs - begin - j, panel + i * width + j, width);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
