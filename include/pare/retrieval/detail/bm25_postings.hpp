// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The inverted list of BM25: its checks, terms of the sum, and how it is filled.

#include <pare/core/check.hpp>
#include <pare/retrieval/bm25_options.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

inline void check_terms(const char* function, const char* argument,
                        std::span<const std::int32_t> terms) {
  for (const std::int32_t term : terms)
    check(term >= 0, function, argument, term, "term ids of at least 0");
}

inline Index length_of(std::span<const Index> offsets, Index d) {
  return offsets[static_cast<std::size_t>(d) + 1] - offsets[static_cast<std::size_t>(d)];
}

inline void check_documents(const char* function, std::span<const std::int32_t> tokens,
                            std::span<const Index> offsets, const Bm25Options& o) {
  check(o.k1 >= 0 && is_finite(o.k1), function, "k1", o.k1, "a finite number of at least 0");
  check(o.b >= 0 && o.b <= 1, function, "b", o.b, "from 0 to 1");
  check_enumerator(function, "idf", o.idf, Bm25Idf::Atire);
  constexpr Index most = std::numeric_limits<std::int32_t>::max();
  const auto documents = static_cast<Index>(offsets.size()) - 1;
  check(documents <= most, function, "offsets", documents, "at most 2^31 - 1 documents");
  check_offsets(function, "offsets", offsets, static_cast<Index>(tokens.size()));
  for (Index d = 0; d < documents; ++d)
    check(length_of(offsets, d) <= most, function, "offsets", length_of(offsets, d),
          "at most 2^31 - 1 tokens of a document");
  check_terms(function, "tokens", tokens);
}

inline Index count_in(std::span<const std::int32_t> tokens, std::span<const Index> offsets, Index d,
                      std::int32_t term) {
  const auto at = static_cast<std::size_t>(d);
  return std::count(tokens.begin() + offsets[at], tokens.begin() + offsets[at + 1], term);
}

/// What a term adds to the score of a document.
class Bm25Term {
 public:
  Bm25Term(Index documents, Index tokens, Index df, const Bm25Options& o)
      : idf_(idf_of(static_cast<double>(documents), static_cast<double>(df), o.idf)),
        k1_(o.k1),
        b_(o.b),
        mean_length_(static_cast<double>(tokens) / static_cast<double>(documents)) {}

  double operator()(Index tf, Index length) const {
    const auto t = static_cast<double>(tf);
    // The quotient first: a large k1 makes it 0 at the least, where products of k1 overflow.
    return idf_ * t *
           ((k1_ + 1) / (t + k1_ * (1 - b_ + b_ * static_cast<double>(length) / mean_length_)));
  }

 private:
  static double idf_of(double n, double df, Bm25Idf which) {
    if (which == Bm25Idf::Atire) return std::log(n / df);
    const double odds = (n - df + 0.5) / (df + 0.5);
    return which == Bm25Idf::Lucene ? std::log1p(odds) : std::log(odds);
  }

  double idf_, k1_, b_, mean_length_;
};

/// A document that holds a term, and what that adds to its score.
struct Bm25Posting {
  std::uint32_t document = 0;
  float score = 0;  ///< never -0, by which the search knows documents that it did not meet
};

/// Postings of each term by rising document.
struct Bm25Postings {
  Index documents = 0;
  std::vector<Index> offsets{0};  ///< [terms + 1]
  std::vector<Bm25Posting> entries;

  std::span<const Bm25Posting> of(std::int32_t term) const {
    const auto t = static_cast<std::size_t>(term);
    if (t + 1 >= offsets.size()) return {};
    return std::span(entries).subspan(static_cast<std::size_t>(offsets[t]),
                                      static_cast<std::size_t>(offsets[t + 1] - offsets[t]));
  }
};

/// To a count that is kept as the bits of a float.
inline void add_one(float& bits) {
  bits = std::bit_cast<float>(std::bit_cast<std::uint32_t>(bits) + 1U);
}

/// Fills in postings with the counts of terms, whose bits stand where scores will.
inline void fill_counts(std::span<const std::int32_t> tokens, std::span<const Index> offsets,
                        Bm25Postings& p) {
  const std::size_t terms = p.offsets.size() - 1;
  std::vector<Index> last(terms, -1), next(terms, 0);
  const auto each_token = [&](const auto& visit) {
    std::fill(last.begin(), last.end(), Index{-1});
    for (Index d = 0; d < p.documents; ++d)
      for (Index i = offsets[static_cast<std::size_t>(d)];
           i < offsets[static_cast<std::size_t>(d) + 1]; ++i) {
        const auto t = static_cast<std::size_t>(tokens[static_cast<std::size_t>(i)]);
        visit(t, d, last[t] != d);
        last[t] = d;
      }
  };
  each_token([&](std::size_t t, Index, bool is_new) { p.offsets[t + 1] += is_new ? 1 : 0; });
  for (std::size_t t = 0; t < terms; ++t) p.offsets[t + 1] += p.offsets[t];
  std::copy_n(p.offsets.begin(), terms, next.begin());
  p.entries.resize(static_cast<std::size_t>(p.offsets.back()));
  each_token([&](std::size_t t, Index d, bool is_new) {
    if (is_new)
      p.entries[static_cast<std::size_t>(next[t]++)] = {static_cast<std::uint32_t>(d),
                                                        std::bit_cast<float>(1U)};
    else
      add_one(p.entries[static_cast<std::size_t>(next[t] - 1)].score);
  });
}

inline Bm25Postings make_postings(const char* function, std::span<const std::int32_t> tokens,
                                  std::span<const Index> offsets, const Bm25Options& options) {
  check_documents(function, tokens, offsets, options);
  Bm25Postings p;
  p.documents = static_cast<Index>(offsets.size()) - 1;
  if (tokens.empty()) return p;
  const auto terms = static_cast<std::size_t>(*std::max_element(tokens.begin(), tokens.end())) + 1;
  p.offsets.assign(terms + 1, 0);
  fill_counts(tokens, offsets, p);
  for (std::size_t t = 0; t < terms; ++t) {
    const Index df = p.offsets[t + 1] - p.offsets[t];
    if (df == 0) continue;
    const Bm25Term of_term(p.documents, static_cast<Index>(tokens.size()), df, options);
    for (Index i = p.offsets[t]; i < p.offsets[t + 1]; ++i) {
      Bm25Posting& entry = p.entries[static_cast<std::size_t>(i)];
      const Index length = length_of(offsets, static_cast<Index>(entry.document));
      const auto tf = static_cast<Index>(std::bit_cast<std::uint32_t>(entry.score));
      entry.score = static_cast<float>(of_term(tf, length)) + 0.0F;  // not -0
    }
  }
  return p;
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
