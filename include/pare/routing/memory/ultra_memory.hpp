// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The memory of UltraMemV2: slots found by Tucker keys, each weighed by its scores and by a
/// product of its pre-value with the row.
///
///     pre_rj = A(<PreVal[row_rj], p_r>)
///     out_r  = sum over hits j of concat over cores c ( score_rjc pre_rj Val[row_rj][slice c] )
///     row    = (shuffle[slot] % group_slots + offset) % rows of the table
///
/// ```cpp
/// const UltraMemory<bf16> memory(keys, pre_values, values, {.k = 32});  // tables [slots, ..]
/// memory.apply(pare::simd.with(workspace), queries, p, out);
/// ultra_memory(x, layers, memory, y);   // ultra_memory_block.hpp: with the layers around it
/// ```
///
/// Tables are float, double, bf16 or f16, viewed where they lie, in a mapped file too; layers of a
/// model may share them, each with its offset. The values' columns are cut into as many slices as
/// there are cores.
///
/// Source: UltraMemV2, arXiv 2508.18756, by its released code with value_expand_time 1, where
/// groups of slots are added up. Whether A is GELU or nothing is its option.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/memory/gather_dots.hpp>
#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/memory/tucker_search.hpp>
#include <pare/transformer/gates.hpp>

#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

namespace pare::routing {

struct UltraMemoryOptions {
  Index k = 32;           ///< hits of a head, 1 to the keys of a half; that of the released script
  bool gelu = false;      ///< A is GELU, else nothing
  Permutation shuffle{};  ///< [n^2] of slots; empty: as they are
  std::optional<Index> group_slots{};  ///< slots of a group, 1 to n^2 (value_num); all of them
  Index offset = 0;                    ///< of this layer in a shared table, below its rows
};

namespace detail {
PARE_ABI_BEGIN

template <class T>
struct UltraMemoryScratch {
  TuckerHits<T> hits;
  AlignedBuffer<T> pre, weights;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Keys and tables, viewed, and checked once.
template <StorageScalar S>
class UltraMemory {
 public:
  using scalar = compute_t<S>;  ///< of queries, of what multiplies pre-values, and of results

  /// \param keys       of search_tucker_keys
  /// \param pre_values [slots, pre dim], rows contiguous
  /// \param values     [slots, dim], rows contiguous; the cores divide dim
  /// \throws std::invalid_argument if an extent does not fit, k or offset is out of range, or
  ///         shuffle does not have n^2 numbers
  UltraMemory(const TuckerKeys<scalar>& keys, TensorView<const S, 2> pre_values,
              TensorView<const S, 2> values, UltraMemoryOptions options = {})
      : keys_(keys), pre_values_(pre_values), values_(values), options_(std::move(options)) {
    constexpr const char* function = "routing::UltraMemory";
    const auto& e = keys_.keys.extent;
    detail::check_tucker_keys(function, keys_);
    detail::check_tucker_sizes(function, keys_, 0, options_.k);
    detail::check_table(function, "pre_values", pre_values_);
    detail::check_table(function, "values", values_);
    check(values_.rows() >= 1, function, "values", values_.extent, "at least one slot");
    check_extents<2>(function, "pre_values", pre_values_.extent,
                     {values_.rows(), pre_values_.cols()});
    check(values_.cols() % cores() == 0, function, "values", values_.cols(),
          Worded{"columns that the cores divide, ", cores()});
    check(options_.shuffle.size() == 0 || options_.shuffle.size() == e[2] * e[2], function,
          "options.shuffle", options_.shuffle.size(), Worded{"none, or one a slot, ", e[2] * e[2]});
    check(group() >= 1 && group() <= e[2] * e[2], function, "options.group_slots", group(),
          Worded{"1 to the slots, ", e[2] * e[2]});
    check(options_.offset >= 0 && options_.offset < values_.rows(), function, "options.offset",
          options_.offset, Worded{"0 to below the rows of values, ", values_.rows()});
  }

  const TuckerKeys<scalar>& keys() const { return keys_; }
  Index heads() const { return keys_.keys.extent[0]; }
  Index half() const { return keys_.keys.extent[3]; }
  Index cores() const { return keys_.cores.extent[0]; }
  Index pre_dim() const { return pre_values_.cols(); }
  Index dim() const { return values_.cols(); }
  const UltraMemoryOptions& options() const { return options_; }

