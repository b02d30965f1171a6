// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Lossless verification of a tree by a node rule: the tokens of a round have the law that sampling
/// from the target alone would have.
///
/// ```cpp
/// const auto laws = laws_of(logits, {.temperature = 0.8});              // [nodes, vocabulary]
/// verify_sampled(tree, SequentialRule{}, laws, {.seed = 3}, position, round);
/// const auto both = laws_of(logits, {.temperature = 0.8}, draft_logits, {.temperature = 1});
/// verify_sampled(pare::simd.with(workspace), tree, SequoiaRule{}, both, {.seed = 3}, position,
///                round);
/// ```
///
/// node_rules.hpp has the rules and what each wants of a node's children. From the root on, the
/// rule is asked at each node; where it accepts no child, or there is none, the last token of the
/// round is drawn from what is left of the target's law. Where the children are a function of the
/// context, `verify_match` with one draw for each node is as good and needs no law (verify.hpp).
///
/// How far a tree goes, and which nodes are verified, may depend on what was known when its tokens
/// were drawn, but not on tokens drawn later; else the laws are others.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/draws.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/node_rules.hpp>
#include <pare/draft/sampling.hpp>
#include <pare/draft/tree.hpp>
#include <pare/draft/verify.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft {

/// Where verification takes laws from: target(node, p) writes that of the token after a node, into
/// [vocabulary()] numbers that sum to 1; draft(node, q) that from which its children were drawn,
/// and may be left out for rules that do not read it. Both may throw. Either may take a Workspace*
/// as a third argument: that of the call, null if it has none.
template <class L>
concept TokenLaws = requires(const L& laws, Index node, std::span<double> law) {
  { laws.vocabulary() } -> std::convertible_to<Index>;
  laws.target(node, law);
};

/// Laws that also say what children were drawn from.
template <class L>
concept TokenAndDraftLaws =
    TokenLaws<L> &&
    requires(const L& laws, Index node, std::span<double> law) { laws.draft(node, law); };

PARE_ABI_BEGIN

/// The laws that logits and Sampling give: rows [nodes, vocabulary] of the target.
template <class S>
struct TargetLogits {
  TensorView<const S, 2> logits{};
  Sampling sampling{};

  Index vocabulary() const { return logits.cols(); }
  void target(Index node, std::span<double> law, Workspace* workspace = nullptr) const {
    auto backend = simd;
    backend.workspace = workspace;
    token_law(backend, row(node), sampling, law);
  }
  /// \throws std::invalid_argument if there is not one row for each node
  void validate(const char* function, Index nodes) const {
    check_view(function, "logits", logits);
    check(logits.rows() == nodes, function, "logits", logits.rows(),
          Worded{"a row for each of ", nodes, " nodes"});
  }

 private:
  TensorView<const S, 1> row(Index node) const {
    return {logits.data + node * logits.stride[0], {logits.cols()}, {logits.stride[1]}};
  }
};

/// The same with logits of the drafter, row i those from which the children of node i were drawn.
template <class S, class D>
struct TargetAndDraftLogits {
  TargetLogits<S> of_target{};
  TargetLogits<D> of_draft{};

  Index vocabulary() const { return of_target.vocabulary(); }
  void target(Index node, std::span<double> law, Workspace* workspace = nullptr) const {
    of_target.target(node, law, workspace);
  }
  void draft(Index node, std::span<double> law, Workspace* workspace = nullptr) const {
    of_draft.target(node, law, workspace);
  }
  void validate(const char* function, Index nodes) const {
    of_target.validate(function, nodes);
    of_draft.validate(function, nodes);
    check(of_draft.vocabulary() == vocabulary(), function, "draft logits", of_draft.vocabulary(),
          vocabulary());
  }
};

/// \param logits [nodes, vocabulary] of the target, which must outlive the laws
template <In<2> Z>
TargetLogits<scalar_of<Z>> laws_of(const Z& logits, const Sampling& sampling) {
  return {as_const(to_view(logits)), sampling};
}
/// \overload
/// \param draft_logits [nodes, vocabulary] of the drafter, likewise; rows of leaves are not read
template <In<2> Z, In<2> Q>
TargetAndDraftLogits<scalar_of<Z>, scalar_of<Q>> laws_of(const Z& logits, const Sampling& sampling,
                                                         const Q& draft_logits,
                                                         const Sampling& draft_sampling) {
  return {laws_of(logits, sampling), laws_of(draft_logits, draft_sampling)};
}

