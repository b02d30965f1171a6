// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The mean over heads of rows of tokens, read once at the speed of memory.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// mean_i = 1 / heads * sum_h x_hi for `count` rows x_hi of `columns` scalars, where row i of head
/// h is at rows[i] + h * head_stride. Heads are added in ascending order. Cost: count heads columns
/// scalars read, which binds.
template <StorageScalar S>
struct MeanRows {
  using T = compute_t<S>;

  const S* const* rows = nullptr;  ///< [count], of head 0
  std::ptrdiff_t count = 0;
  std::ptrdiff_t heads = 0;        ///< at least 1
  std::ptrdiff_t head_stride = 0;  ///< scalars
  std::ptrdiff_t columns = 0;
  T* mean = nullptr;  ///< [count x columns]
};

namespace detail {
PARE_ABI_BEGIN

/// `Registers` registers of the mean, from `row` on; the same place of `next` is fetched.
template <class Arch, int Registers, class S>
PARE_ALWAYS_INLINE void mean_registers(const MeanRows<S>& a, const S* row, const S* next,
                                       compute_t<S>* mean) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr auto bytes = static_cast<std::ptrdiff_t>(sizeof(S)) * n * Registers;
  vec<T, Arch> sum[Registers];
  for (int i = 0; i < Registers; ++i) sum[i] = broadcast<Arch>(T(0));
  for (std::ptrdiff_t h = 0; h < a.heads; ++h) {
    for (std::ptrdiff_t b = 0; b < bytes; b += 64) prefetch<2>(next + h * a.head_stride, b);
    for (int i = 0; i < Registers; ++i)
      sum[i] = sum[i] + load_widened<Arch>(row + h * a.head_stride + i * n);
  }
  const vec<T, Arch> share = broadcast<Arch>(T(1) / static_cast<T>(a.heads));
  for (int i = 0; i < Registers; ++i) store<Arch>(mean + i * n, sum[i] * share);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const MeanRows<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr int many = 8;
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    const S* row = a.rows[i];
    // A row is fetched while the one before it is read: the heads are too many streams to follow.
    const S* next = a.rows[i + 1 < a.count ? i + 1 : i];
    T* mean = a.mean + i * a.columns;
    std::ptrdiff_t c = 0;
    for (; c + many * n <= a.columns; c += many * n)
      detail::mean_registers<Arch, many>(a, row + c, next + c, mean + c);
    for (; c + n <= a.columns; c += n)
      detail::mean_registers<Arch, 1>(a, row + c, next + c, mean + c);
    for (; c < a.columns; ++c)
      detail::mean_registers<arch::scalar, 1>(a, row + c, next + c, mean + c);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
