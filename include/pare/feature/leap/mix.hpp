// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The permuted mix: each field of a batch, mixed by its gate with the same field of another row.
///
/// ```cpp
/// const Donors donors(DonorPolicy::BaseShift, seed, step, x.rows(), layout);
/// mix_forward(x, gates, donors, mixed);    // or pare::simd.with(workspace) before x
/// // ... the model's loss at `mixed`, and its gradient grad_mixed ...
/// mix_backward(x, gates, donors, grad_mixed, grad_x, gradients);
/// ```
///
/// x'_b = g_j x_b + (1 - g_j) x_donor(b) for field j of row b. The donor is another row, of which
/// the field takes its value. A gate of 1 leaves the field as it is, and a gate of 0 permutes it:
/// the slope of the loss in g_j tells what the field is worth. `Leap` (leap.hpp) runs this. Source:
/// the released code of LeAP (arXiv 2606.01111) and ShuffleGate (arXiv 2503.09315); here a field
/// may have any width instead of one.
///
/// Batches are matrices [rows x dim] in either order, or FieldBatch; operands of one call may lie
/// in memory in different ways. A NaN or infinity reaches the rows that take it as their own or
/// their donor's value, and the sums of its field. A gate of exactly 1 copies a row's own value to
/// the bit, a gate of exactly 0 the donor's. Displacements above 1e19 overflow when squared in
/// float.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/detail/mix_engine.hpp>
#include <pare/feature/leap/detail/reference_mix.hpp>
#include <pare/feature/leap/divergence.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature {

/// Options of mix_backward.
struct MixOptions {
  /// Whether the donor's value counts as a constant in the gradient by x, as in the source.
  /// Otherwise x_donor(b) receives (1 - g_j) G_b too.
  bool detach = true;

  /// Whether Divergences::norms are computed: only Penalty::L2 needs them.
  bool norms = false;
};

PARE_ABI_BEGIN

