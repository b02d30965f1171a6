// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A few rows times one panel of a weight whose outputs lie side by side: what the head of a
/// language model is multiplied by, one token or some.
///
/// A panel holds `head_panel_outputs` outputs; weight (output o, input i) is at i * outputs + o. A
/// register so runs along outputs, no sum is taken across lanes, and a whole head is one stream of
/// memory. Each sum adds its products in the order of the inputs, one after the other, whatever the
/// number of rows: N rows have the bits of N single rows.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// What panels of a head are stored in: a storage scalar, or bytes that a scale per output belongs
/// to.
template <class W>
concept HeadElement = StorageScalar<W> || std::is_same_v<W, std::int8_t>;

/// What products with W are summed in.
template <HeadElement W>
using head_t = std::conditional_t<std::is_same_v<W, double>, double, float>;

/// Outputs of a panel: 256 bytes of sums, four registers of AVX-512.
template <ComputeScalar T>
inline constexpr std::ptrdiff_t head_panel_outputs = static_cast<std::ptrdiff_t>(256 / sizeof(T));

/// y_ro = scale_o sum_i x_ri W_oi for the outputs of one panel.
///
/// Cost: the panel is read once for up to 6 rows (3 where there are 16 registers), and from the
/// caches for more. Of one row, reading binds: 2 FLOPs for each weight.
template <HeadElement W>
struct MultiplyHeadPanel {
  using T = head_t<W>;

  const W* panel = nullptr;  ///< [inputs x head_panel_outputs<T>]
  const T* scale = nullptr;  ///< [head_panel_outputs<T>]; null: 1
  const T* x = nullptr;      ///< [rows x inputs]
  std::ptrdiff_t x_stride = 0;
  T* y = nullptr;  ///< [rows x head_panel_outputs<T>]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t inputs = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Registers of outputs that are summed at once, and the most rows: 4 x 6 sums + 4 weights + 1
/// input of 32 registers, or 4 x 3 + 1 + 3 of 16.
inline constexpr int head_columns = 4;
template <class Arch>
inline constexpr int head_rows = Arch::registers >= 32 ? 6 : 3;

/// Inputs whose weights are read again for further rows or columns: at most 32 KiB of floats.
inline constexpr std::ptrdiff_t head_inputs = 128;

/// Bytes from the weight that is multiplied to the one that is fetched.
inline constexpr std::ptrdiff_t head_bytes_ahead = 4096;

template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_head(const std::int8_t* p) noexcept {
  return load_signed_bytes<Arch>(p);
}
template <class Arch, StorageScalar W>
PARE_ALWAYS_INLINE vec<head_t<W>, Arch> load_head(const W* p) noexcept {
  return load_widened<Arch>(p);
}

/// a b + c with the roundings of the arch, also in a scalar that a compiler might contract.
template <class Arch, class V>
PARE_ALWAYS_INLINE V add_head_product(V a, V b, V c) noexcept {
#if defined(__FP_FAST_FMAF)
  if constexpr (std::is_same_v<V, float>) return __builtin_fmaf(a, b, c);
#endif
#if defined(__FP_FAST_FMA)
  if constexpr (std::is_same_v<V, double>) return __builtin_fma(a, b, c);
#endif
  return multiply_add<Arch>(a, b, c);
}

/// sums += the products of `Rows` rows and 4 registers of outputs with `inputs` inputs.
template <class Arch, int Rows, class W>
PARE_TILE_INLINE void add_head_tile(const W* w, const head_t<W>* x, std::ptrdiff_t x_stride,
                                    std::ptrdiff_t inputs, head_t<W>* y) noexcept {
  using T = head_t<W>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, outputs = head_panel_outputs<T>;
  RegisterTile<T, Arch, Rows, head_columns> tile;
  tile.load(y, outputs);
  for (std::ptrdiff_t i = 0; i < inputs; ++i) {
    const W* const at = w + i * outputs;
    for (std::ptrdiff_t byte = 0; byte < head_columns * n * static_cast<std::ptrdiff_t>(sizeof(W));
         byte += 64)
      prefetch<2>(at, head_bytes_ahead + byte);
    vec<T, Arch> weight[head_columns];
    RegisterTile<T, Arch, 1, head_columns>::each(
        [&](int, int c) PARE_LAMBDA_INLINE { weight[c] = load_head<Arch>(at + c * n); });
    RegisterTile<T, Arch, Rows, head_columns>::each([&](int r, int c) PARE_LAMBDA_INLINE {
      tile.sum[r][c] =
          add_head_product<Arch>(weight[c], broadcast<Arch>(x[r * x_stride + i]), tile.sum[r][c]);
    });
  }
  tile.store_to(y, outputs);
}

/// The same for `rows` rows, at most head_rows.
template <class Arch, class W>
void add_head_rows(const W* w, const head_t<W>* x, std::ptrdiff_t x_stride, std::ptrdiff_t rows,
                   std::ptrdiff_t inputs, head_t<W>* y) noexcept {
  const auto add = [&]<int Rows>(std::integral_constant<int, Rows>) PARE_LAMBDA_INLINE {
    if constexpr (Rows <= head_rows<Arch>) add_head_tile<Arch, Rows>(w, x, x_stride, inputs, y);
  };
  switch (rows) {
    case 1:
      return add(std::integral_constant<int, 1>{});
    case 2:
      return add(std::integral_constant<int, 2>{});
    case 3:
      return add(std::integral_constant<int, 3>{});
    case 4:
      return add(std::integral_constant<int, 4>{});
    case 5:
      return add(std::integral_constant<int, 5>{});
    default:
      return add(std::integral_constant<int, 6>{});
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class W>
void run_kernel(Arch, const MultiplyHeadPanel<W>& a) noexcept {
  using T = head_t<W>;
  constexpr std::ptrdiff_t outputs = head_panel_outputs<T>;
  constexpr std::ptrdiff_t columns = detail::head_columns * lanes<T, Arch>;
  static_assert(outputs % columns == 0);
  std::fill_n(a.y, a.rows * outputs, T(0));
  // With one tile of rows and columns the sums stay in registers from the first input to the last.
  const bool once = a.rows <= detail::head_rows<Arch> && columns == outputs;
  const std::ptrdiff_t step = once ? a.inputs : detail::head_inputs;
  for (std::ptrdiff_t i = 0; i < a.inputs; i += step)
    for (std::ptrdiff_t c = 0; c < outputs; c += columns)
      for (std::ptrdiff_t r = 0; r < a.rows; r += detail::head_rows<Arch>)
        detail::add_head_rows<Arch>(a.panel + i * outputs + c, a.x + r * a.x_stride + i, a.x_stride,
                                    std::min<std::ptrdiff_t>(detail::head_rows<Arch>, a.rows - r),
                                    std::min(step, a.inputs - i), a.y + r * outputs + c);
  if (a.scale == nullptr) return;
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    for (std::ptrdiff_t o = 0; o < outputs; o += lanes<T, Arch>) {
      T* const at = a.y + r * outputs + o;
      store<Arch>(at, load<Arch>(static_cast<const T*>(at)) * load<Arch>(a.scale + o));
    }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
