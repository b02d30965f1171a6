// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One tile of attention: a few query rows against up to `tile_keys` packed keys and values, or
/// against keys and values as they lie.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/attend_group.hpp>
#include <pare/kernel/attend_lane_tile.hpp>

namespace pare::kernel {
PARE_ABI_BEGIN

template <class Arch, class S, class M>
void run_kernel(Arch, const AttendTile<S, M>& a) noexcept {
  if (a.lanes.scores != nullptr)
    detail::LaneTile<Arch, S, M>(a).run();
  else if (a.keys == nullptr)
    detail::attend_direct_rows<Arch>(a);
  else
    detail::attend_packed_rows<Arch>(a);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