  /// The row of the tables that a slot stands for.
  Index row_of(Index slot) const {
    const Index shuffled = options_.shuffle.size() > 0 ? Index{options_.shuffle[slot]} : slot;
    return (shuffled % group() + options_.offset) % values_.rows();
  }

  /// Throws if the view of an output shares memory with the keys or a table.
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    check_no_overlap(function, output, out, "keys", keys_.keys);
    check_no_overlap(function, output, out, "cores", keys_.cores);
    check_no_overlap(function, output, out, "u", keys_.u);
    check_no_overlap(function, output, out, "v", keys_.v);
    check_no_overlap(function, output, out, "pre_values", pre_values_);
    check_no_overlap(function, output, out, "values", values_);
  }

  /// Runs the memory. No rows: a no-op.
  ///
  /// \param queries [rows, heads, 2 half], normalised as the model asks, any strides
  /// \param p       [rows, pre dim], rows contiguous: what multiplies pre-values
  /// \param out     [rows, dim], rows contiguous, written; apart from what is read
  /// \throws std::invalid_argument if an extent does not fit, rows are not contiguous, or out
  ///         overlaps what is read. Nothing is written then.
  ///
  /// Cost: that of the search, and rows heads k (pre dim + dim) numbers read from anywhere in the
  /// tables. Memory, in the backend's workspace: that of the search, what it finds, and 2 numbers
  /// for each hit; a second call of the same sizes allocates nothing. A NaN in a row reaches that
  /// row of out alone. The same bits for any number of threads.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 3> queries, TensorView<const scalar, 2> p,
             TensorView<scalar, 2> out) const {
    check_call(queries, p, out);
    if (out.rows() == 0) return;
    const auto on = on_any_executor(backend);
    const auto memory = leased<detail::UltraMemoryScratch<scalar>>(on);
    TuckerHits<scalar>& hits = memory->hits;
    search_tucker_keys(on, queries, keys_, options_.k, hits);
    for (Index i = 0; i < hits.ids.size(); ++i) hits.ids.data()[i] = row_of(hits.ids.data()[i]);
    const auto pre = matrix_in(memory->pre, out.rows(), hits.ids.cols());
    gather_dots(on, pre_values_, hits.ids, p, pre);  // checks ids
    if (options_.gelu) transformer::activate(on, as_const(pre), pre, transformer::Gelu{});
    const auto weights = matrix_in(memory->weights, out.rows(), hits.ids.cols());
    const Index slice = dim() / cores();
    for (Index c = 0; c < cores(); ++c) {
      for (Index r = 0; r < out.rows(); ++r)
        for (Index j = 0; j < pre.cols(); ++j)
          weights(r, j) = hits.scores(r, j * cores() + c) * pre(r, j);
      detail::add_gathered<OnAnyExecutor<B>, S>(on, columns_of(values_, c * slice, slice),
                                                as_const(to_view(hits.ids)), as_const(weights),
                                                columns_of(out, c * slice, slice));
    }
  }

 private:
  Index group() const {
    return options_.group_slots.value_or(keys_.keys.extent[2] * keys_.keys.extent[2]);
  }

  template <class U>
  static TensorView<U, 2> columns_of(TensorView<U, 2> m, Index begin, Index count) {
    return {m.data + begin, {m.rows(), count}, m.stride};
  }

  void check_call(TensorView<const scalar, 3> queries, TensorView<const scalar, 2> p,
                  TensorView<scalar, 2> out) const {
    constexpr const char* function = "routing::UltraMemory::apply";
    check_view(function, "queries", queries);
    check_extents<3>(function, "queries", queries.extent, {out.rows(), heads(), 2 * half()});
    check_view(function, "p", p);
    check_extents<2>(function, "p", p.extent, {out.rows(), pre_dim()});
    check_contiguous_rows(function, "p", p);
    check_writable(function, "out", out);
    check_extents<2>(function, "out", out.extent, {out.rows(), dim()});
    check_contiguous_rows(function, "out", out);
    check_no_overlap(function, "out", out, "queries", queries);
    check_no_overlap(function, "out", out, "p", p);
    check_apart(function, "out", out);
  }

  TuckerKeys<scalar> keys_;
  TensorView<const S, 2> pre_values_, values_;
  UltraMemoryOptions options_;
};

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
