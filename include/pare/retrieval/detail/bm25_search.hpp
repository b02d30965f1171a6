// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A query on the inverted list of BM25.

#include <pare/retrieval/detail/best_hits.hpp>
#include <pare/retrieval/detail/bm25_postings.hpp>
#include <pare/retrieval/hit.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// One query at a time: sums of a block of documents in first-level cache, from the postings of all
/// terms that lie in it, then a look at which of them are among the best.
class Bm25Search {
  /// 16 KiB of sums: beside them, the lists that are read have a third of the smallest L1.
  static constexpr std::uint32_t block = 4096;
  static constexpr std::size_t group = 64;

 public:
  std::vector<Hit> run(const Bm25Postings& postings, std::span<const std::int32_t> query, Index k) {
    lists_.clear();
    for (const std::int32_t term : query)
      if (const auto of_term = postings.of(term); !of_term.empty())
        lists_.push_back({of_term.data(), of_term.data() + of_term.size()});
    BestHits best(std::max<Index>(std::min(k, postings.documents), 1));
    while (!lists_.empty()) {
      std::uint32_t first = std::numeric_limits<std::uint32_t>::max();
      for (const List& list : lists_) first = std::min(first, list.next->document);
      first = first / block * block;  // blocks without a posting are passed over
      add_block(first,
                std::min<std::size_t>(block, static_cast<std::size_t>(postings.documents) - first));
      keep_best(first, best);
      std::erase_if(lists_, [](const List& list) { return list.next == list.end; });
    }
    return best.take();
  }

 private:
  struct List {
    const Bm25Posting* next;
    const Bm25Posting* end;
  };
  static constexpr float not_met = -0.0F;

  void add_block(std::uint32_t first, std::size_t documents) {
    sums_.assign((documents + group - 1) / group * group, not_met);
    const std::uint32_t end = first + block;
    for (List& list : lists_) {
      const Bm25Posting* p = list.next;
      for (; p != list.end && p->document < end; ++p) sums_[p->document - first] += p->score;
      list.next = p;
    }
  }

  /// -0 plus a number is that number, and never -0, since no term is: a sum of -0 was not met.
  void keep_best(std::uint32_t first, BestHits& best) const {
    float least = least_of(best);
    for (std::size_t begin = 0; begin < sums_.size(); begin += group) {
      if (!any_above(sums_.data() + begin, least)) continue;
      for (std::size_t i = begin; i < begin + group; ++i) {
        if (!(sums_[i] > least)) continue;  // an equal one has a higher id than all before
        if (std::bit_cast<std::uint32_t>(sums_[i]) == std::bit_cast<std::uint32_t>(not_met))
          continue;
        best.offer({static_cast<Index>(first + i), static_cast<double>(sums_[i])});
        least = least_of(best);
      }
    }
  }

  static float least_of(const BestHits& best) {
    return best.full() ? static_cast<float>(best.last().score)
                       : -std::numeric_limits<float>::infinity();
  }

  /// Without a branch, so that a compiler compares a register of them at a time.
  static bool any_above(const float* sums, float least) {
    unsigned above = 0;
    for (std::size_t i = 0; i < group; ++i) above |= sums[i] > least ? 1U : 0U;
    return above != 0;
  }

  std::vector<float> sums_;
  std::vector<List> lists_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
