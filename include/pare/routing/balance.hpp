// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How evenly a gate uses its experts: loads, the load-balance loss, and its gradient.
///
/// ```cpp
/// const LoadBalance b = load_balance(logits, plan);       // b.loss, b.max_over_mean, b.load
/// load_balance_gradient(logits, plan, gradient);          // d loss / d logits, [rows, experts]
/// top_one_balance(logits, {.temperature = 0.5});          // Sigma-MoE-Tiny's, from logits alone
/// ```
///
/// f_e is the share of routed pairs that expert e has, p_e the mean of its softmax over rows.
///
///     LBL = E sum_e f_e p_e                 1 if f or p is uniform
///     top-1 LBL = E sum_e fhat_e^2 / pbar   fhat_e = mean of softmax(logits / temperature)_e,
///                                           pbar = mean over rows of its largest share
///
/// The former has a known failure: with p nearly uniform it is 1 however skewed f is, so small
/// logits hide an imbalance (`examples/balance.cpp`). Sources: Shazeer et al., arXiv 1701.06538,
/// and Switch, arXiv 2101.03961; the top-1 form and the failure: Sigma-MoE-Tiny, arXiv 2512.16248.
/// Its temperature and the weight of its loss are not public: they have no default of a paper's
/// here.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/detail/softmax_means.hpp>
#include <pare/routing/route_plan.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::routing {

/// What `load_balance` measures.
struct LoadBalance {
  double loss = 0;              ///< E sum f p, at least about 1 where f and p agree
  double max_over_mean = 0;     ///< of loads: 1 is even
  double variation = 0;         ///< coefficient of variation of loads: 0 is even
  double entropy = 0;           ///< of f, over its largest, log E: 1 is even; of one expert 1
  std::vector<double> load;     ///< f, [experts], which add up to 1 if anything was routed
  std::vector<double> softmax;  ///< p, [experts]
};

/// Options of the top-1 measure.
struct TopOneBalanceOptions {
  double temperature = 1;  ///< above 0; that of Sigma-MoE-Tiny is not public
};

