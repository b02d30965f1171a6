// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Byte-level BPE: text to tokens and back, as SmolLM's tokenizer and llama.cpp's "smollm" do it.
///
/// ```cpp
/// const pare::io::GgufFile model("model.gguf");
/// const Tokenizer tokenizer(read_vocabulary(model));  // views into `model`, which must live on
/// const std::vector<Token> ids = tokenizer.encode("Hello world!");
/// const std::string text = tokenizer.decode(ids);
/// ```
///
/// Encoding: (1) special tokens are cut out, the longest first, if the caller allows it; (2) the
/// rest is cut into pieces (pieces.hpp); (3) the bytes of a piece are tokens, which (4) are merged
/// by rank (byte_pairs.hpp). Text is bytes: it may hold zeros and need not be UTF-8.

#include "language_model/byte_pairs.hpp"
#include "language_model/pieces.hpp"
#include "language_model/vocabulary.hpp"

#include <pare/core/check.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace language_model {

/// Text to tokens and back. Calls of one object from several threads do not disturb each other.
class Tokenizer {
 public:
  /// Takes the vocabulary; its texts must outlive this object. Cost: some 20 ms for 49152 tokens;
  /// 2.5 MB for their merges, no copy of a text.
  /// \throws std::invalid_argument if types and tokens differ in number, a type is none of
  /// TokenType, a text occurs twice or is none, or a merge is not of tokens
  explicit Tokenizer(Vocabulary vocabulary)
      : vocabulary_((check_sizes(vocabulary), std::move(vocabulary))),
        merges_(number_merges(detail::number_normal_tokens(constructor, vocabulary_))) {
    for (std::size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
      if (is_cut(vocabulary_.types[id])) cut_.push_back(static_cast<Token>(id));
    }
    std::ranges::stable_sort(cut_, std::greater<>(),
                             [this](Token id) { return text_of(id).size(); });
  }

  /// Number of tokens: they are 0 to size() - 1.
  std::size_t size() const { return vocabulary_.tokens.size(); }

  /// Whether a token is a control token, such as the end of a text.
  /// \throws std::invalid_argument if there is no such token
  bool is_control(Token id) const {
    check_token("language_model::Tokenizer::is_control", id);
    return vocabulary_.types[static_cast<std::size_t>(id)] == TokenType::Control;
  }

  /// Whether no token stands for the byte: `encode` then leaves it out, as llama.cpp does.
  bool lacks(unsigned char byte) const { return byte_tokens_[byte] < 0; }

  /// The control or user token of that text, or nothing.
  std::optional<Token> find_special(std::string_view text) const {
    const auto found = std::ranges::find(cut_, text, [this](Token id) { return text_of(id); });
    return found == cut_.end() ? std::nullopt : std::optional(*found);
  }

  /// The tokens of a text; no special tokens are added.
  ///
  /// \param allow_special whether the text of a control token becomes that token; text that a user
  /// typed or a file holds should not be able to do so
  ///
  /// Cost: one pass, and O(n log n) within a piece of n bytes. Memory: of the longest piece, 28
  /// bytes per byte.
  /// \throws std::invalid_argument if the text has 2^31 bytes or more
  std::vector<Token> encode(std::string_view text, bool allow_special = false) const {
    pare::check(text.size() <= std::numeric_limits<std::int32_t>::max(),
                "language_model::Tokenizer::encode", "text", "2^31 bytes or more", "fewer");
    std::vector<Token> tokens, symbols;
    PairMerger merger(merges_);
    for (const Fragment& fragment : cut_special(text, allow_special)) {
      if (fragment.special >= 0) {
        tokens.push_back(fragment.special);
        continue;
      }
      for_each_piece(fragment.text, [&](std::string_view piece) {
        symbols.clear();
        for (const char byte : piece)
          symbols.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
        merger.merge(symbols, tokens);
      });
    }
    return tokens;
  }

  /// Appends the bytes of a token, which may be a part of a character, to a text; of special tokens
  /// their text.
  /// \throws std::invalid_argument if there is no such token; nothing is appended then
  void append_decoded(Token id, std::string& text) const {
    check_token("language_model::Tokenizer::append_decoded", id);
    if (vocabulary_.types[static_cast<std::size_t>(id)] == TokenType::Normal)
      detail::append_bytes(text_of(id), text);
    else
      text += text_of(id);
  }

