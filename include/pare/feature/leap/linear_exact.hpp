// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// LeAP of a linear model with squared error, without data passes: from covariances alone.
///
/// ```cpp
/// LinearMoments moments{.covariance = s, .with_target = c, .target_variance = s_yy};
/// LinearExact result = leap_linear_exact(layout, moments, {.alpha_per_field = 0.01});
/// auto kept = above(result.ranking);
/// double loss = linear_gate_loss(layout, moments, result.gates).loss;     // result.model.loss
/// ```
///
/// Mixing with independent donors shrinks the covariance between fields, but not within a field.
/// The best linear model for given gates therefore has the loss of an adaptive ridge regression,
/// L(g) = s_yy - c^T (S + blockdiag(r_j^2 S_jj))^-1 c with r_j = (1 - g_j) / g_j, S = Cov(x), c =
/// Cov(x, y), S_jj the block of field j. Its slope is dL/dg_j = -2 (1 - g_j) / g_j^3 u_j^T S_jj u_j
/// with u = (...)^-1 c. Derived by us, and exact for centred data.
///
/// It shows which fields the penalty keeps. Let a scalar field alone explain v of the variance,
/// which is what dropping it adds to the loss. Its gate stays above 1/2 while alpha lambda_j < 2 v,
/// and closes beyond. Of two correlated fields one stays. Close to 2 v, and for twins beyond 1.04
/// v, both may close, since they share the slope while their gates are equal.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/detail/number_list.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/divergence.hpp>
#include <pare/feature/ranking.hpp>
#include <pare/optim/adam.hpp>
#include <pare/optim/gate.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature {

PARE_ABI_BEGIN

/// What a linear model sees of the data.
struct LinearMoments {
  Eigen::MatrixXd covariance;   ///< S [dim x dim] of the inputs, symmetric, positive semi-definite
  Eigen::VectorXd with_target;  ///< c [dim]
  double target_variance = 0;   ///< s_yy, at least 0
};

/// The best linear model of mixed inputs.
struct LinearGateLoss {
  double loss = 0;           ///< its mean squared error
  Eigen::VectorXd gradient;  ///< [fields] dL/dg
  Eigen::VectorXd weights;   ///< [dim] of the mixed inputs
};

PARE_ABI_END

/// Options of leap_linear_exact.
struct LinearExactOptions {
  double alpha_per_field = 1e-3;  ///< as LeapOptions::alpha_per_field, at least 0

  /// Uniform, SqrtWidth, Rms or Squared: those that covariances determine.
  Penalty penalty = Penalty::Rms;

  optim::GateOptions gate{};    ///< kind Sigmoid
  double learning_rate = 1e-2;  ///< of Adam on theta at the start, above 0; falls evenly to 0
  Index iterations = 2000;      ///< at least 1; learning_rate * iterations should be 6 or more
};

PARE_ABI_BEGIN

