// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/graph/detail/check_graph.hpp>
#include <pare/graph/detail/fast_rp_problem.hpp>
#include <pare/graph/detail/fast_rp_start.hpp>
#include <pare/graph/detail/iterate.hpp>
#include <pare/graph/detail/standardize.hpp>
#include <pare/graph/fast_rp_options.hpp>
#include <pare/graph/reference.hpp>
#include <pare/linalg/sparse_transpose.hpp>
#include <pare/linalg/spmm.hpp>

#include <algorithm>
#include <array>

namespace pare::graph::detail {
PARE_ABI_BEGIN

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
  check_graph(fast_rp_name, a);
  check_no_overlap(fast_rp_name, "out", out, "adjacency", a);
}

/// One step: next = P current, and the weighted rows into `sum`.
template <class T, class I>
struct Step {
  const CompressedView<T, I>& graph;
  const FastRpOptions& options;
  Iterate<T> current;
  TensorView<T, 2> next;                       ///< data is null where the rows go to scratch
  const MixedBuffer<T>* mixed_next = nullptr;  ///< where they go from there, unless null
  TensorView<T, 2> sum;
  T weight = 0;          ///< of the rows of `next`
  T current_weight = 0;  ///< of the rows of `current`, added first
  bool assign = false;   ///< nothing is in `sum` yet

  /// Rows [first, last), at most linalg::rows_per_spmm_item of them; scratch holds that many rows.
  template <KernelBackend B>
  void run(const B& backend, Index first, Index last, T* scratch) const {
    bool overwrite = assign;
    if (current_weight != T(0)) {
      add(backend, dense_rows(backend, current, first, last, scratch), first, last, current_weight,
          overwrite);
      overwrite = false;
    }
    T inverse_degree[static_cast<std::size_t>(linalg::rows_per_spmm_item)];
    for (Index u = first; u < last; ++u) {
      const double d = degree_of(graph, u, options.degree);
      inverse_degree[u - first] = static_cast<T>(d > 0 ? 1 / d : 0);
    }
    const bool stored = next.data != nullptr;
    T* rows = stored ? next.data + first * next.stride[0] : scratch;
    const Index stride = stored ? next.stride[0] : options.dim;
    multiply_rows(backend, graph, static_cast<const T*>(inverse_degree), current, rows, stride,
                  first, last);
    if (mixed_next != nullptr) mixed_next->pack(backend, rows, stride, first, last);
    // A last weight may be too small for T; the sum still has to replace what `out` held.
    if (weight != T(0) || overwrite) add(backend, {rows, stride}, first, last, weight, overwrite);
  }

  template <KernelBackend B>
  void add(const B& backend, const RowRange<T>& rows, Index first, Index last, T factor,
           bool overwrite) const {
    launch(backend, kernel::AddRows<T>{rows.data, rows.stride, sum.data + first * sum.stride[0],
                                       sum.stride[0], last - first, options.dim, factor,
                                       options.normalize_rows, overwrite});
  }
};

template <class T>
struct PropagateMemory {
  AlignedBuffer<T> front, back;  ///< [nodes x dim] steps
  AlignedBuffer<T> rows;         ///< an item's rows for each worker
  MixedBuffer<T> mixed[2];       ///< the steps that are mixed, in turn
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

/// The iterates of one call, first to last.
template <class T, class I>
class Iterates {
 public:
  Iterates(const FastRpProblem<T, I>& p, MixedBuffer<T> (&mixed)[2]) : p_(p), mixed_(mixed) {}

  /// N_0, in mixed rows or in `place`.
  template <KernelBackend B>
  void start(const B& backend, TensorView<const T, 2> features, TensorView<T, 2> place) {
    const Index nodes = p_.graph.outer_size;
    const StartOperators r(p_.options, p_.density(p_.options, nodes), nodes, features.cols());
    if (r.features.output_dim == 0 && start_mixed(backend, p_, r.nodes, mixed_[0]))
      return current_ = {{}, mixed_[0].view()}, void();
    fill_start(backend, p_, r, features, place);
    current_ = {place, {}};
  }

  const Iterate<T>& current() const { return current_; }

