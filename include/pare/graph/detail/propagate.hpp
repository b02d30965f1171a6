// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/graph/detail/fast_rp_problem.hpp>
#include <pare/graph/detail/standardize.hpp>
#include <pare/graph/fast_rp_options.hpp>
#include <pare/graph/reference.hpp>
#include <pare/linalg/sparse_transpose.hpp>
#include <pare/linalg/spmm.hpp>
#include <pare/projection/nonzeros.hpp>
#include <pare/projection/project.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace pare::graph::detail {
PARE_ABI_BEGIN

template <class T, class I>
void check_graph(const CompressedView<T, I>& a) {
  check_compressed(fast_rp_name, "adjacency", a);
  for (Index u = 0; u < a.outer_size; ++u)
    for (Index e = a.begin(u); e < a.end(u); ++e) {
      const auto w = static_cast<double>(a.values[e]);
      check(is_finite(w) && w >= 0, fast_rp_name, "adjacency", w, "finite weights of at least 0");
    }
}

template <class T, class I>
void check_fast_rp(const CompressedView<T, I>& a, TensorView<const T, 2> features,
                   TensorView<T, 2> out, const FastRpOptions& o) {
  validate(fast_rp_name, o);
  checked_product(fast_rp_name, "dim", o.dim, static_cast<Index>(o.weights.size()));
  checked_product(fast_rp_name, "dim", a.outer_size, o.output_columns());
  check_extents<2>(fast_rp_name, "out", out.extent, {a.outer_size, o.output_columns()});
  check(out.stride[1] == 1 || out.cols() <= 1, fast_rp_name, "out", "a column stride other than 1",
        "contiguous rows");
  check_writable(fast_rp_name, "out", out);
  check_view(fast_rp_name, "features", features);
  if (features.data != nullptr || o.feature_ratio > 0) {
    check_extents<2>(fast_rp_name, "features", features.extent, {a.outer_size, features.cols()});
    check(features.cols() >= 1, fast_rp_name, "features", features.extent, "at least one column");
    check_no_overlap(fast_rp_name, "out", out, "features", features);
  }
  check_graph(a);
  check_no_overlap(fast_rp_name, "out", out, "adjacency", a);
}

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

