// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a factorization is asked for, scaled so that squares stay within range.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/energy.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Weights over the power of four that brings the largest near 1, so that squares of their roots
/// stay within T.
struct NormalizedWeights {
  std::vector<double> values;
  int root_exponent = 0;  ///< the roots were divided by two to this

  NormalizedWeights() = default;
  explicit NormalizedWeights(std::span<const double> weights)
      : values(weights.begin(), weights.end()) {
    if (values.empty()) return;
    root_exponent = std::ilogb(*std::max_element(values.begin(), values.end())) / 2;
    for (double& value : values) value = std::ldexp(value, -2 * root_exponent);
  }
  bool empty() const { return values.empty(); }
};

/// The roots of weights, times a factor; none for no weights and no factor.
template <class T>
std::vector<T> weight_roots(const std::vector<double>& weights, Index size, double factor) {
  if (weights.empty() && factor == 1.0) return {};
  std::vector<T> roots(static_cast<std::size_t>(size), static_cast<T>(factor));
  for (std::size_t i = 0; i < weights.size(); ++i)
    roots[i] = static_cast<T>(factor * std::sqrt(weights[i]));
  return roots;
}

/// What a factorization is asked for, after its checks.
template <class B, class S>
struct FactorProblem {
  const char* function;
  const B& backend;
  TensorView<const S, 2> w;
  NormalizedWeights output_weights;
  NormalizedWeights input_weights;
  SvdOptions options;
  /// A power of two by which M is multiplied so that its squares stay within T.
  double factor = 1;
  /// By how many powers of two a covariance's root was divided.
  int covariance_exponent = 0;

  FactorProblem(const char* name, const B& b, TensorView<const S, 2> weight,
                std::span<const double> outputs, std::span<const double> inputs,
                const SvdOptions& o)
      : function(name),
        backend(b),
        w(weight),
        output_weights(outputs),
        input_weights(inputs),
        options(o) {}

  /// By how many powers of two norms in the metric were divided.
  int exponent() const {
    return output_weights.root_exponent + input_weights.root_exponent + covariance_exponent;
  }

  Index limit() const { return rank_limit(options, w.rows(), w.cols()); }

  /// M times the factor, which goes to the rows of `side`: those of G, which has them once on
  /// either side, while it squares what columns are multiplied by.
  template <class T>
  ScaledMatrix<B, S, T> matrix(Axis side) {
    const bool outputs = side == Axis::Output;
    return {backend, w, weight_roots<T>(output_weights.values, w.rows(), outputs ? factor : 1.0),
            weight_roots<T>(input_weights.values, w.cols(), outputs ? 1.0 : factor)};
  }

  /// What the subspace of a side is sought in: that side's elements are rows.
  template <class T>
  ScaledMatrix<B, S, T> sided(Axis side) {
    ScaledMatrix<B, S, T> m = matrix<T>(side);
    if (side == Axis::Output) return m;
    return {backend, transpose(w), std::move(m.column), std::move(m.row)};
  }
};

/// The power of two that brings a sum of squares near 1, where it is so far off that squares of T
/// could overflow or vanish; in float one whose squares are within its range.
template <class T>
double safe_factor(double total) {
  if (total > 1e-20 && total < 1e20) return 1.0;
  constexpr double most = std::is_same_v<T, float> ? 100 : 600;
  return std::exp2(std::clamp(-std::round(std::log2(total) / 2), -most, most));
}

/// Refuses a W whose energy in the metric, `energy` times four to the exponent, is beyond double on
/// either side.
inline void check_energy(const char* function, double energy, int exponent) {
  const double whole = std::ldexp(energy, 2 * exponent);
  check(is_finite(whole), function, "w", whole, "a squared norm in the metric that is finite");
  check(energy == 0 || whole >= least_energy, function, "w", whole,
        "a squared norm in the metric of 0 or at least 1e-292");
}

/// Whether an element other than 0 has weight.
template <class S>
bool has_weighed_element(TensorView<const S, 2> w, const NormalizedWeights& outputs,
                         const NormalizedWeights& inputs) {
  const auto counts = [](const NormalizedWeights& weights, Index i) {
    return weights.empty() || weights.values[static_cast<std::size_t>(i)] > 0;
  };
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j)
      if (static_cast<compute_t<S>>(w(i, j)) != 0 && counts(outputs, i) && counts(inputs, j))
        return true;
  return false;
}

/// The squared norm of a weighted W. \throws std::invalid_argument as check_energy.
template <class B, class S>
double checked_energy(const FactorProblem<B, S>& problem) {
  const NormalizedWeights &outputs = problem.output_weights, &inputs = problem.input_weights;
  const double plain =
      energy(problem.backend, problem.w, scale_of(outputs.values), scale_of(inputs.values));
  check_energy(problem.function, plain, outputs.root_exponent + inputs.root_exponent);
  check(plain > 0 || !has_weighed_element(problem.w, outputs, inputs), problem.function, "w",
        "squares that vanish", "a squared norm in the metric of 0 or at least 1e-292");
  return plain;
}

PARE_ABI_END
}  // namespace pare::factor::detail
