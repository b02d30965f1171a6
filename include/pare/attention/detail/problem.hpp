// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A checked call of attention: what each query sees.

#include <pare/attention/heads/head_mode.hpp>
#include <pare/attention/options.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Sizes and visibility of one call.
struct Problem {
  Index sequences = 0;
  Index heads = 0;
  Index kv_heads = 0;
  Index key_dim = 0;
  Index value_dim = 0;
  double scale = 1;
  bool causal = false;
  Index left = no_limit;   ///< keys before a query that a window lets it see
  Index right = no_limit;  ///< keys after it; not looked at if causal
  Index sinks = 0;
  std::optional<Index> query_offset{};
  const KeyOrder* order = nullptr;
  const BlockMask* mask = nullptr;
  std::optional<std::span<const float>> sink_logits{};
  std::span<const HeadMode> modes{};  ///< [heads], or empty: all are normal

  Index maps = 1;  ///< of scores for each head, whose rows share a core's caches

  /// Whether the head has scores; rows of others are written elsewhere.
  bool has_scores(Index head) const {
    return modes.empty() || modes[static_cast<std::size_t>(head)] == HeadMode::Normal;
  }

  Index group() const { return heads / kv_heads; }
};

/// The tokens of one sequence.
struct Sequence {
  Index batch = 0;
  Index query_begin = 0;  ///< of the packed tensor
  Index queries = 0;
  Index keys = 0;

  /// The position of query 0.
  Index offset(const Problem& p) const { return p.query_offset.value_or(keys - queries); }
};

/// First and last visible position of a query; keys below the problem's sinks are visible too, up
/// to `last`.
struct Visible {
  Index first = 0;
  Index last = -1;
};

inline Visible visible(const Problem& p, const Sequence& s, Index query) {
  const Index position = query + s.offset(p);
  Visible v{0, s.keys - 1};
  if (p.causal)
    v.last = std::min(v.last, position);
  else if (p.right < no_limit)
    v.last = std::min(v.last, std::max(position + p.right + 1, p.sinks) - 1);
  if (p.left < no_limit) v.first = std::max(Index{0}, position - p.left);
  return v;
}

PARE_ABI_END
}  // namespace pare::attention::detail
