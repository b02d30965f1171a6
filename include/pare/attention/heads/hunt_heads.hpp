// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// HeadHunter: grows a set of attention heads, round by round, by what they do to an objective.
///
/// ```cpp
/// // How good a generation is with these heads perturbed (SoftPAG), masked, or boosted: yours.
/// const auto objective = [&](std::span<const HeadId> heads) { return score_of(model, heads); };
/// const HeadHunt hunt = hunt_heads(pool, objective, {.per_round = 3, .rounds = 5});
/// hunt.heads;         // in the order in which they came in: every prefix is a set of its own
/// hunt.round_scores;  // the objective of the set after each round
/// ```
///
///     S = {}
///     repeat `rounds` times:
///       score[h] = O(S + {h}) for each h of the pool
///       add the `per_round` heads of the highest scores to S, take them from the pool
///
/// One round of k heads ranks heads one by one; several rounds find heads that help only beside
/// others, and do not add two that do the same. The objective is all that the hunt knows: the paper
/// generates with the heads' maps blended with the identity (u = 1 while it searches) and asks a
/// preference model.
///
/// Source: Ahn et al., "Fine-grained perturbation guidance via attention head selection", arXiv
/// 2506.10978. Theirs adds k heads in each round though the score may fall. Ours: ties, the score
/// after each round, `stop_when_worse`, and threads.

#include <pare/core/macros_off.hpp>

#include <pare/attention/heads/head_id.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::attention {

/// Options of `hunt_heads`. The paper's settings are 24 heads in 1 round for general quality, of
/// which prefixes are used, and 3 heads in each of 5 rounds for a style.
struct HuntOptions {
  Index per_round = 1;  ///< heads that a round adds, at least 1
  Index rounds = 1;     ///< at least 1; the hunt ends earlier when the pool is empty

  /// Ends the hunt before a round whose heads, all together, lower the objective. Off: as in the
  /// paper, where a set may pass through a worse one to a better.
  bool stop_when_worse = false;

  /// Whether the objective may be called from several threads at once. If so, the candidates of a
  /// round are shared by the workers of the backend, and what an objective computes on threads of
  /// its own runs on one. If not, calls come one after the other, from the calling thread.
  bool concurrent = false;
};

PARE_ABI_BEGIN

/// What `hunt_heads` found.
struct HeadHunt {
  std::vector<HeadId> heads;         ///< as they came in: by round, then by falling score
  std::vector<double> scores;        ///< [heads] O(S + {h}) in the round in which h came in
  std::vector<double> round_scores;  ///< [rounds done] O(S) after the round

  /// With `stop_when_worse`: O of no heads, and of the set that was not taken, if there was one.
  std::optional<double> base{};
  std::optional<double> refused{};

  Index calls = 0;  ///< of the objective
};

/// A list of heads: a vector, an array, a span.
template <class P>
concept HeadList = std::convertible_to<const P&, std::span<const HeadId>>;

