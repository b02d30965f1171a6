// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Fusion of the lists by words and by vectors.

#include "search/collection.hpp"
#include "search/rankings.hpp"

#include <pare/retrieval/rank_fusion.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace search {

/// Squared distances of unit vectors from their products, which rounding may take above 1.
inline Hits distances_of(Hits by_vector) {
  for (Hit& hit : by_vector) hit.score = std::max(0.0, 2 - 2 * hit.score);
  return by_vector;
}

/// Both lists must be as long as `fusion_pool` says.
struct Fusion {
  const Collection& collection;
  const Ranked& words;
  const Ranked& vectors;

  /// RRF with k = 60.
  Ranked reciprocal(Index count) const {
    return rank_all("RRF", collection.queries(), [&](Index query) {
      const std::vector<Index> a = ids_of(vectors.hits[at(query)]),
                               b = ids_of(words.hits[at(query)]);
      return pare::retrieval::fuse_ranks({{a}, {b}}, count);
    });
  }

  /// vstash's fusion by weights(query).
  template <class Weights>
  Ranked weighted(const std::string& name, const Weights& weights) const {
    return rank_all(name, collection.queries(), [&](Index query) {
      return pare::retrieval::fuse_adaptive(distances_of(vectors.hits[at(query)]),
                                            ids_of(words.hits[at(query)]), judged_ranks,
                                            weights(query));
    });
  }

  /// vstash's weights for the terms of a query.
  pare::retrieval::FusionWeights adaptive(Index query) const {
    return pare::retrieval::adaptive_weights(
        collection.keywords().frequencies(collection.terms(query)), collection.documents());
  }

 private:
  static std::size_t at(Index query) { return static_cast<std::size_t>(query); }
};

}  // namespace search
