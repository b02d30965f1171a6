// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Fusion of rankings: reciprocal rank fusion (RRF), and vstash's form, whose weights follow the
/// terms that a query has.
///
/// ```cpp
/// const auto fused = fuse_ranks({{by_vector}, {by_keyword}}, 10);    // ids, the best first
/// const FusionWeights w = adaptive_weights(frequencies, documents);  // of the query's terms
/// const auto hits = fuse_adaptive(nearest, by_keyword, 10, w);       // nearest: with distances
/// ```
///
///     score(d) = sum over lists l that hold d of w_l / (k + r_l(d))
///
/// where r_l(d) is d's rank in the list. RRF has k = 60, w = 1 and ranks from 1: Cormack, Clarke
/// and Buettcher, SIGIR 2009. vstash (arXiv 2604.15484, by its code) counts ranks from 0, and
/// weighs two lists, of vectors and of keywords. With N documents and df(t) of them that hold the
/// query's term t:
///
///     idf(t) = ln(N / (df(t) + 1)),   mean over distinct terms,   theta = ln(N) / 2
///     sigma  = 1 / (1 + e^(-2 (mean - theta)))
///     w_keyword = round3(0.1 + 0.5 sigma),   w_vector = round3(1 - w_keyword)
///
/// so that a query of rare terms trusts its keywords more, 0.1 at the least and 0.6 at the most.
/// Left out of vstash: its stemmer (terms are the caller's) and its maximal marginal relevance
/// within a document, which works on the texts' vectors.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/retrieval/detail/best_hits.hpp>
#include <pare/retrieval/detail/rank_sums.hpp>
#include <pare/retrieval/hit.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval {

/// Options of fuse_ranks.
struct FusionOptions {
  double k = 60;         ///< at least 0; that of Cormack et al.
  Index first_rank = 1;  ///< rank of the best: 1 in their paper, 0 in vstash; k + it is above 0
};

/// Options of fuse_adaptive.
struct AdaptiveFusionOptions {
  double k = 60;
  /// Days since each document, [documents by id], at least 0: its score is multiplied by 1 + boost
  /// e^(-0.05 days). Empty: no such factor.
  std::span<const double> age_days{};
  double boost = 0;  ///< at least 0
};

PARE_ABI_BEGIN

/// Weights of vstash's two lists, and what it drops of the vectors' one.
struct FusionWeights {
  double vector = 0.6;
  double keyword = 0.4;
  /// Vectors farther than this times the least squared distance are dropped; at least 1. 1.15^2.
  double cutoff = 1.3225;

  friend bool operator==(const FusionWeights&, const FusionWeights&) = default;
};

/// A ranking of ids and what it weighs.
struct RankedIds {
  std::span<const Index> ids;  ///< of at least 0, the best first, each once
  double weight = 1;           ///< finite, at least 0
};

/// The first `count` documents by the sums of reciprocal ranks.
///
/// \param lists any number, of any lengths; a document that a list lacks gets nothing from it
/// \param count at least 1; fewer come back if the lists hold fewer documents
/// \throws std::invalid_argument if a list holds an id twice or one below 0, a weight is below 0 or
///         not finite, or an option is out of its range
///
/// Sums are in double and in the order of the lists. Cost: sorting all entries. A document whose
/// lists all weigh 0 has the score 0, and is still ranked.
inline std::vector<Hit> fuse_ranks(std::span<const RankedIds> lists, Index count,
                                   const FusionOptions& options = {}) {
  constexpr const char* function = "retrieval::fuse_ranks";
  check(count >= 1, function, "count", count, "at least 1");
  detail::check_rank_constant(function, options.k, options.first_rank);
  detail::RankSums sums(options.k + static_cast<double>(options.first_rank));
  for (const RankedIds& list : lists) {
    detail::check_weight(function, "weight", list.weight);
    detail::check_distinct(function, "ids", list.ids);
  }
  for (const RankedIds& list : lists)
    for (std::size_t rank = 0; rank < list.ids.size(); ++rank)
      sums.add(list.ids[rank], rank, list.weight);
  return detail::first_hits(sums.take(), count);
}

/// \overload
inline std::vector<Hit> fuse_ranks(std::initializer_list<RankedIds> lists, Index count,
                                   const FusionOptions& options = {}) {
  return fuse_ranks(std::span<const RankedIds>(lists.begin(), lists.size()), count, options);
}

/// vstash's weights for a mean idf of the query's terms.
///
/// \param mean_idf  finite
/// \param documents N, at least 2
/// \throws std::invalid_argument if an argument is out of its range
inline FusionWeights weights_of_mean_idf(double mean_idf, Index documents) {
  constexpr const char* function = "retrieval::weights_of_mean_idf";
  check(is_finite(mean_idf), function, "mean_idf", mean_idf, "a finite number");
  check(documents >= 2, function, "documents", documents, "at least 2");
  const auto round3 = [](double x) { return std::round(1000 * x) / 1000; };
  const double theta = std::log(static_cast<double>(documents)) / 2;
  FusionWeights w;
  w.keyword = round3(0.1 + 0.5 / (1 + std::exp(-2 * (mean_idf - theta))));
  w.vector = round3(1 - w.keyword);
  return w;
}

