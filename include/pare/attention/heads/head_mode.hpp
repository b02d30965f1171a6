// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a head of attention does: the modes of head_modes.hpp.

#include <pare/core/macros_off.hpp>

#include <cstdint>

namespace pare::attention {

enum class HeadMode : std::uint8_t {
  Normal,   ///< attention as it is
  Uniform,  ///< the mean of the values that a query sees
  Zero      ///< rows of 0
};

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
