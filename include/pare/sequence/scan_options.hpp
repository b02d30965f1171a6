// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of scans.
///
/// ```cpp
/// scan(pare::simd.threads(16), x, a, b, c, state, y, {.chunk = 4096});  // one long head
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <optional>

namespace pare::sequence {

/// Options of `scan`.
struct ScanOptions {
  /// Tokens of a chunk, at least 1: chunks of one head are then worked on by several threads, which
  /// costs nearly twice the work, and bits depend on it. Left out: a head is one piece of work, and
  /// a stream may be cut anywhere.
  std::optional<Index> chunk{};
};

}  // namespace pare::sequence

#include <pare/core/macros_on.hpp>
