// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What heads keep of samples, found once and offline: heads are grouped by it, and pages are
/// reserved for a sequence before its tokens come.
///
/// ```cpp
/// RetentionProfile profile(layers, kv_heads);
/// const auto each = HeadGroups::natural(layers, kv_heads, 1);
/// for (const auto& scores : of_samples)
///   profile.add(keep_tokens(scores, each, {.ratio = 0.3, .count = BudgetCount::Head}));
/// const auto groups = HeadGroups::by_retention(profile.mean(), 4, BudgetScope::PerLayer);
/// const ReservedPages need = reserve_pages(profile, groups, 4096, 16);
/// if (need.total > table.free_pages()) wait();
/// ```
///
/// Which heads keep much is a matter of the model more than of the text (Tangram: 50 samples).
/// Source: Tangram, arXiv 2606.06302, from its code (head_group_clustering). Reconstructed: how
/// much is reserved, for which the most of any sample is taken times a margin.

#include <pare/core/macros_off.hpp>

#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// The shares of tokens that heads kept of samples, [layers, kv heads].
class RetentionProfile {
 public:
  /// \throws std::invalid_argument if a count is below 1 or there are 2^30 heads
  RetentionProfile(Index layers, Index kv_heads)
      : kv_heads_(kv_heads),
        sums_(static_cast<std::size_t>(
            detail::checked_heads("attention::RetentionProfile", layers, kv_heads))),
        most_(sums_.size()) {}

  Index layers() const { return static_cast<Index>(sums_.size()) / kv_heads_; }
  Index kv_heads() const { return kv_heads_; }
  Index samples() const { return samples_; }

  /// Adds a sample, whose heads must be in no groups to have counts of their own.
  /// \throws std::invalid_argument if it is not of as many layers and heads, or has no tokens
  void add(const KeptTokens& kept) {
    constexpr const char* function = "attention::RetentionProfile::add";
    check_extents<2>(function, "kept", {kept.layers(), kept.kv_heads()}, {layers(), kv_heads_});
    check(kept.tokens() >= 1, function, "kept", kept.tokens(), "a sample of at least 1 token");
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      const auto cell = static_cast<Index>(i);
      const double share = kept.retention(cell / kv_heads_, cell % kv_heads_);
      sums_[i] += share;
      most_[i] = std::max(most_[i], share);
    }
    ++samples_;
  }

  /// The mean of the samples, valid until the next is added.
  /// \throws std::invalid_argument if there is none
  TensorView<const double, 2> mean() {
    check(samples_ >= 1, "attention::RetentionProfile::mean", "samples", samples_, "at least 1");
    mean_.resize(sums_.size());
    std::transform(sums_.begin(), sums_.end(), mean_.begin(),
                   [&](double sum) { return sum / static_cast<double>(samples_); });
    return {mean_.data(), {layers(), kv_heads_}, {kv_heads_, 1}};
  }
  /// The most that a head kept of a sample; 0 without one. Not checked.
  double most(Index layer, Index head) const {
    return most_[static_cast<std::size_t>(layer * kv_heads_ + head)];
  }

 private:
  Index kv_heads_;
  Index samples_ = 0;
  std::vector<double> sums_, most_, mean_;
};

/// Pages to have before a sequence comes.
struct ReservedPages {
  std::vector<Index> of_group{};
  Index total = 0;
};

/// The pages that a sequence of so many tokens will keep: of each group the most that any of its
/// heads kept of a sample, times `margin`, at most all.
///
/// \param tokens    0 to 2^30 - 1
/// \param page_size of the cache, at least 1
/// \param margin    at least 1; the default is ours
/// \throws std::invalid_argument if a number is out of its range, the groups are of other layers
///         and heads, or there is no sample
inline ReservedPages reserve_pages(const RetentionProfile& profile, const HeadGroups& groups,
                                   Index tokens, Index page_size, double margin = 1.1) {
  constexpr const char* function = "attention::reserve_pages";
  check_extents<2>(function, "groups", {groups.layers(), groups.kv_heads()},
                   {profile.layers(), profile.kv_heads()});
  check(profile.samples() >= 1, function, "profile", profile.samples(), "at least 1 sample");
  check(tokens >= 0 && tokens <= most_tokens, function, "tokens", tokens, "0 to 2^30 - 1");
  check(page_size >= 1, function, "page_size", page_size, "at least 1");
  check(margin >= 1 && is_finite(margin), function, "margin", margin, "finite, at least 1");
  ReservedPages pages;
  for (Index g = 0; g < groups.groups(); ++g) {
    double most = 0;
    for (const Index cell : groups.members(g))
      most = std::max(most, profile.most(cell / groups.kv_heads(), cell % groups.kv_heads()));
    const double kept = std::ceil(std::min(1.0, most * margin) * static_cast<double>(tokens));
    pages.of_group.push_back(ceil_div(static_cast<Index>(kept), page_size));
    pages.total += pages.of_group.back();
  }
  return pages;
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
