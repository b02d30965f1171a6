// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Balanced k-means: clusters of equal size, so that tokens made of them are used equally often.
///
/// ```cpp
/// const auto clusters = balanced_kmeans(pare::simd.threads(2), rows, {.clusters = 256});
/// clusters.centroids;    // [256, dim], the means of their rows
/// clusters.assigned[7];  // the cluster of row 7
/// clusters.inertia;      // sum_i |x_i - c_assigned(i)|^2
/// ```
///
/// A sweep is a greedy pass: clusters k = 0, 1, ... in turn take the w rows nearest to c_k that no
/// cluster before them has taken, of equally near ones the first; then each c_k moves to their
/// mean. w is rows / clusters, and one more for the first rows % clusters clusters. Sweeps end when
/// no row moves, or after `sweeps`. The pass depends on the order of the clusters and need not
/// settle, nor does its inertia fall in each sweep: the clusters of the least inertia are returned.
///
/// Distances are |x|^2 - 2 <x, c> + |c|^2 in the scalar of the rows (float for 16-bit ones; the
/// reference subtracts, in double). They lose digits where all rows share an offset far larger than
/// they differ: subtract the mean of the rows first.
///
/// Source: the greedy pass is that of OneRec, arXiv 2502.18965 (Algorithm 1, by a summary). Ours:
/// the rows that are left over, ties, the cap of 50 sweeps and that the best one is kept. Centroids
/// begin as different rows drawn by Philox; how OneRec's begin is not known to us.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/detail/drawn_places.hpp>
#include <pare/retrieval/semantic/detail/balanced_run.hpp>
#include <pare/retrieval/semantic/detail/cluster_checks.hpp>
#include <pare/retrieval/semantic/detail/reference_balanced.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::retrieval {

/// How rows are clustered.
struct BalancedKMeansOptions {
  Index clusters = 256;    ///< 1 to the rows; OneRec takes 8192
  int sweeps = 50;         ///< at most, at least 1
  std::uint64_t seed = 1;  ///< of the rows that centroids begin as
};

PARE_ABI_BEGIN
/// Clusters of equal size.
template <ComputeScalar T>
struct BalancedClusters {
  RowMatrix<T> centroids{};               ///< [clusters, dim] the means of their rows
  std::vector<std::uint32_t> assigned{};  ///< [rows] the cluster of each
  double inertia = 0;                     ///< the sum of squared distances of rows to centroids
  int sweeps = 0;                         ///< that were made
  bool settled = false;                   ///< whether the last one moved no row
};
PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Sweeps until nothing moves. assign(centroids, assigned) returns whether a row moved,
/// move(assigned, centroids) the inertia.
template <class T, class Assign, class Move>
void sweep_clusters(int most_sweeps, BalancedClusters<T>& clusters, const Assign& assign,
                    const Move& move) {
  std::vector<std::uint32_t> now(clusters.assigned.size(),
                                 std::numeric_limits<std::uint32_t>::max());
  double inertia = 0;
  while (clusters.sweeps < most_sweeps && !clusters.settled) {
    ++clusters.sweeps;
    clusters.settled = !assign(const_view(clusters.centroids), now);
    if (clusters.settled) break;
    inertia = move(now, clusters.centroids);
    if (clusters.sweeps > 1 && !(inertia < clusters.inertia)) continue;
    clusters.inertia = inertia;
    clusters.assigned = now;
  }
  if (clusters.assigned != now) clusters.inertia = move(clusters.assigned, clusters.centroids);
}

template <class B, class T>
BalancedClusters<T> cluster_rows(const B& backend, TensorView<const T, 2> rows,
                                 const BalancedKMeansOptions& options) {
  BalancedClusters<T> clusters;
  clusters.assigned.resize(static_cast<std::size_t>(rows.rows()));
  clusters.centroids.resize(options.clusters, rows.cols());
  const auto first = drawn_places(rows.rows(), options.clusters, options.seed);
  for (Index k = 0; k < options.clusters; ++k)
    for (Index c = 0; c < rows.cols(); ++c)
      clusters.centroids(k, c) = rows(first[static_cast<std::size_t>(k)], c);
  if constexpr (KernelBackend<B>) {
    BalancedRun<B, T> run(backend, rows, options.clusters);
    sweep_clusters(
        options.sweeps, clusters,
        [&](auto centroids, auto& assigned) { return run.assign(centroids, assigned); },
        [&](const auto& assigned, auto& to) { return run.move_to_means(assigned, to); });
  } else {
    sweep_clusters(
        options.sweeps, clusters,
        [&](auto centroids, auto& assigned) {
          return reference_assign_balanced(rows, centroids, assigned);
        },
        [&](const auto& assigned, auto& to) {
          return reference_move_to_means(rows, assigned, to);
        });
  }
  return clusters;
}

