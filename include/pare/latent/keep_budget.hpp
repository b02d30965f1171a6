// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Drops from a RaggedCache the tokens that heads do not keep (attention::keep_tokens).
///
/// ```cpp
/// const auto kept = attention::keep_tokens(scores, groups, {.ratio = 0.3});
/// keep_budget(cache, 0, kept, groups);               // a cache of the heads of all layers
/// for (pare::Index l = 0; l < layers; ++l) keep_budget(caches[l], 0, kept, groups, l);
/// ```
///
/// The same for keys and values of heads and for latents (MLA): a latent is the key of the one kv
/// head of a layer, and budgets then differ from layer to layer.
///
/// Source: Tangram, arXiv 2606.06302: tokens that were kept of earlier chunks stay.

#include <pare/core/macros_off.hpp>

#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <cstddef>
#include <vector>

namespace pare::latent {

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* keep_budget_name = "latent::keep_budget";

/// What the cells [first, first + heads of the cache) keep of a sequence whose last tokens they
/// are.
template <class S>
void keep_cells(RaggedCache<S>& cache, Index sequence, const attention::KeptTokens& kept,
                const attention::HeadGroups& groups, Index first) {
  const char* const function = keep_budget_name;
  check_extents<2>(function, "kept", {kept.layers(), kept.kv_heads()},
                   {groups.layers(), groups.kv_heads()});
  check(
      sequence >= 0 && sequence < cache.sequences() && cache.table().has(sequence * cache.groups()),
      function, "sequence", sequence, Worded{"a sequence in use, below ", cache.sequences()});
  check(groups.group() * cache.groups() == cache.kv_heads(), function, "groups", groups.group(),
        Worded{"groups of ", cache.kv_heads() / cache.groups(), " heads, as those of the cache"});
  const Index heads = groups.kv_heads(), first_group = first / groups.group();
  for (Index i = 0; i < cache.kv_heads(); ++i) {
    const Index l = (first + i) / heads, h = (first + i) % heads;
    check(cache.group_of(i) == groups.group_of(l, h) - first_group &&
              cache.column_of(i) == groups.column_of(l, h),
          function, "groups", i, "each head in the group and column that the cache has it in");
  }
  std::vector<std::vector<Index>> lists(static_cast<std::size_t>(cache.groups()));
  for (Index g = 0; g < cache.groups(); ++g) {
    const auto members = groups.members(first_group + g);
    const Index n = kept.length(members[0] / heads, members[0] % heads);
    const Index old = cache.length(sequence, g) - kept.tokens();
    check(old >= 0, function, "kept", kept.tokens(),
          Worded{"at most the ", cache.length(sequence, g), " tokens of the cache"});
    for (const Index cell : members) {
      const auto list = kept.of(cell / heads, cell % heads);
      check(static_cast<Index>(list.size()) == n, function, "kept", list.size(),
            Worded{"", n, " tokens, as other heads of the group"});
      auto& all = lists[static_cast<std::size_t>(g)];
      for (Index t = 0; t < old; ++t) all.push_back(t);
      for (const Index t : list) all.push_back(old + t);
    }
  }
  for (Index g = 0; g < cache.groups(); ++g) {
    const auto& all = lists[static_cast<std::size_t>(g)];
    const Index n = static_cast<Index>(all.size()) / groups.group();
    cache.keep_heads(sequence, g, {all.data(), {groups.group(), n}, {n, 1}});
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Keeps of a layer's cache what its heads keep.
///
/// \param cache    of the heads of one layer, in `groups.order(layer)`
/// \param sequence whose last kept.tokens() tokens were judged; older ones stay
/// \param kept     of keep_tokens with these groups
/// \throws std::invalid_argument if the sequence, heads or groups do not fit, heads of a group keep
///         differently many, or the sequence is shorter. Nothing is changed then. It throws too if
///         a fork shares pages and there are no free ones to copy them to; groups before stay done.
///
/// Cost: what is kept behind the first gap is moved.
template <StorageScalar S>
void keep_budget(RaggedCache<S>& cache, Index sequence, const attention::KeptTokens& kept,
                 const attention::HeadGroups& groups, Index layer) {
  const char* const function = detail::keep_budget_name;
  check(groups.scope() == attention::BudgetScope::PerLayer, function, "groups",
        "groups across layers", "groups of one layer each");
  check(layer >= 0 && layer < groups.layers(), function, "layer", layer,
        Worded{"below ", groups.layers()});
  check(cache.kv_heads() == groups.kv_heads(), function, "cache", cache.kv_heads(),
        Worded{"the ", groups.kv_heads(), " heads of a layer"});
  detail::keep_cells(cache, sequence, kept, groups, layer * groups.kv_heads());
}

/// \overload
/// The cache holds the heads of all layers, head h of layer l as l kv heads + h, in
/// `groups.order()`.
template <StorageScalar S>
void keep_budget(RaggedCache<S>& cache, Index sequence, const attention::KeptTokens& kept,
                 const attention::HeadGroups& groups) {
  check(cache.kv_heads() == groups.layers() * groups.kv_heads(), detail::keep_budget_name, "cache",
        cache.kv_heads(),
        Worded{"the ", groups.layers() * groups.kv_heads(), " heads of all layers"});
  detail::keep_cells(cache, sequence, kept, groups, 0);
}

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
