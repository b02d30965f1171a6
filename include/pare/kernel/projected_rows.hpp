// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What stands behind the products of a layer: biases, an activation, a gate, and rows that are
/// added.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/activation.hpp>
#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_ij = A(x_ij + bias_j) + skip_ij, or A(x_ij + bias_j) (value_ij + value_bias_j) + skip_ij if
/// Gated; a null bias or skip counts as 0. out may be x or value.
///
/// Cost: reading and writing the rows binds, or A.
template <ComputeScalar T, class A, bool Gated>
struct ProjectedRows {
  const T* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  const T* bias = nullptr;   ///< [columns]
  const T* value = nullptr;  ///< [rows x columns], read if Gated
  std::ptrdiff_t value_stride = 0;
  const T* value_bias = nullptr;  ///< [columns]
  const T* skip = nullptr;        ///< [rows x columns]
  std::ptrdiff_t skip_stride = 0;
  T* out = nullptr;  ///< [rows x columns]
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
};

PARE_ABI_BEGIN

template <class Arch, class T, class A, bool Gated>
void run_kernel(Arch, const ProjectedRows<T, A, Gated>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const T* const x = a.x + r * a.x_stride;
    const T* const value = Gated ? a.value + r * a.value_stride : nullptr;
    const T* const skip = a.skip != nullptr ? a.skip + r * a.skip_stride : nullptr;
    T* const out = a.out + r * a.out_stride;
    const auto projected = [&](const auto& load_at) PARE_LAMBDA_INLINE {
      auto y = load_at(x);
      if (a.bias != nullptr) y = y + load_at(a.bias);
      y = A::template apply<Arch>(y);
      if constexpr (Gated) {
        auto v = load_at(value);
        if (a.value_bias != nullptr) v = v + load_at(a.value_bias);
        y = y * v;
      }
      if (skip != nullptr) y = y + load_at(skip);
      return y;
    };
    for_row<lanes<T, Arch>, true>(
        a.columns,
        [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
          store<Arch>(out + i,
                      projected([&](const T* p) PARE_LAMBDA_INLINE { return load<Arch>(p + i); }));
        },
        [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
          store_first<Arch>(out + i, count, projected([&](const T* p) PARE_LAMBDA_INLINE {
                              return load_first<Arch>(p + i, count, T(0));
                            }));
        });
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
