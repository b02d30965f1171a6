// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Finding the threshold of a sparse method that gives a wanted density or error on a sample.
///
/// ```cpp
/// const auto found = calibrate(q, k, v, EarlyStop{}, {.density = 0.25});
/// attend(q2, k2, v2, out, found.policy);                    // found.threshold, .density, .error
/// calibrate(q, k, v, Permuted{}, {.error = 1e-3});          // sets .selector.mass
/// ```
///
/// No threshold suits all models, layers and lengths. The papers tune it on samples, and so does
/// this.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <vector>

namespace pare::attention {

/// What `calibrate` is to find: exactly one of density and error.
struct CalibrationGoal {
  /// Wanted AttendStats::density, in (0, 1]: the largest that does not exceed it.
  std::optional<double> density{};

  /// Wanted relative mean square error, above 0: the sparsest setting that does not exceed it.
  std::optional<double> error{};

  /// The search ends once the measured value falls short of the goal by at most this share of it;
  /// at least 0.
  double tolerance = 0.02;

  /// The most calls of the sparse method, at least 1. One more is made if only the exact setting
  /// meets an error. The search ends earlier when no number lies between the two settings around
  /// the goal.
  int most_calls = 24;
};

/// What `calibrate` found.
template <class Policy>
struct Calibration {
  Policy policy{};       ///< with the threshold set
  double threshold = 0;  ///< of the policy, or its mass or share
  double density = 1;    ///< on the sample
  double error = 0;      ///< on the sample: sum |out - exact|^2 / sum |exact|^2
};

/// A policy of `attend` that becomes sparser as its `threshold` grows, and is exact at 0.
template <class P>
concept ThresholdPolicy = requires(P& policy) { policy.threshold = 0.5f; };

/// A policy of `attend` that becomes sparser as its `mass`, that of its `selector` or its `share`
/// falls, and is exact at 1.
template <class P>
concept MassPolicy = !ThresholdPolicy<P> && (requires(P& policy) { policy.mass = 0.5f; } ||
                                             requires(P& policy) { policy.selector.mass = 0.5f; } ||
                                             requires(P& policy) { policy.share = 0.5f; });

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* calibrate_name = "attention::calibrate";

inline void check_goal(const CalibrationGoal& goal) {
  check(goal.density.has_value() != goal.error.has_value(), calibrate_name, "density, error",
        goal.density ? "both" : "neither", "one of them");
  const double wanted = goal.density ? *goal.density : *goal.error;
  check(is_finite(wanted) && wanted > 0, calibrate_name, goal.density ? "density" : "error", wanted,
        "a finite number above 0");
  check(!goal.density || wanted <= 1, calibrate_name, "density", wanted, "at most 1");
  check(is_finite(goal.tolerance) && goal.tolerance >= 0, calibrate_name, "tolerance",
        goal.tolerance, "a finite share of at least 0");
  check(goal.most_calls >= 1, calibrate_name, "most_calls", goal.most_calls, "at least 1");
}

/// A policy whose masses are set head by head does not look at the one that is to be found.
template <class P>
void check_knob(const P& policy) {
  if constexpr (requires { policy.selector.mass; })
    check_knob(policy.selector);
  else if constexpr (requires { policy.head_masses.empty(); })
    check(policy.head_masses.empty(), calibrate_name, "policy", "head_masses that are set",
          "none, since they take the place of the mass to be found");
}

/// The mass of a policy, or its share.
template <class P>
auto& kept_share(P& policy) {
  if constexpr (requires { policy.mass; })
    return policy.mass;
  else
    return policy.share;
}

/// Sets a policy to a point on its way from exact, 0, to as sparse as it gets, 1; returns the
/// threshold, mass or share. Thresholds, which span orders of magnitude, run from 2^-40 to 2, past
/// which no gain and no share of an output lies; masses and shares of blocks from 1 to 2^-10.
template <class P>
double set_sparsity(P& policy, double sparsity) {
  if constexpr (ThresholdPolicy<P>) {
    const double value = sparsity > 0 ? std::exp2(41 * sparsity - 40) : 0;
    policy.threshold = static_cast<decltype(policy.threshold)>(value);
    return static_cast<double>(policy.threshold);
  } else if constexpr (requires { policy.selector.mass; }) {
    return set_sparsity(policy.selector, sparsity);
  } else {
    auto& kept = kept_share(policy);
    kept = static_cast<std::remove_reference_t<decltype(kept)>>(1 - sparsity * (1 - 0x1p-10));
    return static_cast<double>(kept);
  }
}

template <class T>
double square_sum(const std::vector<T>& list) {
  double sum = 0;
  for (const T x : list) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum;
}

/// sum |out - exact|^2 / sum |exact|^2; 0 where both are 0.
template <class T>
double relative_square_error(const std::vector<T>& out, const std::vector<T>& exact) {
  double error = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double e = static_cast<double>(out[i]) - static_cast<double>(exact[i]);
    error += e * e;
  }
  return error == 0 ? 0 : error / square_sum(exact);
}

