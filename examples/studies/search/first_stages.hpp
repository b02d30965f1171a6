// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Searches of all documents: by words, by one vector per text, by MaxSim of token vectors.

#include "search/collection.hpp"
#include "search/rankings.hpp"

#include <pare/core/backend.hpp>
#include <pare/retrieval/max_sim.hpp>
#include <pare/retrieval/top_k_dot.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace search {

inline Hits by_words(const Collection& c, Index query, Index count) {
  return c.keywords().search(c.terms(query), count);
}

/// By the product of one vector per text, a cosine.
template <class B>
Hits by_vector(const B& backend, const Collection& c, Index query, Index count) {
  const auto found = pare::retrieval::top_k_dot(
      backend, c.vectors().means, c.query_vectors().mean(query), std::min(count, c.documents()));
  Hits hits;
  for (Index i = 0; i < found.ids.cols(); ++i)
    hits.push_back({static_cast<Index>(found.ids(0, i)), static_cast<double>(found.scores(0, i))});
  return hits;
}

template <class B>
Hits by_tokens(const B& backend, const Collection& c, Index query, Index count) {
  const VectorView documents = c.vectors();
  return best_of(pare::retrieval::max_sim(backend, c.query_vectors().of(query), documents.tokens,
                                          documents.offsets),
                 count);
}

/// A first stage at several depths, each with its own time.
struct FirstStage {
  std::string name;
  std::vector<std::pair<Index, Ranked>> depths;

  const Ranked& at(Index depth) const {
    return std::ranges::find(depths, depth, &std::pair<Index, Ranked>::first)->second;
  }
};

template <class Search>
FirstStage first_stage(const std::string& name, const Collection& c,
                       const std::vector<Index>& depths, const Search& search) {
  FirstStage stage{name, {}};
  for (const Index depth : depths)
    stage.depths.emplace_back(
        depth, rank_all(name, c.queries(), [&](Index query) { return search(query, depth); }));
  return stage;
}

}  // namespace search
