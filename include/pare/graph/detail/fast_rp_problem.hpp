// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/check.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/graph/fast_rp_options.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace pare::graph::detail {
PARE_ABI_BEGIN

inline constexpr const char* fast_rp_name = "graph::fast_rp";

/// The degree of row u, summed in stored order.
template <class T, class I>
double degree_of(const CompressedView<T, I>& a, Index u, Degree kind) {
  if (kind == Degree::Count) return static_cast<double>(a.end(u) - a.begin(u));
  double degree = 0;
  for (Index e = a.begin(u); e < a.end(u); ++e) degree += static_cast<double>(a.values[e]);
  return degree;
}

/// log2 of the sum of a row's weights, which itself may overflow; -infinity for a sum of 0.
template <class T, class I>
double log2_weights(const CompressedView<T, I>& a, Index u) {
  const double sum = degree_of(a, u, Degree::Weighted);
  if (is_finite(sum)) return std::log2(sum);
  double small = 0;
  for (Index e = a.begin(u); e < a.end(u); ++e)
    small += std::ldexp(static_cast<double>(a.values[e]), -64);
  return std::log2(small) + 64;
}

/// The lowest and the highest of some exponents of two.
struct ExponentRange {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;

  bool empty() const { return low > high; }
  void include(double exponent) {
    low = std::min(low, exponent);
    high = std::max(high, exponent);
  }
};

/// A graph and its options as the steps of FastRP compute with them: powers of two that the method
/// cancels are taken out of rows, starting vectors and step weights where they would leave the
/// range of T. Where nothing comes near its ends, all are those of the caller.
///
/// With weighted degrees P does not change when a row is scaled. Counted degrees leave the weights
/// in P: a factor of 2^-g makes step i smaller by 2^-gi, which unit rows forget and the weight of
/// the step makes up for otherwise. So it does for the factor of the starting vectors.
template <class T, class I>
class FastRpProblem {
 public:
  CompressedView<T, I> graph;  ///< rows of P before they are divided by their degrees
  FastRpOptions options;       ///< weights of the steps over `graph`

  FastRpProblem(const CompressedView<T, I>& adjacency, const FastRpOptions& o)
      : graph(adjacency),
        options(o),
        adjacency_(adjacency),
        weighted_(o.degree == Degree::Weighted),
        scale_(1 / std::sqrt(density(o, adjacency.outer_size) * static_cast<double>(o.dim))) {
    measure_rows();
    measure_start();
    choose_start();
    if (weighted_)
      scale_each_row();
    else
      scale_all_rows();
    scale_steps();
  }
  FastRpProblem(const FastRpProblem&) = delete;
  FastRpProblem& operator=(const FastRpProblem&) = delete;

  static double density(const FastRpOptions& o, Index nodes) {
    return o.density ? *o.density : 1 / std::sqrt(static_cast<double>(std::max<Index>(nodes, 1)));
  }

  /// The magnitude of entries of N_0 that come from features.
  double feature_value() const { return std::ldexp(scale_, -start_exponent_); }

  /// That of row u otherwise: the scale of R times degree^beta. A row without edges counts as 1
  /// where that is the convention or the exponent is 0, else as 0.
  double start_value(Index u) const {
    const double beta = options.degree_exponent;
    const double degree = degree_of(adjacency_, u, options.degree);
    if (!(degree > 0)) return beta == 0 || !weighted_ ? feature_value() : 0.0;
    const double power = std::pow(degree, beta);
    if (is_finite(degree) && is_finite(power) && power >= std::numeric_limits<double>::min())
      return scale_ * std::ldexp(power, -start_exponent_);
    const double exponent = weighted_ ? log2_weights(adjacency_, u) : std::log2(degree);
    return scale_ * std::exp2(beta * exponent - start_exponent_);
  }

 private:
  /// Exponents that leave room for sums of 2^26 entries, and for products of a small share.
  static constexpr double end = std::numeric_limits<T>::max_exponent, safe = end - 28;

