// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Draft tokens drawn from a law, as SpecInfer's and Sequoia's verification want them.
///
/// ```cpp
/// Coins coins({.seed = 5}, position);
/// draw_repeated(law, 4, coins, tokens);   // for SpecInferRule, and with 1 for ChainRule
/// draw_distinct(law, 4, coins, tokens);   // for SequoiaRule
/// tree.start(root, 5, Siblings::MayRepeat);
/// for (const std::int32_t token : tokens) tree.add(0, token);   // in this order
/// ```
///
/// Coins of drafting must not be those of verification: give them a seed of their own.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pare::draft {

namespace detail {
PARE_ABI_BEGIN

/// Throws unless numbers are finite, none below 0, and sum to 1 within 0.001.
inline void check_law(const char* function, const char* argument, std::span<const double> law) {
  double sum = 0;
  for (const double p : law) {
    check(is_finite(p) && p >= 0, function, argument, p, "probabilities of at least 0");
    sum += p;
  }
  check(sum >= 0.999 && sum <= 1.001, function, argument, sum,
        "probabilities that sum to 1 within 0.001");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Draws with replacement.
/// \param law    [vocabulary], sums to 1
/// \param count  at least 0
/// \param tokens written, in the order drawn; some may be there twice
/// \throws std::invalid_argument if the law is none or count is negative. Nothing is written then.
/// Cost: two passes over the law for each draw.
inline void draw_repeated(std::span<const double> law, Index count, Coins& coins,
                          std::vector<std::int32_t>& tokens) {
  constexpr const char* function = "draft::draw_repeated";
  detail::check_law(function, "law", law);
  check(count >= 0, function, "count", count, "at least 0");
  tokens.clear();
  for (Index i = 0; i < count; ++i) tokens.push_back(draw(law, coins()));
}

/// Draws without replacement: each from the law without those before it, normalised. That is the
/// order of -log(u_i) / law_i with a coin for each token (Efraimidis and Spirakis, 2006).
/// \param backend left out: pare::simd; the draws do not depend on it
/// \param tokens  written, in the order drawn; fewer than count if fewer have a probability above 0
/// \throws std::invalid_argument as draw_repeated
/// Cost: a Philox and a logarithm for each token of positive probability. Memory: 16 bytes for
/// each, kept in the backend's workspace.
template <Backend B>
void draw_distinct(const B& backend, std::span<const double> law, Index count, Coins& coins,
                   std::vector<std::int32_t>& tokens) {
  constexpr const char* function = "draft::draw_distinct";
  detail::check_law(function, "law", law);
  check(count >= 0, function, "count", count, "at least 0");
  const auto keys = leased<std::vector<std::pair<double, std::int32_t>>>(backend);
  keys->clear();
  for (std::size_t i = 0; i < law.size(); ++i)
    if (law[i] > 0)
      keys->emplace_back(-std::log(1 - coins()) / law[i], static_cast<std::int32_t>(i));
  const Index kept = std::min(count, static_cast<Index>(keys->size()));
  std::partial_sort(keys->begin(), keys->begin() + kept, keys->end());
  tokens.clear();
  for (Index i = 0; i < kept; ++i) tokens.push_back((*keys)[static_cast<std::size_t>(i)].second);
}
/// \overload
inline void draw_distinct(std::span<const double> law, Index count, Coins& coins,
                          std::vector<std::int32_t>& tokens) {
  draw_distinct(simd, law, count, coins, tokens);
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
