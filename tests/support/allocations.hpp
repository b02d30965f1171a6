// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

namespace pare::testing {

/// Calls of operator new in this program, which allocations.cpp replaces; relaxed, for tests that
/// stand still while they read it.
extern std::atomic<long> allocations;

}  // namespace pare::testing
