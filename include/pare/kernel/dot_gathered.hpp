// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products of one row with rows of a large table, which lie anywhere in memory: they are fetched
/// ahead.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/dot_row.hpp>
#include <pare/kernel/gathered_rows.hpp>
#include <pare/kernel/simd.hpp>

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

PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const DotGathered<S>& a) noexcept {
  const auto row = [&](std::ptrdiff_t i) { return a.table + a.ids[i] * a.stride; };
  for (std::ptrdiff_t i = 0; i < a.count && i < gathered_rows_ahead; ++i)
    fetch_gathered(row(i), a.columns);
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    if (i + gathered_rows_ahead < a.count) fetch_gathered(row(i + gathered_rows_ahead), a.columns);
    a.out[i] = dot_row<Arch>(row(i), a.x, a.columns);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
