// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Semantic ids: an item as a few tokens that similar items share, by residual clusters.
///
/// ```cpp
/// const auto fit = fit_semantic_ids(pare::simd.threads(2), rows, {.levels = 3, .clusters = 256});
/// fit.ids.of(7);                                     // the tokens of item 7
/// const SemanticIds more = encode_semantic_ids(fit.codebooks, new_rows);
/// decode_semantic_ids(fit.codebooks, more, decoded);  // [items, dim]
/// ```
///
///     s_l = the cluster of r_l at level l,   r_0 = x,   r_(l+1) = r_l - c_(l, s_l)
///
/// Clusters of a level have equal sizes (balanced_kmeans.hpp); a decoded item is the sum of its
/// centroids. Balance holds for the items of the fit: the tokens of a new one are those of the
/// nearest centroids, and so may be those that encoding an item of the fit again gives.
///
/// Source: OneRec, arXiv 2502.18965 (3 levels of 8192 clusters), by a summary. Ours: level l draws
/// its start by seed + l. What becomes of items with the same tokens the paper does not say:
/// token_ids.hpp lists them and tells them apart.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/semantic/assign_nearest.hpp>
#include <pare/retrieval/semantic/balanced_kmeans.hpp>
#include <pare/retrieval/semantic/detail/token_order.hpp>
#include <pare/retrieval/semantic/token_ids.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::retrieval {

/// How ids are fitted.
struct SemanticIdOptions {
  int levels = 3;          ///< tokens of an item, at least 1
  Index clusters = 256;    ///< tokens that a level has, 1 to the items; OneRec takes 8192
  int sweeps = 50;         ///< of each level's clusters at most, at least 1
  std::uint64_t seed = 1;  ///< of where clusters begin
};

PARE_ABI_BEGIN
/// Ids of the rows that were fitted, and what others are encoded by.
template <ComputeScalar T>
struct SemanticIdFit {
  std::vector<RowMatrix<T>> codebooks{};  ///< [levels] of centroids [clusters, dim]
  SemanticIds ids{};
  std::vector<double> inertia{};  ///< [levels] the sum of |x|^2 that each level leaves
};
PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Throws unless there are levels, all of centroids of one dim. Returns it.
template <class T>
Index check_codebooks(const char* function, const std::vector<RowMatrix<T>>& codebooks) {
  check(!codebooks.empty(), function, "codebooks", "none", "at least one level");
  check(static_cast<Index>(codebooks.size()) <= std::numeric_limits<int>::max(), function,
        "codebooks", codebooks.size(), "levels that an int counts");
  const Index dim = codebooks.front().cols();
  for (const RowMatrix<T>& level : codebooks) {
    check_cluster_rows(function, "codebooks", const_view(level));
    check(level.rows() >= 1 && level.cols() == dim, function, "codebooks", const_view(level).extent,
          Worded{"at least one centroid of the first level's dim, ", dim});
  }
  return dim;
}

/// r_i -= c_assigned(i), and the tokens of a level.
template <class T>
void take_level(const RowMatrix<T>& centroids, const std::vector<std::uint32_t>& assigned,
                int level, RowMatrix<T>& residual, SemanticIds& ids) {
  for (Index i = 0; i < residual.rows(); ++i) {
    const std::uint32_t token = assigned[static_cast<std::size_t>(i)];
    ids.tokens[static_cast<std::size_t>(i * ids.levels + level)] = static_cast<std::int32_t>(token);
    const T* const c = &centroids(static_cast<Index>(token), 0);
    T* const r = &residual(i, 0);
    for (Index j = 0; j < residual.cols(); ++j) r[j] -= c[j];
  }
}

template <class B, class S>
SemanticIdFit<compute_t<S>> fit_semantic_ids(const B& backend, TensorView<const S, 2> rows,
                                             const SemanticIdOptions& options) {
  using T = compute_t<S>;
  constexpr const char* function = "retrieval::fit_semantic_ids";
  check_cluster_rows(function, "rows", rows);
  check(options.levels >= 1, function, "levels", options.levels, "at least 1");
  check(options.clusters >= 1 && options.clusters <= rows.rows(), function, "clusters",
        options.clusters, Worded{"1 to the rows, ", rows.rows()});
  check(options.sweeps >= 1, function, "sweeps", options.sweeps, "at least 1");
  checked_count(function, "levels",
                checked_product(function, "levels", rows.rows(), Index{options.levels}),
                sizeof(std::int32_t));
  check_balanced_memory<T>(function, rows.rows(), rows.cols());
  Workspace own;
  const auto kept = keeping(backend, own);
  SemanticIdFit<T> fit;
  fit.ids.levels = options.levels;
  fit.ids.tokens.resize(static_cast<std::size_t>(rows.rows() * options.levels));
  RowMatrix<T> residual = row_matrix<T>(rows);
  for (int level = 0; level < options.levels; ++level) {
    // Residuals may be longer than the rows were.
    if (level > 0) check_cluster_rows(function, "rows", const_view(residual));
    BalancedClusters<T> clusters = cluster_rows(
        kept, const_view(residual),
        {options.clusters, options.sweeps, options.seed + static_cast<std::uint64_t>(level)});
    take_level(clusters.centroids, clusters.assigned, level, residual, fit.ids);
    fit.inertia.push_back(clusters.inertia);
    fit.codebooks.push_back(std::move(clusters.centroids));
  }
  return fit;
}

