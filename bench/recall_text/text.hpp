// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Recall text: real glosses that come twice, so that the second half can be known from the first.

#include <pare/core/check.hpp>
#include <pare/core/permutation.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace recall {

using pare::Index;

/// A file or a request that cannot be used; the message says why.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using Words = std::vector<std::string>;

/// The token that ends every gloss.
inline constexpr const char* full_stop = ".";

/// The words of a line in lower case: runs of ASCII letters and digits, an apostrophe between two
/// of them included (`one's`). All else separates.
inline Words split_words(std::string_view line) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  const auto in_word = [&](char c) {
    return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9');
  };
  Words words;
  bool inside = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const bool joins = inside && line[i] == '\'' && i + 1 < line.size() && in_word(line[i + 1]);
    const bool continues = inside;
    inside = joins || in_word(line[i]);
    if (inside && !continues) words.emplace_back();
    if (inside) words.back() += lower(line[i]);
  }
  return words;
}

/// The glosses of a file, one a line, each ended by a full stop. Lines that begin with #, and lines
/// without a word, are passed over. Throws InputError if the file cannot be read or holds none.
inline std::vector<Words> read_glosses(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw InputError(path.string() + ": cannot be opened for reading");
  std::vector<Words> glosses;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    Words words = split_words(line);
    if (words.empty()) continue;
    words.emplace_back(full_stop);
    glosses.push_back(std::move(words));
  }
  if (file.bad()) throw InputError(path.string() + ": reading failed");
  if (glosses.empty()) throw InputError(path.string() + ": no words in it");
  return glosses;
}

/// A text as word numbers.
struct Text {
  std::vector<int> words;               ///< the word of each token
  std::vector<std::string> vocabulary;  ///< the words, in the order in which they first come

  Index size() const { return static_cast<Index>(words.size()); }
  int word(Index token) const { return words[static_cast<std::size_t>(token)]; }
};

/// A text of `tokens` tokens: its first half the first glosses in order, its second half the same
/// glosses in an order drawn from `seed`. The last gloss taken is cut to fill the half, and still
/// ends with a full stop. Throws InputError if `tokens` is odd, below 4 or more than the glosses
/// can fill.
inline Text recall_text(const std::vector<Words>& glosses, Index tokens, std::uint64_t seed) {
  if (tokens < 4 || tokens % 2 != 0)
    throw InputError("a recall text has an even number of tokens, 4 or more; got " +
                     std::to_string(tokens));
  std::vector<Words> taken;
  for (auto left = static_cast<std::size_t>(tokens) / 2; left > 0; left -= taken.back().size()) {
    if (taken.size() == glosses.size())
      throw InputError("there are not glosses enough for a text of " + std::to_string(tokens) +
                       " tokens, only for " +
                       std::to_string(tokens - 2 * static_cast<Index>(left)));
    taken.push_back(glosses[taken.size()]);
    if (taken.back().size() <= left) continue;
    taken.back().resize(left);
    taken.back().back() = full_stop;
  }

  Text text;
  std::unordered_map<std::string, int> number;
  const auto append = [&](const Words& gloss) {
    for (const std::string& word : gloss) {
      const auto [at, is_new] = number.emplace(word, static_cast<int>(number.size()));
      if (is_new) text.vocabulary.push_back(word);
      text.words.push_back(at->second);
    }
  };
  for (const Words& gloss : taken) append(gloss);
  const auto order = pare::Permutation::random(static_cast<Index>(taken.size()), seed);
  for (const std::uint32_t gloss : order.indices()) append(taken[gloss]);
  return text;
}

/// How often each word of the vocabulary comes in the text.
inline std::vector<Index> count_words(const Text& text) {
  std::vector<Index> count(text.vocabulary.size());
  for (const int word : text.words) ++count[static_cast<std::size_t>(word)];
  return count;
}

}  // namespace recall
