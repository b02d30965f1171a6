// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Temperature, top-k, top-p and min-p from the best logits of a head, with a certificate: the law
/// is returned only if it is that of a sort of all logits.
///
/// ```cpp
/// const Sampling cut{.temperature = 0.8, .top_p = 0.9, .min_p = 0.02};
/// const auto law = truncated_law(head, hidden, 0, cut);           // of row 0
/// const std::int32_t token = law.draw({.seed = 7}, position);     // the same noise as head.sample
///
/// const auto top = head.top_k(hidden, 64, 0.8);                   // or of a summary one has:
/// if (const auto certain = certified_law(top, 0, head.outputs(), cut)) certain->probabilities;
/// ```
///
/// The law is that of `token_law` (sampling.hpp) of the row's logits; sampling_options.hpp has the
/// steps and their order.
///
/// A summary of K logits and the log-sum-exp of all decides it if a step cuts among the K: top-k
/// with k at most K; min-p once a kept logit falls below; top-p once the mass passes it, by more
/// than log-sum-exp may be off (4e-6 for float), and if no larger top-k changes what masses are of.
/// `truncated_law` starts from 256 and, if that is too few, sorts all logits of that row.
///
/// The certificate is ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/gumbel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/detail/head_argument.hpp>
#include <pare/draft/head.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/sampling_options.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::draft {

PARE_ABI_BEGIN

/// The tokens that stay, the likeliest first. Of a row that is not Sound: none.
struct TruncatedLaw {
  std::vector<std::int32_t> ids;
  std::vector<double> scores;         ///< z / temperature
  std::vector<double> probabilities;  ///< sum to 1

