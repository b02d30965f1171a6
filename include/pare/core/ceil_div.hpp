// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Division of sizes that rounds up, for every size that its type holds.

#include <pare/core/macros_off.hpp>

#include <concepts>

namespace pare {

/// ceil(a / b) for a >= 0 and b >= 1. The usual (a + b - 1) / b overflows where a + b does not fit.
template <std::integral T>
constexpr T ceil_div(T a, T b) noexcept {
  return static_cast<T>(a / b + (a % b != 0 ? 1 : 0));
}

}  // namespace pare

#include <pare/core/macros_on.hpp>