PARE_ABI_END
namespace detail {
template <class X>
using IsRule = std::bool_constant<NodeRule<std::remove_cvref_t<X>>>;
template <class X>
using AreLaws = std::bool_constant<TokenLaws<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

template <class B>
Workspace* workspace_of(const B& backend) {
  if constexpr (KernelBackend<B>)
    return backend.workspace;
  else
    return nullptr;
}

/// Asks for the target's law at a node, and checks it.
template <class L>
void take_target_law(const char* function, const L& laws, Index node, std::span<double> law,
                     Workspace* workspace) {
  if constexpr (requires { laws.target(node, law, workspace); })
    laws.target(node, law, workspace);
  else
    laws.target(node, law);
  check_law(function, "target law", law);
}

template <class L>
void take_draft_law(const char* function, const L& laws, Index node, std::span<double> law,
                    Workspace* workspace) {
  if constexpr (requires { laws.draft(node, law, workspace); })
    laws.draft(node, law, workspace);
  else
    laws.draft(node, law);
  check_law(function, "draft law", law);
}

/// The memory of a walk.
struct SampledWalk {
  std::vector<double> p{};
  std::vector<double> q{};
  std::vector<std::int32_t> children{};
};

/// One node: the child that is accepted, or none and the token drawn in its place.
template <class R, class L>
std::optional<Index> sampled_step(const char* function, const DraftTree& tree, const R& rule,
                                  const L& laws, Index node, Coins& coins, SampledWalk& room,
                                  Workspace* workspace, std::int32_t& token) {
  take_target_law(function, laws, node, room.p, workspace);
  room.children.clear();
  for (Index c = tree.first_child(node); c >= 0; c = tree.next_sibling(c))
    room.children.push_back(tree.token(c));
  Index place = none_accepted;
  if (!room.children.empty()) {
    if constexpr (R::reads_draft_law) take_draft_law(function, laws, node, room.q, workspace);
    place = rule.accept({room.children, room.p, room.q}, coins);
  }
  check(place < static_cast<Index>(room.children.size()), function, "rule", place,
        Worded{"a place among ", static_cast<Index>(room.children.size()), " children"});
  token = place >= 0 ? room.children[static_cast<std::size_t>(place)] : draw(room.p, coins());
  if (place < 0) return std::nullopt;
  Index child = tree.first_child(node);
  for (Index i = 0; i < place; ++i) child = tree.next_sibling(child);
  return child;
}

template <class R>
void check_children(const char* function, const DraftTree& tree, const R&, Index vocabulary) {
  check(vocabulary >= 1, function, "vocabulary", vocabulary, "at least 1");
  for (Index i = 0; i < tree.size(); ++i) {
    check(tree.token(i) < vocabulary, function, "tree", tree.token(i),
          Worded{"tokens below the vocabulary, ", vocabulary});
    if constexpr (requires { R::single_child; })
      check(tree.next_sibling(i) < 0, function, "tree", "two children of a node",
            "a chain, which the rule is for");
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Walks a tree by a rule, and commits the tokens of a round.
///
/// \param backend  left out: pare::simd; the tokens do not depend on it
/// \param tree     at least the root; children as the rule wants them
/// \param rule     of node_rules.hpp, or your own NodeRule
/// \param laws     laws_of(...), or your own TokenLaws
/// \param position of the first token that the round commits: with the key, what the coins are a
///                 function of
/// \param out      written
/// \throws std::invalid_argument if the tree is empty or not what the rule is for, a token is not
///         below the vocabulary, logits do not fit, a law of the accepted path is none, or the rule
///         accepts a child that there is not. Nothing is written then.
///
/// Cost: the law of each accepted node, and a few passes over it for each child that is tested; the
/// laws bind. Memory: two laws in double, kept in the backend's workspace.
template <Backend B, NodeRule R, TokenLaws L>
requires(!R::reads_draft_law || TokenAndDraftLaws<L>)
void verify_sampled(const B& backend, const DraftTree& tree, const R& rule, const L& laws,
                    CoinKey key, Index position, Verified& out) {
  constexpr const char* function = "draft::verify_sampled";
  detail::check_tree(function, tree);
  const Index vocabulary = laws.vocabulary();
  if constexpr (requires { laws.validate(function, tree.size()); })
    laws.validate(function, tree.size());
  detail::check_children(function, tree, rule, vocabulary);
  const auto room = leased<detail::SampledWalk>(backend);
  room->p.resize(static_cast<std::size_t>(vocabulary));
  if constexpr (R::reads_draft_law) room->q.resize(static_cast<std::size_t>(vocabulary));
  Coins coins(key, position);
  detail::RoundWriter round(out);
  for (std::optional<Index> node = 0; node;) {
    round.add_node(*node);
    std::int32_t token = 0;
    node = detail::sampled_step(function, tree, rule, laws, *node, coins, *room,
                                detail::workspace_of(backend), token);
    round.add_token(token);
  }
  round.finish();
}
/// \overload
template <NodeRule R, TokenLaws L>
requires(!R::reads_draft_law || TokenAndDraftLaws<L>)
void verify_sampled(const DraftTree& tree, const R& rule, const L& laws, CoinKey key,
                    Index position, Verified& out) {
  verify_sampled(simd, tree, rule, laws, key, position, out);
}

PARE_REFUSE_CALLS(verify_sampled, "draft::verify_sampled",
                  "wanted a DraftTree, a NodeRule, laws, a CoinKey, a position and a Verified to "
                  "write; laws for a rule that reads the drafter's law, such as ChainRule, have it "
                  "too: laws_of(logits, sampling, draft_logits, draft_sampling)",
                  (PLAIN, (roles::Takes<detail::IsTree>), "tree", "a DraftTree"),
                  (PLAIN, (roles::Takes<detail::IsRule>), "rule", "a NodeRule"),
                  (PLAIN, (roles::Takes<detail::AreLaws>), "laws",
                   "TokenLaws, such as laws_of(logits, sampling)"),
                  (ANY, (roles::TakesAny), "key", "a CoinKey"),
                  (ANY, (roles::TakesAny), "position", "a number"),
                  (ANY, (roles::TakesAny), "out", "a Verified"))

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
