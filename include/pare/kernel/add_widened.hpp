// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Adding what was summed in float to sums in double.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>
#include <pare/core/scalar.hpp>

#include <cstddef>

namespace pare::kernel {

/// sums_ij += x_ij in double. Cost: per element one T read, a double read and written, which binds.
template <ComputeScalar T>
struct AddWidened {
  const T* data = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* sums = nullptr;  ///< [rows x columns]
  std::ptrdiff_t sums_stride = 0;
};

PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const AddWidened<T>& a) noexcept {
  // A length known beforehand is what compilers vectorise at -O2.
  constexpr std::ptrdiff_t run = 16;
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    const T* x = a.data + i * a.row_stride;
    double* sums = a.sums + i * a.sums_stride;
    std::ptrdiff_t c = 0;
    for (; c + run <= a.columns; c += run)
      for (std::ptrdiff_t l = 0; l < run; ++l) sums[c + l] += static_cast<double>(x[c + l]);
    for (; c < a.columns; ++c) sums[c] += static_cast<double>(x[c]);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
