// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Groups of kv heads that share the pages of a cache, and so keep equally many tokens: heads that
/// keep alike many are put together, which leaves little room unused (Tangram's clusters).
///
/// ```cpp
/// const auto groups = HeadGroups::by_retention(retention, 4, BudgetScope::PerLayer);
/// over_allocation(retention, groups).unused();           // share of the pages that no head needs
/// RaggedCache<float> cache({.kv_heads = 8, .group = 4, ..., .order = groups.order(layer)});
/// ```
///
/// A head of a layer is a cell, [layers, kv heads]. Every cell has one (group, column), and every
/// (group, column) one cell.
///
/// Source: Tangram, arXiv 2606.06302, from its code (head_group_clustering/clustering.py). Ours:
/// the cap on heads of one layer in a group is left out.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace pare::attention {

/// Where heads compete for tokens, and which may share a group.
enum class BudgetScope : std::uint8_t {
  PerLayer,    ///< those of one layer
  CrossLayer,  ///< all heads of the model
};

namespace detail {
PARE_ABI_BEGIN

/// How many heads all layers have. \throws std::invalid_argument if a count is below 1 or there are
/// 2^30 of them
inline Index checked_heads(const char* function, Index layers, Index kv_heads) {
  constexpr Index most = std::numeric_limits<std::int32_t>::max() / 2;
  check(layers >= 1, function, "layers", layers, "at least 1");
  check(kv_heads >= 1, function, "kv_heads", kv_heads, "at least 1");
  check(layers <= most / kv_heads, function, "layers", layers, "fewer than 2^30 heads of all");
  return layers * kv_heads;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A bijection of cells and places in groups.
class HeadGroups {
 public:
  /// Heads as they are numbered: the first `group` heads of layer 0 are group 0.
  /// \throws std::invalid_argument if a count is below 1, the group is no divisor of the kv heads,
  ///         or there are 2^30 cells
  static HeadGroups natural(Index layers, Index kv_heads, Index group) {
    constexpr const char* function = "attention::HeadGroups::natural";
    detail::checked_heads(function, layers, kv_heads);
    check_group(function, kv_heads, group);
    HeadGroups groups(layers, kv_heads, group, BudgetScope::PerLayer);
    std::iota(groups.cells_.begin(), groups.cells_.end(), Index{0});
    groups.place();
    return groups;
  }

  /// Heads sorted by what they retain, the most first (equal ones by layer and head), and chunked.
  /// Within a group they are ordered by layer and head.
  ///
  /// \param retention [layers, kv heads], share of the tokens that a head keeps; finite
  /// \param group     heads of a group: a divisor of the kv heads, or across layers of all heads
  /// \throws std::invalid_argument if a size, the group or a share does not fit
  ///
  /// Cost: a sort of the cells.
  template <In<2> R>
  static HeadGroups by_retention(const R& retention, Index group, BudgetScope scope) {
    constexpr const char* function = "attention::HeadGroups::by_retention";
    const auto shares = as_const(to_view(retention));
    check_view(function, "retention", shares);
    const Index all = detail::checked_heads(function, shares.rows(), shares.cols());
    check_enumerator(function, "scope", scope, BudgetScope::CrossLayer);
    const Index sorted = scope == BudgetScope::PerLayer ? shares.cols() : all;
    check_group(function, sorted, group);
    HeadGroups groups(shares.rows(), shares.cols(), group, scope);
    const auto share = [&](Index cell) {
      return static_cast<double>(shares(cell / shares.cols(), cell % shares.cols()));
    };
    for (Index cell = 0; cell < all; ++cell)
      check(is_finite(share(cell)), function, "retention", share(cell), "finite shares");
    std::iota(groups.cells_.begin(), groups.cells_.end(), Index{0});
    for (auto first = groups.cells_.begin(); first != groups.cells_.end(); first += sorted) {
      std::stable_sort(first, first + sorted,
                       [&](Index a, Index b) { return share(a) > share(b); });
      for (Index i = 0; i < sorted; i += group) std::sort(first + i, first + i + group);
    }
    groups.place();
    return groups;
  }

  Index layers() const { return layers_; }
  Index kv_heads() const { return kv_heads_; }  ///< of a layer
  Index group() const { return group_; }        ///< heads of a group
  Index groups() const { return layers_ * kv_heads_ / group_; }
  BudgetScope scope() const { return scope_; }

  /// The group of a head, and its column there; not checked.
  Index group_of(Index layer, Index head) const { return place_of(layer, head) / group_; }
  Index column_of(Index layer, Index head) const { return place_of(layer, head) % group_; }
  /// The cells of a group by column: layer * kv_heads() + head. Not checked.
  std::span<const Index> members(Index group) const {
    return std::span(cells_).subspan(static_cast<std::size_t>(group * group_),
                                     static_cast<std::size_t>(group_));
  }

  /// The heads of a layer in the order in which they fill the groups of a cache of that layer.
  /// \throws std::invalid_argument if there is no such layer, or heads are grouped across layers:
  ///         then one cache holds all, in the order of `order()`
  std::vector<Index> order(Index layer) const {
    constexpr const char* function = "attention::HeadGroups::order";
    check(scope_ == BudgetScope::PerLayer, function, "scope", "groups across layers",
          "groups of one layer each");
    check(layer >= 0 && layer < layers_, function, "layer", layer, Worded{"below ", layers_});
    std::vector<Index> heads;
    for (Index i = 0; i < kv_heads_; ++i)
      heads.push_back(cells_[static_cast<std::size_t>(layer * kv_heads_ + i)] - layer * kv_heads_);
    return heads;
  }
  /// All cells in the order of their places, for one cache of layers kv_heads heads.
  const std::vector<Index>& order() const { return cells_; }

 private:
  HeadGroups(Index layers, Index kv_heads, Index group, BudgetScope scope)
      : layers_(layers),
        kv_heads_(kv_heads),
        group_(group),
        scope_(scope),
        cells_(static_cast<std::size_t>(layers * kv_heads)),
        places_(cells_.size()) {}

  static void check_group(const char* function, Index heads, Index group) {
    check(group >= 1 && heads % group == 0, function, "group", group,
          Worded{"a divisor of the ", heads, " heads"});
  }

  Index place_of(Index layer, Index head) const {
    return places_[static_cast<std::size_t>(layer * kv_heads_ + head)];
  }
  void place() {
    for (std::size_t i = 0; i < cells_.size(); ++i)
      places_[static_cast<std::size_t>(cells_[i])] = static_cast<Index>(i);
  }

  Index layers_, kv_heads_, group_;
  BudgetScope scope_;
  std::vector<Index> cells_;   ///< of each place
  std::vector<Index> places_;  ///< of each cell
};

/// What groups take up, in heads that keep everything.
struct OverAllocation {
  double allocated = 0;  ///< as each group is as long as its longest head
  double ideal = 0;      ///< as each head is as long as it needs

  /// Share of what is allocated that no head needs, in [0, 1]; 0 of nothing.
  double unused() const { return allocated > 0 ? (allocated - ideal) / allocated : 0; }
};

/// How much longer groups are than their heads need.
/// \param retention [layers, kv heads], as of `by_retention`; at least 0
/// \throws std::invalid_argument if it is not of the layers and heads of the groups, or a share is
///         negative or not finite
template <In<2> R>
OverAllocation over_allocation(const R& retention, const HeadGroups& groups) {
  constexpr const char* function = "attention::over_allocation";
  const auto shares = as_const(to_view(retention));
  check_view(function, "retention", shares);
  check_extents<2>(function, "retention", shares.extent, {groups.layers(), groups.kv_heads()});
  OverAllocation all;
  for (Index g = 0; g < groups.groups(); ++g) {
    double most = 0;
    for (const Index cell : groups.members(g)) {
      const auto share =
          static_cast<double>(shares(cell / groups.kv_heads(), cell % groups.kv_heads()));
      check(is_finite(share) && share >= 0, function, "retention", share,
            "finite shares of at least 0");
      most = std::max(most, share);
      all.ideal += share;
    }
    all.allocated += most * static_cast<double>(groups.group());
  }
  return all;
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
