// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tokens to text as they come, in whole characters: a token may end within one.
///
/// ```cpp
/// StreamDecoder stream(tokenizer);
/// while (...) std::cout << stream.push(next_token());
/// std::cout << stream.finish();
/// ```
///
/// What is given out is UTF-8, whatever the tokens are: bytes that are no code point become U+FFFD,
/// one for as many of them as might have begun a code point (chapter 3.9 of the Unicode standard).
/// All of it together is what `Tokenizer::decode` gives of the same tokens, where that is UTF-8.

#include "language_model/tokenizer.hpp"

#include <string>

namespace language_model {

class StreamDecoder {
 public:
  /// Decodes by a tokenizer, which must outlive this object.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// The characters that this token completes; at most three bytes are kept back.
  /// \throws std::invalid_argument if there is no such token; nothing is lost then
  std::string push(Token id) {
    tokenizer_->append_decoded(id, pending_);
    return take(false);
  }

  /// What is left: nothing, or U+FFFD for a character without its end. The stream is as new.
  std::string finish() { return take(true); }

 private:
  std::string take(bool is_end) {
    std::string text;
    std::string_view rest = pending_;
    while (!rest.empty()) {
      const CodePoint first = first_code_point(rest);
      if (first.form == Utf8::Cut && !is_end) break;
      if (first.form == Utf8::Whole)
        text += rest.substr(0, first.size);
      else
        text += "\xef\xbf\xbd";
      rest.remove_prefix(first.size);
    }
    pending_.erase(0, pending_.size() - rest.size());
    return text;
  }

  const Tokenizer* tokenizer_;
  std::string pending_;
};

}  // namespace language_model
