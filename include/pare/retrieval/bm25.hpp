// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// BM25 over an inverted list: documents by the terms that they share with a query.
///
/// ```cpp
/// const Bm25Index index(tokens, offsets, {.k1 = 1.2, .b = 0.75});  // documents back to back
/// const std::vector<Hit> hits = index.search(query, 10);           // query: term ids
/// const auto lists = index.search(pare::simd.threads(4), queries, query_offsets, 10);
/// reference_bm25(tokens, offsets, query);                          // the definition, [documents]
/// ```
///
///     score(d, q) = sum over tokens t of q, each time it stands there,
///                   idf(t) tf (k1 + 1) / (tf + k1 (1 - b + b |d| / mean |d|))
///
/// with tf how often d holds t and |d| the tokens of d. N documents, df of which hold t, make idf:
///
/// | idf | formula | |
/// |---|---|---|
/// | `Lucene` | ln(1 + (N - df + .5) / (df + .5)) | never below 0 |
/// | `Robertson` | ln((N - df + .5) / (df + .5)) | below 0 for terms of more than half of them |
/// | `Atire` | ln(N / df) | 0 for a term that all hold |
///
/// Lucene itself leaves out the factor k1 + 1, which changes no order.
///
/// A hit is a document that holds a token of the query at all, so there may be fewer than k. A
/// token that no document holds adds nothing.
///
/// What it is for: an honest first stage beside rerank.hpp and rank_fusion.hpp, in memory. Each
/// posting keeps its finished term of the sum, 8 bytes in all, so k1, b and idf belong to the
/// index. It neither compresses nor skips lists, keeps no positions, and does not grow: at most
/// 2^31 - 1 documents. Searching reads the postings of the query's terms once, 8 bytes each, and
/// the sums of all documents from first-level cache.
///
/// Sources: Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009;
/// Kamphuis et al., ECIR 2020, for the names of the forms. Ours: finished terms, blocked sums.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/retrieval/bm25_options.hpp>
#include <pare/retrieval/detail/bm25_postings.hpp>
#include <pare/retrieval/detail/bm25_search.hpp>
#include <pare/retrieval/hit.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// BM25 of a query and every document by the definition: it reads all documents, in double.
///
/// \param tokens  term ids of at least 0, document after document
/// \param offsets [documents + 1]: document d holds tokens offsets[d] up to offsets[d + 1]
/// \param query   term ids of at least 0, one that stands there twice counts twice
/// \return [documents], 0 for one that shares no term
/// \throws std::invalid_argument if offsets do not fit, a term is below 0, or an option is out of
///         its range
inline std::vector<double> reference_bm25(std::span<const std::int32_t> tokens,
                                          std::span<const Index> offsets,
                                          std::span<const std::int32_t> query,
                                          const Bm25Options& options = {}) {
  constexpr const char* function = "retrieval::reference_bm25";
  detail::check_documents(function, tokens, offsets, options);
  detail::check_terms(function, "query", query);
  const auto documents = static_cast<Index>(offsets.size()) - 1;
  const auto count = [&](Index d, std::int32_t term) {
    return detail::count_in(tokens, offsets, d, term);
  };
  std::vector<double> scores(static_cast<std::size_t>(documents), 0.0);
  for (const std::int32_t term : query) {
    Index df = 0;
    for (Index d = 0; d < documents; ++d) df += count(d, term) > 0 ? 1 : 0;
    if (df == 0) continue;
    const detail::Bm25Term of_term(documents, static_cast<Index>(tokens.size()), df, options);
    for (Index d = 0; d < documents; ++d)
      if (const Index tf = count(d, term); tf > 0)
        scores[static_cast<std::size_t>(d)] += of_term(tf, detail::length_of(offsets, d));
  }
  return scores;
}

/// An inverted list of documents, built once and searched often, by several threads at a time.
class Bm25Index {
 public:
  /// Reads the documents, which it does not keep.
  ///
  /// \param tokens  term ids of at least 0, document after document; a document may be empty
  /// \param offsets [documents + 1], from 0 to the number of tokens, never falling
  /// \throws std::invalid_argument if offsets do not fit, a term is below 0, there are more than
  ///         2^31 - 1 documents, or an option is out of its range
  ///
  /// Cost: two passes over the tokens. Memory: 8 bytes per pair of a document and a term that it
  /// holds, 8 per term up to the largest id, which therefore should be dense.
  explicit Bm25Index(std::span<const std::int32_t> tokens, std::span<const Index> offsets,
                     const Bm25Options& options = {})
      : postings_(detail::make_postings("retrieval::Bm25Index", tokens, offsets, options)) {}

  Index documents() const { return postings_.documents; }
  /// Pairs of a document and a term.
  Index postings() const { return static_cast<Index>(postings_.entries.size()); }
  /// How many documents hold a term of at least 0.
  Index frequency(std::int32_t term) const {
    check(term >= 0, "retrieval::Bm25Index::frequency", "term", term, "at least 0");
    return static_cast<Index>(postings_.of(term).size());
  }

  /// The best k documents for a query, by falling score, of equal ones the lower id first.
  ///
  /// \param query term ids of at least 0; one that stands there twice counts twice
  /// \param k     at least 1
  /// \throws std::invalid_argument if a term is below 0 or k below 1
  ///
  /// Terms are rounded to float and added in float, in the order of the query: a score is within
  /// about (tokens of the query + 1) 2^-24 of the definition, relative where no idf is below 0.
  /// The same bits on every backend.
  std::vector<Hit> search(std::span<const std::int32_t> query, Index k) const {
    check_call("retrieval::Bm25Index::search", query, k);
    detail::Bm25Search memory;
    return memory.run(postings_, query, k);
  }

  /// The same for many queries, each on one thread: [queries] lists.
  ///
  /// \param backend one that has threads, or pare::reference, which has one
  /// \param queries term ids, query after query
  /// \param offsets [queries + 1], as those of documents
  /// \throws std::invalid_argument also if offsets do not fit
  template <Backend B>
  std::vector<std::vector<Hit>> search(const B& backend, std::span<const std::int32_t> queries,
                                       std::span<const Index> offsets, Index k) const {
    constexpr const char* function = "retrieval::Bm25Index::search";
    check_call(function, queries, k);
    check_offsets(function, "offsets", offsets, static_cast<Index>(queries.size()));
    const auto count = static_cast<Index>(offsets.size()) - 1;
    std::vector<std::vector<Hit>> lists(static_cast<std::size_t>(count));
    int workers = 1;
    if constexpr (KernelBackend<B>) workers = worker_count(backend.executor, count);
    std::vector<detail::Bm25Search> memories(static_cast<std::size_t>(workers));
    const auto run = [&](Index q, int worker) {
      const auto at = static_cast<std::size_t>(q);
      lists[at] = memories[static_cast<std::size_t>(worker)].run(
          postings_,
          queries.subspan(static_cast<std::size_t>(offsets[at]),
                          static_cast<std::size_t>(offsets[at + 1] - offsets[at])),
          k);
    };
    if constexpr (KernelBackend<B>)
      parallel_for(on_any_executor(backend).executor, count, run);
    else
      for (Index q = 0; q < count; ++q) run(q, 0);
    return lists;
  }

 private:
  static void check_call(const char* function, std::span<const std::int32_t> query, Index k) {
    detail::check_terms(function, "query", query);
    check(k >= 1, function, "k", k, "at least 1");
  }

  detail::Bm25Postings postings_;
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
