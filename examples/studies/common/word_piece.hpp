// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// WordPiece: text to tokens, as BERT's uncased models do it.
///
/// ```cpp
/// const WordPiece tokenizer(read_pieces("vocab.txt"));
/// const std::vector<Token> ids = tokenizer.encode("Hello world!");  // [CLS] hello world ! [SEP]
/// ```
///
/// A word (words.hpp) is cut into pieces from the left, each the longest that the vocabulary has;
/// those that continue a word begin with ## there. A word that cannot be cut to its end, or that
/// has more than 100 characters, is [UNK]. Text such as "[SEP]" is text, not a token.
///
/// Source: Devlin et al., "BERT", 2019, section 3; Wu et al., "Google's neural machine translation
/// system", 2016, section 4.1.

#include "common/words.hpp"

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace encoder {

using pare::Index;
using Token = std::int32_t;

/// The lines of a vocab.txt: the pieces by number.
/// \throws std::invalid_argument if the file cannot be read
inline std::vector<std::string> read_pieces(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  pare::check(file.good() && !std::filesystem::is_directory(path), "encoder::read_pieces", "path",
              path.string(), "a file that can be read");
  std::vector<std::string> pieces;
  for (std::string line; std::getline(file, line); pieces.push_back(std::move(line)))
    if (!line.empty() && line.back() == '\r') line.pop_back();
  return pieces;
}

class WordPiece {
 public:
  static constexpr std::size_t longest_word = 100;  ///< in code points

  /// \param pieces by number; [UNK], [CLS] and [SEP] are among them
  /// \throws std::invalid_argument if one of those is missing, or a piece occurs twice
  explicit WordPiece(const std::vector<std::string>& pieces) {
    constexpr const char* function = "encoder::WordPiece";
    pare::check(pieces.size() <= std::numeric_limits<Token>::max(), function, "pieces",
                pieces.size(), "at most 2^31 - 1");
    for (const std::string& piece : pieces) {
      const bool is_new = numbers_.emplace(piece, static_cast<Token>(numbers_.size())).second;
      pare::check(is_new, function, "pieces", piece, "each of them once");
    }
    const auto special = [&](const char* piece) {
      const auto found = numbers_.find(std::string_view(piece));
      pare::check(found != numbers_.end(), function, "pieces", std::string("no ") + piece,
                  "[UNK], [CLS] and [SEP] among them");
      return found->second;
    };
    unknown_ = special("[UNK]");
    begin_ = special("[CLS]");
    end_ = special("[SEP]");
  }

  /// Pieces.
  std::size_t size() const { return numbers_.size(); }

  /// [CLS], the text's tokens, [SEP].
  /// \param most of tokens, both of those among them: what is behind is cut off
  /// \throws std::invalid_argument if most is below 2
  std::vector<Token> encode(std::string_view text,
                            Index most = std::numeric_limits<Index>::max()) const {
    pare::check(most >= 2, "encoder::WordPiece::encode", "most", most, "at least 2");
    std::vector<Token> tokens{begin_};
    for_each_word(text, [&](std::string_view word) { append_word(word, tokens); });
    tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(most) - 1));
    tokens.push_back(end_);
    return tokens;
  }

 private:
  /// Searches by views.
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  static bool begins_code_point(char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
  }

  struct Piece {
    Token token;
    std::size_t size;  ///< bytes of the text; 0: there is none
  };

  /// The longest at the beginning of a text. `candidate` is memory.
  Piece longest_piece(std::string_view text, std::string_view prefix,
                      std::string& candidate) const {
    candidate.assign(prefix).append(text);
    for (std::size_t size = text.size(); size > 0; --size) {
      if (size < text.size() && !begins_code_point(text[size])) continue;
      candidate.resize(prefix.size() + size);
      if (const auto found = numbers_.find(candidate); found != numbers_.end())
        return {found->second, size};
    }
    return {unknown_, 0};
  }

  void append_word(std::string_view word, std::vector<Token>& tokens) const {
    const std::size_t before = tokens.size();
    const auto length = static_cast<std::size_t>(std::ranges::count_if(word, begins_code_point));
    bool known = length <= longest_word;
    std::string candidate;
    for (std::string_view rest = word; known && !rest.empty();) {
      const std::string_view prefix = rest.size() == word.size() ? "" : "##";
      const Piece piece = longest_piece(rest, prefix, candidate);
      known = piece.size > 0;
      tokens.push_back(piece.token);
      rest.remove_prefix(piece.size);
    }
    if (known) return;
    tokens.resize(before);
    tokens.push_back(unknown_);
  }

  std::unordered_map<std::string, Token, Hash, std::equal_to<>> numbers_;
  Token unknown_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace encoder
