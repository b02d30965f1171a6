// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The ten best of all documents by exact MaxSim, proved, of which few are scored exactly: codes
/// say what a document cannot pass.

#include "search/coded_documents.hpp"
#include "search/collection.hpp"
#include "search/rankings.hpp"
#include "search/two_stages.hpp"

#include <pare/retrieval/rerank.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace search {

/// Candidates come with their bounds as first-stage scores.
template <class B>
class BoundedScorer : public TokenScorer<B> {
 public:
  using TokenScorer<B>::TokenScorer;
  double bound(const Hit& candidate) const { return candidate.score; }
};

struct Proved {
  Ranked ranked;
  double share = 0;  ///< of queries whose ten best are proved to be those of all documents
};

/// Codes raise all documents to their bounds; the `depth` of the largest are candidates, and stand
/// for all where the next is no better than the tenth.
template <class B>
Proved proved_best(const B& backend, const Collection& c, const CodedDocuments& coded,
                   const std::string& name, Index depth) {
  double scored = 0, sure = 0;
  BoundedScorer<B> scorer(backend, c);
  Ranked ranked = rank_all(name, c.queries(), [&](Index query) {
    const Matrix wide = wide_query(c, query);
    std::vector<float> bounds = coded.scores(backend, pare::const_view(wide));
    coded.raise(pare::const_view(wide), bounds);
    Hits candidates = best_of(bounds, depth + 1);
    const bool more = static_cast<Index>(candidates.size()) > depth;
    const Hit next = candidates.back();
    if (more) candidates.pop_back();
    scorer.ask(query);
    auto found = pare::retrieval::rerank(candidates, scorer, {.count = judged_ranks});
    scored += static_cast<double>(found.scored);
    const bool next_is_out = !more || !pare::retrieval::ranks_before(next, found.hits.back());
    sure += found.proved && next_is_out ? 1 : 0;
    return std::move(found.hits);
  });
  const auto queries = static_cast<double>(c.queries());
  ranked.scored = scored / queries;
  return {std::move(ranked), sure / queries};
}

}  // namespace search
