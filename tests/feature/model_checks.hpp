// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What every model of the scorers must do: gradients that are those of differences, state that
/// follows a replaced column, and passes that a storage order does not change.

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace pare::testing {

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Rows<T> normal_rows(Index rows, Index cols, std::uint64_t seed) {
  Engine random(seed);
  Rows<T> m(rows, cols);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) m(i, j) = static_cast<T>(normal(random));
  return m;
}

/// A model whose passes run on a backend.
template <class M, class B>
class OnBackend : public M {
 public:
  using T = typename M::scalar;

  template <class... A>
  explicit OnBackend(const B& backend, const A&... arguments)
      : M(arguments...), backend_(backend) {}

  void forward(TensorView<const T, 2> x, std::span<T> logits) { on().forward(x, logits); }
  void backward(std::span<const T> grad_logits) { on().backward(grad_logits); }
  void input_gradient(std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    on().input_gradient(grad_logits, grad_x);
  }
  void enter(TensorView<const T, 2> x, TensorView<T, 2> state) { on().enter(x, state); }
  void leave(TensorView<const T, 2> state, std::span<T> logits) { on().leave(state, logits); }

 private:
  feature::detail::ModelOn<B, M> on() { return {backend_, *this}; }

  B backend_;
};

/// Different numbers in every parameter, so that none is at a start that hides it.
template <class M>
void scatter_parameters(M& model, std::uint64_t seed) {
  Engine random(seed);
  for (auto& p : model.parameters()) p = static_cast<typename M::scalar>(0.5 * normal(random));
}

/// sum_b weights_b logit_b: what the gradients below are of.
template <class M, class T>
double weighted_logits(M& model, const Rows<T>& x, std::span<const T> weights) {
  std::vector<T> logits(weights.size());
  model.forward(as_const(to_view(x)), logits);
  double sum = 0;
  for (std::size_t b = 0; b < logits.size(); ++b)
    sum += static_cast<double>(weights[b]) * static_cast<double>(logits[b]);
  return sum;
}

/// d/dp of weighted_logits by a central difference; `p` is one of the parameters or of x.
template <class M, class T>
double difference(M& model, const Rows<T>& x, std::span<const T> weights, T& p, double step) {
  const T at = p;
  p = static_cast<T>(static_cast<double>(at) + step);
  const double above = weighted_logits(model, x, weights), to = static_cast<double>(p);
  p = static_cast<T>(static_cast<double>(at) - step);
  const double below = weighted_logits(model, x, weights), from = static_cast<double>(p);
  p = at;
  return (above - below) / (to - from);
}

/// In double the models are linear or quadratic in one parameter but at a kink, so that a central
/// difference is off by rounding only: 2 u |logits| / step for a pass of some hundred operations.
template <class T>
constexpr double difference_step = 1e-3;
template <class T>
constexpr double difference_bound = std::is_same_v<T, double> ? 1e-9 : 1e-2;

template <class M>
void expect_gradients(M& model, Index rows, std::uint64_t seed) {
  using T = typename M::scalar;
  Rows<T> x = normal_rows<T>(rows, model.dim(), seed);
  const Rows<T> w = normal_rows<T>(rows, 1, seed + 1);
  const std::span<const T> weights(w.data(), static_cast<std::size_t>(rows));
  scatter_parameters(model, seed + 2);
  weighted_logits(model, x, weights);
  model.backward(weights);
  const std::vector<T> gradients(model.gradients().begin(), model.gradients().end());
  const std::span<T> parameters = model.parameters();
  ASSERT_EQ(gradients.size(), parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i)
    EXPECT_NEAR(static_cast<double>(gradients[i]),
                (difference<M, T>(model, x, weights, parameters[i], difference_step<T>)),
                difference_bound<T>)
        << "parameter " << i;
  Rows<T> grad_x = Rows<T>::Constant(rows, model.dim(), T(7));
  weighted_logits(model, x, weights);
  model.input_gradient(weights, to_view(grad_x));
  for (Index b = 0; b < rows; ++b)
    for (Index i = 0; i < model.dim(); ++i)
      EXPECT_NEAR(static_cast<double>(grad_x(b, i)),
                  (difference<M, T>(model, x, weights, x(b, i), difference_step<T>)),
                  difference_bound<T>)
          << "x " << b << ' ' << i;
  EXPECT_TRUE(std::equal(gradients.begin(), gradients.end(), model.gradients().begin()))
      << "input_gradient or forward moved the sums";
  weighted_logits(model, x, weights);
  model.backward(weights);
  for (std::size_t i = 0; i < gradients.size(); ++i)
    EXPECT_TRUE(within(static_cast<double>(model.gradients()[i]),
                       2 * static_cast<double>(gradients[i]), difference_bound<T>))
        << "gradients do not add up at " << i;
  model.step();
  for (const T g : model.gradients()) EXPECT_EQ(g, T(0));
}

