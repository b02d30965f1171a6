// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The score of a session that is given, as a beam search would have it: what a model that has
/// learned since gives the winner and the loser of a pair.
///
/// ```cpp
/// const double ln_p = session_score(trie, tokens, logits);  // tokens [items x levels]
/// ```
///
///     score = sum over tokens of ln p,   p = softmax of the logits of those that may follow
///
/// It is that of constrained_beam.hpp where sessions may repeat an item: NaN counts as -infinity,
/// tokens of +infinity share all probability, and a session with a token of no probability has the
/// score -infinity. Source: OneRec, arXiv 2502.18965, by a summary: DPO (objectives/pairwise.hpp)
/// of the pairs of preference.hpp asks for it.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/semantic/detail/beam_candidates.hpp>
#include <pare/retrieval/semantic/id_trie.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::retrieval {
namespace detail {
PARE_ABI_BEGIN

template <class S>
double session_score(const IdTrie& trie, std::span<const std::int32_t> tokens,
                     TensorView<const S, 2> logits) {
  constexpr const char* function = "retrieval::session_score";
  check_tokens(function, tokens, trie.levels());
  check_view(function, "logits", logits);
  check_extents<2>(function, "logits", logits.extent,
                   {static_cast<Index>(tokens.size()), trie.vocabulary()});
  const auto path = static_cast<std::size_t>(trie.levels());
  for (std::size_t begin = 0; begin < tokens.size(); begin += path)
    check(trie.find(tokens.subspan(begin, path)).has_value(), function, "tokens",
          Worded{"item ", static_cast<Index>(begin / path)}, "paths of the trie");
  double score = 0;
  IdTrie::Node node = IdTrie::root;
  std::vector<double> logs;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (t % path == 0) node = IdTrie::root;
    logs.clear();
    for (const std::int32_t token : trie.tokens(node))
      logs.push_back(
          static_cast<double>(static_cast<compute_t<S>>(logits(static_cast<Index>(t), token))));
    log_softmax(logs);
    const IdTrie::Node to = *trie.child(node, tokens[t]);
    score += logs[static_cast<std::size_t>(to - trie.children(node).first)];
    node = to;
  }
  return score;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The score of a session.
///
/// \param tokens [items x levels] of paths of the trie, item after item
/// \param logits [tokens, vocabulary] row t behind the tokens before t
/// \throws std::invalid_argument if tokens are no whole paths of the trie, or logits do not fit
///
/// Cost: an exponential per child of each node on the way, in double on one thread.
template <In<2> L>
double session_score(const IdTrie& trie, std::span<const std::int32_t> tokens, const L& logits) {
  return detail::session_score(trie, tokens, as_const(to_view(logits)));
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
