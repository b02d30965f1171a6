// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The product of a stored row and a row of what it is computed in, which other kernels inline.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {
PARE_ABI_BEGIN

/// <row, x> over `columns` elements, which are widened as they are read, in one order for any row.
///
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
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
