// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Lossless acceptance at one node of a tree: which child the target's law takes, or what is left
/// of the law if it takes none. verify_sampled.hpp walks a tree by them.
///
/// ```cpp
/// verify_sampled(tree, SequentialRule{}, laws, {.seed = 3}, position, round);
/// ```
///
/// | rule | children of a node | accepts x if | after a rejection |
/// |---|---|---|---|
/// | `ChainRule` | one draw from q | u q(x) < p(x) | p := (p - q)+, normalised |
/// | `SequentialRule` | any function of the context | u < p(x) | p(x) := 0, normalised |
/// | `OneCoinRule` | any function of the context | u < p's sum up to x | p(x) := 0 |
/// | `SpecInferRule` | draws from q, repeated ones kept | u q(x) < p(x) | as of ChainRule |
/// | `SequoiaRule` | draws without replacement | u q(x) < p(x) | also q(x) := 0, normalised |
///
/// u is uniform, a new one for each child but with OneCoinRule, where all children of a node share
/// one. Draws are children in the order in which they were drawn (draws.hpp). ChainRule is
/// Leviathan's and Chen's (2023), SequentialRule EAGLE's, OneCoinRule SGLang's.
///
/// p is the target's law after temperature, top-k, top-p and min-p; q is the law that the children
/// were drawn from, any law. Each rule gives tokens of the law p exactly, if the children are what
/// it says; they differ in how often a child is accepted. Children that were sorted, or of which
/// repeated ones were dropped, are not what SpecInfer's rule says, and the law is then another.
///
/// Rules of arithmetic. u is in [0, 1) and comparisons are strict, so that a token of p(x) = 0 is
/// never accepted. A child with q(x) = 0 cannot have been drawn: it is rejected. If nothing is left
/// of p after a rejection, which happens with probability 0 but for rounding, the child is accepted
/// if p(x) > 0, and else p stays as it was. 0 / 0 is never computed.
///
/// Sources: Leviathan, Kalman and Matias, "Fast inference from transformers via speculative
/// decoding", ICML 2023, algorithm 1; Chen et al., "Accelerating large language model decoding with
/// speculative sampling", 2023; Miao et al., "SpecInfer", ASPLOS 2024, algorithm 2; Chen et al.,
/// "Sequoia", 2024, algorithm 2; EAGLE's and SGLang's code. Ours: what is done where rounding
/// leaves nothing.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/draft/keyed_noise.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pare::draft {

/// What a rule is given of a node.
struct NodeChildren {
  std::span<const std::int32_t> tokens{};  ///< of its children, in order; below the vocabulary
  std::span<double> p{};  ///< [vocabulary] the target's law; the rule leaves the residual law here
  std::span<double> q{};  ///< [vocabulary] the law of the draws, which may be overwritten; empty of
                          ///< rules that do not read it
};

/// The place of the accepted child among the tokens; -1: none, and p is what is left.
inline constexpr Index none_accepted = -1;

/// A rule at a node: `coins()` gives uniform numbers in [0, 1), such as Coins. It has
/// `reads_draft_law`, and accept(node, coins), which returns the place of a child or none_accepted,
/// and then leaves a law in node.p, of any sum above 0. `single_child` says that nodes have at most
/// one child.
template <class R>
concept NodeRule = requires(const R& rule, const NodeChildren& node, Coins& coins) {
  { R::reads_draft_law } -> std::convertible_to<bool>;
  { rule.accept(node, coins) } -> std::same_as<Index>;
};

