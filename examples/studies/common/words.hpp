// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Cuts text into the words of BERT's uncased models: in lower case, without accents.
///
/// Code points go the same way as in the BertNormalizer and BertPreTokenizer of Hugging Face's
/// `tokenizers`: (1) control and format characters, U+FFFD and bytes that are no UTF-8 are dropped;
/// (2) space ends a word; (3) each Chinese character is a word of its own; (4) the rest is
/// decomposed (NFD), its nonspacing marks are dropped, and it is put in lower case; (5) each
/// punctuation character of what comes out, and each sign of ASCII, is a word of its own.
///
/// Classes are those of Unicode 15.1, where `tokenizers` has those of Unicode 8 for some; a sigma
/// at the end of a word becomes as any other, where Python's `lower` gives it its form of the end;
/// and the few marks that stay, such as U+302E, keep their order.

#include "common/code_points.hpp"
#include "common/unicode_plain.hpp"
#include "common/unicode_ranges.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>

namespace encoder {

namespace detail {

inline bool is_space(char32_t code) {
  return code == U'\t' || code == U'\n' || code == U'\r' ||
         (unicode::is_in(unicode::spaces, code) && !unicode::is_in(unicode::controls, code));
}

inline bool is_dropped(char32_t code) {
  constexpr char32_t replacement = 0xfffd;
  return code == replacement || (unicode::is_in(unicode::controls, code) && !is_space(code));
}

/// The blocks of Chinese characters that BERT's own tokenizer names, not all that there are.
inline bool is_chinese(char32_t code) {
  static constexpr char32_t blocks[] = {0x3400,  0x4dbf,  0x4e00,  0x9fff,  0xf900,  0xfaff,
                                        0x20000, 0x2a6df, 0x2a700, 0x2b73f, 0x2b740, 0x2b81f,
                                        0x2b820, 0x2ceaf, 0x2f800, 0x2fa1f};
  return unicode::is_in(blocks, code);
}

inline bool is_punctuation(char32_t code) {
  static constexpr char32_t ascii[] = {U'!', U'/', U':', U'@', U'[', U'`', U'{', U'~'};
  return unicode::is_in(ascii, code) || unicode::is_in(unicode::punctuation, code);
}

/// The row of a sorted table, or null.
template <class Row, std::size_t Count>
const Row* find_row(const Row (&table)[Count], char32_t code) {
  const Row* const row =
      std::ranges::lower_bound(table, code, std::less<>(), [](const Row& r) { return r.code; });
  return row != std::end(table) && row->code == code ? row : nullptr;
}

/// Calls take(code) for the letters (Jamo) of a Hangul syllable, by section 3.12 of the Unicode
/// standard.
template <class Take>
void take_jamo(char32_t syllable, const Take& take) {
  constexpr char32_t leads = 0x1100, vowels = 0x1161, tails = 0x11a7;
  constexpr char32_t tail_count = 28, of_a_lead = 21 * tail_count;
  take(leads + syllable / of_a_lead);
  take(vowels + syllable % of_a_lead / tail_count);
  if (syllable % tail_count != 0) take(tails + syllable % tail_count);
}

/// Calls take(code) for what a code point is in lower case without accents.
template <class Take>
void take_plain(char32_t code, const Take& take) {
  constexpr char32_t first_syllable = 0xac00, last_syllable = 0xd7a3;
  if (code < 0x80) return take(code >= U'A' && code <= U'Z' ? code + 0x20 : code);
  if (code >= first_syllable && code <= last_syllable)
    return take_jamo(code - first_syllable, take);
  if (const auto* const row = find_row(unicode::plain_letters, code)) return take(row->plain);
  if (const auto* const row = find_row(unicode::plain_sequences, code)) {
    for (const char32_t part : {row->first, row->second, row->third})
      if (part != 0) take(part);
    return;
  }
  if (!unicode::is_in(unicode::nonspacing_marks, code)) take(code);
}

}  // namespace detail

/// Calls take(word) for the words of a text from left to right; they are UTF-8, and gone after the
/// call. Cost: some searches of tables per code point.
template <class Take>
void for_each_word(std::string_view text, const Take& take) {
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) take(std::string_view(word));
    word.clear();
  };
  const auto take_alone = [&](char32_t code) {
    end_word();
    unicode::append_utf8(word, code);
    end_word();
  };
  while (!text.empty()) {
    const unicode::CodePoint next = unicode::first_code_point(text);
    text.remove_prefix(next.size);
    if (detail::is_dropped(next.code)) continue;
    if (detail::is_space(next.code)) {
      end_word();
      continue;
    }
    const bool alone = detail::is_chinese(next.code);
    detail::take_plain(next.code, [&](char32_t code) {
      if (alone || detail::is_punctuation(code))
        take_alone(code);
      else
        unicode::append_utf8(word, code);
    });
  }
  end_word();
}

}  // namespace encoder
