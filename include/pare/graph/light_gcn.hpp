// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// LightGCN: embeddings smoothed over a graph, without weights or activations between the steps.
///
///     E_0 given,   E_k = A E_{k-1},   E = sum_{k=0..K} weights[k] E_k
///
/// ```cpp
/// const auto graph = normalized_adjacency(bipartite_adjacency(ratings));    // D^-1/2 A D^-1/2
/// auto smooth = light_gcn(graph, embeddings);                   // [nodes, dim]
/// light_gcn(pare::simd.threads(2), graph, gradient, gradient_start, {});    // its backward pass
/// ```
///
/// It is linear: the gradient of E_0 is light_gcn of the gradient of E over A^T, which is A itself
/// for an undirected graph divided symmetrically.
///
/// He et al., "LightGCN" (SIGIR 2020): 3 steps, all weights 1 / 4.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/graph/detail/smooth.hpp>

#include <array>
#include <cstddef>
#include <vector>

namespace pare::graph {

struct LightGcnOptions {
  /// Of E_0 to E_K, at least one, finite. The paper: K = 3, all 1 / (K + 1). Weights of 0 at the
  /// end save their steps.
  std::vector<double> weights = {0.25, 0.25, 0.25, 0.25};
};

namespace detail {
PARE_ABI_BEGIN

template <class B, class T, class I>
void light_gcn(const B& backend, const CompressedView<T, I>& a, TensorView<const T, 2> start,
               TensorView<T, 2> out, const LightGcnOptions& options) {
  constexpr const char* function = "graph::light_gcn";
  check(a.outer_size == a.inner_size, function, "adjacency",
        std::array<Index, 2>{a.outer_size, a.inner_size}, "a square matrix");
  check(!options.weights.empty(), function, "weights", Index{0}, "at least one weight");
  for (const double w : options.weights)
    check(is_finite(static_cast<T>(w)), function, "weights", w, "finite numbers of the scalar");
  check_view(function, "start", start);
  check_extents<2>(function, "start", start.extent, {a.outer_size, start.cols()});
  check_contiguous_rows(function, "start", start);
  check_extents<2>(function, "out", out.extent, start.extent);
  check_contiguous_rows(function, "out", as_const(out));
  check_writable(function, "out", out);
  check_no_overlap(function, "out", out, "start", start);
  check_compressed(function, "adjacency", a);
  check_no_overlap(function, "out", out, "adjacency", a);
  checked_count(function, "start", checked_product(function, "start", start.rows(), start.cols()),
                sizeof(double));
  if (start.rows() == 0 || start.cols() == 0) return;
  const Smoothing<T, I> call{a, start, out, options.weights};
  if constexpr (KernelBackend<B>)
    call.run(backend);
  else
    call.define();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Smooths embeddings over a graph.
///
/// \param backend   left out: pare::simd
/// \param adjacency [nodes, nodes] Eigen sparse matrix of float or double by rows, as it is to be
///                  multiplied with (`normalized_adjacency`); any finite or other weights
/// \param start     [nodes, dim], E_0, contiguous rows
/// \param out       [nodes, dim], contiguous rows, written; apart from start and adjacency
/// \param options   see LightGcnOptions
/// \throws std::invalid_argument if adjacency is malformed or not square, a shape or stride is not
///         right, weights are missing or not finite, or out lies in an input. Nothing is written
///         then.
///
/// Computed from the last step to the first, E = w_0 E_0 + A (w_1 E_0 + A (w_2 E_0 + ...)): one
/// product a step, and no sum beside it. Cost: 2 nnz dim FLOPs a step; the nnz dim scalars gathered
/// bind. Memory: another nodes * dim scalars from two steps on, in the workspace. A row's sum runs
/// over its entries in stored order: the same bits for any number of threads. NaN goes to the
/// neighbours. The reference sums step by step in double.
template <Backend B, SparseRowsIn S, In<2> X, Out<2> Y>
requires SameScalarAsSparse<S, X, Y>
void light_gcn(const B& backend, const S& adjacency, const X& start, Y&& out,
               const LightGcnOptions& options) {
  detail::light_gcn(on_any_executor(backend), to_compressed(adjacency), as_const(to_view(start)),
                    to_view(out), options);
}

/// The same, returned.
template <Backend B, SparseRowsIn S, In<2> X>
requires SameScalarAsSparse<S, X>
RowMatrix<scalar_of<X>> light_gcn(const B& backend, const S& adjacency, const X& start,
                                  const LightGcnOptions& options = {}) {
  const auto from = to_view(start);
  checked_count("graph::light_gcn", "start",
                checked_product("graph::light_gcn", "start", from.rows(), from.cols()),
                sizeof(double));
  RowMatrix<scalar_of<X>> out(from.rows(), from.cols());
  light_gcn(backend, adjacency, start, out, options);
  return out;
}

/// \overload
template <SparseRowsIn S, In<2> X>
requires SameScalarAsSparse<S, X>
RowMatrix<scalar_of<X>> light_gcn(const S& adjacency, const X& start,
                                  const LightGcnOptions& options = {}) {
  return light_gcn(simd, adjacency, start, options);
}

PARE_REFUSE_CALLS(light_gcn, "graph::light_gcn",
                  "after start: wanted LightGcnOptions, or after a backend out and LightGcnOptions",
                  (SPARSE, (roles::ReadsSparse<true>), "adjacency", "[nodes, nodes] by rows"),
                  (INPUT, (roles::ReadsSame<2>), "start", "[nodes, dim]"))

PARE_ABI_END
}  // namespace pare::graph

#include <pare/core/macros_on.hpp>