/// What judges a set of heads: higher is better. The heads that are in stand first, in their order.
template <class F>
concept HeadObjective = requires(const F& objective, std::span<const HeadId> heads) {
  { objective(heads) } -> std::convertible_to<double>;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* hunt_heads_name = "attention::hunt_heads";

template <class P>
struct IsHeadList : std::bool_constant<HeadList<std::remove_cvref_t<P>>> {};
template <class F>
struct IsHeadObjective : std::bool_constant<HeadObjective<std::remove_cvref_t<F>>> {};

inline std::string text(const HeadId& id) {
  return "head " + std::to_string(id.head) + " of layer " + std::to_string(id.layer);
}

/// The pool in the order of HeadId, by which ties are decided.
inline std::vector<HeadId> checked_pool(std::span<const HeadId> pool, const HuntOptions& options) {
  check(!pool.empty(), hunt_heads_name, "pool", "no heads", "at least one");
  check(options.per_round >= 1, hunt_heads_name, "per_round", options.per_round, "at least 1");
  check(options.rounds >= 1, hunt_heads_name, "rounds", options.rounds, "at least 1");
  std::vector<HeadId> sorted(pool.begin(), pool.end());
  std::ranges::sort(sorted);
  for (const HeadId& id : sorted)
    if (id.layer < 0 || id.head < 0)
      check(false, hunt_heads_name, "pool", text(id), "numbers of at least 0");
  const auto twice = std::ranges::adjacent_find(sorted);
  if (twice != sorted.end())
    check(false, hunt_heads_name, "pool", text(*twice) + " twice", "each head once");
  return sorted;
}

/// The objective, and what calls body(i) for i < count: any, so that the hunt is compiled once.
using Judge = std::function<double(std::span<const HeadId>)>;
using EachCandidate = std::function<void(Index count, const std::function<void(Index)>& body)>;

/// One hunt.
class Hunt {
 public:
  Hunt(std::vector<HeadId> pool, const HuntOptions& options, Judge objective, EachCandidate each)
      : pool_(std::move(pool)),
        options_(options),
        objective_(std::move(objective)),
        each_(std::move(each)) {}

  HeadHunt run() {
    if (options_.stop_when_worse) found_.base = score_of_set();
    std::optional<double> last = found_.base;
    for (Index round = 0; round < options_.rounds && !pool_.empty(); ++round) {
      const std::size_t before = found_.heads.size();
      const double after = add_round();
      if (options_.stop_when_worse && after < *last) {
        found_.heads.resize(before);
        found_.scores.resize(before);
        found_.refused = after;
        break;
      }
      found_.round_scores.push_back(after);
      last = after;
    }
    return std::move(found_);
  }

 private:
  /// O(S).
  double score_of_set() {
    ++found_.calls;
    const double score = objective_(found_.heads);
    check(!is_nan(score), hunt_heads_name, "objective",
          Worded{"NaN for a set of ", static_cast<Index>(found_.heads.size()), " heads"},
          "a number");
    return score;
  }

  static void check_score(double score, const HeadId& of) {
    if (is_nan(score))
      check(false, hunt_heads_name, "objective", "NaN for " + text(of), "a number");
  }

  /// O(S + {h}) of each head of the pool.
  std::vector<double> candidate_scores() {
    std::vector<double> scores(pool_.size());
    each_(static_cast<Index>(pool_.size()), [&](Index i) {
      const auto at = static_cast<std::size_t>(i);
      std::vector<HeadId> heads = found_.heads;
      heads.push_back(pool_[at]);
      scores[at] = objective_(heads);
      // Where calls come at once the first of the pool is named, whichever was met first.
      if (!options_.concurrent) check_score(scores[at], pool_[at]);
    });
    found_.calls += static_cast<Index>(pool_.size());
    for (std::size_t i = 0; i < scores.size(); ++i) check_score(scores[i], pool_[i]);
    return scores;
  }

  /// Adds the heads of a round, and returns the objective of the set that this makes.
  double add_round() {
    const std::vector<double> scores = candidate_scores();
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, [&](auto a, auto b) { return scores[a] > scores[b]; });
    order.resize(std::min(order.size(), static_cast<std::size_t>(options_.per_round)));
    for (const std::size_t i : order) {
      found_.heads.push_back(pool_[i]);
      found_.scores.push_back(scores[i]);
    }
    std::erase_if(pool_, [&](const HeadId& id) {
      return std::ranges::find(found_.heads, id) != found_.heads.end();
    });
    // A head that comes in alone makes the set that it was judged in.
    return order.size() == 1 ? found_.scores.back() : score_of_set();
  }

  std::vector<HeadId> pool_;
  HuntOptions options_;
  Judge objective_;
  EachCandidate each_;
  HeadHunt found_{};
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Grows a set of heads by HeadHunter's rounds.
///
/// \param backend   left out: pare::simd. Its threads share the candidates of a round where
///                  `concurrent` allows it; `pare::reference` has one
/// \param pool      the heads to choose from, in any order: of equal scores the lower layer wins,
///                  then the lower head
/// \param objective called with the heads of a set, those that are in first; higher is better,
///                  infinities included
/// \returns the heads in the order in which they came in, what they scored, the objective after
///          each round, and how often it was called
/// \throws std::invalid_argument if the pool is empty or has a head twice or with a negative
///         number, per_round or rounds is below 1, or a score is NaN: the text names the head.
///         What the objective throws passes through
///
/// Cost: one call of the objective for each head that is in the pool, in each round; one more in a
/// round that adds several heads, for the set that they make; one more with `stop_when_worse`, for
/// no heads. Memory: the pool and its scores. The result is the same for any number of threads if
/// the objective is a function of its heads.
template <Backend B, HeadList Pool, HeadObjective Objective>
HeadHunt hunt_heads(const B& backend, const Pool& pool, const Objective& objective,
                    const HuntOptions& options = {}) {
  std::vector<HeadId> sorted = detail::checked_pool(pool, options);
  // No parallel_for unless it is wanted: inside it, an objective's own threads would be one.
  detail::EachCandidate each = [](Index count, const std::function<void(Index)>& body) {
    for (Index i = 0; i < count; ++i) body(i);
  };
  if constexpr (KernelBackend<B>)
    if (options.concurrent)
      each = [&backend](Index count, const std::function<void(Index)>& body) {
        parallel_for(backend.executor, count, [&body](Index i, int) { body(i); });
      };
  const auto judge = [&objective](std::span<const HeadId> heads) {
    return static_cast<double>(objective(heads));
  };
  return detail::Hunt(std::move(sorted), options, judge, std::move(each)).run();
}

/// \overload
template <HeadList Pool, HeadObjective Objective>
HeadHunt hunt_heads(const Pool& pool, const Objective& objective, const HuntOptions& options = {}) {
  return hunt_heads(simd, pool, objective, options);
}

PARE_REFUSE_CALLS(hunt_heads, "attention::hunt_heads", "after objective: wanted HuntOptions",
                  (PLAIN, (roles::Takes<detail::IsHeadList>), "pool", "a list of HeadId"),
                  (PLAIN, (roles::Takes<detail::IsHeadObjective>), "objective",
                   "a const callable of std::span<const HeadId> that returns a number"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
