// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A small multi-layer perceptron as a model of the scorers, with a linear path beside it (Wide &
/// Deep): logit = x w + W_L relu(... relu(x W_0 + b_0) ...) + b_L.
///
/// ```cpp
/// Mlp<float> model(layout.dim(), {.hidden = {64, 32}, .seed = 7});
/// Leap<float> leap(layout);
/// train_leap(model, leap, x, labels, x_held_out, labels_held_out);   // trains the model too
/// model.forward(as_const(to_view(x)), logits);                       // [rows]
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/feature/model/detail/first_layer.hpp>
#include <pare/feature/model/model.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::feature {

PARE_ABI_BEGIN

/// Options of Mlp.
struct MlpOptions {
  std::vector<Index> hidden{32};  ///< widths of the hidden layers; empty: the linear path alone
  bool wide = true;               ///< with the linear path
  std::uint64_t seed = 0;         ///< of the weights at the start
  optim::AdamOptions adam{};
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Where the parameters of an Mlp lie in their list.
struct MlpPlaces {
  Index dim = 0;
  std::vector<Index> hidden;         ///< widths
  std::vector<Index> bias, weights;  ///< of a hidden layer, and from it to the next
  Index state_width = 0;             ///< columns of W_0, which lies at 0
  Index output_bias = 0;