/// N_0: rows of scale * degree^beta * R, then the projected features beside them.
template <class T, class I, KernelBackend B>
void fill_start(const B& backend, const FastRpProblem<T, I>& p, TensorView<const T, 2> features,
                TensorView<T, 2> start) {
  const Index nodes = p.graph.outer_size;
  const StartOperators r(p.options, p.density(p.options, nodes), nodes, features.cols());
  constexpr Index rows_per_item = 256;
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

/// One step: next = P current, and the weighted rows into `sum`.
template <class T, class I>
struct Step {
  const CompressedView<T, I>& graph;
  const FastRpOptions& options;
  TensorView<const T, 2> current;
  TensorView<T, 2> next;  ///< data is null where no step follows: rows then go to scratch
  TensorView<T, 2> sum;
  T weight = 0;          ///< of the rows of `next`
  T current_weight = 0;  ///< of the rows of `current`, added first
  bool assign = false;   ///< nothing is in `sum` yet

  /// Rows [first, last), at most linalg::rows_per_spmm_item of them; scratch holds that many rows.
  template <KernelBackend B>
  void run(const B& backend, Index first, Index last, T* scratch) const {
    T inverse_degree[static_cast<std::size_t>(linalg::rows_per_spmm_item)];
    for (Index u = first; u < last; ++u) {
      const double d = degree_of(graph, u, options.degree);
      inverse_degree[u - first] = static_cast<T>(d > 0 ? 1 / d : 0);
    }
    const bool stored = next.data != nullptr;
    T* rows = stored ? next.data + first * next.stride[0] : scratch;
    const Index stride = stored ? next.stride[0] : current.cols();
    launch(backend, linalg::spmm_rows(graph, static_cast<const T*>(inverse_degree), current, rows,
                                      stride, first, last));
    const T* before = current.data + first * current.stride[0];
    bool overwrite = assign;
    if (current_weight != T(0)) {
      add(backend, before, current.stride[0], first, last, current_weight, overwrite);
      overwrite = false;
    }
    // A last weight may be too small for T; the sum still has to replace what `out` held.
    if (weight != T(0) || overwrite) add(backend, rows, stride, first, last, weight, overwrite);
  }

  template <KernelBackend B>
  void add(const B& backend, const T* rows, Index stride, Index first, Index last, T factor,
           bool overwrite) const {
    launch(backend, kernel::AddRows<T>{rows, stride, sum.data + first * sum.stride[0],
                                       sum.stride[0], last - first, current.cols(), factor,
                                       options.normalize_rows, overwrite});
  }
};

template <class T>
struct PropagateMemory {
  AlignedBuffer<T> front, back;  ///< [nodes x dim] steps
  AlignedBuffer<T> rows;         ///< an item's rows for each worker
};

/// Calls body(first, last, scratch) for all rows, in items of linalg::rows_per_spmm_item.
template <class T>
class RowItems {
 public:
  template <Executor E>
  RowItems(const E& executor, Index rows, Index columns, AlignedBuffer<T>& memory)
      : rows_(rows),
        items_(ceil_div(rows, linalg::rows_per_spmm_item)),
        scratch_size_(linalg::rows_per_spmm_item * columns),
        scratch_(memory.resize(
            static_cast<std::size_t>(worker_count(executor, items_) * scratch_size_))) {}

  template <Executor E, class Body>
  void run(const E& executor, const Body& body) const {
    parallel_for(executor, items_, [&](Index item, int worker) {
      body(item * linalg::rows_per_spmm_item,
           std::min(rows_, (item + 1) * linalg::rows_per_spmm_item),
           scratch_ + worker * scratch_size_);
    });
  }

 private:
  Index rows_, items_, scratch_size_;
  T* scratch_;
};

template <class T>
TensorView<T, 2> contiguous(AlignedBuffer<T>& buffer, Index rows, Index columns) {
  return {buffer.resize(static_cast<std::size_t>(rows * columns)), {rows, columns}, {columns, 1}};
}

/// Weights of the last two steps at most (the usual choice): `out` itself holds every other iterate
/// until the last step overwrites it with the sum, so that one further buffer is enough.
template <class T, class I, KernelBackend B>
void propagate_late_sum(const B& backend, const FastRpProblem<T, I>& p,
                        TensorView<const T, 2> features, TensorView<T, 2> out) {
  const CompressedView<T, I>& a = p.graph;
  const FastRpOptions& o = p.options;
  const Index steps = o.steps();
  const auto memory = leased<PropagateMemory<T>>(backend);
  const TensorView<T, 2> side = contiguous(memory->front, a.outer_size, o.dim);
  const RowItems<T> items(backend.executor, a.outer_size, o.dim, memory->rows);
  // Step `steps - 1` has to end in `side`.
  const auto place = [&](Index i) { return (steps - 1 - i) % 2 == 0 ? side : out; };
  fill_start(backend, p, features, place(0));
  for (Index i = 1; i <= steps; ++i) {
    Step<T, I> step{.graph = a, .options = o, .current = place(i - 1), .next = {}, .sum = {}};
    if (i < steps) {
      step.next = place(i);
    } else {
      step.sum = out;
      step.weight = static_cast<T>(o.weights[static_cast<std::size_t>(i - 1)]);
      step.current_weight = static_cast<T>(i >= 2 ? o.weights[static_cast<std::size_t>(i - 2)] : 0);
      step.assign = true;
    }
    items.run(backend.executor, [&](Index first, Index last, T* scratch) {
      step.run(backend, first, last, scratch);
    });
    if (o.progress) o.progress(static_cast<int>(i), static_cast<int>(steps));
  }
}

/// `out` before the first step: zeros, or the weighted starting vectors.
template <class T, KernelBackend B>
void fill_sum(const B& backend, const RowItems<T>& items, TensorView<const T, 2> start,
              TensorView<T, 2> out, const FastRpOptions& o) {
  items.run(backend.executor, [&](Index first, Index last, T*) {
    for (Index u = first; u < last; ++u) std::fill_n(&out(u, 0), out.cols(), T(0));
    if (o.self_influence > 0)
      launch(backend, kernel::AddRows<T>{&start(first, 0), start.stride[0], &out(first, 0),
                                         out.stride[0], last - first, start.cols(),
                                         static_cast<T>(o.self_influence), o.normalize_rows, true});
  });
}

/// Any weights: two buffers change places and `out` gathers the sum (or the steps side by side).
template <class T, class I, KernelBackend B>
void propagate_running_sum(const B& backend, const FastRpProblem<T, I>& p,
                           TensorView<const T, 2> features, TensorView<T, 2> out) {
  const CompressedView<T, I>& a = p.graph;
  const FastRpOptions& o = p.options;
  const Index steps = o.steps();
  const auto memory = leased<PropagateMemory<T>>(backend);
  TensorView<T, 2> current = contiguous(memory->front, a.outer_size, o.dim);
  TensorView<T, 2> next{};
  if (steps > 1) next = contiguous(memory->back, a.outer_size, o.dim);
  const RowItems<T> items(backend.executor, a.outer_size, o.dim, memory->rows);
  fill_start(backend, p, features, current);
  fill_sum(backend, items, as_const(current), out, o);
  for (Index i = 0; i < steps; ++i) {
    const Index column = o.concatenate ? i * o.dim : 0;
    const Step<T, I> step{.graph = a,
                          .options = o,
                          .current = current,
                          .next = i + 1 < steps ? next : TensorView<T, 2>{},
                          .sum = {out.data + column, {out.rows(), o.dim}, out.stride},
                          .weight = static_cast<T>(o.weights[static_cast<std::size_t>(i)])};
    items.run(backend.executor, [&](Index first, Index last, T* scratch) {
      step.run(backend, first, last, scratch);
    });
    std::swap(current, next);
    if (o.progress) o.progress(static_cast<int>(i + 1), static_cast<int>(steps));
  }
}

/// Steps over a checked graph by rows.
template <class T, class I, KernelBackend B>
void propagate(const B& backend, const FastRpProblem<T, I>& p, TensorView<const T, 2> features,
               TensorView<T, 2> out) {
  const FastRpOptions& o = p.options;
  const Index steps = o.steps();
  const auto is_zero = [](double w) { return w == 0; };
  const auto early_end = o.weights.begin() + std::max<Index>(steps - 2, 0);
  if (steps >= 1 && !o.concatenate && o.self_influence == 0 &&
      std::all_of(o.weights.begin(), early_end, is_zero))
    propagate_late_sum(backend, p, features, out);
  else
    propagate_running_sum(backend, p, features, out);
}

/// Checks, brings the graph into rows, runs the backend, standardises.
template <Backend B, SparseIn S, class T>
void fast_rp_entry(const B& backend, const S& adjacency, TensorView<const T, 2> features,
                   TensorView<T, 2> out, const FastRpOptions& o) {
  const auto run = [&](const auto& rows) {
    if (rows.outer_size == 0) return;
    const FastRpProblem problem(rows, o);
    if constexpr (KernelBackend<B>) {
      const auto any = on_any_executor(backend);
      propagate(any, problem, features, out);
      if (o.standardize) standardize_columns(any.executor, out);
    } else {
      reference_fast_rp(problem, features, out);
    }
  };
  // Before sizes that follow from it are looked at, of an output that the caller may not have made.
  check(adjacency.rows() == adjacency.cols(), fast_rp_name, "adjacency",
        std::array<Index, 2>{adjacency.rows(), adjacency.cols()}, "a square matrix");
  const auto lines = to_compressed(adjacency);
  check_fast_rp(lines, features, out, o);
  if constexpr (bool(S::IsRowMajor))
    run(lines);
  else
    run(linalg::SparseTranspose(lines).view());
}

PARE_ABI_END
}  // namespace pare::graph::detail
