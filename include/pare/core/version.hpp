// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The version of Pare, stated once: CMake, the package files and the ABI namespace read it here.
///
/// ```cpp
/// #if PARE_VERSION < 100
/// #error "this program needs Pare 0.1.0 or newer"
/// #endif
/// ```

#include <pare/core/macros_off.hpp>

#define PARE_VERSION_MAJOR 0
#define PARE_VERSION_MINOR 1
#define PARE_VERSION_PATCH 0

/// One number to compare: MMmmpp, so that 1.2.3 is 10203.
#define PARE_VERSION (PARE_VERSION_MAJOR * 10000 + PARE_VERSION_MINOR * 100 + PARE_VERSION_PATCH)

#include <pare/core/macros_on.hpp>
