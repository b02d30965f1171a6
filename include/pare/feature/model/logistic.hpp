// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Logistic regression as a model of the scorers: logit = bias + x w.
///
/// ```cpp
/// Logistic<float> model(dim, {.adam = {.learning_rate = 1e-2}});
/// model.forward(as_const(to_view(x)), logits);         // x [rows x dim], logits [rows]
/// logistic_gradient<float>(logits, labels, slopes);    // model.hpp
/// model.backward(slopes);
/// model.step();
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/feature/model/detail/first_layer.hpp>
#include <pare/feature/model/model.hpp>

#include <cstdint>
#include <span>
#include <type_traits>

namespace pare::feature {

/// Options of Logistic.
struct LogisticOptions {
  optim::AdamOptions adam{};
};

PARE_ABI_BEGIN

/// Logistic regression: a Model, an IncrementalModel (model.hpp) and a FirstLayerModel
/// (group_lasso.hpp). Weights and bias start at 0. Cost of a pass: 2 rows dim FLOPs; reading x
/// binds.
///
/// \tparam T float or double
template <ComputeScalar T>
class Logistic {
 public:
  using scalar = T;

  /// \throws std::invalid_argument if dim is below 1 or an option is out of its range
  explicit Logistic(Index dim, const LogisticOptions& options = {})
      : dim_((detail::check_dim("feature::Logistic", dim), dim)),
        parameters_(checked_count("feature::Logistic", "dim",
                                  checked_sum("feature::Logistic", "dim", dim, 1), sizeof(double)),
                    options.adam) {}

  /// Columns of x.
  Index dim() const { return dim_; }

  /// [dim] w.
  std::span<T> weights() { return parameters_.values(0, dim_); }
  /// \overload
  std::span<const T> weights() const { return parameters_.values(0, dim_); }
  /// [dim x 1] the same.
  TensorView<T, 2> first_weights() { return detail::column_of(weights()); }
  /// w, then the bias.
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
    detail::check_forward("feature::Logistic::forward", x, dim_, logits);
    x_ = x;
    enter(backend, x, detail::column_of(logits));
    leave(as_const(detail::column_of(logits)), logits);
  }
  /// \overload
  void forward(TensorView<const T, 2> x, std::span<T> logits) { forward(simd, x, logits); }

  /// Adds dL/d(parameters) of the last forward to the sums.
  /// \param backend     as of forward
  /// \param grad_logits [rows] dL/d(logits)
  /// \throws std::invalid_argument unless there is a number for each row of the last forward
  template <Backend B>
  void backward(const B& backend, std::span<const T> grad_logits) {
    detail::check_rows("feature::Logistic::backward", x_, dim_, grad_logits.size());
    linalg::multiply(keeping(backend, workspace_), transpose(x_), detail::column_of(grad_logits),
                     detail::column_of(parameters_.gradients(0, dim_)), {.accumulate = true});
    double sum = 0;
    for (const T g : grad_logits) sum += static_cast<double>(g);
    parameters_.gradients(dim_, 1)[0] += static_cast<T>(sum);
  }
  /// \overload
  void backward(std::span<const T> grad_logits) { backward(simd, grad_logits); }

  /// Writes dL/dx of the last forward; the sums stay.
  /// \param backend     as of forward
  /// \param grad_logits [rows] dL/d(logits)
  /// \param grad_x      [rows x dim] written
  /// \throws std::invalid_argument unless sizes are those of the last forward
  template <Backend B>
  void input_gradient(const B& backend, std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    constexpr const char* function = "feature::Logistic::input_gradient";
    detail::check_input_gradient(function, x_.rows(), dim_, grad_logits, grad_x);
    const std::span<const T> w = std::as_const(*this).weights();
    linalg::multiply(keeping(backend, workspace_), detail::column_of(grad_logits),
                     transpose(detail::column_of(w)), grad_x);
  }
  /// \overload
  void input_gradient(std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    input_gradient(simd, grad_logits, grad_x);
  }

  /// One step of Adam with the sums, which start at 0 again.
  void step() { parameters_.step(); }

  // IncrementalModel: the state is x w.
  Index state_width() const { return 1; }
  template <Backend B>
  void enter(const B& backend, TensorView<const T, 2> x, TensorView<T, 2> state) {
    constexpr const char* function = "feature::Logistic::enter";
    detail::check_rows(function, x, dim_, static_cast<std::size_t>(x.rows()));
    detail::check_state(function, state, x.rows(), 1);
    const std::span<const T> w = std::as_const(*this).weights();
    linalg::multiply(keeping(backend, workspace_), x, detail::column_of(w), state);
  }
  void enter(TensorView<const T, 2> x, TensorView<T, 2> state) { enter(simd, x, state); }
  void replace(Index offset, TensorView<const T, 2> before, TensorView<const T, 2> after,
               TensorView<T, 2> state) const {
    constexpr const char* function = "feature::Logistic::replace";
    detail::check_state(function, state, state.rows(), 1);
    detail::check_replaced(function, dim_, offset, before, after, state.rows());
    detail::move_state(before, after, detail::column_of(parameters_.values(offset, before.cols())),
                       state);
  }
  void leave(TensorView<const T, 2> state, std::span<T> logits) const {
    detail::check_state("feature::Logistic::leave", state, static_cast<Index>(logits.size()), 1);
    const T bias = parameters_.values(dim_, 1)[0];
    for (std::size_t b = 0; b < logits.size(); ++b)
      logits[b] = state(static_cast<Index>(b), 0) + bias;
  }

 private:
  Index dim_;
  detail::Parameters<T> parameters_;
  TensorView<const T, 2> x_{};
  Workspace workspace_;
};

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