  /// The bytes of tokens one after the other: of the tokens of a text the text, without the bytes
  /// that the vocabulary lacks.
  /// \throws std::invalid_argument if there is no such token
  std::string decode(std::span<const Token> ids) const {
    for (const Token id : ids) check_token("language_model::Tokenizer::decode", id);
    std::string text;
    for (const Token id : ids) append_decoded(id, text);
    return text;
  }

 private:
  static constexpr const char* constructor = "language_model::Tokenizer";

  /// A special token, or text between them.
  struct Fragment {
    std::string_view text;
    Token special = -1;
  };

  static bool is_cut(TokenType type) {
    return type == TokenType::Control || type == TokenType::User;
  }

  static void check_sizes(const Vocabulary& vocabulary) {
    const std::size_t count = vocabulary.tokens.size();
    pare::check(count >= 1 && count <= std::numeric_limits<Token>::max(), constructor, "tokens",
                count, "from 1 to 2^31 - 1 of them");
    pare::check(vocabulary.types.size() == count, constructor, "types", vocabulary.types.size(),
                pare::Worded{"", static_cast<pare::Index>(count), ", as many as tokens"});
    pare::check(vocabulary.merges.size() <= std::numeric_limits<std::int32_t>::max(), constructor,
                "merges", vocabulary.merges.size(), "at most 2^31 - 1");
    for (std::size_t id = 0; id < count; ++id) {
      const TokenType type = vocabulary.types[id];
      pare::check(type == TokenType::Normal || is_cut(type) || type == TokenType::Unused,
                  constructor, "types", static_cast<std::int32_t>(type),
                  "1 (normal), 3 (control), 4 (of the user) or 5 (unused)");
      pare::check(!is_cut(type) || !vocabulary.tokens[id].empty(), constructor, "tokens",
                  "a special token without text", "texts that are not empty");
    }
  }

  /// Notes the tokens of single bytes, and returns the merges as numbers.
  std::vector<Merge> number_merges(const detail::TokenNumbers& numbers) {
    for (std::size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
      const char16_t code = detail::byte_code_points[byte];
      const char text[] = {static_cast<char>(code < 0x80 ? code : 0xc0 | code >> 6),
                           static_cast<char>(0x80 | (code & 0x3f))};
      const auto found = numbers.find(std::string_view(text, code < 0x80 ? 1 : 2));
      byte_tokens_[byte] = found == numbers.end() ? -1 : found->second;
    }
    std::vector<Merge> merges;
    merges.reserve(vocabulary_.merges.size());
    for (const std::string_view text : vocabulary_.merges)
      merges.push_back(detail::parse_merge(constructor, text, numbers));
    return merges;
  }

  void check_token(const char* function, Token id) const {
    pare::check(id >= 0 && static_cast<std::size_t>(id) < size(), function, "id", id,
                pare::Worded{"at least 0 and below ", static_cast<pare::Index>(size())});
  }

  std::string_view text_of(Token id) const {
    return vocabulary_.tokens[static_cast<std::size_t>(id)];
  }

  std::vector<Fragment> cut_special(std::string_view text, bool allow_special) const {
    std::vector<Fragment> fragments{{text}}, cut;
    for (const Token id : cut_) {
      if (!allow_special && is_control(id)) continue;
      cut.clear();
      for (const Fragment& fragment : fragments) {
        if (fragment.special >= 0)
          cut.push_back(fragment);
        else
          cut_at(fragment.text, id, cut);
      }
      fragments.swap(cut);
    }
    return fragments;
  }

  void cut_at(std::string_view text, Token id, std::vector<Fragment>& fragments) const {
    const std::string_view special = text_of(id);
    for (std::size_t begin = 0;;) {
      const std::size_t found = text.find(special, begin);
      fragments.push_back({text.substr(begin, found - begin)});
      if (found == std::string_view::npos) return;
      fragments.push_back({special, id});
      begin = found + special.size();
    }
  }

  Vocabulary vocabulary_;
  std::array<Token, 256> byte_tokens_{};
  MergeTable merges_;
  std::vector<Token> cut_;  ///< special tokens, the longest first
};

}  // namespace language_model
