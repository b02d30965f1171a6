// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Two-stage retrieval: the candidates of a first stage are scored exactly, as few of them as will
/// do. Candidate pruning (CP) and early exit (EE), and bounds that prove what was left out.
///
/// ```cpp
/// const auto exact = [&](pare::Index id) { return scores_of_tokens(query, id); };  // any call
/// const Reranked full = rerank(candidates, exact, {.count = 10});  // all are scored
/// const Reranked some = rerank(candidates, exact, {.prune = 0.05, .patience = 4});
/// some.hits;                                                       // their scores are exact
/// some.proved;                                                     // whether they are full.hits
/// ```
///
/// Candidates are sorted by falling first-stage score s. With k = count:
///
///     CP  keeps those with s >= s_k - prune |s_k|, s_k that of the k-th
///     EE  scores the first k, then goes on in order, until `patience` in a row were no better than
///         the worst of the best k
///
/// Neither is safe on its own. A scorer with a member `bound(hit)`, which is never below its exact
/// score of that candidate, makes them so where it can: a candidate whose bound says that it
/// cannot come among the best k is left out without being scored, and does not count for
/// patience. `proved` says that what was left out for any reason cannot, by its bounds. With
/// neither prune nor patience the hits are those of the full rerank. If first-stage scores are
/// never below the exact ones, `bound` returns hit.score.
///
/// Source: "Multivector Reranking in the Era of Strong First-Stage Retrievers", arXiv 2601.05200,
/// and its code; published values are prune .015 to .05, patience 2 to 4, 15 to 50 candidates for k
/// = 10. Ours: bounds; s_k below 0, where the paper's s_k (1 - prune) would keep fewer than k;
/// fewer than k candidates, of which its code returns none. Ties by id.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/retrieval/detail/rerank_candidates.hpp>
#include <pare/retrieval/hit.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::retrieval {

/// Options of rerank.
struct RerankOptions {
  Index count = 10;  ///< k, at least 1
  /// CP's alpha: the share of s_k that a candidate may be below it; finite, at least 0. Left out:
  /// all candidates stay.
  std::optional<double> prune{};
  /// EE's beta: scores in a row without gain after which it ends; at least 1. Left out: it goes
  /// through all.
  std::optional<Index> patience{};
};

/// A call score(id) that returns the exact score of a candidate, a number. Two members more are
/// used if they are there:
/// - `double bound(const Hit& candidate)`: at least its exact score;
/// - `void score_all(std::span<const Index> ids, std::span<double> scores)`: several at once, as a
///   kernel on threads does; the numbers that score(id) returns. Called where it is known
///   beforehand that all of them are scored.
template <class F>
concept CandidateScorer = requires(F& score, Index id) {
  { score(id) } -> std::convertible_to<double>;
};

PARE_ABI_BEGIN

/// What rerank returns.
struct Reranked {
  std::vector<Hit> hits;  ///< at most count, the best first, with exact scores
  Index scored = 0;       ///< candidates that were scored
  Index kept = 0;         ///< candidates that CP kept
  /// Whether these are the hits of the full rerank: all were scored, or the bounds of those that
  /// were not say that they cannot be among them.
  bool proved = false;
};

/// The best `count` of the candidates by their exact scores.
///
/// \param candidates ids and first-stage scores, never NaN, sorted by falling score, each id once
/// \param score      see CandidateScorer; a NaN ranks last, and is no gain
/// \param options    see RerankOptions
/// \throws std::invalid_argument if candidates are not sorted, an id is there twice or below 0, or
///         an option is out of its range. Nothing was scored then.
///
/// Larger values of prune and patience score more of the candidates, never others. Cost: the
/// scores; the rest is log k per candidate, and sorting ids. On one thread but for score_all.
template <CandidateScorer F>
Reranked rerank(std::span<const Hit> candidates, F&& score, const RerankOptions& options = {}) {
  constexpr const char* function = "retrieval::rerank";
  check(options.count >= 1, function, "count", options.count, "at least 1");
  const double prune = options.prune.value_or(0);
  check(prune >= 0 && is_finite(prune), function, "prune", prune, "a finite number of at least 0");
  check(options.patience.value_or(1) >= 1, function, "patience", options.patience.value_or(1),
        "at least 1");
  detail::check_candidates(function, candidates);
  Reranked result;
  result.kept = detail::kept_candidates(candidates, options.count, options.prune);
  detail::CandidateRun<std::remove_reference_t<F>> run(candidates, score, options.count);
  run.first(result.kept, options.patience.has_value());
  run.rest(result.kept, options.patience);
  result.scored = run.scored();
  result.proved = run.proved();
  result.hits = run.take();
  return result;
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
