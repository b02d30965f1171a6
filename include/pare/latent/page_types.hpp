// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a PageTable (pages.hpp) takes and says: places, copies to make, tokens to keep.
///
/// ```cpp
/// const Appended added = table.append(sequence, 3);
/// if (added.copy) copy_rows(added.copy->from, added.copy->to, added.copy->rows);
/// const PageRow at = table.row(sequence, added.first);  // where to write the first new row
/// table.evict(sequence, {.window = 4096, .sinks = 4});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <optional>

namespace pare::latent {

/// Rows [0, rows) of a page that the store must copy to another page.
struct PageCopy {
  Index from = 0;
  Index to = 0;
  Index rows = 0;
};

/// What `PageTable::append` did.
struct Appended {
  Index first = 0;                 ///< the position of the first new token
  std::optional<PageCopy> copy{};  ///< to be carried out before a new row is written
};

/// The tokens that `evict` keeps: the first `sinks` and the last `window`.
struct KeptTokens {
  Index window = 0;  ///< at least 0
  Index sinks = 0;   ///< at least 0
};

/// A row of a page.
struct PageRow {
  Index page = 0;  ///< -1 if it was evicted
  Index row = 0;
};

}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
