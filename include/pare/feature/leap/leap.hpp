// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// LeAP: one gate per field, learned while the model trains, says what the field is worth.
///
/// ```cpp
/// Leap<float> leap(FieldLayout({1, 1, 64, 8}), {.alpha_per_field = 1e-3});
/// for (;;) {
///   leap.forward(x_train, mixed);            // the model takes a step at `mixed` ...
///   leap.backward(grad_mixed, grad_x);       // ... and embeddings below it one by grad_x
///
///   leap.forward(x_held_out, mixed);         // the gates take theirs on rows the model does not
///   leap.backward_gates(grad_mixed);         // train on: otherwise what it memorised looks useful
///   leap.step_gates();
/// }
/// const auto kept = above(leap.ranking());
/// ```
///
/// Each forward pass mixes every field, by its gate, with the value that the field has in another
/// row (mix.hpp). If a field does not help the loss, the penalty prevails (divergence.hpp) and its
/// gate closes. The model then sees noise with the field's own distribution, which it cannot scale
/// back up as it could with a mask. The number of passes does not depend on the number of fields.
///
/// Divide columns by their deviation before the layer. If batches are dense, subtract their mean
/// too: the mix and the gradients of the gates stay the same, but a model that starts at 0 cannot
/// use a column many deviations from it. Sparse batches store only what is not at its default, so
/// nothing is subtracted from them; if entries lie far from the default, subtract one number from
/// both the entries and SparseFields::defaults.
///
/// Source: Huang et al., "LeAP" (arXiv 2606.01111), whose released code is the mix, the gates, the
/// loop and Adam here. The adaptive penalty, the evidence counters and the donor policies are
/// reconstructed or our own, as each header says.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/detail/leap_state.hpp>
#include <pare/feature/leap/leap_options.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/feature/leap/mix_sparse.hpp>
#include <pare/feature/ranking.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pare::feature {

PARE_ABI_BEGIN

/// The layer and its gates, for batches of T.
///
/// Bits are a function of the calls, the seed, the scalar and the instruction set, not of threads.
template <ComputeScalar T>
class Leap {
 public:
  /// \throws std::invalid_argument if the layout has no field or an option is out of its range
  PARE_ALWAYS_INLINE explicit Leap(FieldLayout layout, const LeapOptions& options = {})
      : layout_(std::move(layout)), state_(detail::make_leap_gates(layout_, options)) {}

  Leap(const Leap&) = delete;
  Leap& operator=(const Leap&) = delete;
  Leap(Leap&&) noexcept = default;
  Leap& operator=(Leap&&) noexcept = default;

  const FieldLayout& layout() const { return layout_; }
  const LeapOptions& options() const { return state_.options; }

  /// mixed = the permuted mix of x under the gates, with donors (and noise) of a new draw.
  ///
  /// \param backend left out: pare::simd
  /// \param x       [rows x dim], any storage, at least 2 rows; the next backward pass reads it
  ///                again, so it must live until then
  /// \param mixed   [rows x dim], apart from x
  /// \throws std::invalid_argument if an extent or stride does not fit, or mixed overlaps x
  /// Cost: as mix_forward.
  template <Backend B, FieldsIn X, FieldsOut Y>
  PARE_ALWAYS_INLINE void forward(const B& backend, const X& x, Y&& mixed) {
    constexpr const char* function = "feature::Leap::forward";
    const FieldBatch<const T> in = detail::to_batch(function, "x", layout_, x);
    const FieldBatch<T> out = detail::to_batch(function, "mixed", layout_, mixed);
    detail::check_leap_rows(function, state_.options, in, out);
    x_ = {};
    detail::draw_leap(layout_, in.rows, state_);
    mix_forward(keeping(backend, workspace_), in, state_.values, *state_.donors, out);
    x_ = in;
  }

  /// \overload
  template <FieldsIn X, FieldsOut Y>
  PARE_ALWAYS_INLINE void forward(const X& x, Y&& mixed) {
    forward(simd, x, mixed);
  }

  /// Takes no temporary: the backward pass would read it when it is gone.
  template <Backend B, class X, class Y>
  requires pare::detail::OwningRvalue<X>
  void forward(const B& backend, X&& x, Y&& mixed) = delete;
  /// \overload
  template <class X, class Y>
  requires pare::detail::OwningRvalue<X>
  void forward(X&& x, Y&& mixed) = delete;

  /// The gradients of the last forward pass with respect to gates and x.
  ///
  /// \param backend    left out: pare::simd
  /// \param grad_mixed [rows x dim] the gradient of the loss by mixed
  /// \param grad_x     [rows x dim], apart from x; with LeapOptions::detach it may be grad_mixed
  /// \throws std::invalid_argument if an extent or stride does not fit, or no forward pass was made
  /// Cost: as mix_backward.
  template <Backend B, FieldsIn G, FieldsOut Y>
  PARE_ALWAYS_INLINE void backward(const B& backend, const G& grad_mixed, Y&& grad_x) {
    constexpr const char* function = "feature::Leap::backward";
    const FieldBatch<const T> in = last_x(function);
    const FieldBatch<const T> g = detail::to_batch(function, "grad_mixed", layout_, grad_mixed);
    const FieldBatch<T> out = detail::to_batch(function, "grad_x", layout_, grad_x);
    mix_backward(keeping(backend, workspace_), in, state_.values, *state_.donors, g, out,
                 state_.gradients, mix_options());
    state_.has_gradients = true;
  }

