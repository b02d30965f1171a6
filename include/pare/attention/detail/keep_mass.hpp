// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// From scores of blocks to the blocks that are kept: candidates, forced blocks, cumulative mass.

#include <pare/attention/reference.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Blocks and segments of one head, queries aligned to the end of the keys.
struct BlockGrid {
  Index queries = 0;
  Index keys = 0;
  Index row_block = 128;
  Index column_block = 128;
  Index segment = 0;  ///< 0: the candidates of a row are all blocks up to its diagonal

  Index rows() const { return ceil_div(queries, row_block); }
  Index columns() const { return ceil_div(keys, column_block); }
  Index first_position(Index m) const { return m * row_block + keys - queries; }
  Index last_position(Index m) const {
    return std::min((m + 1) * row_block, queries) - 1 + keys - queries;
  }

  /// The column blocks [first, second) that row m always computes: its diagonal, or with segments
  /// all of those that its queries stand in.
  std::pair<Index, Index> own(Index m) const {
    const Index unit = segment > 0 ? segment : column_block;
    const Index end = std::min((last_position(m) / unit + 1) * unit, keys);
    return {first_position(m) / unit * unit / column_block, (end - 1) / column_block + 1};
  }

  /// How many leading column blocks row m may choose from.
  Index candidates(Index m) const {
    return segment > 0 ? own(m).first : last_position(m) / column_block + 1;
  }
};

/// How scores become blocks.
struct MassRule {
  double mass = 0.9;
  Index first_block = -1;     ///< forced in every row; -1: none
  bool count_forced = false;  ///< the scores of forced candidates count towards the mass
};

inline void check_mass(const char* function, float mass) {
  check(!is_nan(mass) && mass > 0, function, "mass", mass, "above 0; from 1 on all is kept");
}

/// One mass for all heads, or one for each.
inline void check_masses(const char* function, float mass, const std::vector<float>& head_masses,
                         Index heads) {
  check_mass(function, mass);
  for (const float m : head_masses) check_mass(function, m);
  check(head_masses.empty() || static_cast<Index>(head_masses.size()) == heads, function,
        "head_masses", head_masses.size(), heads);
}

/// Whether every head keeps all that it sees.
inline bool whole_masses(float mass, const std::vector<float>& head_masses) {
  return head_masses.empty() ? mass >= 1
                             : std::ranges::all_of(head_masses, [](float m) { return m >= 1; });
}

/// Of a selector with row_block, column_block and segment.
template <class Selector>
BlockGrid grid_of(const Selector& s, Index queries, Index keys) {
  return {queries, keys, s.row_block, s.column_block, s.segment};
}

/// What the selectors of this folder ask of their members and of the sizes.
inline void check_grid(const char* function, const BlockGrid& grid) {
  check(grid.row_block >= 1, function, "row_block", grid.row_block, "at least 1");
  check(grid.column_block >= 1, function, "column_block", grid.column_block, "at least 1");
  check(grid.segment >= 0, function, "segment", grid.segment, "0 or a number of keys");
  check(grid.segment % grid.column_block == 0, function, "segment", grid.segment,
        "a multiple of the column block");
  check(grid.queries <= grid.keys, function, "queries", grid.queries, "at most the number of keys");
}

/// A selector that knows blocks up to the diagonal needs causality, and with an order a segment.
inline void check_causal_segments(const char* function, const SelectorCall& call, Index segment) {
  check(call.causal, function, "causal", "false", "true for this selector");
  check(!call.ordered || segment > 0, function, "segment", segment, "the segment of the order");
}

/// An order must leave keys in their segment.
template <class S>
void check_segments(const char* function, const SelectorHead<S>& head, Index segment) {
  const auto length = static_cast<std::size_t>(segment);
  for (std::size_t slot = 0; slot < head.order.size(); ++slot)
    check(head.order[slot] / length == slot / length, function, "order", head.order[slot],
          "keys that stay in their segment");
}

/// The mass wanted of a head.
template <class S>
double mass_of(const SelectorHead<S>& head, float mass, const std::vector<float>& head_masses) {
  if (head_masses.empty()) return static_cast<double>(mass);
  return static_cast<double>(head_masses[static_cast<std::size_t>(head.head)]);
}