/// The sample, and what a setting of the policy does to it.
template <class B, class S, class P>
class Trial {
  using T = compute_t<S>;
  using Input = TensorView<const S, 4>;

 public:
  Trial(const B& backend, Input q, Input k, Input v, const P& policy, const AttendOptions& options)
      : backend_(backend),
        q_(q),
        k_(k),
        v_(v),
        policy_(policy),
        options_(causal_unless_told(options)) {
    check(!options.lse.wanted(), calibrate_name, "lse", "a view", "none: no call is the last one");
    check_view(calibrate_name, "q", q);
    check_view(calibrate_name, "k", k);
    check_view(calibrate_name, "v", v);
    const Index rows = checked_product(calibrate_name, "q", q.extent[0] * q.extent[1], q.extent[2]);
    const Index size = checked_product(calibrate_name, "v", rows, v.extent[3]);
    exact_.resize(static_cast<std::size_t>(size));
    out_.resize(exact_.size());
    attend(backend_, q_, k_, v_, view(exact_), Exact{}, options_);
    check(is_finite(square_sum(exact_)), calibrate_name, "q, k, v",
          "a sample whose exact output holds NaN or infinity", "finite numbers");
  }

  /// The threshold or mass at a point.
  double setting(double sparsity) const {
    P policy = policy_;
    return set_sparsity(policy, sparsity);
  }

  Calibration<P> at(double sparsity) {
    Calibration<P> tried{policy_};
    tried.threshold = set_sparsity(tried.policy, sparsity);
    tried.density = attend(backend_, q_, k_, v_, view(out_), tried.policy, options_).density;
    tried.error = relative_square_error(out_, exact_);
    return tried;
  }

 private:
  TensorView<T, 4> view(std::vector<T>& list) const {
    const Index n = q_.extent[2], columns = v_.extent[3];
    return {list.data(),
            {q_.extent[0], q_.extent[1], n, columns},
            {q_.extent[1] * n * columns, n * columns, columns, 1}};
  }

  const B& backend_;
  Input q_, k_, v_;
  const P& policy_;
  AttendOptions options_;
  std::vector<T> exact_, out_;
};

/// How a measured setting stands to the goal: above 0, it is too dense or has error to spare; below
/// 0, it is too sparse for the error, or at or below the density. An error that is NaN is too
/// large.
template <class P>
double spare(const Calibration<P>& c, const CalibrationGoal& goal) {
  if (goal.density) return c.density - *goal.density;
  return c.error <= *goal.error ? *goal.error - c.error : -1;
}

template <class P>
bool close_enough(const Calibration<P>& c, const CalibrationGoal& goal) {
  const double left = goal.density ? *goal.density - c.density : *goal.error - c.error;
  return left >= 0 && left <= goal.tolerance * (goal.density ? *goal.density : *goal.error);
}

