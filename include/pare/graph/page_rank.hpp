// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// PageRank, personalised to a batch of nodes or of the whole graph.
///
///     p = c sum_{k>=0} (1 - c)^k (P^T)^k e,   P = D^-1 A
///
/// e is 1 at a source (personalised) or 1 / nodes everywhere. Entry v of p is the chance that a
/// walk from the source, which ends at each node with chance c, ends at v.
///
/// ```cpp
/// const PageRankGraph graph(adjacency);                         // P^T, once per graph
/// const auto scores = personalized_page_rank(graph, std::vector<pare::Index>{3, 17});
/// scores(v, 1);                                                 // of node v for source 17
/// const auto all = page_rank(graph);                            // [nodes, 1]
/// ```
///
/// Page, Brin, Motwani and Winograd, 1999; Haveliwala, WWW 2002. Steps are x <- (1 - c) P^T x + c e
/// from x = e; after T of them the sum of the absolute errors of p is at most 2 (1 - c)^T, which
/// gives T, so that no step waits for a norm.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/graph/detail/walk_steps.hpp>
#include <pare/graph/normalized_adjacency.hpp>
#include <pare/linalg/sparse_transpose.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::graph {

struct PageRankOptions {
  /// c, the chance that a walk ends at a node; above 0 and below 1. Page et al., PowerWalk: .15.
  double restart = 0.15;
  /// The sum of absolute errors of each p, without rounding; above 0. Our choice.
  double tolerance = 1e-6;
  /// What a walk does at a node without edges out.
  Dangling dangling = Dangling::Restart;
};

/// P^T of a graph, which products read by rows, and the nodes without edges out. It keeps a copy of
/// the entries.
template <class T, class I>
class PageRankGraph {
 public:
  /// \param adjacency [nodes, nodes] Eigen sparse matrix of float or double by rows: row u holds
  ///                  edges out of u; weights are finite and not negative, equal entries add up
  /// \throws std::invalid_argument if adjacency is malformed or not square, or a weight is negative
  ///         or not finite
  template <SparseRowsIn S>
  requires std::is_same_v<sparse_scalar_of<S>, T>
  explicit PageRankGraph(const S& adjacency) : PageRankGraph(checked(adjacency), 0) {}

  Index nodes() const { return transposed_.inner_size; }
  /// Nodes without edges out, in rising order.
  const std::vector<Index>& dangling() const { return dangling_; }
  /// P^T by rows, while this lives.
  CompressedView<T, I> transposed() const { return transposed_.view(); }

 private:
  using Rows = Eigen::SparseMatrix<T, Eigen::RowMajor, I>;

  template <class S>
  static Rows checked(const S& adjacency) {
    check(adjacency.rows() == adjacency.cols(), "graph::PageRankGraph", "adjacency",
          std::array<Index, 2>{adjacency.rows(), adjacency.cols()}, "a square matrix");
    return normalized_adjacency(adjacency, {.norm = AdjacencyNorm::Rows});
  }

  PageRankGraph(const Rows& p, int) : transposed_(to_compressed(p)) {
    const auto rows = to_compressed(p);
    for (Index u = 0; u < rows.outer_size; ++u) {
      bool leaves = false;
      for (Index e = rows.begin(u); e < rows.end(u); ++e) leaves |= rows.values[e] > T(0);
      if (!leaves) dangling_.push_back(u);
    }
  }

  linalg::SparseTranspose<T, I> transposed_;
  std::vector<Index> dangling_;
};

template <SparseRowsIn S>
PageRankGraph(const S&)
    -> PageRankGraph<sparse_scalar_of<S>, typename std::remove_cvref_t<S>::StorageIndex>;

/// What a call of PageRank did.
struct PageRankReport {
  int steps = 0;
  double error_bound = 0;  ///< of the sum of absolute errors of each p, without rounding
};