  /// \overload
  template <FieldsIn G, FieldsOut Y>
  PARE_ALWAYS_INLINE void backward(const G& grad_mixed, Y&& grad_x) {
    backward(simd, grad_mixed, grad_x);
  }

  /// The gradients by gates alone: what a step of the gates needs.
  template <Backend B, FieldsIn G>
  PARE_ALWAYS_INLINE void backward_gates(const B& backend, const G& grad_mixed) {
    constexpr const char* function = "feature::Leap::backward_gates";
    const FieldBatch<const T> in = last_x(function);
    const FieldBatch<const T> g = detail::to_batch(function, "grad_mixed", layout_, grad_mixed);
    mix_backward_gates(keeping(backend, workspace_), in, state_.values, *state_.donors, g,
                       state_.gradients, mix_options());
    state_.has_gradients = true;
  }

  /// \overload
  template <FieldsIn G>
  PARE_ALWAYS_INLINE void backward_gates(const G& grad_mixed) {
    backward_gates(simd, grad_mixed);
  }

  /// The same for a sparse batch (mix_sparse.hpp).
  template <Backend B>
  PARE_ALWAYS_INLINE void forward(const B& backend, const SparseFields<T>& x, SparseMix<T>& mixed) {
    detail::check_leap_entries("feature::Leap::forward", layout_, x, mixed.fields());
    x_ = {};
    detail::draw_leap(layout_, x.rows(), state_);
    mix_forward(backend, x, state_.values, *state_.donors, mixed, state_.options.exchange);
  }

  /// \overload
  PARE_ALWAYS_INLINE void forward(const SparseFields<T>& x, SparseMix<T>& mixed) {
    forward(simd, x, mixed);
  }

  /// The same for a sparse batch, x and mixed being those of the last forward pass.
  /// \throws std::invalid_argument if entries do not fit, or there was no forward pass
  template <Backend B>
  PARE_ALWAYS_INLINE void backward(const B& backend, const SparseFields<T>& x, SparseMix<T>& mixed,
                                   const SparseFields<T>& grad_mixed, SparseFields<T>& grad_x) {
    check(state_.donors.has_value(), "feature::Leap::backward", "x", "none", "a forward pass");
    mix_backward(backend, x, state_.values, *state_.donors, mixed, grad_mixed, grad_x,
                 state_.gradients, mix_options());
    state_.has_gradients = true;
  }

  /// \overload
  PARE_ALWAYS_INLINE void backward(const SparseFields<T>& x, SparseMix<T>& mixed,
                                   const SparseFields<T>& grad_mixed, SparseFields<T>& grad_x) {
    backward(simd, x, mixed, grad_mixed, grad_x);
  }

  /// The same for a sparse batch, without the gradient by x.
  template <Backend B>
  PARE_ALWAYS_INLINE void backward_gates(const B& backend, const SparseFields<T>& x,
                                         SparseMix<T>& mixed, const SparseFields<T>& grad_mixed) {
    check(state_.donors.has_value(), "feature::Leap::backward_gates", "x", "none",
          "a forward pass");
    mix_backward_gates(backend, x, state_.values, *state_.donors, mixed, grad_mixed,
                       state_.gradients, mix_options());
    state_.has_gradients = true;
  }

  /// \overload
  PARE_ALWAYS_INLINE void backward_gates(const SparseFields<T>& x, SparseMix<T>& mixed,
                                         const SparseFields<T>& grad_mixed) {
    backward_gates(simd, x, mixed, grad_mixed);
  }

  /// One step of Adam on theta down the loss and the penalty, by the last backward pass.
  /// \throws std::invalid_argument if there was none since the last forward pass or step
  PARE_ALWAYS_INLINE void step_gates() { detail::step_leap(layout_, state_); }

  /// x as the model should see it in validation and test, by LeapOptions::eval_mode. Gates and the
  /// last forward pass stay as they are.
  /// \throws std::invalid_argument as forward
  template <Backend B, FieldsIn X, FieldsOut Y>
  PARE_ALWAYS_INLINE void evaluate(const B& backend, const X& x, Y&& mixed) {
    constexpr const char* function = "feature::Leap::evaluate";
    const FieldBatch<const T> in = detail::to_batch(function, "x", layout_, x);
    const FieldBatch<T> out = detail::to_batch(function, "mixed", layout_, mixed);
    detail::check_leap_rows(function, state_.options, in, out);
    const Donors donors = detail::evaluation_donors(layout_, in.rows, state_);
    mix_forward(keeping(backend, workspace_), in, detail::evaluation_gates(state_), donors, out);
  }

