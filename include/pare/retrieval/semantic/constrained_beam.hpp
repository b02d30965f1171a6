// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Beam search that only writes ids of items: each token is one that the trie has behind those
/// before it. A session is some items, one after the other.
///
/// ```cpp
/// const auto next = [&](const LiveBeams& live, TensorView<float, 2> logits) {
///   model.logits(live, logits);                       // yours: [beams, vocabulary]
/// };
/// const Sessions best = beam_search(trie, next, {.width = 128, .items = 5});
/// trie.items(best.leaf(0, 2));                        // the third item of the best session
///
/// std::vector<Beam> beams{{}};                        // or step by step, with a loop of your own
/// const auto steps = beam_step(trie, beams, logits, 128);
/// ```
///
///     score = sum over tokens of ln p,   p = softmax of the logits of those that may follow
///
/// Probabilities are those of allowed tokens alone, so that all leaves below a node together have
/// its probability. Scores are not divided by lengths: all paths have one. Order: higher scores,
/// then the earlier parent, then the lower token. With as many beams as there are paths the search
/// is exhaustive.
///
/// NaN counts as -infinity: a token of either is not taken, and a beam without another one ends.
/// Tokens of +infinity share all probability.
///
/// Scores are double on one thread; the work beside the model's is small. Source: OneRec, arXiv
/// 2502.18965, by a summary. Ours: renormalised probabilities, ties, and that a session need not
/// repeat an item.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/semantic/beam.hpp>
#include <pare/retrieval/semantic/detail/beam_candidates.hpp>
#include <pare/retrieval/semantic/id_trie.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval {

/// How sessions are searched.
struct BeamSearchOptions {
  Index width = 128;   ///< beams that are kept, at least 1; OneRec's IPA takes 128
  Index items = 1;     ///< of a session, at least 1; OneRec writes 5
  bool repeat = true;  ///< whether a session may hold a leaf twice
};

PARE_ABI_BEGIN

/// Beams whose next tokens are asked for.
struct LiveBeams {
  Index steps = 0;                         ///< tokens that each has
  std::span<const std::int32_t> tokens{};  ///< [beams x steps]
  std::span<const Beam> beams{};           ///< [beams] best first
  std::span<const Index> parents{};  ///< [beams] which beam of the last step each was; 0 at first

  /// The tokens of a beam: those of its items, back to back.
  std::span<const std::int32_t> of(Index beam) const {
    return tokens.subspan(static_cast<std::size_t>(beam * steps), static_cast<std::size_t>(steps));
  }
};

/// What a search found, the best session first.
struct Sessions {
  Index items = 0;                     ///< of a session
  int levels = 0;                      ///< tokens of an item
  std::vector<std::int32_t> tokens{};  ///< [sessions x items x levels]
  std::vector<IdTrie::Node> leaves{};  ///< [sessions x items]
  std::vector<double> scores{};        ///< [sessions] ln p

  Index size() const { return static_cast<Index>(scores.size()); }
  /// The leaf of an item of a session.
  IdTrie::Node leaf(Index session, Index item) const {
    return leaves[static_cast<std::size_t>(session * items + item)];
  }
};

/// What writes the logits of beams: next(live, logits), logits [beams, vocabulary], all of them.
template <class F>
concept NextLogits = std::invocable<F&, const LiveBeams&, TensorView<float, 2>>;

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// A search under way.
class BeamSearch {
 public:
  BeamSearch(const IdTrie& trie, const BeamSearchOptions& options)
      : trie_(trie), options_(options) {}

  template <class F>
  Sessions run(F& next) {
    for (Index step = 0; step < options_.items * trie_.levels() && !beams_.empty(); ++step) {
      logits_.resize(static_cast<Index>(beams_.size()), trie_.vocabulary());
      next(LiveBeams{step, tokens_, beams_, parents_}, to_view(logits_));
      const auto steps = best_steps(
          trie_, beams_, options_.width,
          [&](Index p, Index, std::int32_t token) { return logits_(p, Index{token}); },
          [&](Index p, IdTrie::Node node) { return options_.repeat || has_new(p, node); });
      take(steps, step);
    }
    Sessions found{options_.items, trie_.levels(), std::move(tokens_), std::move(leaves_), {}};
    for (const Beam& beam : beams_) found.scores.push_back(beam.score);
    return found;
  }

 private:
  Index written() const { return beams_.empty() ? 0 : std::ssize(leaves_) / std::ssize(beams_); }

  /// Whether a leaf below a node is not in the session of a beam yet.
  bool has_new(Index beam, IdTrie::Node node) const {
    const IdTrie::Leaves below = trie_.leaves_of(node);
    const Index first = trie_.nodes() - trie_.leaves(), items = written();
    Index used = 0;
    for (Index item = 0; item < items; ++item) {
      const Index leaf = leaves_[static_cast<std::size_t>(beam * items + item)] - first;
      used += leaf >= below.first && leaf < below.end ? 1 : 0;
    }
    return used < below.end - below.first;
  }

