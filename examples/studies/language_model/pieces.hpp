// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Cuts text into the pieces within which byte pairs are merged.
///
/// Every number character (\p{N}) is a piece of its own. What lies between is cut, from the left,
/// by the pattern of GPT-2 in the form that SmolLM uses:
///
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)
///
/// and what it does not match, a lone space character that is no blank before a letter or a sign,
/// is a piece as it is. Text need not be UTF-8: a byte that belongs to no code point is a sign.

#include "language_model/unicode_ranges.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace language_model {

/// What the beginning of a text is: a code point, bytes that are none, or one that is cut short by
/// the end of the text.
enum class Utf8 : std::uint8_t { Whole, Invalid, Cut };

struct CodePoint {
  char32_t code;     ///< U+FFFD unless whole
  std::size_t size;  ///< bytes; of what is not whole, as many as might have begun a code point
  Utf8 form;
};

/// The first code point of a text that is not empty, by table 3-7 of the Unicode standard: no
/// overlong forms, no surrogates, nothing beyond U+10FFFF.
inline CodePoint first_code_point(std::string_view text) {
  constexpr char32_t replacement = 0xfffd;
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1, Utf8::Whole};
  const std::size_t size = lead < 0xc2   ? 0
                           : lead < 0xe0 ? 2
                           : lead < 0xf0 ? 3
                           : lead < 0xf5 ? 4
                                         : 0;
  if (size == 0) return {replacement, 1, Utf8::Invalid};
  char32_t code = lead & (0x7fu >> size);
  unsigned lowest = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  unsigned highest = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {replacement, i, Utf8::Cut};
    if (byte(i) < lowest || byte(i) > highest) return {replacement, i, Utf8::Invalid};
    code = code << 6 | (byte(i) & 0x3fu);
    lowest = 0x80;
    highest = 0xbf;
  }
  return {code, size, Utf8::Whole};
}

/// The classes that the pattern tells apart.
enum class CharacterClass : std::uint8_t { Letter, Number, Space, Sign };

namespace detail {

template <std::size_t Count>
constexpr bool is_in(const char32_t (&ends)[Count], char32_t code) {
  const auto* const last = std::lower_bound(std::begin(ends), std::end(ends), code);
  // Within a range, or at its first code point.
  return last != std::end(ends) && ((last - std::begin(ends)) % 2 == 1 || *last == code);
}

constexpr CharacterClass class_by_ranges(char32_t code) {
  if (is_in(unicode::letters, code)) return CharacterClass::Letter;
  if (is_in(unicode::numbers, code)) return CharacterClass::Number;
  if (is_in(unicode::spaces, code)) return CharacterClass::Space;
  return CharacterClass::Sign;
}

inline constexpr auto ascii_classes = [] {
  std::array<CharacterClass, 128> classes{};
  for (char32_t code = 0; code < classes.size(); ++code) classes[code] = class_by_ranges(code);
  return classes;
}();

}  // namespace detail

/// The class of a code point.
constexpr CharacterClass class_of(char32_t code) {
  return code < detail::ascii_classes.size() ? detail::ascii_classes[code]
                                             : detail::class_by_ranges(code);
}

namespace detail {

struct Character {
  CharacterClass type;
  std::size_t size;
};

inline Character first_character(std::string_view text) {
  const CodePoint first = first_code_point(text);
  return {class_of(first.code), first.size};
}

/// Bytes of the characters of one class from `begin` on.
inline std::size_t run_length(std::string_view text, std::size_t begin, CharacterClass type) {
  std::size_t end = begin;
  while (end < text.size()) {
    const Character next = first_character(text.substr(end));
    if (next.type != type) break;
    end += next.size;
  }
  return end - begin;
}

inline std::size_t contraction_length(std::string_view text) {
  for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
    if (text.starts_with(ending)) return ending.size();
  return 0;
}

/// Space characters in front: all of them at the end and before a number, else all but the last,
/// which may go with what follows.
inline std::size_t spaces_length(std::string_view text) {
  std::size_t end = 0, last = 0;
  while (end < text.size()) {
    const Character next = first_character(text.substr(end));
    if (next.type == CharacterClass::Number) return end;
    if (next.type != CharacterClass::Space) return last == 0 ? end : last;
    last = end;
    end += next.size;
  }
  return end;
}

}  // namespace detail

/// Bytes of the first piece of a text that is not empty and begins where a piece does.
inline std::size_t first_piece_length(std::string_view text) {
  const detail::Character first = detail::first_character(text);
  if (first.type == CharacterClass::Number) return first.size;
  if (text.front() == '\'')
    if (const std::size_t length = detail::contraction_length(text); length != 0) return length;
  if (first.type != CharacterClass::Space)
    return first.size + detail::run_length(text, first.size, first.type);
  if (text.front() == ' ' && text.size() > 1) {
    const CharacterClass next = detail::first_character(text.substr(1)).type;
    if (next == CharacterClass::Letter || next == CharacterClass::Sign)
      return 1 + detail::run_length(text, 1, next);
  }
  return detail::spaces_length(text);
}

/// Calls take(piece) for the pieces of a text from left to right. Cost: linear in its length.
template <class Take>
void for_each_piece(std::string_view text, const Take& take) {
  while (!text.empty()) {
    const std::size_t length = first_piece_length(text);
    take(text.substr(0, length));
    text.remove_prefix(length);
  }
}

}  // namespace language_model
