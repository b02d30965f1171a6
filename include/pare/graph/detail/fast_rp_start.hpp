// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The starting vectors of FastRP: random, in dense or in mixed rows, and projected features.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/graph/detail/fast_rp_problem.hpp>
#include <pare/graph/detail/iterate.hpp>
#include <pare/graph/fast_rp_options.hpp>
#include <pare/projection/nonzeros.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <algorithm>
#include <cstdint>

namespace pare::graph::detail {
PARE_ABI_BEGIN

/// The random operators of the starting vectors: one column for each node, one for each feature.
struct StartOperators {
  projection::SparseProjection nodes, features;

  StartOperators(const FastRpOptions& o, double density, Index node_count, Index feature_count)
      : nodes{.input_dim = node_count,
              .output_dim = o.dim - o.feature_dim(),
              .density = density,
              .seed = o.seed},
        features{.input_dim = feature_count,
                 .output_dim = o.feature_dim(),
                 .density = density,
                 .seed = o.seed ^ 0x9E3779B97F4A7C15u} {}
};

/// N_0 in dense rows: of scale * degree^beta * R, then the projected features beside them.
template <class T, class I, KernelBackend B>
void fill_start(const B& backend, const FastRpProblem<T, I>& p, const StartOperators& r,
                TensorView<const T, 2> features, TensorView<T, 2> start) {
  const Index nodes = p.graph.outer_size;
  constexpr Index rows_per_item = MixedBuffer<T>::rows_per_item;
  const Index node_dim = r.nodes.output_dim;
  const auto fill_nodes = [&](const projection::Nonzeros<projection::SparseProjection>& nonzeros,
                              Index first, Index last) {
    for (Index u = first; u < last; ++u) std::fill_n(&start(u, 0), node_dim, T(0));
    Index node = -1;
    T value = 0;
    nonzeros.visit(backend, first, last, [&](Index u, Index c, bool negative) {
      if (u != node) {
        node = u;
        value = static_cast<T>(p.start_value(u));
      }
      start(u, c) = negative ? -value : value;
    });
  };
  if (node_dim > 0) {
    const projection::Nonzeros nonzeros(r.nodes);
    parallel_for(backend.executor, ceil_div(nodes, rows_per_item), [&](Index i, int) {
      fill_nodes(nonzeros, i * rows_per_item, std::min(nodes, (i + 1) * rows_per_item));
    });
  }
  if (r.features.output_dim > 0) {
    const TensorView<T, 2> part{
        start.data + node_dim, {start.rows(), r.features.output_dim}, start.stride};
    projection::project_signs(backend, features, r.features, p.feature_value(), part);
  }
}

/// N_0 = scale * degree^beta * R as mixed rows; false if they are not worth it.
template <class T, class I, KernelBackend B>
bool start_mixed(const B& backend, const FastRpProblem<T, I>& p,
                 const projection::SparseProjection& r, MixedBuffer<T>& start) {
  if (r.density > 0.1) return false;
  const projection::Nonzeros nonzeros(r);
  const bool fits = start.place(
      backend.executor, r.input_dim, r.output_dim,
      [&](Index first, Index last, std::int64_t* counts) {
        std::fill(counts, counts + (last - first), std::int64_t{0});
        nonzeros.visit(backend, first, last, [&](Index u, Index, bool) { ++counts[u - first]; });
      });
  if (!fits) return false;
  constexpr Index step = MixedBuffer<T>::rows_per_item;
  parallel_for(backend.executor, ceil_div(r.input_dim, step), [&](Index item, int) {
    Index node = -1;
    T value = 0, *row = nullptr;
    std::uint32_t count = 0;
    bool whole = false;
    nonzeros.visit(backend, item * step, std::min(r.input_dim, (item + 1) * step),
                   [&](Index u, Index c, bool negative) {
                     if (u != node) {
                       node = u;
                       row = start.row(u);
                       count = 0;
                       whole = start.words_of(u) == 1 + r.output_dim;
                       value = static_cast<T>(p.start_value(u));
                       if (whole) std::fill_n(row + 1, r.output_dim, T(0));
                       if (whole) row[0] = kernel::to_word<T>(kernel::whole_row);
                     }
                     const T entry = negative ? -value : value;
                     if (whole) {
                       row[1 + c] = entry;
                       return;
                     }
                     row[1 + 2 * count] = entry;
                     row[2 + 2 * count] = kernel::to_word<T>(static_cast<std::uint32_t>(c));
                     row[0] = kernel::to_word<T>(++count);
                   });
  });
  return true;
}

PARE_ABI_END
}  // namespace pare::graph::detail
