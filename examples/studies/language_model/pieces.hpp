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

#include "common/code_points.hpp"
#include "common/unicode_ranges.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace language_model {

using unicode::CodePoint;
using unicode::first_code_point;
using unicode::Utf8;

/// The classes that the pattern tells apart.
enum class CharacterClass : std::uint8_t { Letter, Number, Space, Sign };

namespace detail {

constexpr CharacterClass class_by_ranges(char32_t code) {
  if (unicode::is_in(unicode::letters, code)) return CharacterClass::Letter;
  if (unicode::is_in(unicode::numbers, code)) return CharacterClass::Number;
  if (unicode::is_in(unicode::spaces, code)) return CharacterClass::Space;
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