/// vstash's weights for a query. Of more than 50 words: 0.9 for vectors, 0.1 for keywords and a
/// cutoff of 25. Without terms, or of a single document: 0.6 and 0.4.
///
/// \param frequencies df of each distinct term of the query: how many documents hold it; 0 if none
/// \param documents   N, at least 1
/// \param words       of the query as it was asked; left out: as many as there are terms
/// \throws std::invalid_argument if a frequency is not in [0, N], or another number out of range
inline FusionWeights adaptive_weights(std::span<const Index> frequencies, Index documents,
                                      std::optional<Index> words = {}) {
  constexpr const char* function = "retrieval::adaptive_weights";
  check(documents >= 1, function, "documents", documents, "at least 1");
  check(words.value_or(0) >= 0, function, "words", words.value_or(0), "at least 0");
  double sum = 0;
  for (const Index df : frequencies) {
    check(df >= 0 && df <= documents, function, "frequencies", df, Worded{"from 0 to ", documents});
    sum += std::log(static_cast<double>(documents) / (static_cast<double>(df) + 1));
  }
  const auto terms = static_cast<Index>(frequencies.size());
  if (words.value_or(terms) > 50) return {.vector = 0.9, .keyword = 0.1, .cutoff = 25.0};
  if (documents < 2 || terms == 0) return {};
  return weights_of_mean_idf(sum / static_cast<double>(terms), documents);
}

/// How many documents vstash asks of each list for `count` results: min(10 count, max(3 count, N /
/// 3)). \throws std::invalid_argument if count or documents is below 1
inline Index fusion_pool(Index count, Index documents) {
  constexpr const char* function = "retrieval::fusion_pool";
  check(documents >= 1, function, "documents", documents, "at least 1");
  check(count >= 1, function, "count", count, "at least 1");
  const Index most = checked_product(function, "count", 10, count);
  return std::min(most, std::max(3 * count, documents / 3));
}

/// vstash's fusion of the nearest vectors and the best keywords.
///
/// \param nearest  ids and squared distances, the nearest first, each id once; those farther than
///                 cutoff times the first are dropped. From products p of unit rows, as of
///                 top_k_dot: max(0, 2 - 2 p)
/// \param keyword  ids, the best first, each once; one that is not among the vectors kept counts
///                 if its rank, from 0, is below 2 count
/// \param count    at least 1
/// \param weights  of adaptive_weights, or your own; the default is vstash's fixed one
/// \throws std::invalid_argument if distances are below 0, not finite or fall, an id is twice there
///         or below 0, or an option or weight is out of its range
///
/// \return the first `count` by score, ties by id. With ages, an id is below their number.
inline std::vector<Hit> fuse_adaptive(std::span<const Hit> nearest, std::span<const Index> keyword,
                                      Index count, const FusionWeights& weights = {},
                                      const AdaptiveFusionOptions& options = {}) {
  constexpr const char* function = "retrieval::fuse_adaptive";
  check(count >= 1, function, "count", count, "at least 1");
  detail::check_rank_constant(function, options.k, 0);
  detail::check_weight(function, "vector", weights.vector);
  detail::check_weight(function, "keyword", weights.keyword);
  check(weights.cutoff >= 1 && is_finite(weights.cutoff), function, "cutoff", weights.cutoff,
        "a finite number of at least 1");
  detail::check_weight(function, "boost", options.boost);
  std::vector<Index> kept = detail::checked_nearest(function, nearest);
  detail::check_distinct(function, "keyword", keyword);
  detail::check_ages(function, options.age_days, kept, keyword);
  const double farthest = nearest.empty() ? 0 : weights.cutoff * nearest.front().score;
  while (!kept.empty() && nearest[kept.size() - 1].score > farthest) kept.pop_back();

  detail::RankSums sums(options.k);
  for (std::size_t rank = 0; rank < kept.size(); ++rank) sums.add(kept[rank], rank, weights.vector);
  std::sort(kept.begin(), kept.end());
  for (std::size_t rank = 0; rank < keyword.size(); ++rank)
    if (rank / 2 < static_cast<std::size_t>(count) ||
        std::binary_search(kept.begin(), kept.end(), keyword[rank]))
      sums.add(keyword[rank], rank, weights.keyword);
  std::vector<Hit> hits = sums.take();
  for (Hit& hit : hits)
    if (!options.age_days.empty())
      hit.score *=
          1 + options.boost * std::exp(-0.05 * options.age_days[static_cast<std::size_t>(hit.id)]);
  return detail::first_hits(std::move(hits), count);
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
