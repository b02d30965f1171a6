// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Ids of items as tokens, and items whose ids are the same.
///
/// ```cpp
/// const SemanticIds ids = fit_semantic_ids(rows, {.levels = 3}).ids;  // semantic_ids.hpp
/// ids.of(7);                                   // the tokens of item 7
/// collisions(ids);                             // {{3, 90}, {7, 8, 41}}: they share all tokens
/// const SemanticIds longer = with_last_digit(ids);  // and now none do
/// ```
///
/// Sources: OneRec, arXiv 2502.18965, says nothing of items that share all tokens; a further token
/// that tells them apart is TIGER's (Rajput et al., NeurIPS 2023).

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/retrieval/semantic/detail/token_order.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// Items as tokens, each below the clusters of its level.
struct SemanticIds {
  std::vector<std::int32_t> tokens{};  ///< [items x levels]
  int levels = 0;

  Index items() const { return levels > 0 ? static_cast<Index>(tokens.size()) / levels : 0; }
  /// The tokens of an item.
  std::span<const std::int32_t> of(Index item) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(item * levels),
                                     static_cast<std::size_t>(levels));
  }
};

/// Lists of the items, two or more, that share all tokens: each ascending, in the order of their
/// first items.
///
/// \throws std::invalid_argument if tokens are no rows of levels
///
/// Cost: a sort of the items.
inline std::vector<std::vector<Index>> collisions(const SemanticIds& ids) {
  detail::check_tokens("retrieval::collisions", ids.tokens, ids.levels);
  std::vector<std::vector<Index>> lists;
  const std::vector<Index> order = detail::order_of_tokens(ids.tokens, ids.levels);
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && std::ranges::equal(ids.of(order[begin]), ids.of(order[end])))
      ++end;
    if (end - begin > 1)
      lists.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(begin),
                         order.begin() + static_cast<std::ptrdiff_t>(end));
  }
  std::sort(lists.begin(), lists.end(),
            [](const std::vector<Index>& a, const std::vector<Index>& b) { return a[0] < b[0]; });
  return lists;
}

/// The ids with one token more, the place of an item among those that share all others: 0, 1, ...
///
/// \throws std::invalid_argument as collisions
inline SemanticIds with_last_digit(const SemanticIds& ids) {
  const auto lists = collisions(ids);
  SemanticIds longer{.tokens = {}, .levels = ids.levels + 1};
  const auto levels = static_cast<std::size_t>(longer.levels);
  longer.tokens.resize(static_cast<std::size_t>(ids.items()) * levels);
  for (Index i = 0; i < ids.items(); ++i)
    std::ranges::copy(ids.of(i), longer.tokens.begin() + i * longer.levels);
  for (const std::vector<Index>& list : lists)
    for (std::size_t place = 0; place < list.size(); ++place)
      longer.tokens[static_cast<std::size_t>(list[place]) * levels + levels - 1] =
          static_cast<std::int32_t>(place);
  return longer;
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
