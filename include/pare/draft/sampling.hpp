// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// From a row of logits to the law that a token is drawn from: temperature, top-k, top-p, min-p.
///
/// ```cpp
/// std::vector<double> law(vocabulary);
/// token_law(logits, {.temperature = 0.8, .top_p = 0.95}, law);    // sums to 1
/// const std::int32_t token = draw(law, u);                        // u in [0, 1)
/// ```
///
/// sampling_options.hpp has the steps and their order. Laws are in double. A NaN, a +infinity, or a
/// row of -infinity alone is refused, and so is one whose largest logit over the temperature is
/// beyond double.
///
/// Lossless verification (verify_sampled.hpp) is exact for the law that these steps give.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/sampling_options.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft {

/// A row of logits: a range, a rank-1 view, or a vector of Eigen's.
template <class X>
concept LogitRow =
    In<X, 1> ||
    (In<X, 2> && requires { requires bool(std::remove_cvref_t<X>::IsVectorAtCompileTime); });

namespace detail {
template <class X>
using IsLogitRow = std::bool_constant<LogitRow<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

/// The token of the largest logit, the lowest of equal ones.
/// \throws std::invalid_argument as the file says
template <class S>
std::int32_t checked_argmax(const char* function, TensorView<const S, 1> logits) {
  using T = compute_t<S>;
  check(logits.extent[0] >= 1 && logits.extent[0] <= std::numeric_limits<std::int32_t>::max(),
        function, "logits", logits.extent, "from 1 to below 2^31 logits");
  Index best = 0;
  T most = -std::numeric_limits<T>::infinity();
  for (Index i = 0; i < logits.extent[0]; ++i) {
    const T z = static_cast<T>(logits(i));
    if (z <= most) continue;  // NaN goes on, and is refused
    check(is_finite(static_cast<double>(z)), function, "logits", static_cast<double>(z),
          "logits that are finite or -infinity");
    most = z;
    best = i;
  }
  check(is_finite(static_cast<double>(most)), function, "logits", "a row of -infinity",
        "a finite logit");
  return static_cast<std::int32_t>(best);
}

/// The same of a law at a temperature, over which the largest logit must be finite.
template <class S>
std::int32_t checked_argmax(const char* function, TensorView<const S, 1> logits,
                            double temperature) {
  const std::int32_t best = checked_argmax(function, logits);
  const auto most = static_cast<double>(static_cast<compute_t<S>>(logits(best)));
  check(temperature < least_temperature || is_finite(most / temperature), function, "logits", most,
        "logits that are finite over the temperature");
  return best;
}

/// Sets all but the k largest of a law's scores to -infinity.
inline void keep_top_k(std::span<double> scores, Index k, std::vector<std::int32_t>& order) {
  if (k >= static_cast<Index>(scores.size())) return;
  order.resize(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](std::int32_t a, std::int32_t b) {
    const double x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::nth_element(order.begin(), order.begin() + k, order.end(), before);
  for (auto i = order.begin() + k; i != order.end(); ++i)
    scores[static_cast<std::size_t>(*i)] = -std::numeric_limits<double>::infinity();
}

/// e^(scores - most), and their sum.
inline double exponentiate(std::span<double> scores, double most) {
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - most);
  return sum;
}

/// Sets to 0 what comes after a mass of top_p. Weights sum to `sum`.
inline void keep_top_p(std::span<double> weights, double sum, double top_p,
                       std::vector<std::int32_t>& order) {
  order.clear();
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (weights[i] > 0) order.push_back(static_cast<std::int32_t>(i));
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const double x = weights[static_cast<std::size_t>(a)], y = weights[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  });
  double before = 0;
  for (const std::int32_t i : order) {
    double& weight = weights[static_cast<std::size_t>(i)];
    const double mass = weight;
    if (before > top_p * sum) weight = 0;
    before += mass;
  }
}

/// The law of checked logits; `most` is the largest of them.
template <class S>
void law_of(TensorView<const S, 1> logits, std::int32_t best, const Sampling& options,
            std::span<double> law, std::vector<std::int32_t>& order) {
  using T = compute_t<S>;
  if (options.temperature < least_temperature) {
    std::fill(law.begin(), law.end(), 0.0);
    law[static_cast<std::size_t>(best)] = 1;
    return;
  }
  for (std::size_t i = 0; i < law.size(); ++i)
    law[i] =
        static_cast<double>(static_cast<T>(logits(static_cast<Index>(i)))) / options.temperature;
  if (options.top_k) keep_top_k(law, *options.top_k, order);
  const double sum = exponentiate(law, law[static_cast<std::size_t>(best)]);
  if (options.top_p && *options.top_p < 1) keep_top_p(law, sum, *options.top_p, order);
  if (options.min_p)
    for (double& weight : law)
      if (weight < *options.min_p) weight = 0;
  double kept = 0;
  for (const double weight : law) kept += weight;
  for (double& weight : law) weight /= kept;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The law of the next token.
///
/// \param backend left out: pare::simd; the bits do not depend on it
/// \param logits  [vocabulary], any stride
/// \param options as the file says
/// \param law     [vocabulary], written; sums to 1 but for rounding
/// \throws std::invalid_argument if an option is out of its range, sizes differ, or logits are
///         none that have a law. Nothing is written then.
///
/// Cost: an exponential for each token, and with top_p a sort of those that stay. Memory: 4 bytes
/// for each token with top_k or top_p, kept in the backend's workspace.
template <Backend B, LogitRow Z>
void token_law(const B& backend, const Z& logits, const Sampling& options, std::span<double> law) {
  constexpr const char* function = "draft::token_law";
  const auto z = as_const(to_vector_view(logits));
  validate(function, options);
  check_view(function, "logits", z);
  check(static_cast<Index>(law.size()) == z.extent[0], function, "law", law.size(), z.extent[0]);
  const TensorView<double, 1> out{law.data(), {z.extent[0]}, {1}};
  check_no_overlap(function, "law", out, "logits", z);
  const std::int32_t best = detail::checked_argmax(function, z, options.temperature);
  detail::law_of(z, best, options, law, *leased<std::vector<std::int32_t>>(backend));
}
/// \overload
template <LogitRow Z>
void token_law(const Z& logits, const Sampling& options, std::span<double> law) {
  token_law(simd, logits, options, law);
}

PARE_REFUSE_CALLS(token_law, "draft::token_law",
                  "wanted logits, Sampling, members spelt and ordered as declared, and a law of "
                  "double to write",
                  (PLAIN, (roles::Takes<detail::IsLogitRow>), "logits",
                   "[vocabulary] of float, double, bf16 or f16 in memory: one row, as a range, a "
                   "vector or row of Eigen's, or a view of rank 1"),
                  (ANY, (roles::TakesAny), "options", "Sampling"),
                  (ANY, (roles::TakesAny), "law", "[vocabulary] of double"))

/// The token at which the running sum of a law passes u times its mass: a draw, if u is uniform.
/// \param law at least one number above 0, none below; not checked
/// \param u   in [0, 1)
/// \returns a token of positive probability, whatever rounding does: the last one if the sum falls
///          short of u
inline std::int32_t draw(std::span<const double> law, double u) {
  double mass = 0;
  for (const double p : law) mass += p;
  double sum = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < law.size(); ++i) {
    if (!(law[i] > 0)) continue;
    last = i;
    sum += law[i];
    if (u * mass < sum) break;
  }
  return static_cast<std::int32_t>(last);
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
