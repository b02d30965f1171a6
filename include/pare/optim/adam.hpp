// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Adam, the optimiser of gates and of the built-in models.
///
/// ```cpp
/// std::vector<float> parameters(1000), gradients(1000);
/// Adam<float> adam(1000, {.learning_rate = 1e-2});
/// adam.step(parameters, gradients);           // all parameters
/// adam.step(parameters, gradients, active);   // those with active[i] != 0
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::optim {

/// Options of Adam; defaults of its authors, which LeAP's released code uses too.
struct AdamOptions {
  double learning_rate = 1e-3;  ///< above 0
  double beta1 = 0.9;           ///< decay of the mean gradient, in [0, 1)
  double beta2 = 0.999;         ///< decay of the mean squared gradient, in [0, 1)
  double epsilon = 1e-8;        ///< added to the root, above 0
};

PARE_ABI_BEGIN

/// Checks the options; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range
inline void validate(const char* function, const AdamOptions& o) {
  check(is_finite(o.learning_rate) && o.learning_rate > 0, function, "learning_rate",
        o.learning_rate, "a number above 0");
  check(o.beta1 >= 0 && o.beta1 < 1, function, "beta1", o.beta1, "a decay in [0, 1)");
  check(o.beta2 >= 0 && o.beta2 < 1, function, "beta2", o.beta2, "a decay in [0, 1)");
  check(is_finite(o.epsilon) && o.epsilon > 0, function, "epsilon", o.epsilon, "a number above 0");
}

PARE_ABI_END

namespace detail {

PARE_ABI_BEGIN

/// What Adam remembers. Means start at 0. A parameter that was left out of a step has done one step
/// less than the others.
template <class T>
struct AdamState {
  std::vector<T> mean, square;
  Index steps = 0;
  std::vector<Index> skipped;  ///< by parameter; empty until one was
};

/// The factors of step t: rate / (1 - b1^t) of the mean, 1 / (1 - b2^t) of the square.
struct AdamRates {
  double mean = 0;
  double square = 0;
};

inline AdamRates adam_rates(const AdamOptions& o, Index t) {
  const auto steps = static_cast<double>(t);
  return {o.learning_rate / (1 - std::pow(o.beta1, steps)), 1 / (1 - std::pow(o.beta2, steps))};
}

template <class T>
void adam_move(const AdamOptions& o, const AdamRates& rates, T gradient, T& mean, T& square,
               T& parameter) {
  const auto b1 = static_cast<T>(o.beta1), b2 = static_cast<T>(o.beta2);
  mean = b1 * mean + (T(1) - b1) * gradient;
  square = b2 * square + (T(1) - b2) * gradient * gradient;
  parameter -= static_cast<T>(rates.mean) * mean /
               (std::sqrt(static_cast<T>(rates.square) * square) + static_cast<T>(o.epsilon));
}

/// `active` is empty: all.
template <class T>
void adam_step(const AdamOptions& o, std::span<T> parameters, std::span<const T> gradients,
               std::span<const unsigned char> active, AdamState<T>& state) {
  ++state.steps;
  AdamRates rates = adam_rates(o, state.steps);
  if (active.empty() && state.skipped.empty()) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      adam_move(o, rates, gradients[i], state.mean[i], state.square[i], parameters[i]);
    return;
  }
  state.skipped.resize(parameters.size(), 0);
  Index last = state.steps;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!active.empty() && active[i] == 0) {
      ++state.skipped[i];
      continue;
    }
    const Index t = state.steps - state.skipped[i];
    if (t != last) rates = adam_rates(o, last = t);
    adam_move(o, rates, gradients[i], state.mean[i], state.square[i], parameters[i]);
  }
}

template <class T>
void check_adam_sizes(const char* function, const AdamState<T>& state, std::size_t parameters,
                      std::size_t gradients) {
  check(parameters == state.mean.size(), function, "parameters", parameters, state.mean.size());
  check(gradients == state.mean.size(), function, "gradients", gradients, state.mean.size());
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2,
/// p <- p - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon), for each of `size`
/// parameters.
///
/// Each parameter counts its own steps t. A parameter that is left out of a step (`active`) is as
/// if there had been no such step, bias correction included. Source: Kingma and Ba, "Adam: a method
/// for stochastic optimization", ICLR 2015, algorithm 1.
template <ComputeScalar T>
class Adam {
 public:
  /// For `size` parameters, whose two means start at 0. Memory: 2 size numbers of T.
  /// \throws std::invalid_argument if size is negative or an option is out of its range
  PARE_ALWAYS_INLINE explicit Adam(Index size, const AdamOptions& options = {})
      : options_(options) {
    check(size >= 0, "optim::Adam", "size", size, "at least 0");
    validate("optim::Adam", options);
    state_.mean.assign(static_cast<std::size_t>(size), T(0));
    state_.square.assign(static_cast<std::size_t>(size), T(0));
  }

  /// Number of parameters.
  Index size() const { return static_cast<Index>(state_.mean.size()); }
  /// Calls of step().
  Index steps() const { return state_.steps; }
  const AdamOptions& options() const { return options_; }

  /// Sets the rate of the steps that follow, for a schedule.
  /// \throws std::invalid_argument unless it is above 0
  PARE_ALWAYS_INLINE void set_learning_rate(double rate) {
    AdamOptions changed = options_;
    changed.learning_rate = rate;
    validate("optim::Adam::set_learning_rate", changed);
    options_ = changed;
  }

  /// One step of all parameters.
  /// \param parameters [size] changed
  /// \param gradients  [size]
  /// \throws std::invalid_argument if a size is another; nothing is changed then
  /// Cost: parameters, gradients and both means are read, all but the gradients written.
  PARE_ALWAYS_INLINE void step(std::span<T> parameters, std::span<const T> gradients) {
    detail::check_adam_sizes("optim::Adam::step", state_, parameters.size(), gradients.size());
    detail::adam_step(options_, parameters, gradients, {}, state_);
  }

  /// One step of the parameters with active[i] != 0; the others keep value, means and count to the
  /// bit (lazy Adam: a gate whose field was at its default in the whole batch learned nothing).
  /// From the first call on, one count per parameter is kept.
  /// \throws std::invalid_argument if a size is another; nothing is changed then
  PARE_ALWAYS_INLINE void step(std::span<T> parameters, std::span<const T> gradients,
                               std::span<const unsigned char> active) {
    constexpr const char* function = "optim::Adam::step";
    detail::check_adam_sizes(function, state_, parameters.size(), gradients.size());
    check(active.size() == parameters.size(), function, "active", active.size(), parameters.size());
    detail::adam_step(options_, parameters, gradients, active, state_);
  }

 private:
  AdamOptions options_;
  detail::AdamState<T> state_;
};

PARE_ABI_END

}  // namespace pare::optim

#include <pare/core/macros_on.hpp>
