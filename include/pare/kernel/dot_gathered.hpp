// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products of one row with rows of a large table, which lie anywhere in memory: they are fetched
/// ahead.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>
#include <pare/kernel/sum_gathered.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_i = <table(ids_i), x>.
///
/// Rows are stored in S and summed in what S computes in, in one order for any count. Cost: each
/// row is read once, and the latency of memory binds, as in SumGathered.
template <StorageScalar S>
struct DotGathered {
  using T = compute_t<S>;

  const S* table = nullptr;             ///< [.. x columns]
  std::ptrdiff_t stride = 0;            ///< between rows
  const std::ptrdiff_t* ids = nullptr;  ///< [count] rows
  std::ptrdiff_t count = 0;
  const T* x = nullptr;  ///< [columns]
  std::ptrdiff_t columns = 0;
  T* out = nullptr;  ///< [count]
};

namespace detail {
PARE_ABI_BEGIN

/// Four sums, so that the additions of a row overlap.
template <class Arch, class S>
PARE_ALWAYS_INLINE compute_t<S> dot_row(const S* row, const compute_t<S>* x,
                                        std::ptrdiff_t columns) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  using V = vec<T, Arch>;
  V a = broadcast<Arch>(T(0)), b = a, c = a, d = a;
  std::ptrdiff_t j = 0;
  const auto add = [&](V sum, std::ptrdiff_t at) PARE_LAMBDA_INLINE {
    return multiply_add<Arch>(load_widened<Arch>(row + at), load<Arch>(x + at), sum);
  };
  for (; j + 4 * n <= columns; j += 4 * n) {
    a = add(a, j);
    b = add(b, j + n);
    c = add(c, j + 2 * n);
    d = add(d, j + 3 * n);
  }
  for (; j + n <= columns; j += n) a = add(a, j);
  if (j < columns)
    b = multiply_add<Arch>(load_first<Arch>(row + j, columns - j, T(0)),
                           load_first<Arch>(x + j, columns - j, T(0)), b);
  return reduce_add<Arch>((a + b) + (c + d));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const DotGathered<S>& a) noexcept {
  const auto row = [&](std::ptrdiff_t i) { return a.table + a.ids[i] * a.stride; };
  for (std::ptrdiff_t i = 0; i < a.count && i < detail::gathered_rows_ahead; ++i)
    detail::fetch_gathered(row(i), a.columns);
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    if (i + detail::gathered_rows_ahead < a.count)
      detail::fetch_gathered(row(i + detail::gathered_rows_ahead), a.columns);
    a.out[i] = detail::dot_row<Arch>(row(i), a.x, a.columns);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