/// Bisects between a setting that is too dense and one that is sparse enough, or for an error
/// between one that is right and one that errs too much, until none lies between them.
template <class Trial>
auto bisect_sparsity(const CalibrationGoal& goal, Trial& trial) {
  auto sparse = trial.at(1.0), dense = sparse;
  check(sparse.density < 1 || sparse.error != 0, calibrate_name, "q, k, v",
        "a sample on which the policy is exact at its sparsest",
        "a sample long enough for it to leave keys out");
  bool dense_known = false;
  double low = 0, high = 1;
  // As sparse as it gets: still too dense, or with error to spare.
  if (spare(sparse, goal) >= 0 || close_enough(sparse, goal)) return sparse;
  for (int calls = 1; calls < goal.most_calls; ++calls) {
    const double middle = (low + high) / 2, setting = trial.setting(middle);
    if (setting == trial.setting(low) || setting == trial.setting(high)) break;
    auto tried = trial.at(middle);
    if (close_enough(tried, goal)) return tried;
    if (spare(tried, goal) > 0) {
      low = middle;
      dense = tried;
      dense_known = true;
    } else {
      high = middle;
      sparse = tried;
    }
  }
  if (goal.density) return sparse;
  return dense_known ? dense : trial.at(0.0);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Finds, by bisection, the setting of `policy` that comes nearest to a goal on a sample without
/// exceeding it: the sparsest for an error, the densest for a density.
///
/// \param backend where and how; left out: pare::simd
/// \param q       [batch, heads, queries, key dim]; k, v as for `attend`
/// \param policy  EarlyStop, Permuted, ProxyHeads, MeanPool, SampledMass, or any policy of `attend`
///                with a `threshold`, a `mass`, a selector with one, or a `share`; its other
///                members stay as they are
/// \param goal    a density, or an error
/// \param options of both the exact and the sparse calls, without lse
/// \returns the policy with its threshold, mass or share set, and the density and error that it has
/// \throws std::invalid_argument if the goal does not make sense, lse is wanted, the policy has
///         masses for each head, the exact output holds NaN or infinity, the policy is exact on the
///         sample however sparse it is set, or `attend` refuses the rest
///
/// Take a sample as long as the sequences to come: a policy that is exact for short sequences, as
/// Permuted is below its `dense_below`, tells nothing there. If even the sparsest setting exceeds
/// the wanted density, it is returned, so look at the density found. Density and error move in
/// steps, and the error does not always rise with sparsity, so a better setting may exist; what is
/// returned was measured. Cost: one exact call and up to `most_calls` sparse ones. Memory: two
/// outputs in the scalar that is computed in. The result is the same for any number of threads.
/// Source: ours.
template <Backend B, In<4> Q, In<4> K, In<4> V, class Policy>
requires((ThresholdPolicy<Policy> || MassPolicy<Policy>) &&
         AttendScalars<Q, K, V, TensorView<scalar_of<Q>, 4>>)
Calibration<Policy> calibrate(const B& backend, const Q& q, const K& k, const V& v,
                              const Policy& policy, const CalibrationGoal& goal,
                              const AttendOptions& options = {}) {
  detail::check_goal(goal);
  detail::check_knob(policy);
  detail::Trial<B, scalar_of<Q>, Policy> trial(backend, as_const(to_view(q)), as_const(to_view(k)),
                                               as_const(to_view(v)), policy, options);
  return detail::bisect_sparsity(goal, trial);
}

/// \overload
template <In<4> Q, In<4> K, In<4> V, class Policy>
requires((ThresholdPolicy<Policy> || MassPolicy<Policy>) &&
         AttendScalars<Q, K, V, TensorView<scalar_of<Q>, 4>>)
Calibration<Policy> calibrate(const Q& q, const K& k, const V& v, const Policy& policy,
                              const CalibrationGoal& goal, const AttendOptions& options = {}) {
  return calibrate(simd, q, k, v, policy, goal, options);
}

PARE_REFUSE_CALLS(calibrate, "attention::calibrate",
                  "after v: wanted a policy with a threshold, mass or share, a CalibrationGoal and "
                  "AttendOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k", "[batch, kv heads, keys, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "v", "[batch, kv heads, keys, value dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
