// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A weighted sum of rows that lie anywhere in a matrix.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_c = (out_c +) sum_i weights_i rows_(places_i, c), in the order of i.
///
/// Cost: each row is read and `out` written once, which binds; a multiply-add per element. With no
/// row the sum is 0.
template <ComputeScalar T>
struct CombineRows {
  const T* rows = nullptr;                 ///< [.. x columns]
  std::ptrdiff_t row_stride = 0;           ///< between rows
  const std::ptrdiff_t* places = nullptr;  ///< [count] rows
  const T* weights = nullptr;              ///< [count]
  std::ptrdiff_t count = 0;
  T* out = nullptr;  ///< [columns]
  std::ptrdiff_t columns = 0;
  bool accumulate = false;  ///< add to what `out` holds
};

PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const CombineRows<T>& a) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const auto sum = [&](V value, const auto& row) PARE_LAMBDA_INLINE {
    for (std::ptrdiff_t i = 0; i < a.count; ++i)
      value = multiply_add<Arch>(broadcast<Arch>(a.weights[i]),
                                 row(a.rows + a.places[i] * a.row_stride), value);
    return value;
  };
  for_row<n>(
      a.columns,
      [&](std::ptrdiff_t c) PARE_LAMBDA_INLINE {
        const V start =
            a.accumulate ? load<Arch>(static_cast<const T*>(a.out) + c) : broadcast<Arch>(T(0));
        store<Arch>(a.out + c, sum(start, [c](const T* row)
                                              PARE_LAMBDA_INLINE { return load<Arch>(row + c); }));
      },
      [&](std::ptrdiff_t c, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        const V start = a.accumulate
                            ? load_first<Arch>(static_cast<const T*>(a.out) + c, count, T(0))
                            : broadcast<Arch>(T(0));
        store_first<Arch>(a.out + c, count, sum(start, [c, count](const T* row) PARE_LAMBDA_INLINE {
                            return load_first<Arch>(row + c, count, T(0));
                          }));
      });
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