  /// The steps become the beams. One that ends an item goes back to the root.
  void take(const std::vector<BeamStep>& steps, Index length) {
    const Index items = written();
    std::vector<std::int32_t> tokens;
    std::vector<IdTrie::Node> leaves;
    beams_.clear();
    parents_.clear();
    for (const BeamStep& step : steps) {
      const auto from = tokens_.begin() + step.parent * length;
      tokens.insert(tokens.end(), from, from + length);
      tokens.push_back(step.token);
      const auto written_from = leaves_.begin() + step.parent * items;
      leaves.insert(leaves.end(), written_from, written_from + items);
      const bool ends = trie_.is_leaf(step.node);
      if (ends) leaves.push_back(step.node);
      beams_.push_back({step.score, ends ? IdTrie::root : step.node});
      parents_.push_back(step.parent);
    }
    tokens_.swap(tokens);
    leaves_.swap(leaves);
  }

  const IdTrie& trie_;
  BeamSearchOptions options_;
  std::vector<Beam> beams_{{}};
  std::vector<Index> parents_{0};
  std::vector<std::int32_t> tokens_;  ///< [beams x steps]
  std::vector<IdTrie::Node> leaves_;  ///< [beams x items so far]
  RowMatrix<float> logits_;
};

template <class S>
std::vector<BeamStep> beam_step(const IdTrie& trie, std::span<const Beam> parents,
                                TensorView<const S, 2> logits, Index width) {
  constexpr const char* function = "retrieval::beam_step";
  check_beams(function, "parents", trie, parents);
  check(width >= 1, function, "width", width, "at least 1");
  check_view(function, "logits", logits);
  check_extents<2>(function, "logits", logits.extent,
                   {static_cast<Index>(parents.size()), trie.vocabulary()});
  return best_steps(
      trie, parents, width,
      [&](Index p, Index, std::int32_t token) {
        return static_cast<compute_t<S>>(logits(p, Index{token}));
      },
      [](Index, IdTrie::Node) { return true; });
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The best `width` paths that are one token longer than beams.
///
/// \param trie    what tokens may follow
/// \param parents beams whose nodes have children and whose scores are finite; none gives no step
/// \param logits  [parents, vocabulary of the trie] of any scalar; what may not follow is not read
/// \param width   at least 1
/// \return        steps, best first; fewer than width if there are not as many
/// \throws std::invalid_argument if logits do not fit, a node is a leaf or none of the trie, a
///         score is not finite, or width is below 1
///
/// Cost: an exponential per child of a parent, and a selection. Memory: 24 bytes for each of some
/// 2 width + 1024 steps.
template <In<2> L>
std::vector<BeamStep> beam_step(const IdTrie& trie, std::span<const Beam> parents, const L& logits,
                                Index width) {
  return detail::beam_step(trie, parents, as_const(to_view(logits)), width);
}

/// The same where only logits of tokens that may follow were computed: those of the children of
/// each parent, in the order of IdTrie::tokens, back to back. child_logits.hpp makes them.
///
/// \throws std::invalid_argument also if there are not as many as children
template <StorageScalar S>
std::vector<BeamStep> beam_step(const IdTrie& trie, std::span<const Beam> parents,
                                std::span<const S> logits, Index width) {
  constexpr const char* function = "retrieval::beam_step";
  detail::check_beams(function, "parents", trie, parents);
  check(width >= 1, function, "width", width, "at least 1");
  std::vector<Index> begins{0};
  for (const Beam& beam : parents) begins.push_back(begins.back() + trie.children(beam.node).count);
  check(static_cast<Index>(logits.size()) == begins.back(), function, "logits", logits.size(),
        Worded{"one for each child of the parents, ", begins.back()});
  return detail::best_steps(
      trie, parents, width,
      [&](Index p, Index i, std::int32_t) {
        return static_cast<compute_t<S>>(
            logits[static_cast<std::size_t>(begins[static_cast<std::size_t>(p)] + i)]);
      },
      [](Index, IdTrie::Node) { return true; });
}

/// Sessions of the largest probability, as far as beams find them.
///
/// \param trie    of the items
/// \param next    called for each token with the live beams and a matrix [beams, vocabulary] of
///                float, by rows without gaps, which it must fill
/// \param options see BeamSearchOptions
/// \return        at most width sessions, all different; see Sessions
/// \throws std::invalid_argument if an option is out of its range, or sessions that repeat no leaf
///         have more items than there are leaves
///
/// Cost: items levels calls of next, beside which a step's own work is small. Memory: logits of
/// width beams, and their tokens.
template <NextLogits F>
Sessions beam_search(const IdTrie& trie, F&& next, const BeamSearchOptions& options = {}) {
  constexpr const char* function = "retrieval::beam_search";
  check(options.width >= 1, function, "width", options.width, "at least 1");
  check(options.items >= 1, function, "items", options.items, "at least 1");
  check(options.repeat || options.items <= trie.leaves(), function, "items", options.items,
        Worded{"at most the leaves, ", trie.leaves(), ", where none comes twice"});
  checked_count(function, "width",
                checked_product(function, "width", options.width, trie.vocabulary()),
                sizeof(float));
  checked_count(
      function, "items",
      checked_product(function, "items", options.width,
                      checked_product(function, "items", options.items, Index{trie.levels()})),
      sizeof(Index));
  return detail::BeamSearch(trie, options).run(next);
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
