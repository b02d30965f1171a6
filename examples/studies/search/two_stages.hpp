// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim of the candidates of a first stage.

#include "search/collection.hpp"
#include "search/first_stages.hpp"
#include "search/rankings.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/retrieval/max_sim.hpp>
#include <pare/retrieval/rerank.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace search {

using pare::retrieval::RerankOptions;

/// The exact score of a candidate, for one query after the other.
template <class B>
class TokenScorer {
 public:
  TokenScorer(const B& backend, const Collection& c)
      : backend_(backend), documents_(c.vectors()), queries_(c.query_vectors()) {}

  void ask(Index query) { query_ = queries_.of(query); }

  double operator()(Index id) const {
    const std::array<Index, 2> offsets{0, documents_.length(id)};
    std::array<float, 1> score{};
    pare::retrieval::max_sim(backend_, query_, documents_.of(id), offsets, score);
    return static_cast<double>(score[0]);
  }

  /// Documents are brought side by side, so that one call scores them.
  void score_all(std::span<const Index> ids, std::span<double> scores) {
    offsets_.assign(1, 0);
    for (const Index id : ids) offsets_.push_back(offsets_.back() + documents_.length(id));
    tokens_.resize(
        std::max(tokens_.size(), static_cast<std::size_t>(offsets_.back() * documents_.dim())));
    bf16* to = tokens_.data();
    for (const Index id : ids) {
      const auto document = documents_.of(id);
      to = std::copy_n(document.data, document.rows() * document.cols(), to);
    }
    const TensorView<const bf16, 2> rows{
        tokens_.data(), {offsets_.back(), documents_.dim()}, {documents_.dim(), 1}};
    found_.resize(ids.size());
    pare::retrieval::max_sim(backend_, query_, rows, offsets_, found_);
    std::ranges::copy(found_, scores.begin());
  }

 private:
  const B& backend_;
  VectorView documents_, queries_;
  TensorView<const bf16, 2> query_{};
  std::vector<bf16> tokens_{};
  std::vector<Index> offsets_{};
  std::vector<float> found_{};
};

/// Reranks the first `depth` candidates of each query; the time is that of the second stage.
template <class B>
Ranked rerank_all(const B& backend, const Collection& c, const Ranked& candidates,
                  const std::string& name, const RerankOptions& options) {
  double scored = 0;
  TokenScorer<B> scorer(backend, c);
  Ranked ranked = rank_all(name, c.queries(), [&](Index query) {
    scorer.ask(query);
    auto found =
        pare::retrieval::rerank(candidates.hits[static_cast<std::size_t>(query)], scorer, options);
    scored += static_cast<double>(found.scored);
    return std::move(found.hits);
  });
  ranked.scored = scored / static_cast<double>(c.queries());
  return ranked;
}

}  // namespace search
