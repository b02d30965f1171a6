// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What Leap remembers between calls, and the arithmetic of its gates.

#include <pare/core/check.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/divergence.hpp>
#include <pare/feature/leap/leap_options.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/feature/ranking.hpp>
#include <pare/optim/adam.hpp>
#include <pare/optim/gate.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pare::feature::detail {

PARE_ABI_BEGIN

/// What the gates have seen of a field in their steps.
struct FieldEvidence {
  Index active = 0;         ///< batches in which the permutation moved it
  Index nonfinite = 0;      ///< batches whose sums held a NaN or an infinity: a gradient of 0
  double displacement = 0;  ///< sum over batches of sqrt(mean |Delta|_2^2)
  double theta = 0;         ///< sum over batches of theta behind the step
  Index open = 0;           ///< batches behind whose step the gate was above 1/2
};

/// All fields' gates; independent of the scalar of the batches.
struct LeapGates {
  LeapOptions options;
  std::vector<double> thetas;
  optim::Adam<double> adam{0};
  std::vector<double> values, slopes;  ///< of the last forward pass
  MixGradients gradients;              ///< of the last backward pass
  std::vector<double> weights;         ///< lambda of the last step
  std::vector<FieldEvidence> evidence;
  std::optional<Donors> donors;
  std::uint64_t draws = 0;  ///< forward passes of training
  std::uint64_t evaluations = 0;
  Index steps = 0;  ///< of the gates
  bool has_gradients = false;
};

inline LeapGates make_leap_gates(const FieldLayout& layout, const LeapOptions& options) {
  constexpr const char* function = "feature::Leap";
  check(layout.fields() >= 1, function, "layout", "no field", "at least one");
  validate(function, options);
  const auto fields = static_cast<std::size_t>(layout.fields());
  LeapGates g;
  g.options = options;
  g.thetas.assign(fields, options.gate.initial_theta());
  optim::AdamOptions adam;
  adam.learning_rate = options.learning_rate;
  g.adam = optim::Adam<double>(layout.fields(), adam);
  g.evidence.resize(fields);
  return g;
}

inline double leap_temperature(const LeapGates& g) {
  return g.options.gate.temperature.at(g.steps);
}

/// Draws gates and donors of the next training pass.
inline void draw_leap(const FieldLayout& layout, Index rows, LeapGates& g) {
  const std::uint64_t step = g.draws++;
  const double temperature = leap_temperature(g);
  g.values.resize(g.thetas.size());
  g.slopes.resize(g.thetas.size());
  for (std::size_t j = 0; j < g.thetas.size(); ++j) {
    const double noise =
        optim::gate_noise(g.options.gate.kind, g.options.seed, step, static_cast<Index>(j));
    const optim::Gate gate = optim::sampled_gate(g.options.gate, temperature, g.thetas[j], noise);
    g.values[j] = gate.value;
    g.slopes[j] = gate.slope;
  }
  if (g.donors && g.donors->rows() == rows)
    g.donors->draw(step);
  else
    g.donors.emplace(g.options.donors, g.options.seed, step, rows, layout);
  g.has_gradients = false;
}

inline double leap_score(const LeapGates& g, std::size_t j) {
  return optim::gate_score(g.options.gate, leap_temperature(g), g.thetas[j]);
}

/// Gates of an evaluation pass.
inline std::vector<double> evaluation_gates(const LeapGates& g) {
  std::vector<double> gates(g.thetas.size(), 1.0);
  for (std::size_t j = 0; j < gates.size(); ++j) {
    const double score = g.options.eval_mode == EvalMode::Off ? 1.0 : leap_score(g, j);
    gates[j] = g.options.eval_mode == EvalMode::Shuffle ? score : (score > 0.5 ? 1.0 : 0.0);
  }
  return gates;
}

/// Whether the sums of field j are numbers.
inline bool is_usable(const LeapGates& g, std::size_t j) {
  return is_finite(g.gradients.gates[j]) && is_finite(g.gradients.divergence.squared[j]);
}

/// dL/dtheta_j + dR/dtheta_j, and lambda; 0 for fields whose sums are no numbers.
inline std::vector<double> theta_gradients(const FieldLayout& layout, LeapGates& g) {
  check(g.has_gradients, "feature::Leap::step_gates", "gradients", "none",
        "a backward pass since the last forward pass");
  const LeapOptions& o = g.options;
  g.weights = penalty_weights(penalty_divergence(o.penalty, layout, g.gradients.divergence),
                              o.penalty_floor);
  const double warm = g.steps < o.warmup_steps
                          ? static_cast<double>(g.steps) / static_cast<double>(o.warmup_steps)
                          : 1;
  const double alpha = warm * o.alpha_per_field;
  const double temperature = leap_temperature(g);
  std::vector<double> gradients(g.thetas.size(), 0.0);
  for (std::size_t j = 0; j < gradients.size(); ++j)
    if (is_usable(g, j))
      gradients[j] =
          g.slopes[j] * g.gradients.gates[j] +
          optim::expected_gate(o.gate, temperature, g.thetas[j]).slope * alpha * g.weights[j];
  return gradients;
}

