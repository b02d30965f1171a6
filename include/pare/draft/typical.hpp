// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Typical acceptance (Medusa). LOSSY: what it commits does not have the target's law. It is never
/// used unless this function is called and `lossy` is set.
///
///     node x is typical if p(x | its parent) > min(epsilon, delta exp(-H(p)))
///
/// ```cpp
/// verify_typical(tree, laws_of(logits, {.temperature = 0.7}), {.lossy = true}, {.seed = 3},
///                position, round);
/// ```
///
/// H = -sum p log(p + 1e-5), in natural logarithms. A node is accepted if all on its path are
/// typical; the deepest accepted node wins, of equal depth the one whose path the target finds
/// most probable. The token behind it is drawn from the target's law.
///
/// Source: Cai et al., "Medusa", 2024, section 3.3.1, and its code: epsilon and delta are what
/// medusa_generate passes, 0.09 and 0.3 (the helper's own defaults are the other way round). Ours:
/// the token behind the path is drawn, which the code does by argmax at temperature 0.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/sampling.hpp>
#include <pare/draft/tree.hpp>
#include <pare/draft/verify.hpp>
#include <pare/draft/verify_sampled.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::draft {

/// Options of verify_typical.
struct TypicalOptions {
  bool lossy = false;     ///< must be set: the law of what is committed is not the target's
  double epsilon = 0.09;  ///< the hard threshold, from 0 to 1
  double delta = 0.3;     ///< of the threshold by entropy, from 0 to 1
};

PARE_ABI_BEGIN

/// The threshold that a law sets: min(epsilon, delta exp(-H)).
inline double typical_threshold(std::span<const double> law, const TypicalOptions& options) {
  double entropy = 0;
  for (const double p : law) entropy -= p * std::log(p + 1e-5);
  return std::min(options.epsilon, options.delta * std::exp(-entropy));
}

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// The memory of verify_typical.
struct TypicalWalk {
  std::vector<double> p{};
  std::vector<double> log_probability{};  ///< of the target, of accepted nodes
  std::vector<char> accepted{};
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Commits the longest path of typical tokens, and one token more. Lossy.
///
/// \param laws as of verify_sampled; laws of all accepted nodes are read
/// \throws std::invalid_argument unless `lossy` is set, if a threshold is out of its range, or as
///         verify_sampled. Nothing is written then.
/// Cost: a law, and its entropy, for each accepted node that has children.
template <Backend B, TokenLaws L>
void verify_typical(const B& backend, const DraftTree& tree, const L& laws,
                    const TypicalOptions& options, CoinKey key, Index position, Verified& out) {
  constexpr const char* function = "draft::verify_typical";
  check(options.lossy, function, "lossy", "false",
        "true: typical acceptance changes the law of what is committed");
  for (const double x : {options.epsilon, options.delta})
    check(is_finite(x) && x >= 0 && x <= 1, function, "epsilon, delta", x, "from 0 to 1");
  detail::check_tree(function, tree);
  if constexpr (requires { laws.validate(function, tree.size()); })
    laws.validate(function, tree.size());
  detail::check_children(function, tree, options, laws.vocabulary());
  const auto room = leased<detail::TypicalWalk>(backend);
  room->p.resize(static_cast<std::size_t>(laws.vocabulary()));
  room->log_probability.assign(static_cast<std::size_t>(tree.size()), 0.0);
  room->accepted.assign(static_cast<std::size_t>(tree.size()), 0);
  room->accepted[0] = 1;
  Index best = 0;
  const auto likely = [&](Index i) { return room->log_probability[static_cast<std::size_t>(i)]; };
  for (Index v = 0; v < tree.size(); ++v) {
    if (room->accepted[static_cast<std::size_t>(v)] == 0) continue;
    if (tree.depth(v) > tree.depth(best) ||
        (tree.depth(v) == tree.depth(best) && likely(v) > likely(best)))
      best = v;
    if (tree.first_child(v) < 0) continue;
    detail::take_target_law(function, laws, v, room->p, detail::workspace_of(backend));
    const double threshold = typical_threshold(room->p, options);
    for (Index c = tree.first_child(v); c >= 0; c = tree.next_sibling(c)) {
      const double p = room->p[static_cast<std::size_t>(tree.token(c))];
      if (!(p > threshold)) continue;
      room->accepted[static_cast<std::size_t>(c)] = 1;
      room->log_probability[static_cast<std::size_t>(c)] = likely(v) + std::log(p);
    }
  }
  detail::take_target_law(function, laws, best, room->p, detail::workspace_of(backend));
  Coins coins(key, position);
  detail::RoundWriter round(out);
  for (Index v = 0; v < tree.size(); ++v)
    if (tree.sees(best, v)) {
      round.add_node(v);
      if (v > 0) round.add_token(tree.token(v));
    }
  round.add_token(draw(room->p, coins()));
  round.finish();
}
/// \overload
template <TokenLaws L>
void verify_typical(const DraftTree& tree, const L& laws, const TypicalOptions& options,
                    CoinKey key, Index position, Verified& out) {
  verify_typical(simd, tree, laws, options, key, position, out);
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