  static bool is_safe(double exponent) { return -safe <= exponent && exponent <= safe; }

  /// Counts in `weighted_` mode are not asked for, and one logarithm serves all rows.
  void measure_weights() {
    double low = std::numeric_limits<double>::infinity(), high = 0;
    for (Index u = 0; u < adjacency_.outer_size; ++u) {
      const double sum = degree_of(adjacency_, u, Degree::Weighted);
      isolated_ = isolated_ || adjacency_.begin(u) == adjacency_.end(u);
      if (!is_finite(sum)) sums_.include(log2_weights(adjacency_, u));
      if (!is_finite(sum) || sum == 0) continue;
      low = std::min(low, sum);
      high = std::max(high, sum);
    }
    if (high > 0) {
      sums_.include(std::log2(low));
      sums_.include(std::log2(high));
    }
    degrees_ = sums_;
    growth_.include(0);
    if (sums_.empty()) sums_.include(0);
  }

  void measure_rows() {
    if (weighted_) return measure_weights();
    for (Index u = 0; u < adjacency_.outer_size; ++u) {
      const double sum = log2_weights(adjacency_, u);
      const double count = std::log2(degree_of(adjacency_, u, Degree::Count));
      isolated_ = isolated_ || adjacency_.begin(u) == adjacency_.end(u);
      if (is_finite(count)) degrees_.include(count);
      if (!is_finite(sum)) continue;
      sums_.include(sum);
      growth_.include(sum - count);
    }
    if (growth_.empty()) growth_.include(0);
    if (sums_.empty()) sums_.include(0);
  }

  void measure_start() {
    const double beta = options.degree_exponent;
    if (!degrees_.empty() && beta != 0) {
      start_.include(beta * degrees_.low);
      start_.include(beta * degrees_.high);
    }
    if (start_.empty() || (isolated_ && !weighted_) || options.feature_dim() > 0) start_.include(0);
    // A density so small that the scale is larger has no entries.
    const double scale = std::clamp(std::log2(scale_), -40.0, 40.0);
    start_.low += scale;
    start_.high += scale;
  }

  /// Takes the middle of the range out, or the top where the result is to have it again.
  void choose_start() {
    if (is_safe(start_.low) && is_safe(start_.high)) return;
    const bool cancels = options.normalize_rows || options.standardize;
    const bool representable = std::abs(start_.low) < 0x1p30 && std::abs(start_.high) < 0x1p30;
    check(representable && (!cancels || start_.high - start_.low <= 2 * safe), fast_rp_name,
          "degree_exponent", options.degree_exponent,
          "an exponent whose powers of degrees lie within a factor of 2^" +
              std::to_string(static_cast<int>(2 * safe)));
    if (!cancels && is_safe(start_.high)) return;
    const double taken = cancels ? (start_.low + start_.high) / 2 : start_.high;
    start_exponent_ = static_cast<int>(std::lround(std::clamp(taken, -0x1p30, 0x1p30)));
  }

  /// The largest exponent of N_0 as it is stored.
  double stored_high() const { return start_.high - start_exponent_; }

  void scale_each_row() {
    const double high = stored_high(), low = start_.low - start_exponent_;
    if (is_safe(sums_.low) && is_safe(sums_.high) && sums_.high + high <= safe &&
        (sums_.low + low >= -safe || !is_safe(low)))
      return;
    scale_rows([&](Index u) {
      T largest = 0;
      for (Index e = adjacency_.begin(u); e < adjacency_.end(u); ++e)
        largest = std::max(largest, adjacency_.values[e]);
      return largest > T(0) ? std::ilogb(largest) : 0;
    });
  }

