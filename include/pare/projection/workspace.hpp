// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Memory that projections work in; pass the same object again and repeated calls allocate nothing.
///
/// ```cpp
/// Workspace workspace;
/// for (const Eigen::MatrixXf& x : batches) project(pare::simd.threads(4), x, omega, y, workspace);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/projection/detail/cell.hpp>

#include <cstddef>
#include <vector>

namespace pare::projection {

/// Scratch of `project` and `sketch` (project.hpp): half a MiB per worker, and the part of R in
/// use, at most about 32 MiB however large R is. Two calls must not use one object at the same
/// time.
struct Workspace {
  /// What one worker needs for itself.
  struct Worker {
    AlignedBuffer<std::byte> panel;
    AlignedBuffer<std::byte> sums;
    detail::CellScratch scratch;
  };

  std::vector<Worker> workers;
  std::vector<detail::Cell> cells;
};

}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
