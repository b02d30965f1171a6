// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The keys of a memory layer with Tucker-decomposed retrieval, and what a search of them finds.
///
/// ```cpp
/// const TuckerKeys<float> memory{keys, cores, u, v};
/// const TuckerHits<float> hits = search_tucker_keys(queries, memory, 32);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

namespace pare::routing {
PARE_ABI_BEGIN

/// The keys of a memory layer, viewed, in any strides.
template <ComputeScalar T>
struct TuckerKeys {
  TensorView<const T, 5> keys;   ///< [heads, 2, n, half, r]: of rows, and of columns
  TensorView<const T, 3> cores;  ///< [cores, r, r]
  TensorView<const T, 1> u;      ///< [r], the direction that rows are preselected by
  TensorView<const T, 1> v;      ///< [r], of columns
};

/// Slots, and the score of each by each core.
template <ComputeScalar T>
struct TuckerHits {
  RowMatrix<Index> ids;  ///< [rows, heads k]: those of a head together, by falling sum of scores
  RowMatrix<T> scores;   ///< [rows, heads k cores]: those of a hit together
};

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