namespace detail {
PARE_ABI_BEGIN

template <class T>
void check_balance(const char* function, const TensorView<const T, 2>& logits,
                   const RoutePlan& plan) {
  check_logits(function, logits);
  check(plan.rows() == logits.rows() && plan.experts() == logits.cols(), function, "plan",
        std::array<Index, 2>{plan.rows(), plan.experts()}, "[rows, experts] of the logits");
}

inline std::vector<double> loads(const RoutePlan& plan) {
  std::vector<double> f(static_cast<std::size_t>(plan.experts()), 0.0);
  for (std::size_t e = 0; plan.routed() > 0 && e < f.size(); ++e)
    f[e] = static_cast<double>(plan.offsets()[e + 1] - plan.offsets()[e]) /
           static_cast<double>(plan.routed());
  return f;
}

template <class T>
LoadBalance load_balance(TensorView<const T, 2> logits, const RoutePlan& plan) {
  check_balance("routing::load_balance", logits, plan);
  const auto experts = static_cast<double>(plan.experts());
  LoadBalance b;
  b.load = loads(plan);
  b.softmax = softmax_means(logits, 1.0).mean;
  double squares = 0, entropy = 0;
  for (std::size_t e = 0; e < b.load.size(); ++e) {
    const double f = b.load[e];
    b.loss += experts * f * b.softmax[e];
    b.max_over_mean = std::max(b.max_over_mean, experts * f);
    squares += (experts * f - 1) * (experts * f - 1);
    if (f > 0) entropy -= f * std::log(f);
  }
  b.variation = plan.routed() == 0 ? 0 : std::sqrt(squares / experts);
  b.entropy = plan.experts() == 1 ? 1 : entropy / std::log(experts);
  return b;
}

template <class T>
void load_balance_gradient(TensorView<const T, 2> logits, const RoutePlan& plan,
                           TensorView<T, 2> gradient) {
  constexpr const char* function = "routing::load_balance_gradient";
  check_balance(function, logits, plan);
  check_writable(function, "gradient", gradient);
  check_extents<2>(function, "gradient", gradient.extent, {logits.rows(), logits.cols()});
  check_no_overlap(function, "gradient", gradient, "logits", logits);
  const std::vector<double> f = loads(plan);
  const double scale = static_cast<double>(plan.experts()) / static_cast<double>(plan.rows());
  std::vector<double> p(f.size());
  for (Index r = 0; r < logits.rows(); ++r) {
    softmax_row(logits, r, 1.0, p);
    double mean = 0;
    for (std::size_t e = 0; e < p.size(); ++e) mean += f[e] * p[e];
    for (std::size_t e = 0; e < p.size(); ++e)
      gradient(r, static_cast<Index>(e)) = static_cast<T>(scale * p[e] * (f[e] - mean));
  }
}

template <class T>
double checked_top_one(const char* function, TensorView<const T, 2> logits,
                       const TopOneBalanceOptions& options, SoftmaxMeans& means) {
  check_logits(function, logits);
  check(options.temperature > 0 && is_finite(options.temperature), function, "temperature",
        options.temperature, "a finite number above 0");
  means = softmax_means(logits, options.temperature);
  double squares = 0;
  for (const double f : means.mean) squares += f * f;
  return squares;
}

template <class T>
double top_one_balance(TensorView<const T, 2> logits, const TopOneBalanceOptions& options) {
  SoftmaxMeans means;
  const double squares = checked_top_one("routing::top_one_balance", logits, options, means);
  return logits.rows() == 0 ? 0 : static_cast<double>(logits.cols()) * squares / means.largest;
}

template <class T>
void top_one_balance_gradient(TensorView<const T, 2> logits, TensorView<T, 2> gradient,
                              const TopOneBalanceOptions& options) {
  constexpr const char* function = "routing::top_one_balance_gradient";
  SoftmaxMeans means;
  const double squares = checked_top_one(function, logits, options, means);
  check_writable(function, "gradient", gradient);
  check_extents<2>(function, "gradient", gradient.extent, {logits.rows(), logits.cols()});
  check_no_overlap(function, "gradient", gradient, "logits", logits);
  const double scale = static_cast<double>(logits.cols()) / static_cast<double>(logits.rows());
  std::vector<double> s(means.mean.size()), by_share(s.size());
  for (Index r = 0; r < logits.rows(); ++r) {
    softmax_row(logits, r, options.temperature, s);
    const auto most = static_cast<std::size_t>(std::max_element(s.begin(), s.end()) - s.begin());
    double mean = 0;
    for (std::size_t e = 0; e < s.size(); ++e) {
      by_share[e] = 2 * means.mean[e] / means.largest;
      if (e == most) by_share[e] -= squares / (means.largest * means.largest);
      mean += by_share[e] * s[e];
    }
    for (std::size_t e = 0; e < s.size(); ++e)
      gradient(r, static_cast<Index>(e)) =
          static_cast<T>(scale * s[e] * (by_share[e] - mean) / options.temperature);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Loads and the load-balance loss of routed rows.
///
/// \param logits [rows, experts] of float or double, any strides, finite but for -infinity
/// \param plan   of those rows and experts
/// \throws std::invalid_argument if the plan is of other rows or experts, or a logit is NaN or
///         +infinity, or a row has no finite one
///
/// Cost: an exponential per logit, in double. No rows: all measures are 0 (entropy of one expert
/// 1).
template <In<2> L>
requires ComputeScalar<scalar_of<L>>
LoadBalance load_balance(const L& logits, const RoutePlan& plan) {
  return detail::load_balance(as_const(to_view(logits)), plan);
}

/// The gradient of the load-balance loss by the logits, through p alone: f counts as a constant, as
/// in training. d/dz_re = (E / rows) p_re (f_e - sum_j f_j p_rj), where p_r is the row's softmax.
///
/// \param logits,plan as load_balance
/// \param gradient    [rows, experts], any strides, written; apart from the logits
/// \throws std::invalid_argument as load_balance, or if gradient does not fit. Nothing is written
///         then.
template <In<2> L, Out<2> G>
requires ComputeScalar<scalar_of<L>> && SameScalar<L, G>
void load_balance_gradient(const L& logits, const RoutePlan& plan, G&& gradient) {
  detail::load_balance_gradient(as_const(to_view(logits)), plan, to_view(gradient));
}

/// Sigma-MoE-Tiny's loss of a top-1 gate: E sum fhat^2 / pbar, 1 where fhat is uniform and each row
/// is sure. 0 without rows.
///
/// \param logits [rows, experts] as load_balance
/// \throws std::invalid_argument as load_balance, or if the temperature is out of range
template <In<2> L>
requires ComputeScalar<scalar_of<L>>
double top_one_balance(const L& logits, const TopOneBalanceOptions& options = {}) {
  return detail::top_one_balance(as_const(to_view(logits)), options);
}

/// Its gradient by the logits. Where several shares of a row are largest, the first counts.
///
/// \param gradient [rows, experts], any strides, written; apart from the logits
/// \throws std::invalid_argument as top_one_balance, or if gradient does not fit. Nothing is
///         written then.
template <In<2> L, Out<2> G>
requires ComputeScalar<scalar_of<L>> && SameScalar<L, G>
void top_one_balance_gradient(const L& logits, G&& gradient,
                              const TopOneBalanceOptions& options = {}) {
  detail::top_one_balance_gradient(as_const(to_view(logits)), to_view(gradient), options);
}

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
