// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Measures of rankings: Recall at k, Hit at k, MRR at k and NDCG at k, of one ranking and of a
/// matrix of scores.
///
/// ```cpp
/// const std::vector<pare::Index> ranking{5, 1, 2}, relevant{2, 5};
/// ranking_metrics(ranking, relevant, 3).ndcg;             // 0.91972079
/// const auto mean = evaluate_rankings(scores, {relevant_offsets, relevant_items},
///                                     {seen_offsets, seen_items}, 20);  // scores [users, items]
/// mean.metrics.recall;                                    // over mean.judged users
/// ```
///
/// With R the relevant items and r_1, r_2, ... the ranking:
///
///     Recall at k = |{r_1 .. r_k} and R| / |R|
///     Hit at k    = 1 if one of r_1 .. r_k is in R, else 0
///     MRR at k    = 1 / rank of the first in R, 0 if it is not among the first k
///     NDCG at k   = sum over ranks i <= k with r_i in R of 1 / log2(i + 1)
///                / sum over i <= min(k, |R|) of 1 / log2(i + 1)
///
/// The ideal of NDCG is that of all relevant items. The code of NGCF and KGAT takes the ideal of
/// those that were found, which makes the number larger; figures of theirs do not compare with
/// these. Source of NDCG: Jarvelin and Kekalainen, TOIS 20 (2002), with gains of 0 and 1.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/retrieval/detail/best_hits.hpp>
#include <pare/retrieval/detail/distinct.hpp>
#include <pare/retrieval/hit.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::retrieval {

/// Measures of one ranking, or their means.
struct RankingMetrics {
  double recall = 0;
  double hit = 0;
  double reciprocal_rank = 0;  ///< its mean is MRR
  double ndcg = 0;
};

/// Means over users.
struct MeanMetrics {
  RankingMetrics metrics;
  Index judged = 0;  ///< users that have a relevant item; the others are left out
};

PARE_ABI_BEGIN

/// Items of each user, user after user: those of user u are items[offsets[u]] up to, without it,
/// items[offsets[u + 1]]. It refers to both.
struct ItemLists {
  std::span<const Index> offsets;  ///< [users + 1], from 0, never falling
  std::span<const Index> items;

  Index users() const { return static_cast<Index>(offsets.size()) - 1; }
  std::span<const Index> of(Index user) const {
    const auto u = static_cast<std::size_t>(user);
    return items.subspan(static_cast<std::size_t>(offsets[u]),
                         static_cast<std::size_t>(offsets[u + 1] - offsets[u]));
  }
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// The gain of a relevant item at a rank that counts from 0.
inline double gain_at(std::size_t rank) { return 1 / std::log2(static_cast<double>(rank) + 2); }

/// The measures of a ranking of which is_relevant(id) knows the relevant ones, `relevant` in all.
template <class Relevant>
RankingMetrics measure(std::span<const Index> ranking, std::size_t relevant, Index k,
                       const Relevant& is_relevant) {
  const std::size_t most = static_cast<std::size_t>(k);
  RankingMetrics m;
  double found = 0, ideal = 0;
  for (std::size_t rank = 0; rank < std::min(most, ranking.size()); ++rank)
    if (is_relevant(ranking[rank])) {
      if (found == 0) m.reciprocal_rank = 1 / (static_cast<double>(rank) + 1);
      found += 1;
      m.ndcg += gain_at(rank);
    }
  for (std::size_t rank = 0; rank < std::min(most, relevant); ++rank) ideal += gain_at(rank);
  m.ndcg /= ideal;
  m.recall = found / static_cast<double>(relevant);
  m.hit = found > 0 ? 1 : 0;
  return m;
}

/// Which items a user has seen, for one worker. All are unseen between users.
class SeenItems {
 public:
  explicit SeenItems(Index items) : marks_(static_cast<std::size_t>(items), 0) {}
  void mark(std::span<const Index> items, char as) {
    for (const Index item : items) marks_[static_cast<std::size_t>(item)] = as;
  }
  bool has(Index item) const { return marks_[static_cast<std::size_t>(item)] != 0; }

