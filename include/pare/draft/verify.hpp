// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Verification of a draft tree by what the target model says after each node: greedy decoding,
/// and sampling with any noise (sample and match).
///
/// ```cpp
/// Verified round;
/// verify_greedy(tree, logits, round);                       // logits [nodes, vocabulary]
/// for (Index i = 0; i < tree.size(); ++i)                   // or, at a temperature above 0:
///   y[i] = keyed_sample(row(i), sampling, key, tree.position(i, past) + 1);
/// verify_match(tree, y, round);
/// cut_after(round, stop_tokens);
/// text.insert(text.end(), round.tokens.begin(), round.tokens.end());
/// compact(cache, sequence, past, round.path);               // compact_cache.hpp
/// ```
///
/// y_i is the token that the target alone would take after the path to node i. From the root on,
/// the walk goes to the child whose token is y; where there is none, y itself ends the round. What
/// is committed is therefore what the target alone gives, whatever the tree proposes. If y is the
/// argmax, that is greedy decoding. If y is drawn from the target's law, the tokens have that law
/// for trees that are a function of the context; with keyed noise (keyed_noise.hpp) they are the
/// very tokens of sampling one by one, for any tree.
///
/// Of siblings with one token the first is taken. At least one token is committed in a round.
///
/// Sources: JetSpec's code (accept.py), EAGLE's evaluate_posterior, SGLang's VerifyTreeGreedy: all
/// the same walk. Ours: equality under keyed noise.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/sampling.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft {

PARE_ABI_BEGIN

/// What a round of verification commits. Its memory is kept from round to round.
struct Verified {
  /// Accepted nodes from the root on, ascending: the rows of the cache that stay.
  std::vector<Index> path{};
  /// Tokens that are committed, in order: those of path[1], path[2], ..., and one more, which is
  /// not in the tree and not in the cache: the next round's root. After a stop token: up to it.
  std::vector<std::int32_t> tokens{};
};

/// Options of verify_match.
struct MatchOptions {
  /// Tokens are below it; left out: not checked.
  std::optional<Index> vocabulary{};
};

PARE_ABI_END
namespace detail {
template <class X>
using IsTree = std::is_same<std::remove_cvref_t<X>, DraftTree>;

PARE_ABI_BEGIN

inline void check_tree(const char* function, const DraftTree& tree) {
  check(tree.size() >= 1, function, "tree", "no node", "at least the root");
}

/// Writes a round behind the old one, and takes the old one away in the end: if a token is refused
/// on the way, the old one is left.
class RoundWriter {
 public:
  explicit RoundWriter(Verified& out)
      : out_(out), path_(out.path.size()), tokens_(out.tokens.size()) {}
  RoundWriter(const RoundWriter&) = delete;
  RoundWriter& operator=(const RoundWriter&) = delete;
  ~RoundWriter() {
    out_.path.resize(path_);
    out_.tokens.resize(tokens_);
  }
  void add_node(Index node) { out_.path.push_back(node); }
  void add_token(std::int32_t token) { out_.tokens.push_back(token); }
  void finish() {
    out_.path.erase(out_.path.begin(), out_.path.begin() + static_cast<Index>(path_));
    out_.tokens.erase(out_.tokens.begin(), out_.tokens.begin() + static_cast<Index>(tokens_));
    path_ = out_.path.size();
    tokens_ = out_.tokens.size();
  }

 private:
  Verified& out_;
  std::size_t path_, tokens_;
};

/// The walk; token_after(node) is the target's, and may throw.
template <class TokenAfter>
void walk(const DraftTree& tree, const TokenAfter& token_after, Verified& out) {
  RoundWriter round(out);
  for (std::optional<Index> node = 0; node;) {
    const std::int32_t token = token_after(*node);
    round.add_node(*node);
    round.add_token(token);
    node = tree.child(*node, token);
  }
  round.finish();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The round that the target's tokens give.
/// \param tree    at least the root
/// \param next    [nodes] the target's token after each node
/// \param out     written
/// \throws std::invalid_argument if the tree is empty, lengths differ, a token is below 0 or not
///         below the vocabulary, or next has memory of out. Nothing is written then.
/// Cost: a look at each token and at the children along the path.
inline void verify_match(const DraftTree& tree, std::span<const std::int32_t> next, Verified& out,
                         const MatchOptions& options = {}) {
  constexpr const char* function = "draft::verify_match";
  detail::check_tree(function, tree);
  check(static_cast<Index>(next.size()) == tree.size(), function, "next", next.size(), tree.size());
  check_no_overlap(function, "out", to_view(out.tokens), "next", to_view(next));
  const Index most = options.vocabulary.value_or(Index{1} << 31);
  for (const std::int32_t token : next)
    check(token >= 0 && token < most, function, "next", token, Worded{"from 0 to below ", most});
  detail::walk(tree, [&](Index i) { return next[static_cast<std::size_t>(i)]; }, out);
}

/// The round of greedy decoding: y is the argmax, the lowest token of equal logits.
/// \param logits [nodes, vocabulary], any strides; rows beside the accepted path are not read
/// \throws std::invalid_argument if the tree is empty, there is not one row for each node, or a row
///         of the path has a NaN, a +infinity or nothing finite. Nothing is written then.
/// Cost: one look at each logit of the accepted rows.
template <In<2> Z>
void verify_greedy(const DraftTree& tree, const Z& logits, Verified& out) {
  constexpr const char* function = "draft::verify_greedy";
  const auto z = as_const(to_view(logits));
  detail::check_tree(function, tree);
  check_view(function, "logits", z);
  check(z.rows() == tree.size() && z.cols() >= 1, function, "logits", z.extent,
        Worded{"[", tree.size(), " nodes, vocabulary of at least 1]"});
  const auto best = [&](Index i) {
    return detail::checked_argmax(
        function,
        TensorView<const scalar_of<Z>, 1>{z.data + i * z.stride[0], {z.cols()}, {z.stride[1]}});
  };
  detail::walk(tree, best, out);
}

PARE_REFUSE_CALLS(verify_greedy, "draft::verify_greedy",
                  "wanted a DraftTree, logits, and a Verified to write",
                  (PLAIN, (roles::Takes<detail::IsTree>), "tree", "a DraftTree"),
                  (INPUT, (roles::Reads<2>), "logits", "[nodes, vocabulary]"),
                  (ANY, (roles::TakesAny), "out", "a Verified"))

/// Ends a round after its first stop token: drops the tokens behind it, and the nodes whose tokens
/// they are.
/// \returns whether there was one
inline bool cut_after(Verified& round, std::span<const std::int32_t> stops) {
  const auto stop =
      std::find_first_of(round.tokens.begin(), round.tokens.end(), stops.begin(), stops.end());
  if (stop == round.tokens.end()) return false;
  const auto kept = static_cast<std::size_t>(stop - round.tokens.begin()) + 1;
  round.tokens.resize(kept);
  if (round.path.size() > kept + 1) round.path.resize(kept + 1);
  return true;
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
