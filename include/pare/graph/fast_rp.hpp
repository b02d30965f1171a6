// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// FastRP: node embeddings from a sparse random projection propagated over a graph.
///
/// ```cpp
/// Eigen::SparseMatrix<float, Eigen::RowMajor> adjacency(nodes, nodes);  // a_uv: weight of u, v
/// FastRpOptions options{.dim = 256, .weights = {0, 0, 1, 6.67}, .degree_exponent = -0.5};
/// auto embedding = fast_rp(adjacency, options);                // [nodes x 256]
/// fast_rp(pare::simd.threads(4), adjacency, out, options);     // the same bits, into out
/// options.feature_ratio = 0.5;                                 // columns 128 to 255 start from
/// fast_rp(pare::simd, adjacency, features, out, options);      // features [nodes x any]
/// ```
///
/// Chen, Sultan, Tian, Chen, Skiena, "Fast and accurate network embeddings via very sparse random
/// projection" (CIKM'19). With A the adjacency, D its degrees, P = D^-1 A and R a sparse random
/// matrix of one row for each node:
///
///     N_0 = D^beta R,   N_i = P N_{i-1},   E = sum_i weights[i] * unit_rows(N_i)
///
/// Then the columns of E are standardised. P^i is never formed. We could not read the paper's body:
/// the formulas are those of the authors' code. Secondary sources give a constant factor on the
/// degrees, (d / 2m)^beta; it is left out, since normalisation and standardisation remove it.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/graph/detail/propagate.hpp>
#include <pare/graph/fast_rp_options.hpp>
#include <pare/graph/reference.hpp>

#include <Eigen/Core>

namespace pare::graph {
PARE_ABI_BEGIN

/// Embeds the nodes of a graph into caller's memory.
///
/// \param backend   left out: pare::simd
/// \param adjacency [nodes x nodes] Eigen sparse matrix of float or double; row u holds the edges
///                  that node u averages over. Symmetric for an undirected graph. Weights are not
///                  negative; entries may come in any order, equal ones add up, self loops count. A
///                  column-major matrix is copied to rows first.
/// \param out       [nodes x options.output_columns()], contiguous rows, the scalar of adjacency
/// \param options   see FastRpOptions
/// \throws std::invalid_argument if adjacency is not square or malformed, a weight is negative, NaN
///         or infinite, an option is out of range, out has another shape or stride, or
///         feature_ratio is above 0 (that needs the overload with features). Nothing is written
///         then. Also if the scalar cannot hold what the options ask for: powers of degrees further
///         apart than 2^200 (double: 2^1992), or steps beyond its largest number that are not
///         standardised.
///
/// Edge weights, degree powers and step weights may lie at the ends of the scalar's range. Common
/// factors that the method cancels are taken out as powers of two, so that scaling a row of weights
/// by a power of two leaves the bits as they are. (With Degree::Count the weights stay in the
/// result, and rows that fall below the smallest normal number from step to step lose their
/// direction.)
///
/// Precision: if the largest neighbours of a node cancel, as high degree powers make likely, only
/// rounding is left of them, and unit rows and standardised columns bring it to full size. Such a
/// row depends on how the weights themselves were rounded to float, unless they are small integers.
/// double moves this limit by a factor of 2^29.
///
/// A node without edges gets a row of zeros before standardisation, unless self_influence is above
/// 0. The bits are the same for any number of threads. Cost: 2 nnz * dim FLOPs and nnz * dim
/// scalars gathered per step; the gather binds. Steps that are still sparse, as the first two of
/// 256 dimensions over a million nodes of ten edges each, cost their nonzeros instead. Memory
/// besides out: nodes * dim scalars if only the last two weights are not zero (as by default),
/// otherwise twice that, and up to half of it again for sparse steps.
template <Backend B, SparseIn S, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void fast_rp(const B& backend, const S& adjacency, Y&& out, const FastRpOptions& options) {
  using T = scalar_of<Y>;
  detail::fast_rp_entry(backend, adjacency, TensorView<const T, 2>{}, to_view(out), options);
}

/// Embeds nodes that have features: the last floor(dim * feature_ratio) dimensions start from the
/// features, projected by a random matrix of the same density (Neo4j GDS).
///
/// \param features [nodes x any], of the scalar of adjacency; other parameters, cost and memory as
///                 without features
/// \throws std::invalid_argument also if features has another number of rows, or no columns.
template <Backend B, SparseIn S, In<2> X, Out<2> Y>
requires SameScalarAsSparse<S, X, Y>
void fast_rp(const B& backend, const S& adjacency, const X& features, Y&& out,
             const FastRpOptions& options) {
  detail::fast_rp_entry(backend, adjacency, as_const(to_view(features)), to_view(out), options);
}

/// Embeds the nodes of a graph into a new row-major matrix [nodes x options.output_columns()].
/// Parameters, cost and memory as above.
/// \throws std::invalid_argument as above, or if Index cannot count the elements of the matrix.
template <Backend B, SparseIn S>
Eigen::Matrix<sparse_scalar_of<S>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> fast_rp(
    const B& backend, const S& adjacency, const FastRpOptions& options = {}) {
  validate(detail::fast_rp_name, options);
  checked_product(detail::fast_rp_name, "dim", adjacency.rows(), options.output_columns());
  Eigen::Matrix<sparse_scalar_of<S>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> out(
      adjacency.rows(), options.output_columns());
  advise_huge_pages(out.data(), static_cast<std::size_t>(out.size()) * sizeof(*out.data()));
  fast_rp(backend, adjacency, out, options);
  return out;
}

/// \overload
template <SparseIn S>
auto fast_rp(const S& adjacency, const FastRpOptions& options = {}) {
  return fast_rp(simd, adjacency, options);
}

PARE_REFUSE_CALLS(
    fast_rp, "graph::fast_rp",
    "after adjacency: wanted FastRpOptions, members spelt and ordered as declared, or after a "
    "backend [features,] out and FastRpOptions, dense, in memory and of the scalar of adjacency",
    (SPARSE, (roles::ReadsSparse<>), "adjacency", "[nodes, nodes]"))

PARE_ABI_END
}  // namespace pare::graph

#include <pare/core/macros_on.hpp>