 private:
  std::vector<char> marks_;
};

/// The first k unseen items of a row of scores: all are sorted, or only the best are kept.
template <bool sort_all, class T>
std::vector<Index> first_items(TensorView<const T, 2> scores, Index user, const SeenItems& seen,
                               Index k) {
  BestHits best(sort_all ? scores.cols() : std::min(k, scores.cols()));
  for (Index i = 0; i < scores.cols(); ++i)
    if (!seen.has(i)) best.offer({i, static_cast<double>(scores(user, i))});
  std::vector<Index> ids;
  for (const Hit& hit : best.take())
    if (static_cast<Index>(ids.size()) < k) ids.push_back(hit.id);
  return ids;
}

inline void check_items(const char* function, const char* argument, const ItemLists& lists,
                        Index users, Index items) {
  check_offsets(function, argument, lists.offsets, static_cast<Index>(lists.items.size()));
  check(lists.users() == users, function, argument, lists.users(),
        Worded{"lists of ", users, " users"});
  for (const Index item : lists.items)
    check(item >= 0 && item < items, function, argument, item,
          Worded{"an item from 0 to below ", items});
}

/// No user has a relevant item twice, nor one that it has seen: that could never be found.
inline void check_relevant(const char* function, const ItemLists& relevant, const ItemLists& seen,
                           Index items) {
  std::vector<Index> mark(static_cast<std::size_t>(items), -1);
  for (Index u = 0; u < relevant.users(); ++u) {
    for (const Index item : seen.of(u)) mark[static_cast<std::size_t>(item)] = 2 * u;
    for (const Index item : relevant.of(u)) {
      Index& m = mark[static_cast<std::size_t>(item)];
      check(m != 2 * u, function, "relevant", Worded{"item ", item, ", which its user has seen"},
            "items that are not masked");
      check(m != 2 * u + 1, function, "relevant", Worded{"item ", item, " twice"},
            "each item of a user once");
      m = 2 * u + 1;
    }
  }
}

template <class B, class T>
MeanMetrics evaluate(const B& backend, TensorView<const T, 2> scores, const ItemLists& relevant,
                     const ItemLists& seen, Index k) {
  constexpr const char* function = "retrieval::evaluate_rankings";
  check_view(function, "scores", scores);
  check(k >= 1, function, "k", k, "at least 1");
  check_items(function, "relevant", relevant, scores.rows(), scores.cols());
  check_items(function, "seen", seen, scores.rows(), scores.cols());
  // What is kept of each item.
  checked_count(function, "scores", scores.cols(), sizeof(Index));
  if (scores.rows() == 0) return {};
  check_relevant(function, relevant, seen, scores.cols());
  std::vector<RankingMetrics> of_user(static_cast<std::size_t>(scores.rows()));
  int workers = 1;
  if constexpr (KernelBackend<B>) workers = worker_count(backend.executor, scores.rows());
  std::vector<SeenItems> masks(static_cast<std::size_t>(workers), SeenItems(scores.cols()));
  std::vector<SeenItems> wanted = masks;
  const auto judge = [&](Index u, int worker) {
    if (relevant.of(u).empty()) return;
    SeenItems& mask = masks[static_cast<std::size_t>(worker)];
    SeenItems& want = wanted[static_cast<std::size_t>(worker)];
    mask.mark(seen.of(u), 1);
    want.mark(relevant.of(u), 1);
    of_user[static_cast<std::size_t>(u)] =
        measure(first_items<!KernelBackend<B>>(scores, u, mask, k), relevant.of(u).size(), k,
                [&](Index item) { return want.has(item); });
    mask.mark(seen.of(u), 0);
    want.mark(relevant.of(u), 0);
  };
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, scores.rows(), judge);
  else
    for (Index u = 0; u < scores.rows(); ++u) judge(u, 0);
  MeanMetrics mean;
  for (Index u = 0; u < scores.rows(); ++u) {
    const RankingMetrics& m = of_user[static_cast<std::size_t>(u)];
    mean.judged += relevant.of(u).empty() ? 0 : 1;
    mean.metrics.recall += m.recall;
    mean.metrics.hit += m.hit;
    mean.metrics.reciprocal_rank += m.reciprocal_rank;
    mean.metrics.ndcg += m.ndcg;
  }
  const double judged = static_cast<double>(std::max<Index>(mean.judged, 1));
  for (double* m :
       {&mean.metrics.recall, &mean.metrics.hit, &mean.metrics.reciprocal_rank, &mean.metrics.ndcg})
    *m /= judged;
  return mean;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The measures of one ranking.
///
/// \param ranking  ids of at least 0, the best first, each once; what is missing of k counts as
///                 not relevant
/// \param relevant ids of at least 0, each once, in any order, at least one
/// \param k        ranks that count, at least 1
/// \throws std::invalid_argument if an argument is out of its range
///
/// Cost: sorting both lists.
inline RankingMetrics ranking_metrics(std::span<const Index> ranking,
                                      std::span<const Index> relevant, Index k) {
  constexpr const char* function = "retrieval::ranking_metrics";
  check(k >= 1, function, "k", k, "at least 1");
  check(!relevant.empty(), function, "relevant", "no id", "at least one");
  detail::check_distinct(function, "ranking", ranking);
  detail::check_distinct(function, "relevant", relevant);
  std::vector<Index> sorted(relevant.begin(), relevant.end());
  std::sort(sorted.begin(), sorted.end());
  return detail::measure(ranking, relevant.size(), k, [&](Index id) {
    return std::binary_search(sorted.begin(), sorted.end(), id);
  });
}

/// Ranks all items of each user by falling score, of equal ones the lower id first and NaN last,
/// leaves out those that it has seen, and returns the mean of the measures over users that have a
/// relevant item; all 0 if none has.
///
/// \param backend  left out: pare::simd
/// \param scores   [users, items] of float or double, any strides
/// \param relevant of each user, each item once
/// \param seen     of each user: items that are not ranked, as those of training
/// \param k        ranks that count, at least 1; it may exceed the items
/// \throws std::invalid_argument if k is below 1, lists do not fit the scores, an item is out of
///         range, or a relevant item is there twice or was seen, so that it could never be found,
///         or a number of 8 bytes for each item would not fit 63 bits
///
/// Cost: one read of the scores, and log k for each item that enters the best k. Memory: two bytes
/// per item and worker, eight per item. The same result for any number of threads and on all
/// backends.
template <Backend B, In<2> S>
requires ComputeScalar<scalar_of<S>>
MeanMetrics evaluate_rankings(const B& backend, const S& scores, const ItemLists& relevant,
                              const ItemLists& seen, Index k) {
  return detail::evaluate(on_any_executor(backend), as_const(to_view(scores)), relevant, seen, k);
}

/// \overload
template <In<2> S>
requires ComputeScalar<scalar_of<S>>
MeanMetrics evaluate_rankings(const S& scores, const ItemLists& relevant, const ItemLists& seen,
                              Index k) {
  return evaluate_rankings(simd, scores, relevant, seen, k);
}

PARE_REFUSE_CALLS(evaluate_rankings, "retrieval::evaluate_rankings", "after seen: wanted k",
                  (INPUT, (roles::ReadsCompute<2>), "scores", "[users, items]"),
                  (ANY, (roles::TakesAny), "relevant", "lists of items"),
                  (ANY, (roles::TakesAny), "seen", "lists of items"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
