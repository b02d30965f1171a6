// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which tokens each kv head keeps, by their scores: how many, and which of them.
///
/// ```cpp
/// // scores [layers, kv heads, tokens] of score_tokens, the layers one behind the other
/// const KeptTokens kept = keep_tokens(scores, groups, {.ratio = 0.3});
/// kept.of(layer, head);                          // positions, ascending
/// latent::keep_budget(cache, 0, kept, groups);   // drops the others from a RaggedCache
/// ```
///
/// The first `sinks` tokens and the last `window` stay. Of the n tokens between them, with
/// ratio' = clamp((ratio P - window) / (P - window), 0, 1), P = tokens - sinks (1 if P <= window),
///
/// - `Head`: a head keeps as many as have a score above the threshold, the (m + 1)-th largest of
///   all scores that compete, m = max(floor(competing ratio') - 1, 0); scores compete within a
///   layer or across layers (`scope`). A group is as long as its longest head;
/// - `Group`: the same, with the largest score of a group's heads at each position in their place,
///   so that the total is that of the ratio;
/// - `Uniform`: floor(ratio' n) for all.
///
/// Each head of a group then keeps as many of its own best as the group is long; of equal scores
/// the earlier token. A NaN counts as the lowest score.
///
/// Source: Tangram, arXiv 2606.06302, from its code (compression/selection_level.py,
/// compressor.py): counts, ratio and defaults. Ours: a whole prompt at once, the order of equal
/// scores, NaN.

#include <pare/core/macros_off.hpp>

#include <pare/attention/budget/detail/keep_counts.hpp>
#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_options.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// The tokens that the kv heads of all layers keep.
class KeptTokens {
 public:
  /// Each head keeps its list: [layers kv_heads] lists of ascending positions below `tokens`.
  /// \throws std::invalid_argument if a number is negative, or a list is missing, not ascending, or
  ///         out of the tokens
  KeptTokens(Index layers, Index kv_heads, Index tokens, std::vector<std::vector<Index>> lists)
      : layers_(layers), kv_heads_(kv_heads), tokens_(tokens), lists_(std::move(lists)) {
    constexpr const char* function = "attention::KeptTokens";
    check(tokens >= 0, function, "tokens", tokens, "at least 0");
    check(
        static_cast<Index>(lists_.size()) == checked_product(function, "layers", layers, kv_heads),
        function, "lists", lists_.size(), Worded{"", layers * kv_heads});
    for (const auto& list : lists_)
      for (std::size_t i = 0; i < list.size(); ++i)
        check(list[i] >= (i == 0 ? 0 : list[i - 1] + 1) && list[i] < tokens, function, "lists",
              list[i], Worded{"ascending positions below ", tokens});
  }

  Index layers() const { return layers_; }
  Index kv_heads() const { return kv_heads_; }  ///< of a layer
  Index tokens() const { return tokens_; }      ///< there were
  /// The positions that a head keeps; not checked.
  std::span<const Index> of(Index layer, Index head) const {
    return lists_[static_cast<std::size_t>(layer * kv_heads_ + head)];
  }
  Index length(Index layer, Index head) const { return static_cast<Index>(of(layer, head).size()); }
  /// The share of its tokens that a head keeps; 1 of none.
  double retention(Index layer, Index head) const {
    return tokens_ == 0 ? 1
                        : static_cast<double>(length(layer, head)) / static_cast<double>(tokens_);
  }
  /// The mean of that over heads; 1 of none.
  double share() const {
    if (lists_.empty()) return 1;
    double sum = 0;
    for (Index i = 0; i < layers_ * kv_heads_; ++i) sum += retention(i / kv_heads_, i % kv_heads_);
    return sum / static_cast<double>(layers_ * kv_heads_);
  }

 private:
  Index layers_, kv_heads_, tokens_;
  std::vector<std::vector<Index>> lists_;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// The `count` best of scores [first, end), ascending, amid the tokens that stay anyway.
template <class T>
std::vector<Index> best_tokens(const T* scores, const KeptRegion& region, Index tokens, Index count,
                               std::vector<Index>& order) {
  order.resize(static_cast<std::size_t>(region.end - region.begin));
  std::iota(order.begin(), order.end(), region.begin);
  const auto last = order.begin() + count;
  const auto is_better = [&](Index a, Index b) {
    const T x = counted(scores[a]), y = counted(scores[b]);
    return x != y ? x > y : a < b;
  };
  if (last != order.end()) std::nth_element(order.begin(), last, order.end(), is_better);
  std::sort(order.begin(), last);
  std::vector<Index> kept(static_cast<std::size_t>(region.begin));
  std::iota(kept.begin(), kept.end(), Index{0});
  kept.insert(kept.end(), order.begin(), last);
  for (Index t = region.end; t < tokens; ++t) kept.push_back(t);
  return kept;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The tokens that heads keep.
///
/// \param scores  [layers, kv heads, tokens] of float or double, the last dimension contiguous
/// \param groups  of as many layers and heads
/// \param options ratio, sinks, window, and how counts are found
/// \returns the positions of each head; heads of a group keep equally many
/// \throws std::invalid_argument if a shape or an option does not fit, or tokens are to be counted
///         by groups within layers where groups are across them
///
/// Cost: linear in the scores, some nanoseconds each, on the calling thread. Memory: a copy of the
/// scores, and the positions. Deterministic.
template <In<3> X>
requires ComputeScalar<scalar_of<X>>
KeptTokens keep_tokens(const X& scores, const HeadGroups& groups, const KeepOptions& options = {}) {
  constexpr const char* function = "attention::keep_tokens";
  const auto all = as_const(to_view(scores));
  check_view(function, "scores", all);
  const Index tokens = all.extent[2];
  check_extents<3>(function, "scores", all.extent, {groups.layers(), groups.kv_heads(), tokens});
  check_contiguous_rows(function, "scores", all);
  options.validate(function);
  check(options.count != BudgetCount::Group || options.scope == BudgetScope::CrossLayer ||
            groups.scope() == BudgetScope::PerLayer,
        function, "groups", "groups across layers",
        "groups of one layer each for a scope per layer");
  const detail::KeptRegion region = detail::kept_region(options, tokens);
  const std::vector<Index> counts = detail::keep_counts(all, groups, options, region);
  std::vector<std::vector<Index>> lists;
  std::vector<Index> order;
  for (Index l = 0; l < groups.layers(); ++l)
    for (Index h = 0; h < groups.kv_heads(); ++h)
      lists.push_back(
          detail::best_tokens(all.data + l * all.stride[0] + h * all.stride[1], region, tokens,
                              counts[static_cast<std::size_t>(groups.group_of(l, h))], order));
  return {groups.layers(), groups.kv_heads(), tokens, std::move(lists)};
}

PARE_REFUSE_CALLS(keep_tokens, "attention::keep_tokens",
                  "after scores: wanted HeadGroups and KeepOptions, members spelt and ordered as "
                  "declared",
                  (INPUT, (roles::ReadsCompute<3>), "scores", "[layers, kv heads, tokens]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