/// The first step of Adam moves each parameter by the rate against the sign of its gradient.
template <class M>
void expect_adam_step(M& model, double rate, std::uint64_t seed) {
  using T = typename M::scalar;
  const Rows<T> x = normal_rows<T>(9, model.dim(), seed);
  const std::vector<T> weights(9, T(1));
  scatter_parameters(model, seed);
  weighted_logits<M, T>(model, x, weights);
  model.backward(weights);
  const std::vector<T> gradients(model.gradients().begin(), model.gradients().end());
  const std::vector<T> before(model.parameters().begin(), model.parameters().end());
  model.step();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double moved =
        static_cast<double>(model.parameters()[i]) - static_cast<double>(before[i]);
    const double wanted = gradients[i] > T(0) ? -rate : gradients[i] < T(0) ? rate : 0;
    // epsilon of Adam beside a gradient of 1e-3 and more, and the rounding of the parameter.
    if (std::abs(static_cast<double>(gradients[i])) > 1e-3) {
      EXPECT_NEAR(moved, wanted, rate * 2e-5 + 4 * std::numeric_limits<T>::epsilon()) << i;
    }
  }
}

/// Logits of column-major rows and of rows with a stride are those of plain ones.
template <class M>
void expect_storage_does_not_matter(M& model, std::uint64_t seed) {
  using T = typename M::scalar;
  const Rows<T> x = normal_rows<T>(33, model.dim(), seed);
  scatter_parameters(model, seed);
  const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> columns = x;
  Rows<T> wide = Rows<T>::Constant(33, model.dim() + 5, std::numeric_limits<T>::quiet_NaN());
  wide.leftCols(model.dim()) = x;
  std::vector<T> plain(33), other(33);
  model.forward(as_const(to_view(x)), plain);
  const auto close = [&] {
    for (std::size_t b = 0; b < plain.size(); ++b)
      EXPECT_TRUE(within(static_cast<double>(other[b]), static_cast<double>(plain[b]),
                         1e3 * Tolerance<T>::unit_roundoff * (1 + std::abs(plain[b]))));
  };
  model.forward(as_const(to_view(columns)), other);
  close();
  auto block = wide.leftCols(model.dim());
  model.forward(as_const(to_view(block)), other);
  close();
  // And the gradient can be written by columns.
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> by_columns(33, model.dim());
  Rows<T> by_rows(33, model.dim());
  model.input_gradient(plain, to_view(by_columns));
  model.input_gradient(plain, to_view(by_rows));
  EXPECT_LE((by_columns - by_rows).cwiseAbs().maxCoeff(),
            1e3 * Tolerance<T>::unit_roundoff * (1 + by_rows.cwiseAbs().maxCoeff()));
}

/// enter, replace, leave give the logits of the changed rows.
template <class M>
void expect_increments(M& model, std::uint64_t seed) {
  using T = typename M::scalar;
  const Index dim = model.dim(), rows = 19;
  const Rows<T> x = normal_rows<T>(rows, dim, seed), other = normal_rows<T>(rows, dim, seed + 1);
  scatter_parameters(model, seed);
  for (const Index width : {Index{1}, dim / 2}) {
    const Index offset = dim - width;
    Rows<T> changed = x;
    changed.rightCols(width) = other.rightCols(width);
    std::vector<T> wanted(static_cast<std::size_t>(rows)), got = wanted;
    model.forward(as_const(to_view(changed)), wanted);
    Rows<T> state(rows, model.state_width());
    model.enter(as_const(to_view(x)), to_view(state));
    const auto before = x.rightCols(width), after = other.rightCols(width);
    model.replace(offset, as_const(to_view(before)), as_const(to_view(after)), to_view(state));
    model.leave(as_const(to_view(state)), got);
    for (std::size_t b = 0; b < got.size(); ++b)
      EXPECT_TRUE(within(static_cast<double>(got[b]), static_cast<double>(wanted[b]),
                         1e3 * Tolerance<T>::unit_roundoff * (1 + std::abs(wanted[b]))))
          << b;
  }
}

