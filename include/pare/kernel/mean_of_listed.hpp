// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The mean of rows of a table that lie anywhere in memory, and how far they are from it.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gathered_rows.hpp>
#include <pare/kernel/row_dots.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// mean = 1 / count sum_i table(ids_i), and distance = sum_i |table(ids_i) - mean|^2.
///
/// Sums are double, along the list; differences are those from the mean as it is stored. Cost: the
/// rows are read twice, the second time from the cache where they fit it: the latency of memory
/// binds, as in SumGathered.
template <ComputeScalar T>
struct MeanOfListed {
  const T* table = nullptr;           ///< [.. x columns]
  std::ptrdiff_t stride = 0;          ///< between rows
  const std::int32_t* ids = nullptr;  ///< [count] rows
  std::ptrdiff_t count = 0;           ///< at least 1
  std::ptrdiff_t columns = 0;
  double* sums = nullptr;      ///< [columns], scratch
  T* mean = nullptr;           ///< [columns]
  double* distance = nullptr;  ///< one number
};

PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const MeanOfListed<T>& a) noexcept {
  constexpr std::ptrdiff_t run = 16;  // a length known beforehand is vectorised at -O2
  const auto row = [&](std::ptrdiff_t i)
                       PARE_LAMBDA_INLINE { return a.table + a.ids[i] * a.stride; };
  for (std::ptrdiff_t c = 0; c < a.columns; ++c) a.sums[c] = 0;
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    if (i + gathered_rows_ahead < a.count) fetch_gathered(row(i + gathered_rows_ahead), a.columns);
    const T* const x = row(i);
    std::ptrdiff_t c = 0;
    for (; c + run <= a.columns; c += run)
      for (std::ptrdiff_t l = 0; l < run; ++l) a.sums[c + l] += static_cast<double>(x[c + l]);
    for (; c < a.columns; ++c) a.sums[c] += static_cast<double>(x[c]);
  }
  for (std::ptrdiff_t c = 0; c < a.columns; ++c)
    a.mean[c] = static_cast<T>(a.sums[c] / static_cast<double>(a.count));
  double distance = 0;
  for (std::ptrdiff_t i = 0; i < a.count; ++i)
    distance +=
        detail::sum_terms(a.columns, [x = row(i), m = a.mean](std::ptrdiff_t c) PARE_LAMBDA_INLINE {
          const double apart = static_cast<double>(x[c]) - static_cast<double>(m[c]);
          return apart * apart;
        });
  *a.distance = distance;
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