/// The column block of the key at position 0.
template <class S>
Index first_token_block(const SelectorHead<S>& head, Index column_block) {
  const auto at = std::ranges::find(head.order, 0u);
  return head.order.empty() ? 0 : (at - head.order.begin()) / column_block;
}

/// p_j = e^(s_j - max s) / sum, in place; a NaN or +inf makes all of them NaN, and nothing but -inf
/// all of them 0.
inline void softmax_in_place(std::span<double> scores) {
  constexpr double hidden = -std::numeric_limits<double>::infinity();
  double highest = hidden, sum = 0;
  for (const double s : scores) highest = std::max(highest, s);
  for (double& s : scores) sum += s = s == hidden ? 0 : std::exp(s - highest);
  for (double& s : scores)
    if (sum != 0) s /= sum;
}

/// Adds the blocks of row m: those forced, then candidates by falling score (of sum 1) until theirs
/// reach the mass, the one that crosses it included; all if it is never reached. Returns the scores
/// of the candidates kept, 1 for a row without candidates.
class MassKeeper {
 public:
  MassKeeper(const BlockGrid& grid, const MassRule& rule) : grid_(grid), rule_(rule) {}

  double keep(Index m, std::span<const double> scores, BlockLists& blocks) {
    const auto own = grid_.own(m);
    if (rule_.first_block >= 0) blocks.add(m, rule_.first_block);
    for (Index n = own.first; n < own.second; ++n) blocks.add(m, n);
    if (scores.empty()) return 1;
    const auto forced = [&](Index n) {
      return n == rule_.first_block || (n >= own.first && n < own.second);
    };
    double forced_mass = 0, chosen = 0, counted = 0;
    for (std::size_t n = 0; n < scores.size(); ++n)
      if (forced(static_cast<Index>(n))) forced_mass += scores[n];
    if (rule_.count_forced) counted = forced_mass;
    linalg::take_mass(
        scores, rule_.mass, rank_,
        [&](std::uint32_t n) {
          const bool already = forced(n);
          if (already && rule_.count_forced) return 0.0;
          if (already) return scores[n];
          chosen += scores[n];
          blocks.add(m, n);
          return scores[n];
        },
        counted);
    return forced_mass + chosen;
  }

 private:
  const BlockGrid& grid_;
  const MassRule& rule_;
  std::vector<std::uint32_t> rank_;
};

/// Every block that a row can see.
inline double keep_all(const BlockGrid& grid, const MassRule& rule, BlockLists& blocks) {
  for (Index m = 0; m < grid.rows(); ++m) {
    if (rule.first_block >= 0) blocks.add(m, rule.first_block);
    const Index end = std::max(grid.candidates(m), grid.own(m).second);
    for (Index n = 0; n < end; ++n) blocks.add(m, n);
  }
  return 1;
}

inline double mean_of(const std::vector<double>& list) {
  double sum = 0;
  for (const double x : list) sum += x;
  return list.empty() ? 1 : sum / static_cast<double>(list.size());
}

/// The same by the definition, from the scores of all rows.
template <class S>
double reference_keep(const SelectorHead<S>& head, const BlockGrid& grid, const MassRule& rule,
                      const ReferenceBlocks& blocks, ReferenceCandidates candidates,
                      const std::vector<double>& scores, BlockLists& keep) {
  const auto lists =
      reference_select_blocks(scores, head.order, blocks,
                              {rule.mass, candidates, rule.first_block >= 0, rule.count_forced});
  std::vector<double> masses;
  for (std::size_t m = 0; m < lists.size(); ++m) {
    const Index count = blocks.candidates(static_cast<Index>(m), candidates);
    masses.push_back(count > 0 ? 0 : 1);
    for (const std::int32_t n : lists[m]) {
      keep.add(static_cast<Index>(m), n);
      if (n < count)
        masses.back() +=
            scores[m * static_cast<std::size_t>(grid.columns()) + static_cast<std::size_t>(n)];
    }
  }
  return mean_of(masses);
}

inline ReferenceBlocks reference_blocks(const BlockGrid& grid) {
  return {{1, 1, grid.queries, grid.keys, grid.row_block, grid.column_block},
          grid.segment > 0 ? grid.segment : grid.column_block};
}

inline ReferenceCandidates reference_candidates(const BlockGrid& grid) {
  return grid.segment > 0 ? ReferenceCandidates::EarlierSegments : ReferenceCandidates::Causal;
}

PARE_ABI_END
}  // namespace pare::attention::detail