  void scale_all_rows() {
    const double steps = static_cast<double>(options.steps());
    const double most = stored_high() + steps * std::max(growth_.high, 0.0);
    const double least = stored_high() + steps * std::min(growth_.high, 0.0);
    if (most <= safe && sums_.high - growth_.high + most <= safe && is_safe(sums_.high) &&
        least >= -safe)
      return;
    step_exponent_ = static_cast<int>(std::ceil(growth_.high));
    check(!options.normalize_rows ||
              steps * (step_exponent_ - growth_.low) + start_.high - start_.low <= safe,
          fast_rp_name, "adjacency",
          "rows whose mean weights lie a factor of 2^" +
              std::to_string(std::lround(growth_.high - growth_.low)) + " apart",
          "a factor that the scalar holds to the power of the steps");
    scale_rows([&](Index) { return step_exponent_; });
  }

  /// Divides each row by 2^exponent(row).
  template <class Exponent>
  void scale_rows(const Exponent& exponent) {
    Index last = 0;
    for (Index u = 0; u < adjacency_.outer_size; ++u)
      if (adjacency_.begin(u) < adjacency_.end(u)) last = std::max(last, adjacency_.end(u));
    values_.resize(static_cast<std::size_t>(last));
    for (Index u = 0; u < adjacency_.outer_size; ++u) {
      const int divided = exponent(u);
      for (Index e = adjacency_.begin(u); e < adjacency_.end(u); ++e)
        values_[static_cast<std::size_t>(e)] = std::ldexp(adjacency_.values[e], -divided);
    }
    graph.values = values_.data();
  }

  /// The exponent of what a step of this weight may add to an element; step 0 is the start.
  double reach(double weight, double step) const {
    return std::log2(std::abs(weight)) +
           (options.normalize_rows ? 0 : start_.high + step * growth_.high);
  }

  /// weight * 2^exponent, which stays above 0 so that the step stays a step.
  static double scaled_weight(double weight, double exponent) {
    if (weight == 0) return weight;
    const double scaled = std::ldexp(weight, static_cast<int>(std::clamp(exponent, -4e8, 4e8)));
    return scaled != 0 ? scaled : std::copysign(std::numeric_limits<double>::denorm_min(), weight);
  }

  /// Weights over the scaled steps, without what the columns of the result cancel.
  void scale_steps() {
    std::vector<double> reaches{reach(options.self_influence, 0)};
    for (const double w : options.weights)
      reaches.push_back(reach(w, static_cast<double>(reaches.size())));
    const double largest = *std::max_element(reaches.begin(), reaches.end());
    double sum = 0;
    for (const double r : reaches) sum += largest < -end * 16 ? 0 : std::exp2(r - largest);
    const double all = options.concatenate ? largest : largest + std::log2(std::max(sum, 1.0));
    check(options.standardize || !(all >= end), fast_rp_name, "weights",
          "steps that may add up to 2^" + std::to_string(std::ceil(all)),
          "steps that add up to less than 2^" + std::to_string(static_cast<int>(end)));
    const auto scale = [&](double weight, std::size_t step) {
      const double of = options.concatenate ? reaches[step] : all;
      const double dropped = options.standardize && !is_safe(of) ? std::floor(of) : 0;
      const double stored =
          options.normalize_rows ? 0 : start_exponent_ + static_cast<double>(step) * step_exponent_;
      return stored == dropped ? weight : scaled_weight(weight, stored - dropped);
    };
    options.self_influence = scale(options.self_influence, 0);
    for (std::size_t i = 0; i < options.weights.size(); ++i)
      options.weights[i] = scale(options.weights[i], i + 1);
  }

  CompressedView<T, I> adjacency_;
  bool weighted_;
  double scale_;
  bool isolated_ = false;
  ExponentRange sums_;     ///< of the weights of a row
  ExponentRange degrees_;  ///< as the options count them
  ExponentRange growth_;   ///< of a row's length from one step to the next
  ExponentRange start_;    ///< of N_0
  int start_exponent_ = 0;
  int step_exponent_ = 0;
  std::vector<T> values_;
};

PARE_ABI_END
}  // namespace pare::graph::detail
