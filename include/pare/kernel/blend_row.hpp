// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A row of numbers blended with another.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// row_c = (1 - share) row_c + share target_c. A share of 1 copies the target, whatever the row
/// held. Cost: the row is read and written, the target read once, out of L1; that binds.
template <StorageScalar S>
struct BlendRow {
  using T = compute_t<S>;

  T* row = nullptr;           ///< [columns]
  const S* target = nullptr;  ///< [columns]
  std::ptrdiff_t columns = 0;
  T share = 0;
};

PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const BlendRow<S>& a) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  const bool copies = a.share == T(1);
  const V keep = broadcast<Arch>(T(1) - a.share), share = broadcast<Arch>(a.share);
  const auto blended = [&](V row, V target) PARE_LAMBDA_INLINE {
    return copies ? target : multiply_add<Arch>(share, target, keep * row);
  };
  for_row<lanes<T, Arch>>(
      a.columns,
      [&](std::ptrdiff_t c) PARE_LAMBDA_INLINE {
        store<Arch>(a.row + c, blended(load<Arch>(static_cast<const T*>(a.row) + c),
                                       load_widened<Arch>(a.target + c)));
      },
      [&](std::ptrdiff_t c, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        const auto row = load_first<Arch>(static_cast<const T*>(a.row) + c, count, T(0));
        store_first<Arch>(a.row + c, count,
                          blended(row, load_first<Arch>(a.target + c, count, T(0))));
      });
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
