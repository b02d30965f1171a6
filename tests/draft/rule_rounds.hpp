// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/draft/draws.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/node_rules.hpp>
#include <pare/draft/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "draft/chi_square.hpp"

namespace pare::testing {

inline constexpr Index rule_draws = 2'000'000;

/// What many rounds at one node gave.
struct RuleOutcome {
  double fit = 0;       ///< p of the law
  double accepted = 0;  ///< share of rounds in which a child was
};

/// The k most probable tokens, best first.
inline std::vector<std::int32_t> most_probable(const std::vector<double>& law, std::size_t k) {
  std::vector<std::int32_t> order(law.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return law[static_cast<std::size_t>(a)] > law[static_cast<std::size_t>(b)];
  });
  order.resize(k);
  return order;
}

/// Many rounds at one node: `propose(coins, tokens)` makes the children, `rule` accepts one, or the
/// token is drawn from what it leaves.
template <class Rule, class Propose>
RuleOutcome run_rule(const LawPair& laws, const Rule& rule, const Propose& propose,
                     Index draws = rule_draws) {
  std::vector<std::int64_t> counts(laws.p.size());
  std::vector<std::int32_t> tokens;
  std::vector<double> p, q;
  Index accepted = 0;
  for (Index i = 0; i < draws; ++i) {
    draft::Coins drafting({.seed = 11}, i), coins({.seed = 12}, i);
    propose(drafting, tokens);
    p = laws.p;
    q = laws.q;
    const Index place = rule.accept({tokens, p, q}, coins);
    accepted += place >= 0 ? 1 : 0;
    const std::int32_t token =
        place >= 0 ? tokens[static_cast<std::size_t>(place)] : draft::draw(p, coins());
    ++counts[static_cast<std::size_t>(token)];
  }
  return {goodness_of_fit(counts, laws.p),
          static_cast<double>(accepted) / static_cast<double>(draws)};
}

/// Draws from q as the rules want them.
struct DrawRepeated {
  const std::vector<double>& q;
  Index count;
  void operator()(draft::Coins& coins, std::vector<std::int32_t>& tokens) const {
    draft::draw_repeated(q, count, coins, tokens);
  }
};

}  // namespace pare::testing
