// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The vocabulary of a byte-level tokenizer: texts of tokens and their merges, as a file has them.
///
/// In the vocabulary bytes are printable code points: 33 to 126, 161 to 172 and 174 to 255 stand
/// for themselves, the others, in order, are 256 and on.

#include "language_model/byte_pairs.hpp"
#include "language_model/pieces.hpp"

#include <pare/core/check.hpp>
#include <pare/io/gguf.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace language_model {

/// What a token is, by the numbers of the file format.
enum class TokenType : std::int32_t {
  Normal = 1,
  Control = 3,  ///< cut out of a text where the caller allows it
  User = 4,     ///< always cut out of a text
  Unused = 5,
};

/// Tokens and merges as a file has them; the texts are views of the file's memory.
struct Vocabulary {
  std::vector<std::string_view> tokens;  ///< by number; of normal tokens bytes as code points
  std::vector<TokenType> types;          ///< by number
  std::vector<std::string_view> merges;  ///< by rank: left, blank, right
};

/// The vocabulary of a GGUF file, which must outlive it.
/// \throws std::invalid_argument if it is not there, or of another kind than this tokenizer's
inline Vocabulary read_vocabulary(const pare::io::GgufFile& file) {
  const char* const function = "language_model::read_vocabulary";
  const auto model = file.get<std::string>("tokenizer.ggml.model");
  pare::check(model == "gpt2", function, "tokenizer.ggml.model", model, "gpt2");
  const auto pattern = file.get<std::string>("tokenizer.ggml.pre");
  pare::check(pattern == "smollm", function, "tokenizer.ggml.pre", pattern, "smollm");
  Vocabulary vocabulary{file.get<std::vector<std::string_view>>("tokenizer.ggml.tokens"),
                        {},
                        file.get<std::vector<std::string_view>>("tokenizer.ggml.merges")};
  for (const auto type : file.get<std::vector<std::int32_t>>("tokenizer.ggml.token_type"))
    vocabulary.types.push_back(static_cast<TokenType>(type));
  return vocabulary;
}
void read_vocabulary(const pare::io::GgufFile&&) = delete;

namespace detail {

/// The code point that stands for each byte.
inline constexpr auto byte_code_points = [] {
  std::array<char16_t, 256> codes{};
  char16_t next = 256;
  for (char16_t byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    codes[byte] = is_printable ? byte : next++;
  }
  return codes;
}();

/// The byte that each code point stands for, -1 where it is none.
inline constexpr auto code_point_bytes = [] {
  std::array<std::int16_t, 324> bytes{};
  for (std::int16_t& byte : bytes) byte = -1;
  for (std::size_t byte = 0; byte < 256; ++byte)
    bytes[byte_code_points[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}();

/// Appends the bytes that the code points of a token stand for; false if one stands for none.
inline bool append_bytes(std::string_view token, std::string& bytes) {
  while (!token.empty()) {
    const CodePoint first = first_code_point(token);
    if (first.code >= code_point_bytes.size() || code_point_bytes[first.code] < 0) return false;
    bytes.push_back(static_cast<char>(code_point_bytes[first.code]));
    token.remove_prefix(first.size);
  }
  return true;
}

using TokenNumbers = std::unordered_map<std::string_view, Token>;

inline TokenNumbers number_normal_tokens(const char* function, const Vocabulary& vocabulary) {
  TokenNumbers numbers;
  numbers.reserve(vocabulary.tokens.size());
  std::string bytes;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] != TokenType::Normal) continue;
    bytes.clear();
    const auto index = static_cast<pare::Index>(id);
    pare::check(append_bytes(vocabulary.tokens[id], bytes) && !bytes.empty(), function, "tokens",
                pare::Worded{"number ", index}, "code points that stand for bytes");
    pare::check(numbers.emplace(vocabulary.tokens[id], static_cast<Token>(id)).second, function,
                "tokens", pare::Worded{"number ", index, " of the same text as another"},
                "texts that differ");
  }
  return numbers;
}

/// The numbers of the two parts and of the whole.
inline Merge parse_merge(const char* function, std::string_view text, const TokenNumbers& numbers) {
  const std::size_t blank = std::min(text.find(' '), text.size());
  const std::string_view left = text.substr(0, blank);
  const std::string_view right = text.substr(std::min(blank + 1, text.size()));
  const std::string whole = std::string(left).append(right);
  const auto l = numbers.find(left), r = numbers.find(right), w = numbers.find(whole);
  pare::check(l != numbers.end() && r != numbers.end() && w != numbers.end(), function, "merges",
              text, "two tokens with a blank between, whose whole is a token");
  return {l->second, r->second, w->second};
}

}  // namespace detail

}  // namespace language_model
