// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a search returns: ids of documents or items with their scores, and the one order of them.
///
/// ```cpp
/// std::vector<Hit> hits = index.search(query, 10);  // the best first
/// hits[0].id;                                       // and hits[0].score
/// std::sort(all.begin(), all.end(), ranks_before);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/kernel/falling_list.hpp>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// A document and its score.
struct Hit {
  Index id = 0;
  double score = 0;

  friend bool operator==(const Hit&, const Hit&) = default;
};

/// The order of every ranking of this area: falling score, of equal ones the lower id first, NaN
/// last. It is total for hits of different ids.
inline bool ranks_before(const Hit& a, const Hit& b) {
  return kernel::stands_before(a.score, a.id, b.score, b.id);
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
