// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows rounded to 16-bit storage.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_ij = x_ij, rounded to nearest, ties to even (subnormals of bf16 as in store_rounded).
/// Cost: x is read and out written once, which binds.
template <StorageScalar O>
struct NarrowRows {
  const float* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  O* out = nullptr;  ///< [rows x columns]
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
};

PARE_ABI_BEGIN

template <class Arch, class O>
void run_kernel(Arch, const NarrowRows<O>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const float* const x = a.x + r * a.x_stride;
    O* const out = a.out + r * a.out_stride;
    for_row<lanes<float, Arch>>(
        a.columns,
        [&](std::ptrdiff_t i)
            PARE_LAMBDA_INLINE { store_narrowed<Arch>(out + i, load<Arch>(x + i)); },
        [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
          store_first<Arch>(out + i, count, load_first<Arch>(x + i, count, 0.0f));
        });
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