  /// The token of the largest z / temperature + G, the same that a draw from all logits by this
  /// noise gives where nothing is cut; -1 of no tokens.
  std::int32_t draw(GumbelNoise noise, Index position) const {
    std::int32_t drawn = -1;
    double best = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const double score = scores[i] + noise.at(position, static_cast<std::uint32_t>(ids[i]));
      if (score < best || (score == best && ids[i] > drawn)) continue;
      best = score;
      drawn = ids[i];
    }
    return drawn;
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// How many of the first `known` of a row stay, of all `size`; none if that cannot be told. Weights
/// are e^((z - max) / t), falling, with `mass` the sum of all of them, off by `margin` of itself.
inline std::optional<std::size_t> kept_of(const std::vector<double>& weights, std::size_t size,
                                          double mass, double margin, const Sampling& cut) {
  const std::size_t known = weights.size();
  std::size_t kept = known;
  bool whole = known == size;
  if (cut.top_k && static_cast<std::size_t>(*cut.top_k) <= known) {
    kept = static_cast<std::size_t>(*cut.top_k);
    whole = true;
  }
  if (whole) {
    mass = margin = 0;
    for (std::size_t i = 0; i < kept; ++i) mass += weights[i];
  }
  const bool known_mass = whole || !cut.top_k || static_cast<std::size_t>(*cut.top_k) >= size;
  if (cut.top_p && *cut.top_p < 1) {
    double before = 0;
    for (std::size_t i = 1; i <= kept; ++i) {
      before += weights[i - 1];
      if (i == kept && whole) break;
      // Token i, which may be the first unknown one, stays if the mass before it is at most top_p.
      const double over = before - *cut.top_p * mass;
      if (over < -margin * mass || (whole && over <= 0)) continue;
      if (!known_mass || (!whole && over <= margin * mass)) return std::nullopt;
      kept = i;
      whole = true;
    }
    if (!known_mass) return std::nullopt;
  }
  if (cut.min_p)
    for (std::size_t i = 0; i < kept; ++i)
      if (weights[i] < *cut.min_p) {
        kept = i;
        whole = true;
      }
  if (!whole) return std::nullopt;
  while (weights[kept - 1] == 0) --kept;  // the first is 1
  return kept;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The law of one row of a summary, if its k logits decide it.
///
/// \param summary of reduce or top_k, at the temperature of `cut`
/// \param outputs of the head
/// \throws std::invalid_argument if the row is not one of the summary's, outputs are fewer than its
///         k, temperatures differ, or an option is out of its range
template <ComputeScalar T>
std::optional<TruncatedLaw> certified_law(const HeadSummary<T>& summary, Index row, Index outputs,
                                          const Sampling& cut) {
  constexpr const char* function = "draft::certified_law";
  validate(function, cut);
  check(row >= 0 && row < summary.rows, function, "row", row, Worded{"0 to below ", summary.rows});
  check(outputs >= summary.k, function, "outputs", outputs, Worded{"at least k, ", summary.k});
  check(cut.temperature == summary.temperature, function, "temperature", cut.temperature,
        summary.temperature);
  const auto r = static_cast<std::size_t>(row);
  if (summary.status[r] != RowStatus::Sound) return TruncatedLaw{};
  constexpr double margin = std::is_same_v<T, float> ? 4e-6 : 1e-12;
  std::vector<double> weights;
  TruncatedLaw law;
  const double most = summary.maximum[r] / summary.temperature;
  for (Index i = 0; i < summary.k; ++i) {
    law.ids.push_back(summary.id(row, i));
    law.scores.push_back(static_cast<double>(summary.value(row, i)) / summary.temperature);
    weights.push_back(std::exp(law.scores.back() - most));
  }
  const double mass = std::exp(summary.log_sum_exp[r] - most);
  const auto kept = detail::kept_of(weights, static_cast<std::size_t>(outputs), mass, margin, cut);
  if (!kept) return std::nullopt;
  law.ids.resize(*kept);
  law.scores.resize(*kept);
  weights.resize(*kept);
  double sum = 0;
  for (const double w : weights) sum += w;
  for (double& w : weights) w /= sum;
  law.probabilities = std::move(weights);
  return law;
}

/// The law of one row of hidden states.
///
/// \param backend     left out: pare::simd
/// \param hidden      [rows, inputs]
/// \param row         of them
/// \param cut         at a temperature below 1e-5 the law is the largest logit
/// \param candidates  logits that are kept at first, at least 1
/// \throws std::invalid_argument if an argument is out of its range
/// Cost: a call of the head; where the candidates do not decide, another, with all logits kept.
template <Backend B, DraftHead H, HeadRows<typename H::scalar> X>
TruncatedLaw truncated_law(const B& backend, const H& head, const X& hidden, Index row,
                           const Sampling& cut, Index candidates = 256) {
  constexpr const char* function = "draft::truncated_law";
  validate(function, cut);
  check(candidates >= 1, function, "candidates", candidates, "at least 1");
  auto one = as_const(to_view(hidden));
  check_view(function, "hidden", one);
  check(row >= 0 && row < one.rows(), function, "row", row, Worded{"0 to below ", one.rows()});
  one.data = one.data + row * one.stride[0];
  one.extent[0] = 1;
  HeadSummary<typename H::scalar> top;
  if (cut.temperature < least_temperature) {
    head.reduce(backend, one, {.k = 1}, top);
    return *certified_law(top, 0, head.outputs(), {.top_k = 1});
  }
  for (const Index k : {candidates, head.outputs()}) {
    head.reduce(backend, one, {.k = k, .temperature = cut.temperature}, top);
    if (auto law = certified_law(top, 0, head.outputs(), cut)) return *law;
  }
  return {};  // not reached: all logits decide
}
/// \overload
template <DraftHead H, HeadRows<typename H::scalar> X>
TruncatedLaw truncated_law(const H& head, const X& hidden, Index row, const Sampling& cut,
                           Index candidates = 256) {
  return truncated_law(simd, head, hidden, row, cut, candidates);
}

PARE_REFUSE_CALLS(truncated_law, "draft::truncated_law",
                  "wanted a head, hidden of its scalar, a row, Sampling, members spelt and ordered "
                  "as declared, and a number of candidates",
                  (PLAIN, (roles::Takes<detail::IsHead>), "head", "a DraftHead"),
                  (INPUT, (roles::Reads<2>), "hidden", "[rows, inputs]"),
                  (ANY, (roles::TakesAny), "row", "a number"),
                  (ANY, (roles::TakesAny), "cut", "Sampling"))

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
