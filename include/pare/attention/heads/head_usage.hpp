// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How much each attention head of a layer is used, by top-1 routing of tokens, and which heads to
/// keep (SHRP, Expert Attention). What is kept becomes a small layer by compact_heads.hpp.
///
/// ```cpp
/// HeadUsage usage(heads);
/// usage.add(scores);                                      // [tokens x heads], of any router
/// const auto kept = select_heads(usage.counts(), {.count = 6});
/// ```
///
///     h*(t) = argmax_h score(t, h);   usage[h] = number of tokens with h*(t) = h
///     keep the heads of the highest usage
///
/// A score is what a trained router says, or without one the length of what a head adds to the
/// token (head_contributions.hpp).
///
/// Source: SHRP, arXiv 2512.20635, of which only the abstract was to be had: heads as experts, one
/// top-1 mechanism that routes in training and prunes at deployment. Reconstructed: everything else
/// here. The shared expander behind the heads is routing/expert_attention.hpp.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

namespace pare::attention {

/// Which heads `select_heads` keeps: exactly one of the members is given.
struct HeadSelection {
  std::optional<Index> count{};   ///< so many heads, from 1 to all
  std::optional<double> share{};  ///< the fewest heads that hold this share of the usage, in (0, 1]
};

PARE_ABI_BEGIN

/// Counts the tokens that are routed to each head.
class HeadUsage {
 public:
  /// \throws std::invalid_argument if heads is below 1, or too large to count
  explicit HeadUsage(Index heads) {
    constexpr const char* function = "attention::HeadUsage";
    check(heads >= 1, function, "heads", heads, "at least 1");
    counts_.resize(
        static_cast<std::size_t>(checked_count(function, "heads", heads, sizeof(Index))));
  }

  Index heads() const { return static_cast<Index>(counts_.size()); }
  /// [heads] tokens that each head got.
  std::span<const Index> counts() const { return counts_; }
  /// Tokens that were routed: the sum of the counts.
  Index tokens() const { return tokens_; }

  /// Routes tokens, each to the head of its highest score, of equal ones to the first.
  ///
  /// \param scores [tokens x heads], float or double, any strides. A NaN is not the highest of
  ///               anything: a token without other scores is routed to no head
  /// \throws std::invalid_argument if the columns are not the heads
  ///
  /// Cost: one read of the scores, on the calling thread.
  template <In<2> X>
  requires ComputeScalar<scalar_of<X>>
  PARE_ALWAYS_INLINE void add(const X& scores) {
    add_view(as_const(to_view(scores)));
  }

  /// Adds the tokens of another accumulator. \throws std::invalid_argument if its heads are others
  void merge(const HeadUsage& other) {
    check(other.heads() == heads(), "attention::HeadUsage::merge", "other", other.heads(),
          Worded{"", heads(), " heads"});
    for (std::size_t h = 0; h < counts_.size(); ++h) counts_[h] += other.counts_[h];
    tokens_ += other.tokens_;
  }

 private:
  template <ComputeScalar T>
  void add_view(TensorView<const T, 2> scores) {
    constexpr const char* function = "attention::HeadUsage::add";
    check_view(function, "scores", scores);
    check(scores.cols() == heads(), function, "scores", scores.extent,
          Worded{"", heads(), " columns, one for each head"});
    for (Index t = 0; t < scores.rows(); ++t) {
      Index best = -1;
      for (Index h = 0; h < scores.cols(); ++h)
        if (!is_nan(scores(t, h)) && (best < 0 || scores(t, h) > scores(t, best))) best = h;
      if (best < 0) continue;
      ++counts_[static_cast<std::size_t>(best)];
      ++tokens_;
    }
  }

  std::vector<Index> counts_;
  Index tokens_ = 0;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* select_heads_name = "attention::select_heads";

/// The sum of the counts.
inline Index checked_usage(std::span<const Index> counts, const HeadSelection& selection) {
  check(!counts.empty(), select_heads_name, "counts", "no heads", "at least one");
  Index sum = 0;
  for (const Index count : counts) {
    check(count >= 0, select_heads_name, "counts", count, "counts of at least 0");
    sum = checked_sum(select_heads_name, "counts", sum, count);
  }
  check(sum > 0, select_heads_name, "counts", "zeros alone", "a head that was used");
  check(selection.count.has_value() != selection.share.has_value(), select_heads_name,
        "count, share", selection.count ? "both" : "neither", "one of them");
  if (selection.count)
    check(*selection.count >= 1 && *selection.count <= static_cast<Index>(counts.size()),
          select_heads_name, "count", *selection.count,
          Worded{"1 to ", static_cast<Index>(counts.size())});
  else
    check(*selection.share > 0 && *selection.share <= 1, select_heads_name, "share",
          *selection.share, "a share above 0, at most 1");
  return sum;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The heads of the highest usage, rising; of equal ones the first.
///
/// \param counts    [heads] of HeadUsage, or any others
/// \param selection how many heads, or the share of all tokens that went to the heads that are kept
/// \throws std::invalid_argument if there are no counts, one is negative, all are 0, or the
///         selection gives both or neither, or a value out of its range
///
/// Cost: n log n comparisons.
inline std::vector<Index> select_heads(std::span<const Index> counts,
                                       const HeadSelection& selection) {
  const Index sum = detail::checked_usage(counts, selection);
  std::vector<Index> order(counts.size());
  std::iota(order.begin(), order.end(), Index{0});
  const auto of = [counts](Index head) { return counts[static_cast<std::size_t>(head)]; };
  std::ranges::stable_sort(order, [&](Index a, Index b) { return of(a) > of(b); });
  std::size_t kept = 0;
  if (selection.count) {
    kept = static_cast<std::size_t>(*selection.count);
  } else {
    const double wanted = *selection.share * static_cast<double>(sum);
    for (Index held = 0; kept < order.size() && static_cast<double>(held) < wanted; ++kept)
      held += of(order[kept]);
  }
  order.resize(kept);
  std::ranges::sort(order);
  return order;
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