  /// A step from the current iterate to the next one, in mixed rows or in `place`.
  template <KernelBackend B>
  Step<T, I> step(const B& backend, TensorView<T, 2> place) {
    Step<T, I> step{
        .graph = p_.graph, .options = p_.options, .current = current_, .next = {}, .sum = {}};
    MixedBuffer<T>& buffer = mixed_[++steps_ % 2];
    if (current_.is_mixed() && place_next(backend, p_.graph, current_.mixed, buffer)) {
      step.mixed_next = &buffer;
      current_ = {{}, buffer.view()};
    } else {
      step.next = place;
      current_ = {place, {}};
    }
    return step;
  }

  /// The last one, of which nothing follows.
  Step<T, I> last_step() const {
    return {.graph = p_.graph, .options = p_.options, .current = current_, .next = {}, .sum = {}};
  }

 private:
  const FastRpProblem<T, I>& p_;
  MixedBuffer<T> (&mixed_)[2];
  Iterate<T> current_{};
  int steps_ = 0;
};

/// Weights of the last two steps at most (the usual choice): `out` itself holds every other iterate
/// until the last step overwrites it with the sum, so that one further buffer is enough.
template <class T, class I, KernelBackend B>
void propagate_late_sum(const B& backend, const FastRpProblem<T, I>& p,
                        TensorView<const T, 2> features, TensorView<T, 2> out) {
  const FastRpOptions& o = p.options;
  const Index nodes = p.graph.outer_size, steps = o.steps();
  const auto memory = leased<PropagateMemory<T>>(backend);
  const TensorView<T, 2> side = contiguous(memory->front, nodes, o.dim);
  const RowItems<T> items(backend.executor, nodes, o.dim, memory->rows);
  // Step `steps - 1` has to end in `side`.
  const auto place = [&](Index i) { return (steps - 1 - i) % 2 == 0 ? side : out; };
  Iterates<T, I> iterates(p, memory->mixed);
  iterates.start(backend, features, place(0));
  for (Index i = 1; i <= steps; ++i) {
    Step<T, I> step = i < steps ? iterates.step(backend, place(i)) : iterates.last_step();
    if (i == steps) {
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
void fill_sum(const B& backend, const RowItems<T>& items, const Iterate<T>& start,
              TensorView<T, 2> out, const FastRpOptions& o) {
  items.run(backend.executor, [&](Index first, Index last, T* scratch) {
    for (Index u = first; u < last; ++u) std::fill_n(&out(u, 0), out.cols(), T(0));
    if (!(o.self_influence > 0)) return;
    const RowRange<T> rows = dense_rows(backend, start, first, last, scratch);
    launch(backend,
           kernel::AddRows<T>{rows.data, rows.stride, &out(first, 0), out.stride[0], last - first,
                              o.dim, static_cast<T>(o.self_influence), o.normalize_rows, true});
  });
}

/// Any weights: two buffers change places and `out` gathers the sum (or the steps side by side).
template <class T, class I, KernelBackend B>
void propagate_running_sum(const B& backend, const FastRpProblem<T, I>& p,
                           TensorView<const T, 2> features, TensorView<T, 2> out) {
  const FastRpOptions& o = p.options;
  const Index nodes = p.graph.outer_size, steps = o.steps();
  const auto memory = leased<PropagateMemory<T>>(backend);
  TensorView<T, 2> places[2] = {contiguous(memory->front, nodes, o.dim), {}};
  if (steps > 1) places[1] = contiguous(memory->back, nodes, o.dim);
  const RowItems<T> items(backend.executor, nodes, o.dim, memory->rows);
  Iterates<T, I> iterates(p, memory->mixed);
  iterates.start(backend, features, places[0]);
  fill_sum(backend, items, iterates.current(), out, o);
  for (Index i = 0; i < steps; ++i) {
    const Index column = o.concatenate ? i * o.dim : 0;
    Step<T, I> step =
        i + 1 < steps ? iterates.step(backend, places[(i + 1) % 2]) : iterates.last_step();
    step.sum = {out.data + column, {out.rows(), o.dim}, out.stride};
    step.weight = static_cast<T>(o.weights[static_cast<std::size_t>(i)]);
    items.run(backend.executor, [&](Index first, Index last, T* scratch) {
      step.run(backend, first, last, scratch);
    });
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