namespace detail {
PARE_ABI_BEGIN

inline double sum_of(std::span<const double> law) {
  double sum = 0;
  for (const double x : law) sum += x;
  return sum;
}

/// law / its sum; false if nothing is there, and then it is left alone.
inline bool normalise(std::span<double> law) {
  const double sum = sum_of(law);
  if (!(sum > 0)) return false;
  for (double& x : law) x /= sum;
  return true;
}

/// The mass of (p - q)+.
inline double residual_mass(std::span<const double> p, std::span<const double> q) {
  double mass = 0;
  for (std::size_t i = 0; i < p.size(); ++i) mass += p[i] > q[i] ? p[i] - q[i] : 0;
  return mass;
}

/// p := (p - q)+, normalised; false if nothing would be left, and then p is left alone.
inline bool subtract(std::span<double> p, std::span<const double> q) {
  const double mass = residual_mass(p, q);
  if (!(mass > 0)) return false;
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = p[i] > q[i] ? (p[i] - q[i]) / mass : 0;
  return true;
}

enum class Drawn { WithReplacement, WithoutReplacement };

/// SpecInfer's and Sequoia's tests, which differ in what is done to q.
template <class Uniform>
Index accept_draws(const NodeChildren& node, Uniform& coins, Drawn drawn) {
  for (std::size_t i = 0; i < node.tokens.size(); ++i) {
    const auto x = static_cast<std::size_t>(node.tokens[i]);
    const double u = coins();
    if (!(node.q[x] > 0)) continue;
    if (u * node.q[x] < node.p[x]) return static_cast<Index>(i);
    if (!subtract(node.p, node.q) && node.p[x] > 0) return static_cast<Index>(i);
    if (drawn == Drawn::WithoutReplacement) {
      node.q[x] = 0;
      if (!normalise(node.q)) break;
    }
  }
  return none_accepted;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A chain: one draft token after the other. P(accept) = sum min(p, q).
struct ChainRule {
  static constexpr bool reads_draft_law = true;
  static constexpr bool single_child = true;
  template <class Uniform>
  Index accept(const NodeChildren& node, Uniform& coins) const {
    return detail::accept_draws(node, coins, detail::Drawn::WithReplacement);
  }
};

/// Children that were not drawn but chosen, such as the k most probable ones, tested one after the
/// other. P(accept) = the mass of p on them.
struct SequentialRule {
  static constexpr bool reads_draft_law = false;
  template <class Uniform>
  Index accept(const NodeChildren& node, Uniform& coins) const {
    for (std::size_t i = 0; i < node.tokens.size(); ++i) {
      const auto x = static_cast<std::size_t>(node.tokens[i]);
      const double u = coins(), kept = node.p[x];
      if (u < kept) return static_cast<Index>(i);
      node.p[x] = 0;
      if (!detail::normalise(node.p)) {
        node.p[x] = kept;
        if (kept > 0) return static_cast<Index>(i);
      }
    }
    return none_accepted;
  }
};

/// The same law by one coin for all children of a node.
struct OneCoinRule {
  static constexpr bool reads_draft_law = false;
  template <class Uniform>
  Index accept(const NodeChildren& node, Uniform& coins) const {
    const double u = coins();
    double sum = 0;
    Index likely = none_accepted;
    for (std::size_t i = 0; i < node.tokens.size(); ++i) {
      double& p = node.p[static_cast<std::size_t>(node.tokens[i])];
      sum += p;
      if (u < sum) return static_cast<Index>(i);
      if (p > 0) likely = static_cast<Index>(i);
      p = 0;  // so that a second child of this token adds nothing
    }
    // If all of p lies on the children, only rounding let the coin pass them.
    return detail::sum_of(node.p) > 0 ? none_accepted : likely;
  }
};

/// Several draws with replacement.
struct SpecInferRule {
  static constexpr bool reads_draft_law = true;
  template <class Uniform>
  Index accept(const NodeChildren& node, Uniform& coins) const {
    return detail::accept_draws(node, coins, detail::Drawn::WithReplacement);
  }
};

/// Several draws without replacement, as draw_distinct makes them.
struct SequoiaRule {
  static constexpr bool reads_draft_law = true;
  template <class Uniform>
  Index accept(const NodeChildren& node, Uniform& coins) const {
    return detail::accept_draws(node, coins, detail::Drawn::WithoutReplacement);
  }
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
