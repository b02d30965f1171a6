// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The permuted mix of fields that are at their default in most rows, on sparse storage.
///
/// ```cpp
/// SparseMix<float> mixed;
/// mix_forward(x, gates, donors, mixed);                   // x: SparseFields<float>
/// SparseFields<float> grad = mixed.fields();              // the model's gradient at these entries
/// mix_backward(x, gates, donors, mixed, grad, grad_x, gradients);
/// ```
///
/// A row is active if its field is not at the default. x_b - x_donor(b) is 0 unless row b or its
/// donor is active (derived). With a share rho of active rows, the mix has at most 2 rho B rows
/// that are not at the default, and nothing else is visited, forward or backward. The gate's
/// gradient and the divergences are those of the dense mix (mix.hpp), which is the definition. That
/// mix scores presence and value together; SparseExchange::Values and Presence tell them apart,
/// which only this storage can do.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/permutation.hpp>
#include <pare/feature/fields/detail/exchange.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/detail/reference_sparse_mix.hpp>
#include <pare/feature/leap/detail/sparse_mix.hpp>
#include <pare/feature/leap/mix.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature {

namespace detail {
PARE_ABI_BEGIN
template <ComputeScalar T>
struct SparseMixAccess;
PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// A mixed batch, again sparse, and where each of its entries came from. Used again, it allocates
/// nothing while batches have no more entries than before.
template <ComputeScalar T>
class SparseMix {
 public:
  /// Rows whose own or donor's value is no default, and their mixed values.
  const SparseFields<T>& fields() const { return fields_; }

 private:
  template <ComputeScalar U>
  friend struct detail::SparseMixAccess;

  SparseFields<T> fields_;
  std::vector<Index> entries_;  ///< [fields] of the batch that was mixed
  std::vector<Index> begins_;   ///< [fields] of links
  std::vector<detail::MixLink> links_;
  detail::SparseMemory<T> memory_;
};

PARE_ABI_END

namespace detail {

PARE_ABI_BEGIN

/// The parts of a SparseMix.
template <ComputeScalar T>
struct SparseMixAccess {
  SparseFields<T>& fields;
  std::vector<Index>& entries;
  std::vector<Index>& begins;
  std::vector<MixLink>& links;
  SparseMemory<T>& memory;