namespace detail {
PARE_ABI_BEGIN

/// The steps that bring 2 (1 - c)^T to the tolerance.
inline PageRankReport page_rank_steps(const char* function, const PageRankOptions& o) {
  check(o.restart > 0 && o.restart < 1, function, "restart", o.restart,
        "a chance above 0 and below 1");
  check(o.tolerance > 0, function, "tolerance", o.tolerance, "a number above 0");
  constexpr double most = 1e6;
  const double steps = std::ceil(std::log(o.tolerance / 2) / std::log1p(-o.restart));
  check(steps <= most, function, "tolerance", o.tolerance, "one that 1,000,000 steps reach");
  PageRankReport report{steps > 0 ? static_cast<int>(steps) : 0, 0};
  report.error_bound = 2 * std::pow(1 - o.restart, report.steps);
  return report;
}

/// Both methods: `restart` says where e is.
template <class B, class T, class I, class Restart>
PageRankReport page_rank_entry(const char* function, const B& backend,
                               const PageRankGraph<T, I>& graph, const Restart& restart,
                               TensorView<T, 2> scores, const PageRankOptions& o) {
  const PageRankReport report = page_rank_steps(function, o);
  const auto lines = graph.transposed();
  check_extents<2>(function, "scores", scores.extent, {graph.nodes(), restart.columns()});
  checked_count(function, "scores",
                checked_product(function, "scores", scores.rows(), scores.cols()), sizeof(double));
  check_contiguous_rows(function, "scores", as_const(scores));
  check_writable(function, "scores", scores);
  check_no_overlap(function, "scores", scores, "graph", lines);
  if (scores.rows() == 0 || scores.cols() == 0) return report;
  const WalkSteps<T, I, Restart> walk{lines,     graph.dangling(), restart,     scores,
                                      o.restart, o.dangling,       report.steps};
  if constexpr (KernelBackend<B>)
    walk.run(backend);
  else
    walk.define();
  return report;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The PageRank of every node for each of some sources.
///
/// \param backend left out: pare::simd
/// \param graph   of the adjacency
/// \param sources nodes, any number, repeated or not
/// \param scores  [nodes, sources], contiguous rows, of the graph's scalar, written
/// \param options see PageRankOptions
/// \throws std::invalid_argument if a source is no node, an option is out of range, or scores has
///         another shape, strided rows, or lies in the graph or the sources. Nothing is written
///         then.
///
/// Each column of scores adds up to 1, but for rounding and what Dangling::Leak loses. Cost:
/// T = ln(tolerance / 2) / ln(1 - c) products (90 by default) of 2 nnz sources FLOPs; the
/// nnz * sources scalars gathered bind. Memory: another [nodes, sources], in the workspace. The
/// same bits for any number of threads. The reference runs the same steps in double.
template <Backend B, class T, class I, Out<2> Y>
requires std::is_same_v<scalar_of<Y>, T>
PageRankReport personalized_page_rank(const B& backend, const PageRankGraph<T, I>& graph,
                                      std::span<const Index> sources, Y&& scores,
                                      const PageRankOptions& options) {
  constexpr const char* function = "graph::personalized_page_rank";
  const auto out = to_view(scores);
  for (const Index s : sources)
    check(s >= 0 && s < graph.nodes(), function, "sources", s,
          Worded{"nodes below ", graph.nodes()});
  const TensorView<const Index, 1> list{sources.data(), {static_cast<Index>(sources.size())}, {1}};
  check_no_overlap(function, "scores", out, "sources", list);
  return detail::page_rank_entry(function, on_any_executor(backend), graph,
                                 detail::AtSources{sources}, out, options);
}

/// The same, returned.
template <class T, class I>
RowMatrix<T> personalized_page_rank(const PageRankGraph<T, I>& graph,
                                    std::span<const Index> sources,
                                    const PageRankOptions& options = {}) {
  constexpr const char* function = "graph::personalized_page_rank";
  const auto columns = static_cast<Index>(sources.size());
  checked_count(function, "sources", checked_product(function, "sources", graph.nodes(), columns),
                sizeof(double));
  RowMatrix<T> scores(graph.nodes(), columns);
  personalized_page_rank(simd, graph, sources, scores, options);
  return scores;
}

/// The PageRank of every node of a graph: walks start at any node with the same chance.
///
/// \param scores [nodes, 1]; other parameters, errors, cost and memory as personalized_page_rank
///               with one source
template <Backend B, class T, class I, Out<2> Y>
requires std::is_same_v<scalar_of<Y>, T>
PageRankReport page_rank(const B& backend, const PageRankGraph<T, I>& graph, Y&& scores,
                         const PageRankOptions& options) {
  return detail::page_rank_entry("graph::page_rank", on_any_executor(backend), graph,
                                 detail::AtAllNodes{graph.nodes()}, to_view(scores), options);
}

/// The same, returned.
template <class T, class I>
RowMatrix<T> page_rank(const PageRankGraph<T, I>& graph, const PageRankOptions& options = {}) {
  RowMatrix<T> scores(graph.nodes(), 1);
  page_rank(simd, graph, scores, options);
  return scores;
}

PARE_ABI_END
}  // namespace pare::graph

#include <pare/core/macros_on.hpp>
