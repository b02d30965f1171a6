// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a search of a memory finds for each row: slots and their scores.
///
/// ```cpp
/// const MemoryHits<float> hits = search_product_keys(queries, keys, 32);
/// gather_values(values, hits.ids, hits.scores, out);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>

namespace pare::routing {

/// Slots and scores, both [rows, hits]; of several heads, those of a head stand together.
template <ComputeScalar T>
struct MemoryHits {
  RowMatrix<Index> ids;
  RowMatrix<T> scores;
};

}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
