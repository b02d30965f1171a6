// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The cluster of new rows: that of the nearest centroid, without a say of how many others go
/// there.
///
/// ```cpp
/// const auto clusters = balanced_kmeans(rows, {.clusters = 256});
/// const std::vector<std::uint32_t> of = assign_nearest(pare::simd.threads(2), more,
/// clusters.centroids);
/// ```
///
///     of_i = argmin_k |x_i - c_k|^2 = argmax_k <x_i, c_k> - |c_k|^2 / 2,  of equal ones the first
///
/// Distances lose digits where all rows share an offset far larger than they differ, as those of
/// balanced_kmeans.hpp; the reference subtracts, in double. No paper.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/score_rows.hpp>
#include <pare/retrieval/semantic/detail/cluster_checks.hpp>
#include <pare/retrieval/semantic/detail/reference_balanced.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace pare::retrieval {
namespace detail {
PARE_ABI_BEGIN

/// Adds a number to the scores of each key before another reducer sees them.
template <class T, class R>
class AddToKeys {
 public:
  /// `added` has room for whole tiles of keys.
  AddToKeys(const T* added, R& reducer) : added_(added), reducer_(reducer) {}

  template <class B>
  void add(const B& backend, const linalg::TileOfScores<T>& tile) {
    for (Index r = 0; r < tile.rows; ++r) {
      T* const scores = &tile.at(r, 0);
      if (tile.keys == kernel::tile_keys)  // a length known beforehand is vectorised at -O2
        for (Index j = 0; j < kernel::tile_keys; ++j) scores[j] += added_[tile.key + j];
      else
        for (Index j = 0; j < tile.keys; ++j) scores[j] += added_[tile.key + j];
    }
    reducer_.add(backend, tile);
  }

 private:
  const T* added_;
  R& reducer_;
};

/// -|c_k|^2 / 2.
template <class T>
std::vector<T> halved_squares(TensorView<const T, 2> centroids) {
  std::vector<T> halves;
  for (Index k = 0; k < centroids.rows(); ++k) {
    double square = 0;
    for (Index c = 0; c < centroids.cols(); ++c)
      square += static_cast<double>(centroids(k, c)) * static_cast<double>(centroids(k, c));
    halves.push_back(static_cast<T>(-0.5 * square));
  }
  return halves;
}

/// The nearest centroids of rows that are checked.
template <class B, class T>
void find_nearest(const B& backend, TensorView<const T, 2> rows, TensorView<const T, 2> centroids,
                  std::vector<std::uint32_t>& nearest) {
  nearest.resize(static_cast<std::size_t>(rows.rows()));
  if constexpr (KernelBackend<B>) {
    constexpr Index block = 240;  // whole groups of score_tile_rows
    const std::vector<T> halves = halved_squares(centroids);
    const auto own = for_workers(backend);
    parallel_for(backend.executor, ceil_div(rows.rows(), block), [&](Index item, int) {
      const Index begin = item * block, count = std::min(block, rows.rows() - begin);
      linalg::RowArgmax<T> best(count);
      AddToKeys reducer(halves.data(), best);
      linalg::score_rows(own, rows_of(rows, begin, count), centroids, T(1), reducer);
      // Products that overflow have no order.
      for (Index r = 0; r < count; ++r)
        nearest[static_cast<std::size_t>(begin + r)] =
            static_cast<std::uint32_t>(std::max<Index>(best.key(r), 0));
    });
  } else {
    for (Index i = 0; i < rows.rows(); ++i)
      nearest[static_cast<std::size_t>(i)] = reference_nearest(rows, i, centroids);
  }
}

template <class B, class S>
std::vector<std::uint32_t> assign_nearest(const B& backend, TensorView<const S, 2> rows,
                                          TensorView<const compute_t<S>, 2> centroids) {
  constexpr const char* function = "retrieval::assign_nearest";
  check_cluster_rows(function, "rows", rows);
  check_cluster_rows(function, "centroids", centroids);
  check(centroids.cols() == rows.cols(), function, "centroids", centroids.extent,
        Worded{"the dim of the rows, ", rows.cols()});
  check(centroids.rows() >= 1, function, "centroids", centroids.extent, "at least one");
  std::vector<std::uint32_t> nearest;
  with_compute_rows(rows, [&](auto view) {
    find_nearest(backend, view, centroids, nearest);
    return true;
  });
  return nearest;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The nearest centroid of each row.
///
/// \param backend   left out: pare::simd
/// \param rows      [rows, dim] of float, double, bf16 or f16, contiguous, fewer than 2^31
/// \param centroids [clusters, dim] of float (double for double), contiguous, at least one
/// \return          [rows]
/// 	hrows std::invalid_argument if dim is 0 or not that of both, there is no centroid, rows are
///         not contiguous, or a row of either has a number that is not finite or squares whose sum
///         is beyond a sixteenth of the largest float (double for double)
///
/// Cost: 2 rows clusters dim FLOPs, which bind. Memory: a tile of scores per worker; a copy in
/// float of 16-bit rows. The same bits for any number of threads.
template <Backend B, In<2> X, In<2> C>
requires std::is_same_v<scalar_of<C>, compute_t<scalar_of<X>>>
std::vector<std::uint32_t> assign_nearest(const B& backend, const X& rows, const C& centroids) {
  return detail::assign_nearest(on_any_executor(backend), as_const(to_view(rows)),
                                as_const(to_view(centroids)));
}

/// \overload
template <In<2> X, In<2> C>
requires std::is_same_v<scalar_of<C>, compute_t<scalar_of<X>>>
std::vector<std::uint32_t> assign_nearest(const X& rows, const C& centroids) {
  return assign_nearest(simd, rows, centroids);
}

PARE_REFUSE_CALLS(assign_nearest, "retrieval::assign_nearest",
                  "after centroids: wanted nothing, and those in the scalar that rows are "
                  "computed in",
                  (INPUT, (roles::Reads<2>), "rows", "[rows, dim]"),
                  (INPUT, (roles::ReadsCompute<2>), "centroids", "[clusters, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