  explicit SparseMixAccess(SparseMix<T>& mix)
      : fields(mix.fields_),
        entries(mix.entries_),
        begins(mix.begins_),
        links(mix.links_),
        memory(mix.memory_) {}
};

template <class T>
void check_sparse(const char* function, const SparseFields<T>& x, std::span<const double> gates,
                  const Donors& donors) {
  check(x.rows() == donors.rows(), function, "x", x.rows(),
        Worded{"", donors.rows(), " rows, as many as the donors"});
  check(x.layout() == donors.layout(), function, "x", x.layout().dim(),
        Worded{"the layout of the donors, of ", donors.layout().dim(), " columns"});
  check_gates(function, x.layout(), gates);
}

/// Whether a mix was made of a batch with as many entries as x: links into others lead nowhere.
template <class T>
bool is_mix_of(const SparseFields<T>& x, const SparseMixAccess<T>& mix) {
  if (!(mix.fields.layout() == x.layout()) || mix.fields.rows() != x.rows()) return false;
  for (Index j = 0; j < x.layout().fields(); ++j)
    if (mix.entries[static_cast<std::size_t>(j)] != x.entries(j)) return false;
  return true;
}

/// Room for the rows of x and as many that they are given to.
template <class T>
void reserve_mix(const SparseFields<T>& x, SparseMixAccess<T>& mix) {
  const Index fields = x.layout().fields();
  std::vector<Index> room(static_cast<std::size_t>(fields));
  mix.entries.resize(room.size());
  for (Index j = 0; j < fields; ++j) {
    mix.entries[static_cast<std::size_t>(j)] = x.entries(j);
    room[static_cast<std::size_t>(j)] = std::min(x.rows(), 2 * x.entries(j));
  }
  if (!(mix.fields.layout() == x.layout()) || mix.fields.rows() != x.rows())
    mix.fields = SparseFields<T>(x.layout(), x.rows());
  mix.fields.reserve(room);
  std::copy(x.defaults().begin(), x.defaults().end(), mix.fields.defaults().begin());
  mix.begins.resize(room.size());
  Index begin = 0;
  for (std::size_t j = 0; j < room.size(); ++j) {
    mix.begins[j] = begin;
    begin += room[j];
  }
  mix.links.resize(static_cast<std::size_t>(begin));
}

template <class B, class T>
void sparse_backward_checked(const B& backend, const SparseFields<T>& x,
                             std::span<const double> gates, const Donors& donors,
                             SparseMix<T>& mixed, const SparseFields<T>& grad_mixed,
                             SparseFields<T>* grad_x, MixGradients& gradients,
                             const MixOptions& options) {
  constexpr const char* function = "feature::mix_backward";
  check_sparse(function, x, gates, donors);
  SparseMixAccess<T> mix(mixed);
  check(is_mix_of(x, mix), function, "mixed", "another batch", "the mix of x");
  const auto same = [&] {
    if constexpr (KernelBackend<B>) {
      const auto any = on_any_executor(backend);
      return SparsePass(any, x, gates, mix.memory).same_entries(grad_mixed, mix.fields);
    } else {
      return grad_mixed.same_pattern(mix.fields);
    }
  };
  check(same(), function, "grad_mixed", "other entries", "the entries of mixed");
  if (grad_x != nullptr) {
    check(grad_x != &x && grad_x != &grad_mixed, function, "grad_x", "an input",
          "memory apart from x and grad_mixed");
    grad_x->assume_pattern(x);
    std::fill(grad_x->defaults().begin(), grad_x->defaults().end(), T(0));
  }
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    SparsePass(any, x, gates, mix.memory)
        .backward(grad_mixed, mix.begins, mix.links, !options.detach, options.norms, grad_x);
  } else {
    reference_sparse_backward(x, gates, grad_mixed, !options.detach, grad_x, mix);
  }
  set_gradients(x.layout(), x.rows(), options.norms, nullptr, mix.memory.sums, gradients);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// mixed = the permuted mix of a sparse batch.
///
/// \param backend left out: pare::simd
/// \param x       as many rows, and the layout, of the donors
/// \param gates   [fields] in [0, 1]
/// \param mixed   made anew
/// \param exchange which rows give each other what they hold. Fields of one group exchange alike
///                where the same rows of theirs are active.
/// \throws std::invalid_argument if rows or layout are not the donors', or a gate is not in [0, 1]
///
/// Cost: the entries of x and of mixed; where all rows exchange, Uniform and Derangement draw
/// `rows` numbers per field besides. Memory: mixed has room for twice the entries of x.
template <Backend B, ComputeScalar T>
void mix_forward(const B& backend, const SparseFields<T>& x, std::span<const double> gates,
                 const Donors& donors, SparseMix<T>& mixed,
                 SparseExchange exchange = SparseExchange::Rows) {
  validate("feature::mix_forward", exchange);
  detail::check_sparse("feature::mix_forward", x, gates, donors);
  detail::SparseMixAccess<T> mix(mixed);
  check(&mix.fields != &x, "feature::mix_forward", "mixed", "x", "memory apart from x");
  detail::reserve_mix(x, mix);
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    detail::SparsePass(any, x, gates, mix.memory)
        .forward(donors, exchange, mix.fields, mix.begins, mix.links);
  } else {
    detail::reference_sparse_forward(x, gates, donors, exchange, mix);
  }
}

/// \overload
template <ComputeScalar T>
void mix_forward(const SparseFields<T>& x, std::span<const double> gates, const Donors& donors,
                 SparseMix<T>& mixed, SparseExchange exchange = SparseExchange::Rows) {
  mix_forward(simd, x, gates, donors, mixed, exchange);
}

/// The gradients by gates and by the entries of x, and the divergences.
///
/// \param backend    left out: pare::simd
/// \param x, gates, donors as mix_forward had them
/// \param mixed      what mix_forward made of them; its own memory is used
/// \param grad_mixed the gradient of the loss by mixed, at the entries of mixed (read_entries takes
///                   them from a dense one)
/// \param grad_x     made anew, with the entries of x; apart from x and grad_mixed. A learnable
///                   default's gradient is that of default_gradient.
/// \throws std::invalid_argument as mix_forward, if mixed is not the mix of x, grad_mixed has
///         other entries than mixed, or grad_x is an input
/// Cost: the entries of x and of mixed.
template <Backend B, ComputeScalar T>
void mix_backward(const B& backend, const SparseFields<T>& x, std::span<const double> gates,
                  const Donors& donors, SparseMix<T>& mixed, const SparseFields<T>& grad_mixed,
                  SparseFields<T>& grad_x, MixGradients& gradients,
                  const MixOptions& options = {}) {
  detail::sparse_backward_checked(backend, x, gates, donors, mixed, grad_mixed, &grad_x, gradients,
                                  options);
}

/// \overload
template <ComputeScalar T>
void mix_backward(const SparseFields<T>& x, std::span<const double> gates, const Donors& donors,
                  SparseMix<T>& mixed, const SparseFields<T>& grad_mixed, SparseFields<T>& grad_x,
                  MixGradients& gradients, const MixOptions& options = {}) {
  mix_backward(simd, x, gates, donors, mixed, grad_mixed, grad_x, gradients, options);
}

/// The gradients by gates and the divergences alone.
template <Backend B, ComputeScalar T>
void mix_backward_gates(const B& backend, const SparseFields<T>& x, std::span<const double> gates,
                        const Donors& donors, SparseMix<T>& mixed,
                        const SparseFields<T>& grad_mixed, MixGradients& gradients,
                        const MixOptions& options = {}) {
  SparseFields<T>* none = nullptr;
  detail::sparse_backward_checked(backend, x, gates, donors, mixed, grad_mixed, none, gradients,
                                  options);
}

/// \overload
template <ComputeScalar T>
void mix_backward_gates(const SparseFields<T>& x, std::span<const double> gates,
                        const Donors& donors, SparseMix<T>& mixed,
                        const SparseFields<T>& grad_mixed, MixGradients& gradients,
                        const MixOptions& options = {}) {
  mix_backward_gates(simd, x, gates, donors, mixed, grad_mixed, gradients, options);
}

/// The gradient by each field's default, with donors detached: g_j sum over rows at the default of
/// G_b = g_j (sum over all rows - sum over active rows), so that only active rows are visited.
///
/// \param x            the batch
/// \param gates        [fields]
/// \param column_sums  [dim] of the gradient by mixed, over all rows
/// \param grad_mixed   that gradient at the entries of the mix
/// \return             [dim], in double
/// \throws std::invalid_argument if a size or layout is another
template <ComputeScalar T>
std::vector<double> default_gradient(const SparseFields<T>& x, std::span<const double> gates,
                                     std::span<const double> column_sums,
                                     const SparseFields<T>& grad_mixed) {
  constexpr const char* function = "feature::default_gradient";
  const FieldLayout& layout = x.layout();
  check(grad_mixed.layout() == layout && grad_mixed.rows() == x.rows(), function, "grad_mixed",
        "another batch", "rows and layout of x");
  check(static_cast<Index>(column_sums.size()) == layout.dim(), function, "column_sums",
        column_sums.size(), layout.dim());
  detail::check_gates(function, layout, gates);
  std::vector<double> gradient(column_sums.begin(), column_sums.end());
  for (Index j = 0; j < layout.fields(); ++j) {
    const auto active = x.rows_of(j), rows = grad_mixed.rows_of(j);
    const auto g = grad_mixed.values(j);
    double* sums = gradient.data() + layout.offset(j);
    for (std::size_t i = 0, k = 0; i < rows.size(); ++i) {
      while (k < active.size() && active[k] < rows[i]) ++k;
      if (k == active.size() || active[k] != rows[i]) continue;
      for (Index c = 0; c < g.cols(); ++c)
        sums[c] -= static_cast<double>(g(static_cast<Index>(i), c));
    }
    for (Index c = 0; c < g.cols(); ++c) sums[c] *= gates[static_cast<std::size_t>(j)];
  }
  return gradient;
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
