// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Training of nested factors by ordered dropout (LoD, Maestro): each step runs a layer with its
/// first b units, so that the first units learn what matters most.
///
/// ```cpp
/// const OrderedDropout dropout{.ranks = {64, 128}, .seed = 7};
/// NestedTraining<float> layer(nested(w), {.lasso = 1e-6});
/// for (Index step = 0; step < steps; ++step) {
///   const auto widths = dropout.widths(step);
///   ...                                                 // the model's forward and backward pass
///   layer.step(pare::simd, x, upstream, widths[0]);     // y = x V_b U_b^T, dL/dy = upstream
/// }
/// layer.step(pare::simd, w);                            // or: the mean over all b, exactly
/// const auto thin = shrink(layer.factors(), 1e-5);      // no singular values, no bound
/// ```
///
/// nested_gradients.hpp has the losses. Source: Horvath, Laskaridis, Rajput and Wang, Maestro, ICML
/// 2024, arXiv 2308.14929, sections 3.1 to 3.4. Ours: Adam as the optimiser.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/structured/nested_gradients.hpp>
#include <pare/factor/structured/ordered_dropout.hpp>
#include <pare/optim/adam.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <utility>

namespace pare::factor {

/// Options of NestedTraining.
struct NestedTrainingOptions {
  double lasso = 0;  ///< lambda of the hierarchical group lasso, at least 0; the authors' script
                     ///< has 1e-6, their code 5e-3 where nothing is said
  optim::AdamOptions adam{};
};

PARE_ABI_BEGIN

/// The factors of a layer in training.
template <ComputeScalar T>
class NestedTraining {
 public:
  /// Starts from factors, such as those of `nested`.
  /// \throws std::invalid_argument if they are empty or do not fit, or an option is out of its
  /// range
  explicit NestedTraining(LowRank<T> factors, const NestedTrainingOptions& options = {})
      : factors_(checked(std::move(factors), options)),
        options_(options),
        left_(factors_.left.size(), options.adam),
        right_(factors_.right.size(), options.adam) {}

  /// Left and right as they are now. From the first step on nothing is known of their error: there
  /// are no singular values, and `error_bound` and error() are infinite.
  const LowRank<T>& factors() const { return factors_; }
  Index rank() const { return factors_.rank(); }

  /// Sets the rate of the steps that follow, for a schedule.
  /// \throws std::invalid_argument unless it is above 0
  void set_learning_rate(double rate) {
    left_.set_learning_rate(rate);
    right_.set_learning_rate(rate);
  }

  /// A step on the mean over all widths, for targets W x with x of covariance C (left out: I).
  /// \return the loss before the step, the lasso included
  /// \throws std::invalid_argument as nested_gradients, or if a gradient is not finite in T.
  ///         Nothing has changed then
  template <Backend B, In<2> W, In<2>... C>
  double step(const B& backend, const W& w, const C&... covariance) {
    static_assert(sizeof...(C) <= 1, "pare: step(backend, w) or step(backend, w, covariance)");
    return move(nested_gradients(backend, w, factors_.left, factors_.right, covariance...));
  }

  /// A step on the loss of a model, from its gradient where this layer ran with `units` units.
  /// \return the lasso before the step
  /// \throws std::invalid_argument as nested_gradients, or if a gradient is not finite in T.
  ///         Nothing has changed then
  template <Backend B, In<2> X, In<2> Y>
  double step(const B& backend, const X& x, const Y& upstream, Index units) {
    return move(nested_gradients(backend, factors_.left, factors_.right, x, upstream, units));
  }

 private:
  static LowRank<T> checked(LowRank<T> factors, const NestedTrainingOptions& options) {
    constexpr const char* function = "factor::NestedTraining";
    detail::check_nested_factors(function, const_view(factors.left), const_view(factors.right));
    check(is_finite(options.lasso) && options.lasso >= 0, function, "lasso", options.lasso,
          "a finite number of at least 0");
    optim::validate(function, options.adam);
    return factors;
  }

  double move(NestedGradients gradients) {
    if (options_.lasso > 0)
      gradients.loss +=
          hierarchical_lasso(factors_.left, factors_.right, options_.lasso, gradients);
    const RowMatrix<T> left = row_matrix<T>(const_view(gradients.left));
    const RowMatrix<T> right = row_matrix<T>(const_view(gradients.right));
    detail::check_finite("factor::NestedTraining::step", "gradient", const_view(left));
    detail::check_finite("factor::NestedTraining::step", "gradient", const_view(right));
    advance(left_, left, factors_.left);
    advance(right_, right, factors_.right);
    forget_errors();
    return gradients.loss;
  }

  /// What the start said of singular values and errors.
  void forget_errors() {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    factors_.singular_values.resize(0);
    factors_.captured_energy = 0;
    factors_.total_energy = factors_.error_bound = infinity;
    factors_.measured_error.reset();
  }

  static void advance(optim::Adam<T>& adam, const RowMatrix<T>& gradient,
                      RowMatrix<T>& parameters) {
    const auto size = static_cast<std::size_t>(parameters.size());
    adam.step(std::span<T>(parameters.data(), size), std::span<const T>(gradient.data(), size));
  }

  LowRank<T> factors_;
  NestedTrainingOptions options_;
  optim::Adam<T> left_, right_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
