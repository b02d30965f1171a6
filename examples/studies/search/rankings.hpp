// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a method answers to all queries, how good that is and how long it took.

#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/hit.hpp>
#include <pare/retrieval/metrics.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

namespace search {

using pare::Index;
using pare::retrieval::Hit;
using Hits = std::vector<Hit>;

/// The best hits for each query, and what they cost.
struct Ranked {
  std::string name;
  std::vector<Hits> hits;   ///< [queries]
  double milliseconds = 0;  ///< of the processor per query, on one thread
  double scored = 0;        ///< documents per query whose MaxSim was computed
};

/// Processor time of this program, which does not count what other programs take.
inline double processor_milliseconds() {
  return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

/// Asks search(query) for the hits of each query; it runs on one thread.
template <class Search>
Ranked rank_all(std::string name, Index queries, const Search& search) {
  Ranked ranked{std::move(name), {}, 0, 0};
  ranked.hits.reserve(static_cast<std::size_t>(queries));
  const double begin = processor_milliseconds();
  for (Index q = 0; q < queries; ++q) ranked.hits.push_back(search(q));
  ranked.milliseconds = (processor_milliseconds() - begin) / static_cast<double>(queries);
  return ranked;
}

/// Milliseconds by the clock on the wall that search(query) takes, of the first queries.
template <class Search>
double wall_milliseconds(Index queries, const Search& search) {
  const auto begin = std::chrono::steady_clock::now();
  for (Index q = 0; q < queries; ++q) search(q);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
  return time.count() / static_cast<double>(queries);
}

/// The first `count` of hits.
inline Hits first_of(const Hits& hits, Index count) {
  const auto kept = std::min(hits.size(), static_cast<std::size_t>(count));
  return {hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(kept)};
}

/// The best `count` of scores, by falling score.
inline Hits best_of(const std::vector<float>& scores, Index count) {
  Hits hits(scores.size());
  for (std::size_t i = 0; i < hits.size(); ++i)
    hits[i] = {static_cast<Index>(i), static_cast<double>(scores[i])};
  const auto kept =
      static_cast<std::ptrdiff_t>(std::min(hits.size(), static_cast<std::size_t>(count)));
  std::partial_sort(hits.begin(), hits.begin() + kept, hits.end(), pare::retrieval::ranks_before);
  hits.resize(static_cast<std::size_t>(kept));
  return hits;
}

inline std::vector<Index> ids_of(const Hits& hits) {
  std::vector<Index> ids;
  for (const Hit& hit : hits) ids.push_back(hit.id);
  return ids;
}

inline constexpr Index judged_ranks = 10;

/// Of each query the measures at 10, of one relevant document.
/// \param relevant relevant(query) is that document
template <class Relevant>
std::vector<pare::retrieval::RankingMetrics> judge(const Ranked& ranked, const Relevant& relevant) {
  std::vector<pare::retrieval::RankingMetrics> all;
  for (std::size_t q = 0; q < ranked.hits.size(); ++q) {
    const std::array<Index, 1> wanted{relevant(static_cast<Index>(q))};
    all.push_back(pare::retrieval::ranking_metrics(ids_of(ranked.hits[q]), wanted, judged_ranks));
  }
  return all;
}

/// Of each query the NDCG at 10.
template <class Relevant>
std::vector<double> ndcg_of(const Ranked& ranked, const Relevant& relevant) {
  std::vector<double> all;
  for (const auto& metrics : judge(ranked, relevant)) all.push_back(metrics.ndcg);
  return all;
}

/// Of each query the share of the ten best of `exact` that are among the ten best here.
inline std::vector<double> overlaps(const Ranked& ranked, const Ranked& exact) {
  std::vector<double> all;
  for (std::size_t q = 0; q < exact.hits.size(); ++q) {
    const std::vector<Index> wanted = ids_of(first_of(exact.hits[q], judged_ranks));
    double found = 0;
    for (const Index id : ids_of(first_of(ranked.hits[q], judged_ranks)))
      found += std::ranges::find(wanted, id) == wanted.end() ? 0 : 1;
    all.push_back(found / static_cast<double>(wanted.size()));
  }
  return all;
}

}  // namespace search