inline void step_leap(const FieldLayout& layout, LeapGates& g) {
  const std::vector<double> gradients = theta_gradients(layout, g);
  std::vector<unsigned char> active(gradients.size(), 1);
  for (std::size_t j = 0; j < gradients.size(); ++j) {
    FieldEvidence& evidence = g.evidence[j];
    if (!is_usable(g, j)) {
      ++evidence.nonfinite;
      active[j] = 0;
      continue;
    }
    const double squared = g.gradients.divergence.squared[j];
    evidence.active += squared > 0 ? 1 : 0;
    evidence.displacement += std::sqrt(squared);
    active[j] = squared > 0 ? 1 : 0;
  }
  if (g.options.lazy)
    g.adam.step(g.thetas, gradients, active);
  else
    g.adam.step(g.thetas, gradients);
  ++g.steps;
  for (std::size_t j = 0; j < gradients.size(); ++j) {
    g.evidence[j].theta += g.thetas[j];
    g.evidence[j].open += leap_score(g, j) > 0.5 ? 1 : 0;
  }
  g.has_gradients = false;
}

inline Ranking rank_leap(const LeapGates& g) {
  std::vector<double> scores(g.thetas.size());
  std::vector<FieldStatus> status(g.thetas.size(), FieldStatus::Ok);
  for (std::size_t j = 0; j < scores.size(); ++j) {
    scores[j] = leap_score(g, j);
    const Index active = g.evidence[j].active;
    if (active == 0)
      status[j] = FieldStatus::Inactive;
    else if (active < g.options.min_active)
      status[j] = FieldStatus::Undetermined;
  }
  return rank_fields(scores, g.thetas, status);
}

inline std::vector<double> mean_thetas(const LeapGates& g) {
  if (g.steps == 0) return g.thetas;
  std::vector<double> means;
  for (const FieldEvidence& evidence : g.evidence)
    means.push_back(evidence.theta / static_cast<double>(g.steps));
  return means;
}

/// The ranking with fields in the order of how long their gates were open.
inline Ranking rank_by_time_open(const LeapGates& g) {
  std::vector<double> open;
  for (const FieldEvidence& evidence : g.evidence)
    open.push_back(static_cast<double>(evidence.open));
  Ranking ranking = rank_leap(g);
  ranking.order = rank_fields(open, mean_thetas(g), ranking.status).order;
  return ranking;
}

inline void check_thetas(const LeapGates& g, std::span<const double> thetas) {
  constexpr const char* function = "feature::Leap::set_thetas";
  check(thetas.size() == g.thetas.size(), function, "thetas", thetas.size(), g.thetas.size());
  for (const double theta : thetas)
    check(is_finite(theta), function, "thetas", theta, "finite numbers");
}

inline std::vector<double> leap_scores(const LeapGates& g) {
  std::vector<double> scores(g.thetas.size());
  for (std::size_t j = 0; j < scores.size(); ++j) scores[j] = leap_score(g, j);
  return scores;
}

inline double leap_polarization(const LeapGates& g) {
  const std::vector<double> gates = leap_scores(g);
  const auto fields = static_cast<double>(gates.size());
  double mean = 0, distance = 0;
  for (const double gate : gates) mean += gate / fields;
  for (const double gate : gates) distance += std::abs(gate - mean) / fields;
  return distance;
}

/// Donors that no training pass draws.
inline Donors evaluation_donors(const FieldLayout& layout, Index rows, LeapGates& g) {
  constexpr std::uint64_t evaluation = std::uint64_t{1} << 63;
  return Donors(g.options.donors, g.options.seed, evaluation | g.evaluations++, rows, layout);
}

/// What must hold before a draw is used up.
template <class T>
void check_leap_rows(const char* function, const LeapOptions& options, const FieldBatch<const T>& x,
                     const FieldBatch<T>& mixed) {
  check(options.exchange == SparseExchange::Rows, function, "x", "a dense batch",
        "a sparse one, as the exchange of values or presence needs");
  check(x.rows >= 2, function, "x", x.rows, "at least 2 rows");
  check(mixed.rows == x.rows, function, "mixed", mixed.rows, x.rows);
  check_lines(function, "x", x);
  check_lines(function, "mixed", mixed);
  check_no_overlap(function, "mixed", whole_batch(mixed), "x", whole_batch(x));
}

/// The same for a sparse batch.
template <class T>
void check_leap_entries(const char* function, const FieldLayout& layout, const SparseFields<T>& x,
                        const SparseFields<T>& mixed) {
  check(x.layout() == layout, function, "x", x.layout().dim(), layout.dim());
  check(x.rows() >= 2, function, "x", x.rows(), "at least 2 rows");
  check(&x != &mixed, function, "mixed", "x", "memory apart from x");
}

PARE_ABI_END
}  // namespace pare::feature::detail
