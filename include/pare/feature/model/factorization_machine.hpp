// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A factorization machine as a model of the scorers:
/// logit = bias + x w + 1/2 sum_f ((x v_f)^2 - sum_i v_if^2 x_i^2).
///
/// ```cpp
/// FactorizationMachine<float> model(layout.dim(), {.factors = 16, .seed = 7});
/// Leap<float> leap(layout);
/// train_leap(model, leap, x, labels, x_held_out, labels_held_out);   // trains the model too
/// model.forward(as_const(to_view(x)), logits);                       // [rows]
/// ```
///
/// Source: Rendle, "Factorization machines", ICDM 2010, eq. 1 and lemma 3.1.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/feature/model/detail/first_layer.hpp>
#include <pare/feature/model/detail/weighted_squares.hpp>
#include <pare/feature/model/model.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// Options of FactorizationMachine.
struct FactorizationMachineOptions {
  Index factors = 8;  ///< width of v_i, at least 1

  /// Of v at the start, above 0; left out: 1 / sqrt(dim * factors), so that the pairs of unit
  /// columns add about 1 to the logit.
  std::optional<double> initial_deviation{};

  std::uint64_t seed = 0;  ///< of v at the start
  optim::AdamOptions adam{};
};

namespace detail {
PARE_ABI_BEGIN

inline Index checked_size(const char* function, Index dim,
                          const FactorizationMachineOptions& options) {
  check_dim(function, dim);
  check(options.factors >= 1, function, "factors", options.factors, "at least 1");
  const double deviation = options.initial_deviation.value_or(1);
  check(is_finite(deviation) && deviation > 0, function, "initial_deviation", deviation,
        "a finite number above 0");
  const Index weights = checked_product(function, "factors", dim,
                                        checked_sum(function, "factors", options.factors, 1));
  return checked_count(function, "factors", checked_sum(function, "factors", weights, 1),
                       sizeof(double));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A factorization machine: a Model and an IncrementalModel (model.hpp). w and the bias start at 0,
/// v normal. Cost of a pass forward: 2 rows dim (factors + 1) FLOPs and one more reading of x;
/// `backward` and `input_gradient` each as much again.
///
/// \tparam T float or double
template <ComputeScalar T>
class FactorizationMachine {
 public:
  using scalar = T;

  /// \throws std::invalid_argument if dim or factors is below 1, or an option is out of its range
  explicit FactorizationMachine(Index dim, const FactorizationMachineOptions& options = {})
      : dim_(dim),
        parameters_(detail::checked_size("feature::FactorizationMachine", dim, options),
                    options.adam),
        width_(options.factors + 1),
        half_norms_(static_cast<std::size_t>(dim)) {
    const double deviation = options.initial_deviation.value_or(
        1 / std::sqrt(static_cast<double>(dim) * static_cast<double>(options.factors)));
    const TensorView<T, 2> all = weights();
    for (Index i = 0; i < dim_; ++i)
      for (Index f = 1; f < width_; ++f)
        all(i, f) = static_cast<T>(deviation *
                                   detail::normal_at(options.seed, 0, i * options.factors + f - 1));
  }

  /// Columns of x.
  Index dim() const { return dim_; }

  /// [dim x (1 + factors)]: w_i, then v_i.
  TensorView<T, 2> weights() {
    return detail::matrix_of(parameters_.values(0, dim_ * width_), width_);
  }
  /// \overload
  TensorView<const T, 2> weights() const {
    return detail::matrix_of(parameters_.values(0, dim_ * width_), width_);
  }
  /// The weights by rows, then the bias.
  std::span<T> parameters() { return parameters_.values(); }
  /// The sums that `step` takes, in the order of `parameters`.
  std::span<const T> gradients() const { return parameters_.gradients(); }

  /// The logits of x.
  /// \param backend left out: pare::simd; the reference sums in double
  /// \param x       [rows x dim], which must live until the last pass back
  /// \param logits  [rows] written, apart from x
  /// \throws std::invalid_argument if shapes do not fit, or x is contiguous in no direction
  template <Backend B>
  void forward(const B& backend, TensorView<const T, 2> x, std::span<T> logits) {
    detail::check_forward("feature::FactorizationMachine::forward", x, dim_, logits);
    x_ = x;
    if (state_.rows() != x.rows()) state_.resize(x.rows(), width_);
    enter(backend, x, to_view(state_));
    leave(as_const(to_view(state_)), logits);
  }
  /// \overload
  void forward(TensorView<const T, 2> x, std::span<T> logits) { forward(simd, x, logits); }

  /// Adds dL/d(parameters) of the last forward to the sums.
  /// \param backend     as of forward
  /// \param grad_logits [rows] dL/d(logits)
  /// \throws std::invalid_argument unless there is a number for each row of the last forward
  template <Backend B>
  void backward(const B& backend, std::span<const T> grad_logits) {
    detail::check_rows("feature::FactorizationMachine::backward", x_, dim_, grad_logits.size());
    set_delta(grad_logits);
    const TensorView<T, 2> gradients =
        detail::matrix_of(parameters_.gradients(0, dim_ * width_), width_);
    linalg::multiply(keeping(backend, workspace_), transpose(x_), as_const(to_view(delta_)),
                     gradients, {.accumulate = true});
    const std::vector<double> squares = detail::weighted_column_squares(x_, grad_logits);
    for (Index i = 0; i < dim_; ++i)
      for (Index f = 1; f < width_; ++f)
        gradients(i, f) -= weights()(i, f) * static_cast<T>(squares[static_cast<std::size_t>(i)]);
    double sum = 0;
    for (const T g : grad_logits) sum += static_cast<double>(g);
    parameters_.gradients(dim_ * width_, 1)[0] += static_cast<T>(sum);
  }
  /// \overload
  void backward(std::span<const T> grad_logits) { backward(simd, grad_logits); }

  /// Writes dL/dx of the last forward; the sums stay.
  /// \param backend     as of forward
  /// \param grad_logits [rows] dL/d(logits)
  /// \param grad_x      [rows x dim] written, apart from x
  /// \throws std::invalid_argument unless sizes are those of the last forward
  template <Backend B>
  void input_gradient(const B& backend, std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    constexpr const char* function = "feature::FactorizationMachine::input_gradient";
    detail::check_input_gradient(function, x_.rows(), dim_, grad_logits, grad_x);
    check_no_overlap(function, "grad_x", grad_x, "x", x_);
    set_delta(grad_logits);
    linalg::multiply(keeping(backend, workspace_), as_const(to_view(delta_)),
                     transpose(std::as_const(*this).weights()), grad_x);
    for (Index b = 0; b < grad_x.rows(); ++b)
      for (Index i = 0; i < dim_; ++i)
        grad_x(b, i) -= T(2) * grad_logits[static_cast<std::size_t>(b)] *
                        half_norms_[static_cast<std::size_t>(i)] * x_(b, i);
  }
  /// \overload
  void input_gradient(std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    input_gradient(simd, grad_logits, grad_x);
  }

  /// One step of Adam with the sums, which start at 0 again.
  void step() { parameters_.step(); }

  // IncrementalModel: the state is x w - 1/2 sum_i |v_i|^2 x_i^2, then x v.
  Index state_width() const { return width_; }
  template <Backend B>
  void enter(const B& backend, TensorView<const T, 2> x, TensorView<T, 2> state) {
    constexpr const char* function = "feature::FactorizationMachine::enter";
    detail::check_rows(function, x, dim_, static_cast<std::size_t>(x.rows()));
    detail::check_state(function, state, x.rows(), width_);
    const TensorView<const T, 2> all = std::as_const(*this).weights();
    for (Index i = 0; i < dim_; ++i) half_norms_[static_cast<std::size_t>(i)] = half_norm(i);
    detail::multiply_input(keeping(backend, workspace_), x, all, state, turned_);
    detail::subtract_weighted_row_squares(x, std::span<const T>(half_norms_), state);
  }
  void enter(TensorView<const T, 2> x, TensorView<T, 2> state) { enter(simd, x, state); }
  void replace(Index offset, TensorView<const T, 2> before, TensorView<const T, 2> after,
               TensorView<T, 2> state) const {
    constexpr const char* function = "feature::FactorizationMachine::replace";
    detail::check_state(function, state, state.rows(), width_);
    detail::check_replaced(function, dim_, offset, before, after, state.rows());
    const Index columns = before.cols();
    detail::move_state(
        before, after,
        detail::matrix_of(parameters_.values(offset * width_, columns * width_), width_), state);
    for (Index b = 0; b < state.rows(); ++b)
      for (Index k = 0; k < columns; ++k)
        state(b, 0) += half_norms_[static_cast<std::size_t>(offset + k)] *
                       (before(b, k) * before(b, k) - after(b, k) * after(b, k));
  }
  void leave(TensorView<const T, 2> state, std::span<T> logits) const {
    detail::check_state("feature::FactorizationMachine::leave", state,
                        static_cast<Index>(logits.size()), width_);
    const T bias = parameters_.values(dim_ * width_, 1)[0];
    for (std::size_t b = 0; b < logits.size(); ++b) {
      const T* row = &state(static_cast<Index>(b), 0);
      T squares = 0;
      for (Index f = 1; f < width_; ++f) squares += row[f] * row[f];
      logits[b] = bias + row[0] + squares / T(2);
    }
  }

 private:
  T half_norm(Index i) const {
    const TensorView<const T, 2> all = weights();
    T sum = 0;
    for (Index f = 1; f < width_; ++f) sum += all(i, f) * all(i, f);
    return sum / T(2);
  }

  /// dL/d(state): g, then g x v.
  void set_delta(std::span<const T> grad_logits) {
    delta_.resize(state_.rows(), width_);
    for (Index b = 0; b < delta_.rows(); ++b) {
      const T g = grad_logits[static_cast<std::size_t>(b)];
      delta_(b, 0) = g;
      for (Index f = 1; f < width_; ++f) delta_(b, f) = g * state_(b, f);
    }
  }

  Index dim_;
  detail::Parameters<T> parameters_;
  Index width_;
  std::vector<T> half_norms_;  ///< |v_i|^2 / 2 as of the last `enter`
  TensorView<const T, 2> x_{};
  RowMatrix<T> state_, delta_, turned_;
  Workspace workspace_;
};

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