template <class B, class S>
SemanticIds encode_semantic_ids(const B& backend,
                                const std::vector<RowMatrix<compute_t<S>>>& codebooks,
                                TensorView<const S, 2> rows) {
  constexpr const char* function = "retrieval::encode_semantic_ids";
  const Index dim = check_codebooks(function, codebooks);
  check_cluster_rows(function, "rows", rows);
  check(rows.cols() == dim, function, "rows", rows.extent, Worded{"the dim of codebooks, ", dim});
  SemanticIds ids{.tokens = {}, .levels = static_cast<int>(codebooks.size())};
  ids.tokens.resize(
      static_cast<std::size_t>(checked_product(function, "rows", rows.rows(), ids.levels)));
  auto residual = row_matrix<compute_t<S>>(rows);
  std::vector<std::uint32_t> nearest;
  for (int level = 0; level < ids.levels; ++level) {
    const auto& centroids = codebooks[static_cast<std::size_t>(level)];
    find_nearest(backend, const_view(residual), const_view(centroids), nearest);
    take_level(centroids, nearest, level, residual, ids);
  }
  return ids;
}

template <class T>
void decode_semantic_ids(const std::vector<RowMatrix<T>>& codebooks, const SemanticIds& ids,
                         TensorView<T, 2> rows) {
  constexpr const char* function = "retrieval::decode_semantic_ids";
  const Index dim = check_codebooks(function, codebooks);
  check_tokens(function, ids.tokens, ids.levels);
  check(ids.levels == static_cast<int>(codebooks.size()), function, "ids", ids.levels,
        Worded{"the levels of the codebooks, ", static_cast<Index>(codebooks.size())});
  for (std::size_t at = 0; at < ids.tokens.size(); ++at) {
    const Index clusters = codebooks[at % codebooks.size()].rows();
    check(ids.tokens[at] >= 0 && ids.tokens[at] < clusters, function, "ids", ids.tokens[at],
          Worded{"tokens from 0 to below the clusters, ", clusters});
  }
  check_writable(function, "rows", rows);
  check_extents<2>(function, "rows", rows.extent, {ids.items(), dim});
  for (const RowMatrix<T>& level : codebooks)
    check_no_overlap(function, "rows", rows, "codebooks", const_view(level));
  for (Index i = 0; i < rows.rows(); ++i)
    for (Index j = 0; j < dim; ++j) {
      double sum = 0;
      for (std::size_t level = 0; level < codebooks.size(); ++level)
        sum += static_cast<double>(codebooks[level](Index{ids.of(i)[level]}, j));
      rows(i, j) = static_cast<T>(sum);
    }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Fits codebooks to items, and gives their ids.
///
/// \param backend left out: pare::simd
/// \param rows    [items, dim] of float, double, bf16 or f16, contiguous, fewer than 2^31
/// \param options see SemanticIdOptions
/// \return        see SemanticIdFit
/// \throws std::invalid_argument as balanced_kmeans, or if there is no level
///
/// Cost: that of balanced_kmeans for each level. Memory: its own, and a copy of the rows, the
/// residual. Inertia never rises from level to level but for rounding: the mean of a cluster is
/// nearer to its rows than 0 is. The same bits for any number of threads.
template <Backend B, In<2> X>
SemanticIdFit<compute_t<scalar_of<X>>> fit_semantic_ids(const B& backend, const X& rows,
                                                        const SemanticIdOptions& options = {}) {
  return detail::fit_semantic_ids(on_any_executor(backend), as_const(to_view(rows)), options);
}

/// \overload
template <In<2> X>
SemanticIdFit<compute_t<scalar_of<X>>> fit_semantic_ids(const X& rows,
                                                        const SemanticIdOptions& options = {}) {
  return fit_semantic_ids(simd, rows, options);
}

/// The ids of new items: at each level the nearest centroid, of equally near ones the first.
///
/// \param codebooks [levels] of centroids [clusters, dim], at least one of each
/// \param rows      as fit_semantic_ids; none gives no ids
/// \throws std::invalid_argument if rows are not as balanced_kmeans wants them, codebooks are
///         empty, differ in dim or hold a number that is not finite, or dims differ
///
/// Cost: 2 levels items clusters dim FLOPs, which bind. Memory: a copy of the rows.
template <Backend B, In<2> X>
SemanticIds encode_semantic_ids(const B& backend,
                                const std::vector<RowMatrix<compute_t<scalar_of<X>>>>& codebooks,
                                const X& rows) {
  return detail::encode_semantic_ids(on_any_executor(backend), codebooks, as_const(to_view(rows)));
}

/// \overload
template <In<2> X>
SemanticIds encode_semantic_ids(const std::vector<RowMatrix<compute_t<scalar_of<X>>>>& codebooks,
                                const X& rows) {
  return encode_semantic_ids(simd, codebooks, rows);
}

/// Writes items as the sums of their centroids, which are double.
///
/// \param codebooks as encode_semantic_ids
/// \param ids       of as many levels
/// \param rows      [items, dim] written, apart from the codebooks
/// \throws std::invalid_argument if ids do not fit the codebooks, or rows do not fit either or
///         overlap them. Nothing is written then.
///
/// Cost: one read of levels rows per item, on the calling thread.
template <ComputeScalar T, Out<2> O>
requires std::is_same_v<scalar_of<O>, T>
void decode_semantic_ids(const std::vector<RowMatrix<T>>& codebooks, const SemanticIds& ids,
                         O&& rows) {
  detail::decode_semantic_ids(codebooks, ids, to_view(rows));
}

PARE_REFUSE_CALLS(fit_semantic_ids, "retrieval::fit_semantic_ids",
                  "after rows: wanted SemanticIdOptions",
                  (INPUT, (roles::Reads<2>), "rows", "[items, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
