// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The most memory this process has held.

#if __has_include(<sys/resource.h>)
#include <sys/resource.h>
#endif

namespace command_line {

/// Peak resident memory of this process so far in MiB; 0 where the system does not tell.
inline double peak_memory_mib() {
#if __has_include(<sys/resource.h>)
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#if defined(__APPLE__)
  constexpr double units_per_mib = 1024.0 * 1024.0;
#else
  constexpr double units_per_mib = 1024.0;
#endif
  return static_cast<double>(usage.ru_maxrss) / units_per_mib;
#else
  return 0;
#endif
}

}  // namespace command_line