  /// \overload
  template <FieldsIn X, FieldsOut Y>
  PARE_ALWAYS_INLINE void evaluate(const X& x, Y&& mixed) {
    evaluate(simd, x, mixed);
  }

  /// The same for a sparse batch.
  template <Backend B>
  PARE_ALWAYS_INLINE void evaluate(const B& backend, const SparseFields<T>& x,
                                   SparseMix<T>& mixed) {
    detail::check_leap_entries("feature::Leap::evaluate", layout_, x, mixed.fields());
    const Donors donors = detail::evaluation_donors(layout_, x.rows(), state_);
    mix_forward(backend, x, detail::evaluation_gates(state_), donors, mixed,
                state_.options.exchange);
  }

  /// \overload
  PARE_ALWAYS_INLINE void evaluate(const SparseFields<T>& x, SparseMix<T>& mixed) {
    evaluate(simd, x, mixed);
  }

  /// [fields] the gates without noise, by which fields are scored.
  PARE_ALWAYS_INLINE std::vector<double> gates() const { return detail::leap_scores(state_); }

  /// [fields] the gates of the last forward pass; empty before it.
  std::span<const double> sampled_gates() const { return state_.values; }

  /// [fields] the parameters of the gates.
  std::span<const double> thetas() const { return state_.thetas; }

  /// [fields] the mean of theta over the steps: the earlier and faster a gate closed, the lower.
  PARE_ALWAYS_INLINE std::vector<double> mean_thetas() const { return detail::mean_thetas(state_); }

  /// Sets theta, for example to that of the best epoch. Adam's means stay.
  /// \throws std::invalid_argument unless there is a finite number for each field
  PARE_ALWAYS_INLINE void set_thetas(std::span<const double> thetas) {
    detail::check_thetas(state_, thetas);
    state_.thetas.assign(thetas.begin(), thetas.end());
  }

  /// Steps of the gates so far.
  Index steps() const { return state_.steps; }

  /// The donors of the last forward pass.
  /// \throws std::invalid_argument before it
  const Donors& donors() const {
    check(state_.donors.has_value(), "feature::Leap::donors", "donors", "none", "a forward pass");
    return *state_.donors;
  }

  /// dL/dg and divergences of the last backward pass.
  const MixGradients& gradients() const { return state_.gradients; }

  /// [fields] the gradient by theta that the next step_gates would take.
  /// \throws std::invalid_argument as step_gates
  PARE_ALWAYS_INLINE std::vector<double> theta_gradients() {
    return detail::theta_gradients(layout_, state_);
  }

  /// [fields] lambda of the last step.
  std::span<const double> penalty_weights() const { return state_.weights; }

  /// Steps of the gates in whose batch the permutation moved field j.
  /// \throws std::invalid_argument unless j is a field, as the next three
  Index active_batches(Index j) const { return evidence(j).active; }

  /// Steps in whose batch field j's sums held a NaN or an infinity; its gradient counted as 0.
  Index nonfinite_batches(Index j) const { return evidence(j).nonfinite; }

  /// Steps after which the gate of field j was above 1/2.
  Index open_steps(Index j) const { return evidence(j).open; }

  /// The mean over the steps of sqrt(mean |Delta|_2^2) of field j; 0 before the first.
  double mean_displacement(Index j) const {
    return state_.steps == 0 ? 0 : evidence(j).displacement / static_cast<double>(state_.steps);
  }

  /// Fields ranked by gate. Those that the batches said nothing, or too little, about are marked.
  PARE_ALWAYS_INLINE Ranking ranking() const { return detail::rank_leap(state_); }

  /// The same scores and status, but fields are in the order of `open_steps`, ties in that of
  /// `mean_thetas`, Inactive ones last. It ranks the fields whose gates closed. Where such a theta
  /// ends, and how long it stays there, is noise, since a closed gate has no slope. Ours.
  PARE_ALWAYS_INLINE Ranking ranking_by_time_open() const {
    return detail::rank_by_time_open(state_);
  }

  /// mean_j |g_j - mean g| in [0, 1/2]: 1/2 where half of the gates are open and half closed. The
  /// measure of the released code.
  PARE_ALWAYS_INLINE double polarization() const { return detail::leap_polarization(state_); }

 private:
  const detail::FieldEvidence& evidence(Index j) const {
    check(j >= 0 && j < layout_.fields(), "feature::Leap", "j", j, "a field of the layout");
    return state_.evidence[static_cast<std::size_t>(j)];
  }

  MixOptions mix_options() const {
    return {.detach = state_.options.detach, .norms = needs_norms(state_.options.penalty)};
  }

  /// The layout moves with the object, so the batch is told anew where it is.
  PARE_ALWAYS_INLINE FieldBatch<const T> last_x(const char* function) const {
    check(x_.data != nullptr, function, "x", "none", "a forward pass");
    FieldBatch<const T> x = x_;
    x.layout = &layout_;
    return x;
  }

  FieldLayout layout_;
  detail::LeapGates state_;
  Workspace workspace_;
  FieldBatch<const T> x_;
};

PARE_ABI_END

}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
