// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gates: they turn a parameter theta of a field into the share g in [0, 1] of its own value.
///
/// ```cpp
/// GateOptions options{.kind = GateKind::HardConcrete};
/// double noise = gate_noise(options.kind, seed, step, field);
/// Gate gate = sampled_gate(options, options.temperature.at(step), theta, noise);
/// gate.value, gate.slope                                                // g and dg/dtheta
/// double score = gate_score(options, options.temperature.at(step), theta);
/// ```
///
/// Sources: Sigmoid with temperature 5 and theta0 1 is what LeAP's released code does. The others
/// are standard estimators, written from memory of their papers: Gumbel-sigmoid (Maddison et al.
/// and Jang et al., ICLR 2017), hard-concrete (Louizos et al., ICLR 2018), stochastic gates
/// (Yamada et al., ICML 2020), straight-through (Bengio et al., 2013).

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>
#include <pare/core/random_words.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

namespace pare::optim {

/// How theta becomes a gate. sigma is the logistic function, u uniform and e normal noise.
enum class GateKind {
  Sigmoid,          ///< sigma(temperature theta)
  GumbelSigmoid,    ///< sigma((theta + log u - log(1 - u)) / relaxation)
  HardConcrete,     ///< clip(s (high - low) + low, 0, 1) with s the Gumbel-sigmoid
  Stg,              ///< clip(theta + 1/2 + deviation e, 0, 1)
  StraightThrough,  ///< 1 if Sigmoid's gate is above 1/2, else 0; the slope is Sigmoid's
};

PARE_ABI_BEGIN

/// A temperature by step: start (end / start)^(step / steps), from `steps` on end; constant where
/// steps is 0.
struct TemperatureSchedule {
  double start = 5;  ///< above 0; 5 in LeAP's released code
  double end = 5;    ///< above 0; OptFS grows to 200 ... 5000
  Index steps = 0;   ///< at least 0

  /// The temperature of a step, counted from 0.
  double at(Index step) const {
    if (steps <= 0) return start;
    const double share = static_cast<double>(std::min(step, steps)) / static_cast<double>(steps);
    return start * std::pow(end / start, share);
  }
};

/// Options of gates.
struct GateOptions {
  GateKind kind = GateKind::Sigmoid;

  /// Of Sigmoid and StraightThrough; the larger, the harder.
  TemperatureSchedule temperature{};

  /// Where each theta starts; not given: 1 (of Sigmoid a gate of 0.9933), and 0 for Stg.
  std::optional<double> theta0{};

  /// T of GumbelSigmoid and beta of HardConcrete, above 0; the smaller, the harder.
  double relaxation = 2.0 / 3.0;

  double low = -0.1;       ///< gamma of HardConcrete, below 0
  double high = 1.1;       ///< zeta of HardConcrete, above 1
  double deviation = 0.5;  ///< sigma of Stg, above 0

