// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Code points from and to UTF-8, and whether one is in a table of unicode_ranges.hpp.
///
/// Text need not be UTF-8: a byte that belongs to no code point is told from one that does.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace unicode {

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

/// Appends a code point up to U+10FFFF.
inline void append_utf8(std::string& text, char32_t code) {
  const auto append = [&text](char32_t byte) { text += static_cast<char>(byte); };
  const auto append_last_bits = [&](unsigned shift) { append(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) return append(code);
  if (code < 0x800) {
    append(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    append(0xe0 | code >> 12);
    append_last_bits(6);
  } else {
    append(0xf0 | code >> 18);
    append_last_bits(12);
    append_last_bits(6);
  }
  append_last_bits(0);
}

/// Whether a code point is in sorted ranges: first, last, first, last, ...
template <std::size_t Count>
constexpr bool is_in(const char32_t (&ends)[Count], char32_t code) {
  const auto* const last = std::lower_bound(std::begin(ends), std::end(ends), code);
  // Within a range, or at its first code point.
  return last != std::end(ends) && ((last - std::begin(ends)) % 2 == 1 || *last == code);
}

}  // namespace unicode
