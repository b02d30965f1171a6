// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of the nodes of draft trees: each node sees all committed tokens, its ancestors and
/// itself, and no other node.
///
///     key j of sequence s is visible to node i:  j < past   or   node j - past is i or above it
///
/// ```cpp
/// cache.append(0, node_latents, node_ropes);            // one row for each node, after the past
/// attend_tree(q, cache, out, tree);                     // q [1, heads, nodes, key dim]
/// attend_tree(backend, q, cache, out, trees, {.window = 4096});  // a tree for each sequence
/// attend_tree(q, k, v, out, tree);                      // tensors
/// ```
///
/// It is `attention::attend` with the modifier TreeMask, over any KeyValueSource: dense, paged,
/// latent. Query i of a sequence is node i, and its last keys are the nodes in their order, rotated
/// by their positions past + depth (DraftTree::position). Sequences whose trees are smaller than
/// the batch's largest are not for one call: give each its own, or the same budget.
///
/// A node's output is that of causal attention over the past and its path, to rounding. A NaN in
/// the key of a node reaches those alone that see it; one in a value may also reach other rows of
/// its tile, as attend.hpp says.
///
/// Source: SpecInfer, ASPLOS 2024, section 4.2 (topology-aware mask); JetSpec, eq. of M. Ours:
/// tiles of committed keys are left alone.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/tree.hpp>
#include <pare/kernel/score_place.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft {

/// What TreeMask reads of a sequence's tree.
struct TreeRows {
  const std::uint64_t* masks = nullptr;  ///< [nodes, words]
  const std::int32_t* depths = nullptr;  ///< [nodes]; read with a window only
  std::int64_t words = 0;
  std::int64_t past = 0;  ///< committed tokens before the root
};

PARE_ABI_BEGIN

/// A ScoreModifier that hides from node i what it does not see. Without a window it must stand with
/// causal attention, which hides nothing from a node that it sees. `attend_tree` makes and checks
/// one; a TreeMask of your own is not checked.
struct TreeMask {
  const TreeRows* trees = nullptr;  ///< [sequences]
  /// Keys at positions p - window and before are hidden from a node at position p, but for sinks.
  std::int64_t window = std::numeric_limits<std::int64_t>::max();
  std::int64_t sinks = 0;

  template <class T>
  T modify(T score, const kernel::ScorePlace& at) const noexcept {
    const TreeRows& tree = trees[at.batch];
    const std::int64_t node = at.key - tree.past;
    bool seen = true;
    if (node >= 0) seen = (tree.masks[at.query * tree.words + node / 64] >> (node % 64) & 1) != 0;
    if (window != std::numeric_limits<std::int64_t>::max() && seen && at.key >= sinks) {
      const std::int64_t key = node >= 0 ? tree.depths[node] : node;
      seen = tree.depths[at.query] - key < window;
    }
    return seen ? score : -std::numeric_limits<T>::infinity();
  }

