// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What is searched for and where: synsets as documents, their definitions as queries.
///
/// A query is a definition without the words of its synset, and the synset is what is relevant.
/// What stands in the documents makes the task:
///
/// | task | document | query |
/// |---|---|---|
/// | `gloss` | words, definition, examples | the whole definition: each document holds its query |
/// | `half` | the same | half of the definition's words, drawn, in their order |
/// | `reverse` | words, words of the kinds that it is of, examples | the whole definition |
///
/// `reverse` is a reverse dictionary: the definition stands nowhere.

#include "common/words.hpp"
#include "search/wordnet.hpp"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace search {

enum class Task { Gloss, Half, Reverse };
inline constexpr std::string_view task_names[] = {"gloss", "half", "reverse"};
inline std::string_view name_of(Task task) { return task_names[static_cast<std::size_t>(task)]; }

/// The words of a text in lower case, without punctuation.
inline std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  encoder::for_each_word(text, [&](std::string_view word) {
    const auto first = static_cast<unsigned char>(word.front());
    if (first >= 0x80 || std::isalnum(first) != 0) words.emplace_back(word);
  });
  return words;
}

inline std::string joined(std::span<const std::string> parts, const char* between) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

inline std::string document_text(std::span<const Synset> synsets, std::size_t at, Task task) {
  const Synset& synset = synsets[at];
  std::string text = joined(synset.words, ", ");
  if (task == Task::Reverse) {
    for (const Index kind : synset.kinds)
      text += "; " + joined(synsets[static_cast<std::size_t>(kind)].words, ", ");
  } else {
    text += ": " + synset.definition;
  }
  return synset.examples.empty() ? text : text + "; " + synset.examples;
}

/// The words of a definition that are not in the words of its synset.
inline std::vector<std::string> query_words(const Synset& synset) {
  std::vector<std::string> own = words_of(joined(synset.words, " "));
  std::vector<std::string> words = words_of(synset.definition);
  std::erase_if(words,
                [&](const std::string& word) { return std::ranges::find(own, word) != own.end(); });
  return words;
}

/// So many of 0 to count - 1, drawn, in rising order.
inline std::vector<std::size_t> drawn(std::size_t count, std::size_t wanted,
                                      std::mt19937_64& random) {
  std::vector<std::size_t> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = i;
  wanted = std::min(wanted, count);
  for (std::size_t i = 0; i < wanted; ++i) std::swap(all[i], all[i + random() % (count - i)]);
  all.resize(wanted);
  std::ranges::sort(all);
  return all;
}

/// What is asked, and the document that answers it.
struct Query {
  Index document = 0;
  std::vector<std::string> words;
};

/// Queries of synsets that have at least four words to ask by, drawn.
/// \param documents the synsets that are documents
inline std::vector<Query> draw_queries(std::span<const Synset> synsets,
                                       std::span<const std::size_t> documents, Task task,
                                       std::size_t count, std::uint64_t seed) {
  constexpr std::size_t fewest = 4;
  std::vector<Query> all;
  for (std::size_t d = 0; d < documents.size(); ++d)
    if (auto words = query_words(synsets[documents[d]]); words.size() >= fewest)
      all.push_back({static_cast<Index>(d), std::move(words)});
  std::mt19937_64 random(seed);
  std::vector<Query> queries;
  for (const std::size_t at : drawn(all.size(), count, random)) {
    queries.push_back(std::move(all[at]));
    if (task != Task::Half) continue;
    std::vector<std::string>& words = queries.back().words;
    std::vector<std::string> some;
    for (const std::size_t i : drawn(words.size(), (words.size() + 1) / 2, random))
      some.push_back(std::move(words[i]));
    words = std::move(some);
  }
  return queries;
}

/// Which synsets are documents: so many of them, evenly spread.
inline std::vector<std::size_t> spread(std::size_t synsets, std::size_t wanted) {
  wanted = std::min(wanted, synsets);
  std::vector<std::size_t> chosen(wanted);
  for (std::size_t i = 0; i < wanted; ++i) chosen[i] = i * synsets / wanted;
  return chosen;
}

}  // namespace search