template <class B, class S>
BalancedClusters<compute_t<S>> balanced_kmeans(const B& backend, TensorView<const S, 2> rows,
                                               const BalancedKMeansOptions& options) {
  constexpr const char* function = "retrieval::balanced_kmeans";
  check_cluster_rows(function, "rows", rows);
  check(options.clusters >= 1 && options.clusters <= rows.rows(), function, "clusters",
        options.clusters, Worded{"1 to the rows, ", rows.rows()});
  check(options.sweeps >= 1, function, "sweeps", options.sweeps, "at least 1");
  check_balanced_memory<compute_t<S>>(function, rows.rows(), rows.cols());
  return with_compute_rows(rows, [&](auto view) { return cluster_rows(backend, view, options); });
}

template <class B, class S>
std::vector<std::uint32_t> assign_balanced(const B& backend, TensorView<const S, 2> rows,
                                           TensorView<const compute_t<S>, 2> centroids) {
  constexpr const char* function = "retrieval::assign_balanced";
  check_cluster_rows(function, "rows", rows);
  check_cluster_rows(function, "centroids", centroids);
  check(centroids.cols() == rows.cols(), function, "centroids", centroids.extent,
        Worded{"the dim of the rows, ", rows.cols()});
  check(centroids.rows() >= 1 && centroids.rows() <= rows.rows(), function, "centroids",
        centroids.extent, Worded{"1 to as many as rows, ", rows.rows()});
  check_balanced_memory<compute_t<S>>(function, rows.rows(), rows.cols());
  std::vector<std::uint32_t> assigned(static_cast<std::size_t>(rows.rows()));
  with_compute_rows(rows, [&](auto view) {
    if constexpr (KernelBackend<B>)
      return BalancedRun<B, compute_t<S>>(backend, view, centroids.rows())
          .assign(centroids, assigned);
    else
      return reference_assign_balanced(view, centroids, assigned);
  });
  return assigned;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Clusters rows into sets of equal size.
///
/// \param backend left out: pare::simd
/// \param rows    [rows, dim] of float, double, bf16 or f16, contiguous, fewer than 2^31
/// \param options see BalancedKMeansOptions
/// \return        see BalancedClusters
/// \throws std::invalid_argument if dim is 0, rows are not contiguous, an option is out of its
///         range, or a row has a number that is not finite or squares whose sum is beyond a
///         sixteenth of the largest float (double for double): the message names the row, since the
///         order of all others would depend on it
///
/// Cost: per sweep little more than rows clusters dim FLOPs, half of all products, which bind, and
/// one read of rows clusters / 2 products. Memory in the workspace: per row 32 products and some 20
/// bytes (for a million rows of float 150 MB), whatever the clusters; a copy in float of 16-bit
/// rows. Means and inertia are sums in double. The same bits for any number of threads.
template <Backend B, In<2> X>
BalancedClusters<compute_t<scalar_of<X>>> balanced_kmeans(
    const B& backend, const X& rows, const BalancedKMeansOptions& options = {}) {
  return detail::balanced_kmeans(on_any_executor(backend), as_const(to_view(rows)), options);
}

/// \overload
template <In<2> X>
BalancedClusters<compute_t<scalar_of<X>>> balanced_kmeans(
    const X& rows, const BalancedKMeansOptions& options = {}) {
  return balanced_kmeans(simd, rows, options);
}

/// One greedy pass: the cluster of each row, as the file says.
///
/// \param rows      as balanced_kmeans
/// \param centroids [clusters, dim] of float (double for double), contiguous, 1 to as many as rows
/// \throws std::invalid_argument as balanced_kmeans, of centroids too
///
/// Cost and memory as a sweep of balanced_kmeans.
template <Backend B, In<2> X, In<2> C>
requires std::is_same_v<scalar_of<C>, compute_t<scalar_of<X>>>
std::vector<std::uint32_t> assign_balanced(const B& backend, const X& rows, const C& centroids) {
  return detail::assign_balanced(on_any_executor(backend), as_const(to_view(rows)),
                                 as_const(to_view(centroids)));
}

/// \overload
template <In<2> X, In<2> C>
requires std::is_same_v<scalar_of<C>, compute_t<scalar_of<X>>>
std::vector<std::uint32_t> assign_balanced(const X& rows, const C& centroids) {
  return assign_balanced(simd, rows, centroids);
}

PARE_REFUSE_CALLS(balanced_kmeans, "retrieval::balanced_kmeans",
                  "after rows: wanted BalancedKMeansOptions",
                  (INPUT, (roles::Reads<2>), "rows", "[rows, dim]"))
PARE_REFUSE_CALLS(assign_balanced, "retrieval::assign_balanced",
                  "after centroids: wanted nothing, and those in the scalar that rows are "
                  "computed in",
                  (INPUT, (roles::Reads<2>), "rows", "[rows, dim]"),
                  (INPUT, (roles::ReadsCompute<2>), "centroids", "[clusters, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
