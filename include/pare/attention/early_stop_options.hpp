// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of attention that stops early.
///
/// ```cpp
/// EarlyStop rule{.threshold = 1e-4, .segment = 512};
/// rule.guide = EarlyStop::Guide::MeanPrefixKey;  // ranks queries by no later key
/// attend(q, k, v, out, rule);                      // in early_stop.hpp
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

namespace pare::attention {

/// Attention that reads the history of each segment in the order of its likely weight, and stops
/// when a tile of keys adds too little: the policy S2O (arXiv 2602.22575), see early_stop.hpp.
///
/// The paper's abstract and summaries give the outline and no numbers. The following are our
/// choices: every default here, what queries are ranked by, how the gains of rows become one
/// number, that the tile which fails is kept, and that one such tile is enough to stop. One
/// threshold does not suit all models and lengths; `calibrate` finds one.
struct EarlyStop {
  /// How the gains of the queries that stop together become the one number that decides.
  enum class Aggregate {
    Max,  ///< they go on as long as one of them gains: the careful choice
    Mean
  };
  /// The guide vector: queries of a segment are ranked by their product with it.
  enum class Guide {
    MeanKey,        ///< mean of all keys of the head, later ones too
    MeanPrefixKey,  ///< mean of the keys before the segment
    FirstKey
  };

  /// Share of a row's mass so far, in [0, 1], that a tile of keys must add for the row to go on. 0
  /// never stops and is exact; infinity stops after one tile.
  double threshold = 1e-3;

  /// Tokens of a segment, at least 1: its queries see all of its keys that causality allows, and
  /// rank the keys before it together. A sequence of one segment is exact.
  Index segment = 256;

  /// Queries of a segment that stop together, at least 1.
  Index row_tile = 64;

  /// Keys that are read between two looks at the gain, at least 1.
  Index key_tile = 64;

  Aggregate aggregate = Aggregate::Max;
  Guide guide = Guide::MeanKey;

  /// True: queries of a segment share a tile with those of like rank; otherwise with their
  /// neighbours.
  bool permute_queries = true;

  /// One ranking of the keys for all query heads of a key/value head, by the mean of their queries.
  bool share_kv_heads = false;
};

namespace detail {
PARE_ABI_BEGIN

inline void check_early_stop(const char* function, const EarlyStop& o) {
  check(o.threshold >= 0, function, "threshold", o.threshold, "0 or a share of the mass");
  check(o.segment >= 1, function, "segment", o.segment, "at least 1 token");
  check(o.row_tile >= 1, function, "row_tile", o.row_tile, "at least 1 query");
  check(o.key_tile >= 1, function, "key_tile", o.key_tile, "at least 1 key");
  check_enumerator(function, "aggregate", o.aggregate, EarlyStop::Aggregate::Mean);
  check_enumerator(function, "guide", o.guide, EarlyStop::Guide::FirstKey);
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