  /// Whether no score of keys up to `last` is changed.
  bool keeps(std::int64_t sequence, std::int64_t /*first*/, std::int64_t last) const noexcept {
    return window == std::numeric_limits<std::int64_t>::max() && last < trees[sequence].past;
  }
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* attend_tree_name = "draft::attend_tree";

template <class X>
struct IsTreeSource : std::bool_constant<attention::KeyValueSource<std::remove_cvref_t<X>>> {};

/// What a call keeps while it attends.
struct TreeAttentionRoom {
  std::vector<TreeRows> rows{};
  std::vector<std::int32_t> depths{};
};

/// Options for the engine: causal, and a window wide enough for every node.
inline attention::AttendOptions engine_options(const attention::AttendOptions& options,
                                               Index nodes) {
  check(options.causal.value_or(true), attend_tree_name, "causal", "false",
        "true or left out: a node sees its ancestors alone");
  check(!options.window_left && !options.window_right, attend_tree_name,
        "window_left, window_right", "one of them", "window, which counts positions of the tree");
  check(!options.query_offset && !options.query_offsets, attend_tree_name,
        "query_offset, query_offsets", "one of them", "neither: nodes are the last keys");
  check(options.mask == nullptr, attend_tree_name, "mask", "a mask", "none");
  check(!options.window || *options.window >= 1, attend_tree_name, "window",
        options.window.value_or(1), "at least 1");
  attention::AttendOptions wide = options;
  wide.causal = true;
  // Node i lies at past + i, and stands at past + depth, up to nodes - 1 before.
  if (wide.window) wide.window = std::min(*wide.window, attention::most_tokens) + nodes - 1;
  return wide;
}

/// Room for the trees of a call, checked.
template <class Source, class TreeOf>
void place_trees(const Source& source, Index count, const TreeOf& tree_of, Index nodes,
                 TreeAttentionRoom& room) {
  check(count == source.sequences(), attend_tree_name, "trees", count,
        Worded{"a tree for each of ", source.sequences(), " sequences"});
  room.rows.clear();
  room.depths.clear();
  room.depths.reserve(
      static_cast<std::size_t>(checked_product(attend_tree_name, "q", count, nodes)));
  for (Index s = 0; s < count; ++s) {
    const DraftTree& tree = tree_of(s);
    check(tree.size() == nodes, attend_tree_name, "trees", tree.size(),
          Worded{"as many nodes as there are queries, ", nodes});
    check(source.length(s) >= nodes, attend_tree_name, "keys", source.length(s),
          Worded{"at least a key for each of ", nodes, " nodes"});
    if (nodes == 0) continue;
    room.rows.push_back({tree.mask(0).data(), room.depths.data() + s * nodes, tree.mask_words(),
                         source.length(s) - nodes});
    for (Index i = 0; i < nodes; ++i)
      room.depths.push_back(static_cast<std::int32_t>(tree.depth(i)));
  }
}

template <class B, class Q, class Source, class O, class TreeOf>
attention::AttendStats attend_trees(const B& backend, const Q& q, const Source& source, O&& out,
                                    Index count, const TreeOf& tree_of,
                                    const attention::AttendOptions& options) {
  const auto queries = as_const(to_view(q));
  check_view(attend_tree_name, "q", queries);
  const Index nodes = queries.extent[2];
  const attention::AttendOptions wide = engine_options(options, nodes);
  const auto room = leased<TreeAttentionRoom>(backend);
  place_trees(source, count, tree_of, nodes, *room);
  TreeMask mask{.trees = room->rows.data(), .sinks = options.sinks};
  if (options.window) mask.window = *options.window;
  return attention::attend(backend, queries, source, to_view(out), mask, wide);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention of the nodes of one tree for each sequence.
///
/// \param backend as attend; left out: pare::simd
/// \param q       [sequences, heads, nodes, key dim], rotated by the nodes' positions
/// \param source  a KeyValueSource whose sequences end with the nodes, in their order
/// \param out     [sequences, heads, nodes, value dim], written
/// \param trees   [sequences], each of `nodes` nodes
/// \param options of attend. `window` counts positions, by depth; a cache from which tokens were
///                evicted must have kept nodes - 1 more than it. `causal` may be true or left out;
///                window_left, window_right, query_offset, query_offsets and mask must be left out
/// \throws std::invalid_argument if the trees do not fit, an option is not as above, or as attend.
///         Nothing is written then.
///
/// Cost: that of causal attention of as many queries; the mask is looked at in the tiles that hold
/// nodes. The bits are the same for any number of threads. Memory: as attend, and 4 bytes for each
/// node.
template <Backend B, In<4> Q, attention::KeyValueSource Source, Out<4> O>
requires attention::SourceScalars<Q, Source, O>
attention::AttendStats attend_tree(const B& backend, const Q& q, const Source& source, O&& out,
                                   std::span<const DraftTree> trees,
                                   const attention::AttendOptions& options = {}) {
  return detail::attend_trees(
      backend, q, source, out, static_cast<Index>(trees.size()),
      [&](Index s) -> const DraftTree& { return trees[static_cast<std::size_t>(s)]; }, options);
}

/// \overload
/// One tree, which all sequences have.
template <Backend B, In<4> Q, attention::KeyValueSource Source, Out<4> O>
requires attention::SourceScalars<Q, Source, O>
attention::AttendStats attend_tree(const B& backend, const Q& q, const Source& source, O&& out,
                                   const DraftTree& tree,
                                   const attention::AttendOptions& options = {}) {
  return detail::attend_trees(
      backend, q, source, out, source.sequences(), [&](Index) -> const DraftTree& { return tree; },
      options);
}

/// \overload
template <In<4> Q, attention::KeyValueSource Source, Out<4> O>
requires attention::SourceScalars<Q, Source, O>
attention::AttendStats attend_tree(const Q& q, const Source& source, O&& out, const DraftTree& tree,
                                   const attention::AttendOptions& options = {}) {
  return attend_tree(simd, q, source, out, tree, options);
}

/// \overload
template <In<4> Q, attention::KeyValueSource Source, Out<4> O>
requires attention::SourceScalars<Q, Source, O>
attention::AttendStats attend_tree(const Q& q, const Source& source, O&& out,
                                   std::span<const DraftTree> trees,
                                   const attention::AttendOptions& options = {}) {
  return attend_tree(simd, q, source, out, trees, options);
}

/// \overload
/// Keys and values in tensors [sequences, kv heads, past + nodes, dim].
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O>
requires attention::AttendScalars<Q, K, V, O>
attention::AttendStats attend_tree(const B& backend, const Q& q, const K& k, const V& v, O&& out,
                                   const DraftTree& tree,
                                   const attention::AttendOptions& options = {}) {
  check(!options.key_offsets, detail::attend_tree_name, "key_offsets", "offsets", "none");
  const attention::DenseKeyValue<scalar_of<K>> source{
      as_const(to_view(k)), as_const(to_view(v)), {}, {}};
  return attend_tree(backend, q, source, out, tree, options);
}

/// \overload
template <In<4> Q, In<4> K, In<4> V, Out<4> O>
requires attention::AttendScalars<Q, K, V, O>
attention::AttendStats attend_tree(const Q& q, const K& k, const V& v, O&& out,
                                   const DraftTree& tree,
                                   const attention::AttendOptions& options = {}) {
  return attend_tree(simd, q, k, v, out, tree, options);
}

PARE_REFUSE_CALLS(attend_tree, "draft::attend_tree",
                  "wanted behind out a DraftTree, or of a source a list of them, and "
                  "AttendOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q", "[sequences, heads, nodes, key dim]"),
                  (PLAIN, (roles::Takes<detail::IsTreeSource, roles::other_call>), "source",
                   "a KeyValueSource"),
                  (OUTPUT, (roles::WritesEither<4>), "out", "[sequences, heads, nodes, value dim]"),
                  (ANY, (roles::TakesAny), "tree", "a DraftTree"))
PARE_REFUSE_CALLS(attend_tree, "draft::attend_tree",
                  "wanted behind out a DraftTree and AttendOptions, members spelt and ordered as "
                  "declared",
                  (INPUT, (roles::Reads<4>), "q", "[sequences, heads, nodes, key dim]"),
                  (INPUT,
                   (roles::Unless<roles::ReadsSame<4>, detail::IsTreeSource, roles::other_call>),
                   "k", "[sequences, kv heads, past + nodes, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "v",
                   "[sequences, kv heads, past + nodes, value dim]"),
                  (OUTPUT, (roles::WritesEither<4>), "out", "[sequences, heads, nodes, value dim]"),
                  (ANY, (roles::TakesAny), "tree", "a DraftTree"))

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