/// Where the gates end.
struct LinearExact {
  Ranking ranking;
  std::vector<double> gates, thetas;  ///< [fields]
  LinearGateLoss model;               ///< at these gates
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

template <class = void>
void check_moments(const char* function, const FieldLayout& layout, const LinearMoments& moments) {
  const Index dim = layout.dim();
  check(layout.fields() >= 1, function, "layout", layout.fields(), "at least one field");
  check_extents<2>(function, "covariance", {moments.covariance.rows(), moments.covariance.cols()},
                   {dim, dim});
  check(moments.with_target.size() == dim, function, "with_target", moments.with_target.size(),
        dim);
  check(is_finite(moments.covariance.sum()), function, "covariance", moments.covariance.sum(),
        "finite numbers");
  check(is_finite(moments.with_target.sum()), function, "with_target", moments.with_target.sum(),
        "finite numbers");
  check(is_finite(moments.target_variance) && moments.target_variance >= 0, function,
        "target_variance", moments.target_variance, "a finite number of at least 0");
  const double asymmetry =
      (moments.covariance - moments.covariance.transpose()).cwiseAbs().maxCoeff();
  check(asymmetry <= 1e-9 * moments.covariance.cwiseAbs().maxCoeff(), function, "covariance",
        asymmetry, "a symmetric matrix");
  check(moments.covariance.diagonal().minCoeff() >= 0, function, "covariance",
        moments.covariance.diagonal().minCoeff(), "variances of at least 0");
}

/// The covariance of mixed inputs: g_i g_k S_ik between fields, (g^2 + (1 - g)^2) S_ik within one.
/// In these terms nothing is divided by a gate, which may be 0.
template <class = void>
Eigen::MatrixXd mixed_covariance(const FieldLayout& layout, const Eigen::MatrixXd& s,
                                 const Eigen::VectorXd& column_gates) {
  Eigen::MatrixXd mixed = column_gates.asDiagonal() * s * column_gates.asDiagonal();
  for (Index j = 0; j < layout.fields(); ++j) {
    const Index at = layout.offset(j), width = layout.width(j);
    const double g = column_gates(at);
    mixed.block(at, at, width, width) += (1 - g) * (1 - g) * s.block(at, at, width, width);
  }
  return mixed;
}

template <class = void>
LinearGateLoss linear_gate_loss(const FieldLayout& layout, const LinearMoments& moments,
                                std::span<const double> gates) {
  Eigen::VectorXd column_gates(layout.dim());
  for (Index j = 0; j < layout.fields(); ++j)
    column_gates.segment(layout.offset(j), layout.width(j))
        .setConstant(gates[static_cast<std::size_t>(j)]);
  const Eigen::VectorXd c = column_gates.cwiseProduct(moments.with_target);
  const Eigen::LDLT<Eigen::MatrixXd> solver(
      mixed_covariance(layout, moments.covariance, column_gates));
  LinearGateLoss result{0, Eigen::VectorXd::Zero(layout.fields()), solver.solve(c)};
  result.loss = moments.target_variance - c.dot(result.weights);
  for (Index j = 0; j < layout.fields(); ++j) {
    const Index at = layout.offset(j), width = layout.width(j);
    const double g = column_gates(at);
    if (g == 0) continue;  // the weights are of the order of g
    const auto w = result.weights.segment(at, width);
    result.gradient(j) =
        -2 * (1 - g) / g * w.dot(moments.covariance.block(at, at, width, width) * w);
  }
  return result;
}

/// lambda_j by the closed form of the divergence.
template <class = void>
std::vector<double> covariance_penalty(const FieldLayout& layout, const Eigen::MatrixXd& covariance,
                                       Penalty penalty) {
  Divergences divergences;
  for (Index j = 0; j < layout.fields(); ++j)
    divergences.squared.push_back(
        2 * covariance.diagonal().segment(layout.offset(j), layout.width(j)).sum());
  return penalty_weights(penalty_divergence(penalty, layout, divergences));
}

inline void validate(const char* function, const LinearExactOptions& o) {
  check(is_finite(o.alpha_per_field) && o.alpha_per_field >= 0, function, "alpha_per_field",
        o.alpha_per_field, "a finite number of at least 0");
  validate(function, o.penalty);
  check(o.penalty != Penalty::L1 && o.penalty != Penalty::L2, function, "penalty", "L1 or L2",
        "one that covariances determine");
  check(o.gate.kind == optim::GateKind::Sigmoid, function, "gate.kind", "another", "Sigmoid");
  optim::validate(function, o.gate);
  check(is_finite(o.learning_rate) && o.learning_rate > 0, function, "learning_rate",
        o.learning_rate, "a finite number above 0");
  check(o.iterations >= 1, function, "iterations", o.iterations, "at least 1");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// L(g), the least mean squared error of a linear model whose inputs are mixed by `gates`, with its
/// gradient and the model's weights. Directions without variance get no weight.
///
/// \param layout  the fields
/// \param moments of the inputs and the target
/// \param gates   [fields] in [0, 1]
/// \throws std::invalid_argument if a size does not fit, a number is not finite or out of range,
///         or the covariance is not symmetric or has a negative variance
/// Cost: dim^3 / 3 FLOPs. Memory: a few matrices [dim x dim].
template <class = void>
LinearGateLoss linear_gate_loss(const FieldLayout& layout, const LinearMoments& moments,
                                std::span<const double> gates) {
  constexpr const char* function = "feature::linear_gate_loss";
  detail::check_moments(function, layout, moments);
  detail::check_size(function, "gates", gates.size(), static_cast<std::size_t>(layout.fields()));
  for (const double g : gates) check(g >= 0 && g <= 1, function, "gates", g, "numbers in [0, 1]");
  return detail::linear_gate_loss(layout, moments, gates);
}

/// Descends L(g) + alpha_per_field sum_j lambda_j g_j in theta by Adam from gates near 1, and ranks
/// the fields by their gates. lambda_j is penalty_weights of the closed form (divergence.hpp).
///
/// \throws std::invalid_argument as linear_gate_loss, or if an option is out of its range
/// Cost: iterations * dim^3 / 3 FLOPs.
template <class = void>
LinearExact leap_linear_exact(const FieldLayout& layout, const LinearMoments& moments,
                              const LinearExactOptions& options = {}) {
  constexpr const char* function = "feature::leap_linear_exact";
  detail::check_moments(function, layout, moments);
  detail::validate(function, options);
  const auto fields = static_cast<std::size_t>(layout.fields());
  const std::vector<double> weights =
      detail::covariance_penalty(layout, moments.covariance, options.penalty);
  LinearExact result;
  result.thetas.assign(fields, options.gate.initial_theta());
  result.gates.resize(fields);
  std::vector<double> slopes(fields), gradients(fields);
  optim::Adam<double> adam(layout.fields(), {.learning_rate = options.learning_rate});
  const auto evaluate = [&](Index step) {
    for (std::size_t j = 0; j < fields; ++j) {
      const optim::Gate gate =
          optim::sampled_gate(options.gate, options.gate.temperature.at(step), result.thetas[j], 0);
      result.gates[j] = gate.value;
      slopes[j] = gate.slope;
    }
    result.model = detail::linear_gate_loss(layout, moments, result.gates);
  };
  for (Index step = 0; step < options.iterations; ++step) {
    evaluate(step);
    for (std::size_t j = 0; j < fields; ++j)
      gradients[j] = slopes[j] * (result.model.gradient(static_cast<Index>(j)) +
                                  options.alpha_per_field * weights[j]);
    const double left = 1 - static_cast<double>(step) / static_cast<double>(options.iterations);
    adam.set_learning_rate(options.learning_rate * left);
    adam.step(result.thetas, gradients);
  }
  evaluate(options.iterations);
  result.ranking = rank_fields(result.gates, result.thetas);
  return result;
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