  /// theta0 or its default.
  double initial_theta() const { return theta0.value_or(kind == GateKind::Stg ? 0.0 : 1.0); }
};

PARE_ABI_END

/// A value and its derivative by theta.
struct Gate {
  double value = 0;
  double slope = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Arguments of sigma beyond this count as this, for the slope too: a gate that is fully closed or
/// open can still move.
inline constexpr double gate_saturation = 30;

/// sigma(scale theta).
inline Gate logistic_gate(double theta, double scale, double shift = 0) {
  const double t = std::clamp(scale * theta + shift, -gate_saturation, gate_saturation);
  const double g = 1 / (1 + std::exp(-t));
  return {g, scale * g * (1 - g)};
}

/// clip(v, 0, 1), flat outside.
inline Gate clipped_gate(double value, double slope) {
  if (value <= 0) return {0, 0};
  if (value >= 1) return {1, 0};
  return {value, slope};
}

inline Gate hard_concrete_gate(const GateOptions& o, const Gate& s) {
  return clipped_gate(s.value * (o.high - o.low) + o.low, s.slope * (o.high - o.low));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Checks the options; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range
inline void validate(const char* function, const GateOptions& o) {
  check_enumerator(function, "gate.kind", o.kind, GateKind::StraightThrough);
  const auto positive = [function](const char* name, double value) {
    check(is_finite(value) && value > 0 && is_finite(1 / value), function, name, value,
          "a number above 0, and below infinity as its inverse");
  };
  positive("gate.temperature.start", o.temperature.start);
  positive("gate.temperature.end", o.temperature.end);
  const double growth = o.temperature.end / o.temperature.start;
  check(is_finite(growth) && growth > 0, function, "gate.temperature.end", o.temperature.end,
        "a multiple of the start that is above 0 and finite");
  check(o.temperature.steps >= 0, function, "gate.temperature.steps", o.temperature.steps,
        "at least 0");
  check(is_finite(o.initial_theta()), function, "gate.theta0", o.initial_theta(),
        "a finite number");
  positive("gate.relaxation", o.relaxation);
  check(is_finite(o.low) && o.low < 0, function, "gate.low", o.low, "a number below 0");
  check(is_finite(o.high) && o.high > 1, function, "gate.high", o.high, "a number above 1");
  positive("gate.deviation", o.deviation);
}

/// The noise of a field's gate at a step: logistic (log u - log(1 - u)) for GumbelSigmoid and
/// HardConcrete, standard normal for Stg, 0 for the others. A function of its arguments alone.
inline double gate_noise(GateKind kind, std::uint64_t seed, std::uint64_t step, Index field) {
  if (kind == GateKind::Sigmoid || kind == GateKind::StraightThrough) return 0;
  const PhiloxCounter words =
      step_words(seed, step, static_cast<std::uint32_t>(field), RandomPurpose::GateNoise);
  const double u = to_unit_double(words[0], words[1]) + 0x1p-54;
  if (kind != GateKind::Stg) return std::log(u) - std::log1p(-u);
  const double angle = 2 * 3.14159265358979323846 * to_unit_double(words[2], words[3]);
  return std::sqrt(-2 * std::log(u)) * std::cos(angle);
}

/// The gate of a training step and its slope dg/dtheta, by the formulas of GateKind. The argument
/// of sigma is cut to [-30, 30], where sigma still has a slope.
/// \param o           checked by the caller, as in the functions below
/// \param temperature options.temperature.at(step); read by Sigmoid and StraightThrough
/// \param noise       gate_noise of the field and the step
inline Gate sampled_gate(const GateOptions& o, double temperature, double theta, double noise) {
  const auto relaxed = [&] {
    return detail::logistic_gate(theta, 1 / o.relaxation, noise / o.relaxation);
  };
  switch (o.kind) {
    case GateKind::GumbelSigmoid:
      return relaxed();
    case GateKind::HardConcrete:
      return detail::hard_concrete_gate(o, relaxed());
    case GateKind::Stg:
      return detail::clipped_gate(theta + 0.5 + o.deviation * noise, 1);
    case GateKind::StraightThrough: {
      const Gate soft = detail::logistic_gate(theta, temperature);
      return {soft.value > 0.5 ? 1.0 : 0.0, soft.slope};
    }
    case GateKind::Sigmoid:
      break;
  }
  return detail::logistic_gate(theta, temperature);
}

/// The gate that the penalty adds up, and its slope, without noise:
/// - Sigmoid, StraightThrough: Sigmoid's gate;
/// - GumbelSigmoid: sigma(theta / relaxation);
/// - HardConcrete: the probability of a gate above 0, sigma(theta - relaxation log(-low / high));
/// - Stg: likewise, Phi((theta + 1/2) / deviation), Phi the normal distribution function.
inline Gate expected_gate(const GateOptions& o, double temperature, double theta) {
  switch (o.kind) {
    case GateKind::GumbelSigmoid:
      return detail::logistic_gate(theta, 1 / o.relaxation);
    case GateKind::HardConcrete:
      return detail::logistic_gate(theta, 1, -o.relaxation * std::log(-o.low / o.high));
    case GateKind::Stg: {
      const double z = (theta + 0.5) / o.deviation;
      return {0.5 * std::erfc(-z / std::sqrt(2.0)),
              std::exp(-0.5 * z * z) / (std::sqrt(2 * 3.14159265358979323846) * o.deviation)};
    }
    case GateKind::Sigmoid:
    case GateKind::StraightThrough:
      break;
  }
  return detail::logistic_gate(theta, temperature);
}

/// The gate without noise, by which fields are scored: rising in theta, above 1/2 where the field
/// is to be kept. HardConcrete's is the one its authors test with, clip(sigma(theta) (high - low) +
/// low, 0, 1); Stg's is clip(theta + 1/2, 0, 1).
inline double gate_score(const GateOptions& o, double temperature, double theta) {
  switch (o.kind) {
    case GateKind::GumbelSigmoid:
      return detail::logistic_gate(theta, 1 / o.relaxation).value;
    case GateKind::HardConcrete:
      return detail::hard_concrete_gate(o, detail::logistic_gate(theta, 1)).value;
    case GateKind::Stg:
      return detail::clipped_gate(theta + 0.5, 1).value;
    case GateKind::Sigmoid:
    case GateKind::StraightThrough:
      break;
  }
  return detail::logistic_gate(theta, temperature).value;
}

PARE_ABI_END
}  // namespace pare::optim

#include <pare/core/macros_on.hpp>