template <class M>
void expect_refusals(M& model, const std::string& name) {
  using T = typename M::scalar;
  const Rows<T> x = normal_rows<T>(4, model.dim(), 1),
                wrong = normal_rows<T>(4, model.dim() + 1, 1);
  std::vector<T> logits(4, T(5)), few(3, T(5));
  refusal([&] { model.forward(as_const(to_view(wrong)), logits); }, name + "::forward", "x");
  refusal([&] { model.forward(as_const(to_view(x)), few); }, name + "::forward", "logits");
  for (const T z : logits) EXPECT_EQ(z, T(5));
  model.forward(as_const(to_view(x)), logits);
  refusal([&] { model.backward(few); }, name + "::backward", "logits");
  Rows<T> grad(4, model.dim() + 1);
  refusal([&] { model.input_gradient(logits, to_view(grad)); }, name + "::input_gradient",
          "grad_x");
  const TensorView<const T, 2> nothing{nullptr, {4, model.dim()}, {model.dim(), 1}};
  refusal([&] { model.forward(nothing, logits); }, name + "::forward", "x");
  model.forward(as_const(to_view(x)), logits);
  refusal(
      [&] {
        model.input_gradient(logits, TensorView<T, 2>{grad.data(), {4, model.dim()}, {0, 1}});
      },
      name + "::input_gradient", "grad_x");
  // Outputs over inputs, of which one would be read after it is written.
  std::vector<T> memory(4 * static_cast<std::size_t>(model.dim()), T(5));
  const TensorView<T, 2> over{memory.data(), {4, model.dim()}, {model.dim(), 1}};
  refusal([&] { model.forward(as_const(over), std::span(memory).first(4)); }, name + "::forward",
          "logits");
  refusal([&] { model.input_gradient(std::span<const T>(memory).last(4), over); },
          name + "::input_gradient", "grad_x");
  for (const T z : memory) EXPECT_EQ(z, T(5));
}

/// States, columns and lists of other sizes.
template <class M>
void expect_increment_refusals(M& model, const std::string& name) {
  using T = typename M::scalar;
  const Index dim = model.dim(), width = model.state_width();
  const Rows<T> x = normal_rows<T>(4, dim, 1);
  Rows<T> state = Rows<T>::Constant(4, width, T(5)), few = state.topRows(3), wide(4, width + 1);
  const auto columns = [&](Index count) {
    return TensorView<const T, 2>{x.data(), {4, count}, {count <= dim ? dim : 0, 1}};
  };
  const auto whole = as_const(to_view(x));
  const auto replace = [&](Index offset, auto before, auto after, Rows<T>& to, const char* what) {
    refusal([&] { model.replace(offset, before, after, to_view(to)); }, name + "::replace", what);
  };
  refusal([&] { model.enter(whole, to_view(few)); }, name + "::enter", "state");
  refusal([&] { model.enter(whole, to_view(wide)); }, name + "::enter", "state");
  refusal([&] { model.enter(columns(dim - 1), to_view(state)); }, name + "::enter", "x");
  replace(dim, columns(1), columns(1), state, "offset");
  replace(-1, columns(1), columns(1), state, "offset");
  replace(dim - 1, columns(2), columns(2), state, "offset");
  replace(0, columns(dim + 1), columns(dim + 1), state, "before");
  replace(0, columns(1), columns(2), state, "after");
  replace(0, columns(1), columns(1), few, "before");
  replace(0, columns(1), columns(1), wide, "state");
  std::vector<T> logits(4, T(5)), more(5);
  refusal([&] { model.leave(as_const(to_view(state)), more); }, name + "::leave", "state");
  refusal([&] { model.leave(as_const(to_view(wide)), logits); }, name + "::leave", "state");
  EXPECT_TRUE((state.array() == T(5)).all());
  EXPECT_EQ(logits, std::vector<T>(4, T(5)));
}

/// Two models after the same steps, bit for bit.
template <class M, class N>
void expect_same_bits_after_steps(M& a, N& b, std::uint64_t seed) {
  using T = typename M::scalar;
  const Rows<T> x = normal_rows<T>(401, a.dim(), seed);
  std::vector<T> of_a(401), of_b(401);
  for (int step = 0; step < 3; ++step) {
    a.forward(as_const(to_view(x)), of_a);
    b.forward(as_const(to_view(x)), of_b);
    for (std::size_t i = 0; i < of_a.size(); ++i) ASSERT_TRUE(same_bits(of_a[i], of_b[i])) << i;
    a.backward(of_a);
    b.backward(of_b);
    a.step();
    b.step();
  }
}

}  // namespace pare::testing
