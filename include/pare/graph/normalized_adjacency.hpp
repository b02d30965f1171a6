// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Adjacency matrices as propagation over graphs wants them: divided by degrees, and of two kinds
/// of nodes from the matrix between them.
///
///     Symmetric: D^-1/2 A C^-1/2     Rows: D^-1 A
///     D the sums of rows, C those of columns: the same for an undirected graph
///
/// ```cpp
/// const auto graph = bipartite_adjacency(ratings);     // users first, then items
/// const auto scaled = normalized_adjacency(graph);     // once; then light_gcn(scaled, ...)
/// ```
///
/// Kipf and Welling, ICLR 2017, and He et al. (LightGCN), SIGIR 2020, for undirected graphs; sums
/// of columns for the second factor of a directed one are our choice.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/graph/detail/check_graph.hpp>

#include <Eigen/SparseCore>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::graph {

/// What an adjacency matrix is divided by.
enum class AdjacencyNorm {
  Symmetric,  ///< roots of the degrees on both sides
  Rows        ///< the degrees of its rows, which then add up to 1
};

struct AdjacencyOptions {
  /// The degrees' place. LightGCN and Kipf and Welling: Symmetric. NGCF's code: Rows.
  AdjacencyNorm norm = AdjacencyNorm::Symmetric;
  /// Adds 1 to each diagonal entry before degrees are taken: A + I. Kipf and Welling and NGCF's
  /// code do, LightGCN does not. Square matrices only.
  bool self_loops = false;
};

/// A matrix of Eigen's, by rows, with the scalar and the index of another.
template <SparseIn S>
using SparseRows = Eigen::SparseMatrix<sparse_scalar_of<S>, Eigen::RowMajor,
                                       typename std::remove_cvref_t<S>::StorageIndex>;

namespace detail {
PARE_ABI_BEGIN

/// Sums of rows and of columns, in stored order.
struct Degrees {
  std::vector<double> rows, columns;

  template <class T, class I>
  Degrees(const CompressedView<T, I>& a, bool self_loops)
      : rows(static_cast<std::size_t>(a.outer_size), self_loops ? 1.0 : 0.0),
        columns(static_cast<std::size_t>(a.inner_size), self_loops ? 1.0 : 0.0) {
    for (Index u = 0; u < a.outer_size; ++u)
      for (Index e = a.begin(u); e < a.end(u); ++e) {
        rows[static_cast<std::size_t>(u)] += static_cast<double>(a.values[e]);
        columns[static_cast<std::size_t>(a.inner[e])] += static_cast<double>(a.values[e]);
      }
  }

  /// A weight of (u, v) divided; 0 where a degree is 0. Quotients stay in range where 1 / degree
  /// would not.
  double divided(AdjacencyNorm norm, Index u, Index v, double weight) const {
    const double row = rows[static_cast<std::size_t>(u)];
    if (norm == AdjacencyNorm::Rows) return row > 0 ? weight / row : 0;
    const double column = columns[static_cast<std::size_t>(v)];
    // In an order that (v, u) has too.
    const double less = std::min(row, column), more = std::max(row, column);
    return less > 0 ? weight / std::sqrt(less) / std::sqrt(more) : 0;
  }
};

/// Calls entry(v, weight) for row u of A or of A + I.
template <class T, class I, class Entry>
void visit_row(const CompressedView<T, I>& a, Index u, bool self_loops, const Entry& entry) {
  for (Index e = a.begin(u); e < a.end(u); ++e)
    entry(static_cast<Index>(a.inner[e]), static_cast<double>(a.values[e]));
  if (self_loops) entry(u, 1.0);
}

/// A matrix of the entries that visit(add) gives to add(row, column, weight); equal places add up.
template <class M, class Visit>
M sparse_rows(Index rows, Index columns, Index entries, const Visit& visit) {
  std::vector<Eigen::Triplet<typename M::Scalar, typename M::StorageIndex>> list;
  list.reserve(static_cast<std::size_t>(entries));
  visit([&list](Index u, Index v, double w) {
    list.emplace_back(static_cast<typename M::StorageIndex>(u),
                      static_cast<typename M::StorageIndex>(v), static_cast<typename M::Scalar>(w));
  });
  M matrix(rows, columns);
  matrix.setFromTriplets(list.begin(), list.end());
  return matrix;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Divides an adjacency matrix by its degrees.
///
/// \param adjacency [nodes, nodes], or [users, items] without self loops; Eigen's, of float or
///                  double, by rows. Weights are finite and not negative; equal entries add up
/// \param options   see AdjacencyOptions
/// \return a new matrix of the same shape; rows and columns without edges stay empty of weight
/// \throws std::invalid_argument if adjacency is malformed, a weight is negative or not finite, a
///         degree leaves double's range, or self loops are asked for of a matrix that is not square
///
/// Degrees are summed in double. Cost: passes over the entries and a sort of each row. Memory:
/// three copies of the entries while it runs.
template <SparseRowsIn S>
SparseRows<S> normalized_adjacency(const S& adjacency, const AdjacencyOptions& options = {}) {
  constexpr const char* function = "graph::normalized_adjacency";
  const auto a = to_compressed(adjacency);
  check(!options.self_loops || a.outer_size == a.inner_size, function, "adjacency",
        std::array<Index, 2>{a.outer_size, a.inner_size}, "a square matrix, for self loops");
  detail::check_graph(function, a);
  const detail::Degrees degrees(a, options.self_loops);
  for (const auto* list : {&degrees.rows, &degrees.columns})
    for (const double degree : *list)
      check(is_finite(degree), function, "adjacency", degree, "degrees that double can hold");
  const Index entries = a.entries() + (options.self_loops ? a.outer_size : 0);
  return detail::sparse_rows<SparseRows<S>>(
      a.outer_size, a.inner_size, entries, [&](const auto& add) {
        for (Index u = 0; u < a.outer_size; ++u)
          detail::visit_row(a, u, options.self_loops, [&](Index v, double w) {
            add(u, v, degrees.divided(options.norm, u, v, w));
          });
      });
}

/// The adjacency of a graph between two kinds of nodes: [0 R; R^T 0].
///
/// \param between [users, items] Eigen sparse matrix by rows: the weight between user and item
/// \return [users + items, users + items], users first
/// \throws std::invalid_argument if `between` is malformed, a weight is negative or not finite, or
///         the index of the matrix cannot count its nodes or entries
template <SparseRowsIn S>
SparseRows<S> bipartite_adjacency(const S& between) {
  constexpr const char* function = "graph::bipartite_adjacency";
  using I = typename SparseRows<S>::StorageIndex;
  const auto r = to_compressed(between);
  detail::check_graph(function, r);
  constexpr auto most = static_cast<Index>(std::numeric_limits<I>::max());
  check(r.outer_size <= most && r.inner_size <= most - r.outer_size && r.entries() <= most / 2,
        function, "adjacency", std::array<Index, 2>{r.outer_size, r.inner_size},
        "nodes and twice its entries that the matrix's index can count");
  const Index users = r.outer_size, nodes = users + r.inner_size;
  return detail::sparse_rows<SparseRows<S>>(nodes, nodes, 2 * r.entries(), [&](const auto& add) {
    for (Index u = 0; u < users; ++u)
      for (Index e = r.begin(u); e < r.end(u); ++e) {
        const auto w = static_cast<double>(r.values[e]);
        add(u, users + static_cast<Index>(r.inner[e]), w);
        add(users + static_cast<Index>(r.inner[e]), u, w);
      }
  });
}

PARE_ABI_END
}  // namespace pare::graph

#include <pare/core/macros_on.hpp>
