// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A weighted sum of rows of a large table, which lie anywhere in memory: they are fetched ahead.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gathered_rows.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_c = (out_c +) sum_i weights_i table(ids_i, c), in the order of i.
///
/// Rows are stored in S and summed in what S computes in. Cost: each row is read once; with tables
/// beyond the caches the latency of memory binds, so rows are fetched gathered_rows_ahead before
/// their turn. Without rows the sum is 0.
template <StorageScalar S>
struct SumGathered {
  using T = compute_t<S>;

  const S* table = nullptr;             ///< [.. x columns]
  std::ptrdiff_t stride = 0;            ///< between rows
  const std::ptrdiff_t* ids = nullptr;  ///< [count] rows
  const T* weights = nullptr;           ///< [count]
  std::ptrdiff_t count = 0;
  T* out = nullptr;  ///< [columns]
  std::ptrdiff_t columns = 0;
  bool accumulate = false;  ///< add to what `out` holds
};

namespace detail {
PARE_ABI_BEGIN

/// Adds up `Registers` registers of all rows, from column c on. The first columns of a row fetch
/// all of a later one.
template <class Arch, int Registers, class S>
PARE_ALWAYS_INLINE void gather_columns(const SumGathered<S>& a, std::ptrdiff_t c) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  RegisterTile<T, Arch, 1, Registers> tile;
  if (a.accumulate)
    tile.load(a.out + c, 0);
  else
    tile.clear();
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    if (c == 0 && i + gathered_rows_ahead < a.count)
      fetch_gathered(a.table + a.ids[i + gathered_rows_ahead] * a.stride, a.columns);
    const S* const row = a.table + a.ids[i] * a.stride + c;
    const vec<T, Arch> weight = broadcast<Arch>(a.weights[i]);
    RegisterTile<T, Arch, 1, Registers>::each([&](int, int r) PARE_LAMBDA_INLINE {
      tile.sum[0][r] = multiply_add<Arch>(weight, load_widened<Arch>(row + r * n), tile.sum[0][r]);
    });
  }
  RegisterTile<T, Arch, 1, Registers>::each(
      [&](int, int r) PARE_LAMBDA_INLINE { store<Arch>(a.out + c + r * n, tile.sum[0][r]); });
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const SumGathered<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t i = 0; i < a.count && i < gathered_rows_ahead; ++i)
    fetch_gathered(a.table + a.ids[i] * a.stride, a.columns);
  std::ptrdiff_t c = 0;
  for (; c + 8 * n <= a.columns; c += 8 * n) detail::gather_columns<Arch, 8>(a, c);
  for (; c + 4 * n <= a.columns; c += 4 * n) detail::gather_columns<Arch, 4>(a, c);
  for (; c + n <= a.columns; c += n) detail::gather_columns<Arch, 1>(a, c);
  if (c == a.columns) return;
  vec<T, Arch> sum = a.accumulate
                         ? load_first<Arch>(static_cast<const T*>(a.out) + c, a.columns - c, T(0))
                         : broadcast<Arch>(T(0));
  for (std::ptrdiff_t i = 0; i < a.count; ++i)
    sum = multiply_add<Arch>(
        broadcast<Arch>(a.weights[i]),
        load_first<Arch>(a.table + a.ids[i] * a.stride + c, a.columns - c, T(0)), sum);
  store_first<Arch>(a.out + c, a.columns - c, sum);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