/// What mix_backward learns of each field.
struct MixGradients {
  std::vector<double> gates;  ///< [fields] dL/dg_j = sum_b <x_b - x_donor(b), G_b>
  Divergences divergence;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Strides that keep lines apart.
template <class T>
void check_lines(const char* function, const char* argument, const FieldBatch<T>& batch) {
  if (batch.storage == Storage::RowMajor)
    check(batch.stride >= batch.layout->dim() || batch.rows <= 1, function, argument, batch.stride,
          "rows that do not overlap");
  if (batch.storage == Storage::ColumnMajor)
    check(batch.stride >= batch.rows || batch.layout->dim() <= 1, function, argument, batch.stride,
          "columns that do not overlap");
}

/// Rows as the donors', and sound lines.
template <class T>
void check_batch(const char* function, const char* argument, const FieldBatch<T>& batch,
                 const Donors& donors) {
  check(batch.rows == donors.rows(), function, argument, batch.rows,
        Worded{"", donors.rows(), " rows, as many as the donors"});
  check_lines(function, argument, batch);
}

inline void check_gates(const char* function, const FieldLayout& layout,
                        std::span<const double> gates) {
  check(static_cast<Index>(gates.size()) == layout.fields(), function, "gates", gates.size(),
        Worded{"", layout.fields(), " gates"});
  for (const double g : gates)
    check(is_finite(g) && g >= 0 && g <= 1, function, "gates", g, "gates in [0, 1]");
}

template <class B, class T>
void run_mix(const B& backend, const MixProblem<T>& p, MixMemory<T>& memory) {
  MixPass<B, T>(backend, p, memory).run();
}

template <class B, class T>
void mix_forward_checked(const B& backend, const MixProblem<T>& p) {
  constexpr const char* function = "feature::mix_forward";
  check_batch(function, "x", p.x, *p.donors);
  check_batch(function, "mixed", p.out, *p.donors);
  check_gates(function, *p.x.layout, p.gates);
  check_no_overlap(function, "mixed", whole_batch(p.out), "x", whole_batch(p.x));
  check_no_overlap(function, "mixed", whole_batch(p.out), "gates", to_vector_view(p.gates));
  if constexpr (KernelBackend<B>)
    run_mix(on_any_executor(backend), p, *leased<MixMemory<T>>(backend));
  else
    reference_mix_forward(p);
}

/// A backward pass without grad_x.
template <class T, class X, class G>
MixProblem<T> backward_problem(const X& x, std::span<const double> gates, const Donors& donors,
                               const G& grad_mixed, const MixOptions& options) {
  constexpr const char* function = "feature::mix_backward";
  MixProblem<T> p;
  p.x = to_batch(function, "x", donors.layout(), x);
  p.grad_mixed = to_batch(function, "grad_mixed", donors.layout(), grad_mixed);
  p.gates = gates;
  p.donors = &donors;
  p.live = !options.detach;
  p.norms = options.norms;
  return p;
}

/// Means over the rows from sums by piece.
inline void set_gradients(const FieldLayout& layout, Index rows, bool norms, const MixPlan* plan,
                          const std::vector<PieceSums>& pieces, MixGradients& gradients) {
  const auto fields = static_cast<std::size_t>(layout.fields());
  gradients.gates.assign(fields, 0.0);
  gradients.divergence.squared.assign(fields, 0.0);
  gradients.divergence.absolute.assign(fields, 0.0);
  gradients.divergence.norms.assign(norms ? fields : 0, 0.0);
  const auto count = static_cast<double>(rows);
  const auto add = [&](std::size_t j, const PieceSums& sums) {
    gradients.gates[j] += sums.values[PieceSums::slope];
    gradients.divergence.squared[j] += sums.values[PieceSums::squared] / count;
    gradients.divergence.absolute[j] += sums.values[PieceSums::absolute] / count;
    // The length of a scalar is its magnitude.
    const bool scalar = layout.width(static_cast<Index>(j)) == 1;
    if (norms)
      gradients.divergence.norms[j] +=
          sums.values[scalar ? PieceSums::absolute : PieceSums::norm] / count;
  };
  if (plan == nullptr)
    for (std::size_t j = 0; j < fields; ++j) add(j, pieces[j]);
  else
    for (const MixItem& item : plan->items)
      for (Index j = item.first_field; j < item.last_field; ++j)
        add(static_cast<std::size_t>(j),
            pieces[static_cast<std::size_t>(item.first_piece + j - item.first_field)]);
}

template <class B, class T>
void mix_backward_checked(const B& backend, const MixProblem<T>& p, MixGradients& gradients) {
  constexpr const char* function = "feature::mix_backward";
  check_batch(function, "x", p.x, *p.donors);
  check_gates(function, *p.x.layout, p.gates);
  check_batch(function, "grad_mixed", p.grad_mixed, *p.donors);
  if (p.out.data != nullptr) {
    check_batch(function, "grad_x", p.out, *p.donors);
    check_no_overlap(function, "grad_x", whole_batch(p.out), "x", whole_batch(p.x));
    check_no_overlap(function, "grad_x", whole_batch(p.out), "gates", to_vector_view(p.gates));
    if (!is_in_place(p) || p.live)
      check_no_overlap(function, "grad_x", whole_batch(p.out), "grad_mixed",
                       whole_batch(p.grad_mixed));
  }
  if constexpr (KernelBackend<B>) {
    const auto memory = leased<MixMemory<T>>(backend);
    run_mix(on_any_executor(backend), p, *memory);
    set_gradients(*p.x.layout, p.x.rows, p.norms, &memory->plan, memory->pieces, gradients);
  } else {
    set_gradients(*p.x.layout, p.x.rows, p.norms, nullptr, reference_mix_backward(p), gradients);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// mixed = the permuted mix of x.
///
/// \param backend left out: pare::simd
/// \param x       [rows x dim]
/// \param gates   [fields] in [0, 1]
/// \param donors  for as many rows; their layout is that of the batches
/// \param mixed   [rows x dim], apart from x
/// \throws std::invalid_argument if an extent or stride does not fit, a gate is not in [0, 1], or
///         mixed overlaps x
///
/// Cost: with FieldBlocked batches and DonorPolicy::Shift, x is read and mixed written once, which
/// binds. Other donors gather each field from cache. RowMajor batches must transpose narrow fields
/// on their way in and out: 1.7 to 2.4 times the time, measured. Memory, kept in the backend's
/// workspace: up to 2 MiB per worker as long as 16 columns fit that.
template <Backend B, FieldsIn X, FieldsOut Y>
void mix_forward(const B& backend, const X& x, std::span<const double> gates, const Donors& donors,
                 Y&& mixed) {
  constexpr const char* function = "feature::mix_forward";
  detail::MixProblem<field_scalar_of<X>> p;
  p.x = detail::to_batch(function, "x", donors.layout(), x);
  p.out = detail::to_batch(function, "mixed", donors.layout(), mixed);
  p.gates = gates;
  p.donors = &donors;
  detail::mix_forward_checked(backend, p);
}

/// \overload
template <FieldsIn X, FieldsOut Y>
void mix_forward(const X& x, std::span<const double> gates, const Donors& donors, Y&& mixed) {
  mix_forward(simd, x, gates, donors, mixed);
}

/// The gradients of a loss with respect to gates and x, and the divergences, in one pass.
///
/// \param backend    left out: pare::simd
/// \param x          [rows x dim], as mix_forward had it
/// \param gates      [fields], as mix_forward had them
/// \param donors     as mix_forward had them
/// \param grad_mixed [rows x dim] G, the gradient of the loss by mixed
/// \param grad_x     [rows x dim] dL/dx_b = g_j G_b, and (1 - g_j) G_source(b) more without
///                   `detach`; apart from x, and apart from grad_mixed or, with `detach`, the
///                   same batch: then it takes the place of grad_mixed, which is the fastest
/// \param gradients  by field
/// \throws std::invalid_argument as mix_forward
///
/// Sums of float are added to double after at most 64 additions. Cost: as mix_forward; x and
/// grad_mixed are read once and grad_x is written once.
template <Backend B, FieldsIn X, FieldsIn G, FieldsOut Y>
void mix_backward(const B& backend, const X& x, std::span<const double> gates, const Donors& donors,
                  const G& grad_mixed, Y&& grad_x, MixGradients& gradients,
                  const MixOptions& options = {}) {
  using T = field_scalar_of<X>;
  detail::MixProblem<T> p = detail::backward_problem<T>(x, gates, donors, grad_mixed, options);
  p.out = detail::to_batch("feature::mix_backward", "grad_x", donors.layout(), grad_x);
  detail::mix_backward_checked(backend, p, gradients);
}

/// \overload
template <FieldsIn X, FieldsIn G, FieldsOut Y>
void mix_backward(const X& x, std::span<const double> gates, const Donors& donors,
                  const G& grad_mixed, Y&& grad_x, MixGradients& gradients,
                  const MixOptions& options = {}) {
  mix_backward(simd, x, gates, donors, grad_mixed, grad_x, gradients, options);
}

/// The gradients by gates and the divergences alone, which is what a step of the gates needs.
/// Parameters, errors and cost as mix_backward, without grad_x.
template <Backend B, FieldsIn X, FieldsIn G>
void mix_backward_gates(const B& backend, const X& x, std::span<const double> gates,
                        const Donors& donors, const G& grad_mixed, MixGradients& gradients,
                        const MixOptions& options = {}) {
  using T = field_scalar_of<X>;
  const detail::MixProblem<T> p =
      detail::backward_problem<T>(x, gates, donors, grad_mixed, options);
  detail::mix_backward_checked(backend, p, gradients);
}

/// \overload
template <FieldsIn X, FieldsIn G>
void mix_backward_gates(const X& x, std::span<const double> gates, const Donors& donors,
                        const G& grad_mixed, MixGradients& gradients,
                        const MixOptions& options = {}) {
  mix_backward_gates(simd, x, gates, donors, grad_mixed, gradients, options);
}

PARE_REFUSE_CALLS(
    mix_forward, "feature::mix_forward", "after mixed: wanted nothing",
    (PLAIN,
     (roles::Unless<roles::Takes<detail::IsFieldsIn>, detail::IsNoMatrix, roles::other_call>), "x",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double"),
    (ANY, (roles::TakesAny), "gates", "numbers"), (ANY, (roles::TakesAny), "donors", "Donors"),
    (PLAIN, (roles::Takes<detail::IsFieldsOut>), "mixed",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double, that may "
     "be written and outlives the call"))
PARE_REFUSE_CALLS(
    mix_backward, "feature::mix_backward",
    "after grad_x: wanted MixGradients and MixOptions, members spelt and ordered as declared",
    (PLAIN,
     (roles::Unless<roles::Takes<detail::IsFieldsIn>, detail::IsNoMatrix, roles::other_call>), "x",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double"),
    (ANY, (roles::TakesAny), "gates", "numbers"), (ANY, (roles::TakesAny), "donors", "Donors"),
    (PLAIN, (roles::Takes<detail::IsFieldsIn>), "grad_mixed",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double"),
    (PLAIN, (roles::Takes<detail::IsFieldsOut>), "grad_x",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double, that may be written and "
     "outlives the call"))
PARE_REFUSE_CALLS(
    mix_backward_gates, "feature::mix_backward_gates",
    "after grad_mixed: wanted MixGradients and MixOptions, members spelt and ordered as declared",
    (PLAIN,
     (roles::Unless<roles::Takes<detail::IsFieldsIn>, detail::IsNoMatrix, roles::other_call>), "x",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double"),
    (ANY, (roles::TakesAny), "gates", "numbers"), (ANY, (roles::TakesAny), "donors", "Donors"),
    (PLAIN, (roles::Takes<detail::IsFieldsIn>), "grad_mixed",
     "a FieldBatch or a matrix in memory [rows, dim], of float or double"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
