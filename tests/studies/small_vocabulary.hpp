// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Vocabularies of byte pairs that are made here, and the definition of how their merges are done.

#include "language_model/tokenizer.hpp"

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace language_model::testing {

/// A byte as the code point that stands for it, by the rule and not by a table.
inline std::string byte_text(unsigned byte) {
  unsigned code = byte, others = 256;
  for (unsigned b = 0; b <= byte; ++b) {
    const bool is_printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    code = is_printable ? b : others++;
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

inline std::string bytes_text(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += byte_text(static_cast<unsigned char>(byte));
  return text;
}

/// Texts of a vocabulary, and what is needed to make a Tokenizer of it.
class VocabularyMaker {
 public:
  /// All bytes but one, numbered as they are.
  explicit VocabularyMaker(unsigned lacking = 256) {
    for (unsigned byte = 0; byte < 256; ++byte)
      if (byte != lacking) add(byte_text(byte));
  }

  /// A token of any text; its number.
  Token add(std::string text, TokenType type = TokenType::Normal) {
    tokens_.push_back(std::move(text));
    types_.push_back(type);
    return static_cast<Token>(tokens_.size()) - 1;
  }

  /// The merge of two texts, given as bytes, and its token; the token's number.
  Token merge(std::string_view left, std::string_view right) {
    merges_.push_back(bytes_text(left) + " " + bytes_text(right));
    pairs_.emplace_back(left, right);
    return add(bytes_text(std::string(left).append(right)));
  }

  /// A merge whose token is there already, or any text instead of one.
  void add_merge(std::string text) { merges_.push_back(std::move(text)); }

  /// Views of the texts: this object must live on.
  Vocabulary vocabulary() const {
    return {{tokens_.begin(), tokens_.end()}, types_, {merges_.begin(), merges_.end()}};
  }

  /// The definition: while a pair of neighbours has a rank, the leftmost of the lowest rank merges.
  std::vector<std::string> merged(std::string_view piece) const {
    std::vector<std::string> parts;
    for (const char byte : piece) parts.emplace_back(1, byte);
    for (bool found = true; found;) {
      found = false;
      for (std::size_t rank = 0; rank < pairs_.size() && !found; ++rank)
        for (std::size_t i = 0; i + 1 < parts.size() && !found; ++i)
          if (parts[i] == pairs_[rank].first && parts[i + 1] == pairs_[rank].second) {
            parts[i] += parts[i + 1];
            parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
            found = true;
          }
    }
    return parts;
  }

 private:
  std::deque<std::string> tokens_, merges_;  // whose texts stay where they are
  std::vector<TokenType> types_;
  std::vector<std::pair<std::string, std::string>> pairs_;
};

}  // namespace language_model::testing
