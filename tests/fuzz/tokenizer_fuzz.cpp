// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fuzz target of the byte-pair tokenizer. The first bytes make a vocabulary, the others are a
/// text. Built with libFuzzer (clang -fsanitize=fuzzer) it is an entry point; built with
/// PARE_FUZZ_STANDALONE it has a main that runs seeded mutations of valid bytes:
/// `tokenizer_fuzz [runs] [seed]`.

#include "../studies/small_vocabulary.hpp"
#include "bytes.hpp"

#include "language_model/stream_decoder.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace language_model;
using pare::fuzz::Data;
using pare::fuzz::require;

/// A byte of count, and two bytes a merge: the tokens it is of, by number; the lower half of bytes
/// are ASCII, 0xff takes a blank in the text of a merge that is none.
struct Input {
  language_model::testing::VocabularyMaker maker{0xc1};
  std::string text;

  explicit Input(std::span<const std::uint8_t> bytes) {
    std::vector<std::string> texts;
    for (int byte = 0; byte < 128; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    const std::size_t merges = bytes.empty() ? 0 : bytes[0] % 24;
    std::size_t at = 1;
    for (std::size_t i = 0; i < merges && at + 1 < bytes.size(); ++i, at += 2) {
      const std::string& left = texts[bytes[at] % texts.size()];
      const std::string& right = texts[bytes[at + 1] % texts.size()];
      if (left.size() + right.size() > 64) continue;
      std::string whole = left + right;
      if (bytes[at] == 0xff)
        maker.add_merge(left + "  " + right);
      else
        maker.merge(left, right);
      texts.push_back(std::move(whole));
    }
    maker.add("<|end|>", TokenType::Control);
    maker.add("<|", TokenType::Control);
    if (at < bytes.size())
      text.assign(reinterpret_cast<const char*>(bytes.data()) + at, bytes.size() - at);
  }
};

std::string without(char lacking, std::string text) {
  std::erase(text, lacking);
  return text;
}

void check_stream(const Tokenizer& tokenizer, std::span<const Token> tokens) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const Token id : tokens) text += stream.push(id);
  text += stream.finish();
  for (std::string_view rest = text; !rest.empty();) {
    const CodePoint first = first_code_point(rest);
    require(first.form == Utf8::Whole, "a stream is whole characters");
    rest.remove_prefix(first.size);
  }
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  std::size_t pieces = 0;
  for_each_piece(text, [&](std::string_view piece) {
    require(!piece.empty(), "no piece is empty");
    pieces += piece.size();
  });
  require(pieces == text.size(), "pieces are the text");
  for (const bool allow_special : {false, true}) {
    const std::vector<Token> tokens = tokenizer.encode(text, allow_special);
    require(tokenizer.decode(tokens) == without('\xc1', std::string(text)), "the text comes back");
    check_stream(tokenizer, tokens);
  }
}

/// True if the vocabulary was taken.
bool try_bytes(std::span<const std::uint8_t> bytes) {
  const Input input(bytes);
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer.emplace(input.maker.vocabulary());
  } catch (const std::invalid_argument&) {
    return false;
  }
  check_text(*tokenizer, input.text);
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try_bytes({data, size});
  return 0;
}

#if defined(PARE_FUZZ_STANDALONE)
namespace {

/// Merges of pairs that differ, and a text of them and of what is hard.
Data valid_bytes(unsigned long long, std::mt19937_64& random) {
  Data bytes{static_cast<std::uint8_t>(random() % 16)};
  for (std::uint8_t i = 0; i < bytes[0]; ++i) {
    bytes.push_back(static_cast<std::uint8_t>('a' + i));
    bytes.push_back(static_cast<std::uint8_t>("e '1\n\x7f"[random() % 6]));
  }
  constexpr std::string_view words[] = {
      "ae",      " b",       "'s",       "12",   " \n\n",
      "<|end|>", "\xc3\xa9", "\xe2\x82", "\xc1", "\xf0\x9f\x98\x80",
      "<|"};
  for (std::uint64_t i = 0, count = random() % 20; i < count; ++i)
    for (const char byte : words[random() % std::size(words)])
      bytes.push_back(static_cast<std::uint8_t>(byte));
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return pare::fuzz::run_mutations("tokenizer_fuzz", argc, argv, valid_bytes, try_bytes);
}
#endif
