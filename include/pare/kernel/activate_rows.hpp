// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Activations of rows, and times other rows: the gated units of transformers.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/activation.hpp>
#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_ij = A(x_ij), or A(x_ij) factor_ij: rounded to T between the two. out may be x or factor.
/// Cost: the exponential binds: some 30 operations and a division for each register.
template <StorageScalar S, class A, bool Times>
struct ActivateRows {
  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  const S* factor = nullptr;  ///< [rows x columns], read if Times
  std::ptrdiff_t factor_stride = 0;
  S* out = nullptr;  ///< [rows x columns]
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
};

PARE_ABI_BEGIN

template <class Arch, class S, class A, bool Times>
void run_kernel(Arch, const ActivateRows<S, A, Times>& a) noexcept {
  using T = compute_t<S>;
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const S* const x = a.x + r * a.x_stride;
    const S* const factor = Times ? a.factor + r * a.factor_stride : nullptr;
    S* const out = a.out + r * a.out_stride;
    for_row<lanes<T, Arch>, true>(
        a.columns,
        [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
          auto y = A::template apply<Arch>(load_widened<Arch>(x + i));
          if constexpr (Times) y = y * load_widened<Arch>(factor + i);
          store_narrowed<Arch>(out + i, y);
        },
        [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
          auto y = A::template apply<Arch>(load_first<Arch>(x + i, count, T(0)));
          if constexpr (Times) y = y * load_first<Arch>(factor + i, count, T(0));
          store_first<Arch>(out + i, count, y);
        });
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
