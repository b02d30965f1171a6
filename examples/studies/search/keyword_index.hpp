// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// BM25 over words: texts to the term ids that an index takes.

#include "search/texts.hpp"

#include <pare/retrieval/bm25.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace search {

/// Documents by their words of at least two letters, as they stand: no stemmer, no list of words
/// that are left out.
class KeywordIndex {
 public:
  explicit KeywordIndex(std::span<const std::string> documents) : index_(made(documents)) {}

  /// The terms of a query, one for each of its words; a word of no document has a term too.
  std::vector<std::int32_t> terms(std::span<const std::string> words) const {
    std::vector<std::int32_t> terms;
    for (const std::string& word : words) {
      if (word.size() < 2) continue;
      const auto found = numbers_.find(word);
      terms.push_back(found == numbers_.end() ? static_cast<std::int32_t>(numbers_.size())
                                              : found->second);
    }
    return terms;
  }

  std::vector<pare::retrieval::Hit> search(std::span<const std::int32_t> terms, Index k) const {
    return index_.search(terms, k);
  }

  /// How many documents hold each of the terms, which count once.
  std::vector<Index> frequencies(std::vector<std::int32_t> terms) const {
    std::ranges::sort(terms);
    terms.erase(std::unique(terms.begin(), terms.end()), terms.end());
    std::vector<Index> all;
    all.reserve(terms.size());
    for (const std::int32_t term : terms) all.push_back(index_.frequency(term));
    return all;
  }

 private:
  pare::retrieval::Bm25Index made(std::span<const std::string> documents) {
    std::vector<std::int32_t> tokens;
    std::vector<Index> offsets{0};
    for (const std::string& document : documents) {
      for (const std::string& word : words_of(document))
        if (word.size() >= 2)
          tokens.push_back(
              numbers_.emplace(word, static_cast<std::int32_t>(numbers_.size())).first->second);
      offsets.push_back(static_cast<Index>(tokens.size()));
    }
    return pare::retrieval::Bm25Index(tokens, offsets);
  }

  std::unordered_map<std::string, std::int32_t> numbers_{};
  pare::retrieval::Bm25Index index_;
};

}  // namespace search