  Index size() const { return output_bias + 1; }
  Index outputs(std::size_t layer) const {
    return layer + 1 < hidden.size() ? hidden[layer + 1] : 1;
  }
};

inline void validate(const char* function, Index dim, const MlpOptions& options) {
  check_dim(function, dim);
  check(options.wide || !options.hidden.empty(), function, "hidden", "no layer",
        "at least one without the linear path");
  for (const Index width : options.hidden)
    check(width >= 1, function, "hidden", width, "widths of at least 1");
}

inline MlpPlaces places_of(const char* function, Index dim, const MlpOptions& options) {
  validate(function, dim, options);
  MlpPlaces places{.dim = dim, .hidden = options.hidden, .bias = {}, .weights = {}};
  places.state_width = checked_sum(
      function, "hidden", options.hidden.empty() ? 0 : options.hidden.front(), options.wide);
  Index end = checked_product(function, "dim", dim, places.state_width);
  for (std::size_t layer = 0; layer < places.hidden.size(); ++layer) {
    const Index width = places.hidden[layer];
    places.bias.push_back(end);
    places.weights.push_back(checked_sum(function, "hidden", end, width));
    end = checked_sum(function, "hidden", places.weights.back(),
                      checked_product(function, "hidden", width, places.outputs(layer)));
  }
  checked_count(function, "hidden", checked_sum(function, "hidden", end, 1), sizeof(double));
  places.output_bias = end;
  return places;
}

/// relu(z + bias) in the columns that have a bias; the linear path behind them stays.
template <class T>
struct Activate {
  std::span<const T> bias;
  T operator()(Index row, Index column, T z) const {
    if (column >= static_cast<Index>(bias.size())) return z;
    return linalg::Then{linalg::AddBias<T>{bias.data()}, linalg::Relu{}}(row, column, z);
  }
};

template <class T>
void add_column_sums(TensorView<const T, 2> m, std::span<T> sums) {
  std::vector<double> total(sums.size());
  for (Index b = 0; b < m.rows(); ++b)
    for (std::size_t h = 0; h < total.size(); ++h)
      total[h] += static_cast<double>(m(b, static_cast<Index>(h)));
  for (std::size_t h = 0; h < total.size(); ++h) sums[h] += static_cast<T>(total[h]);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The perceptron: a Model and an IncrementalModel (model.hpp), and a FirstLayerModel
/// (group_lasso.hpp). Weights start normal with deviation sqrt(2 / inputs) (He et al., ICCV 2015),
/// those of the linear path and biases at 0. Cost of a pass forward: 2 rows dim (hidden[0] + wide)
/// FLOPs and the small layers behind; `backward` and `input_gradient` each as much again.
///
/// \tparam T float or double
template <ComputeScalar T>
class Mlp {
 public:
  using scalar = T;

  /// \throws std::invalid_argument if a width is below 1, there is neither a hidden layer nor the
  ///         linear path, or an option is out of its range
  explicit Mlp(Index dim, const MlpOptions& options = {})
      : places_(detail::places_of("feature::Mlp", dim, options)),
        parameters_(places_.size(), options.adam),
        states_(std::max<std::size_t>(layers(), 1)),
        deltas_(states_.size()) {
    initialize(options.seed);
  }

  /// Columns of x.
  Index dim() const { return places_.dim; }

  /// W_0 [dim x state_width()]: the hidden units of the first layer, then the linear path.
  TensorView<T, 2> first_weights() {
    return detail::matrix_of(parameters_.values(0, dim() * state_width()), state_width());
  }
  /// \overload
  TensorView<const T, 2> first_weights() const {
    return detail::matrix_of(parameters_.values(0, dim() * state_width()), state_width());
  }
  /// All of them, W_0 first, by rows; then b_0, W_1, b_1, ...
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
    detail::check_forward("feature::Mlp::forward", x, dim(), logits);
    x_ = x;
    const TensorView<T, 2> state = resized(states_.front(), x.rows(), state_width());
    detail::multiply_input(keeping(backend, workspace_), x, std::as_const(*this).first_weights(),
                           state, turned_, activate_first());
    propagate(backend, state, logits);
  }
  /// \overload
  void forward(TensorView<const T, 2> x, std::span<T> logits) { forward(simd, x, logits); }

  /// Adds dL/d(parameters) of the last forward to the sums.
  /// \param backend     as of forward
  /// \param grad_logits [rows] dL/d(logits)
  /// \throws std::invalid_argument unless there is a number for each row of the last forward
  template <Backend B>
  void backward(const B& backend, std::span<const T> grad_logits) {
    detail::check_rows("feature::Mlp::backward", x_, dim(), grad_logits.size());
    descend(backend, grad_logits, true);
    linalg::multiply(
        keeping(backend, workspace_), transpose(x_), as_const(to_view(deltas_.front())),
        detail::matrix_of(parameters_.gradients(0, dim() * state_width()), state_width()),
        {.accumulate = true});
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
    constexpr const char* function = "feature::Mlp::input_gradient";
    detail::check_input_gradient(function, x_.rows(), dim(), grad_logits, grad_x);
    descend(backend, grad_logits, false);
    linalg::multiply(keeping(backend, workspace_), as_const(to_view(deltas_.front())),
                     transpose(std::as_const(*this).first_weights()), grad_x);
  }
  /// \overload
  void input_gradient(std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    input_gradient(simd, grad_logits, grad_x);
  }

  /// One step of Adam with the sums, which start at 0 again.
  void step() { parameters_.step(); }

  // IncrementalModel: the state is x W_0.
  Index state_width() const { return places_.state_width; }
  template <Backend B>
  void enter(const B& backend, TensorView<const T, 2> x, TensorView<T, 2> state) {
    constexpr const char* function = "feature::Mlp::enter";
    detail::check_rows(function, x, dim(), static_cast<std::size_t>(x.rows()));
    detail::check_state(function, state, x.rows(), state_width());
    detail::multiply_input(keeping(backend, workspace_), x, std::as_const(*this).first_weights(),
                           state, turned_);
  }
  void enter(TensorView<const T, 2> x, TensorView<T, 2> state) { enter(simd, x, state); }
  void replace(Index offset, TensorView<const T, 2> before, TensorView<const T, 2> after,
               TensorView<T, 2> state) const {
    constexpr const char* function = "feature::Mlp::replace";
    const Index width = state_width();
    detail::check_state(function, state, state.rows(), width);
    detail::check_replaced(function, dim(), offset, before, after, state.rows());
    detail::move_state(
        before, after,
        detail::matrix_of(parameters_.values(offset * width, before.cols() * width), width), state);
  }
  template <Backend B>
  void leave(const B& backend, TensorView<const T, 2> state, std::span<T> logits) {
    detail::check_state("feature::Mlp::leave", state, static_cast<Index>(logits.size()),
                        state_width());
    const TensorView<T, 2> own = resized(states_.front(), state.rows(), state_width());
    const detail::Activate<T> activate = activate_first();
    for (Index b = 0; b < state.rows(); ++b)
      for (Index s = 0; s < state_width(); ++s) own(b, s) = activate(b, s, state(b, s));
    propagate(backend, own, logits);
  }
  void leave(TensorView<const T, 2> state, std::span<T> logits) { leave(simd, state, logits); }

 private:
  using Matrix = RowMatrix<T>;

  std::size_t layers() const { return places_.hidden.size(); }
  bool is_wide() const { return layers() == 0 || state_width() > places_.hidden.front(); }

  std::span<const T> bias(std::size_t layer) const {
    return parameters_.values(places_.bias[layer], places_.hidden[layer]);
  }
  detail::Activate<T> activate_first() const {
    return {layers() == 0 ? std::span<const T>() : bias(0)};
  }
  Index weights_size(std::size_t layer) const {
    return places_.hidden[layer] * places_.outputs(layer);
  }
  /// From hidden layer `layer` to the next.
  TensorView<const T, 2> weights(std::size_t layer) const {
    return detail::matrix_of(parameters_.values(places_.weights[layer], weights_size(layer)),
                             places_.outputs(layer));
  }

  void initialize(std::uint64_t seed) {
    double deviation = std::sqrt(2.0 / static_cast<double>(dim()));
    const TensorView<T, 2> first = first_weights();
    const Index units = layers() == 0 ? 0 : places_.hidden.front();
    for (Index i = 0; i < dim(); ++i)
      for (Index h = 0; h < units; ++h)
        first(i, h) = static_cast<T>(deviation * detail::normal_at(seed, 0, i * units + h));
    for (std::size_t layer = 0; layer < layers(); ++layer) {
      deviation = std::sqrt(2.0 / static_cast<double>(places_.hidden[layer]));
      detail::fill_normal(parameters_.values(places_.weights[layer], weights_size(layer)),
                          deviation, seed, static_cast<std::uint32_t>(layer + 1));
    }
  }

  /// The first `columns` of a matrix that is made to have `rows` rows of `width`.
  static TensorView<T, 2> resized(Matrix& m, Index rows, Index width) {
    if (m.rows() != rows || m.cols() != width) m.resize(rows, width);
    return to_view(m);
  }
  /// The units of hidden layer `layer`, without the linear path.
  TensorView<T, 2> units(std::vector<Matrix>& matrices, std::size_t layer) {
    TensorView<T, 2> view = to_view(matrices[layer]);
    view.extent[1] = places_.hidden[layer];
    return view;
  }

  /// Logits of the activations of the first layer, beside which lies the linear path.
  template <Backend B>
  void propagate(const B& backend, TensorView<const T, 2> state, std::span<T> logits) {
    for (std::size_t layer = 0; layer < layers(); ++layer) {
      const TensorView<const T, 2> below = as_const(units(states_, layer));
      if (layer + 1 == layers())
        linalg::multiply(keeping(backend, workspace_), below, weights(layer),
                         detail::column_of(logits));
      else
        linalg::multiply(keeping(backend, workspace_), below, weights(layer),
                         resized(states_[layer + 1], state.rows(), places_.outputs(layer)), {},
                         detail::Activate<T>{bias(layer + 1)});
    }
    const T output_bias = parameters_.values(places_.output_bias, 1)[0];
    for (std::size_t b = 0; b < logits.size(); ++b) {
      const T deep = layers() == 0 ? T(0) : logits[b];
      const T wide = is_wide() ? state(static_cast<Index>(b), state_width() - 1) : T(0);
      logits[b] = deep + wide + output_bias;
    }
  }

  /// dL/d(x W_0) in deltas_.front(), and the gradients of all that lies behind where wanted.
  template <Backend B>
  void descend(const B& backend, std::span<const T> grad_logits, bool accumulate) {
    const Index rows = x_.rows();
    TensorView<const T, 2> above = detail::column_of(grad_logits);
    resized(deltas_.front(), rows, state_width());
    for (std::size_t layer = layers(); layer-- > 0;) {
      if (layer > 0) resized(deltas_[layer], rows, places_.hidden[layer]);
      const TensorView<const T, 2> activation = as_const(units(states_, layer));
      const TensorView<T, 2> delta = units(deltas_, layer);
      if (accumulate)
        linalg::multiply(
            keeping(backend, workspace_), transpose(activation), above,
            detail::matrix_of(parameters_.gradients(places_.weights[layer], weights_size(layer)),
                              places_.outputs(layer)),
            {.accumulate = true});
      // 0 where the activation was clipped.
      linalg::multiply(keeping(backend, workspace_), above, transpose(weights(layer)), delta, {},
                       [&](Index b, Index h, T d) { return activation(b, h) > T(0) ? d : T(0); });
      above = as_const(delta);
      if (accumulate)
        detail::add_column_sums(above,
                                parameters_.gradients(places_.bias[layer], places_.hidden[layer]));
    }
    if (is_wide())
      for (Index b = 0; b < rows; ++b)
        deltas_.front()(b, state_width() - 1) = grad_logits[static_cast<std::size_t>(b)];
    if (accumulate)
      detail::add_column_sums(detail::column_of(grad_logits),
                              parameters_.gradients(places_.output_bias, 1));
  }

  detail::MlpPlaces places_;
  detail::Parameters<T> parameters_;
  TensorView<const T, 2> x_{};
  std::vector<Matrix>
      states_;  ///< activations of the hidden layers; the first with the linear path
  std::vector<Matrix> deltas_;  ///< gradients of the same
  Matrix turned_;
  Workspace workspace_;
};

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
