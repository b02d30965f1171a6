#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes unicode_plain.hpp from Python's unicodedata:  unicode_plain.py > unicode_plain.hpp

What a code point is in lower case without accents: its canonical decomposition (NFD) without
nonspacing marks, each of the rest in lower case. Hangul syllables, whose decomposition is a formula,
are left out, as are code points that stay as they are and nonspacing marks, of which nothing stays.
"""
import sys
import unicodedata


def is_syllable(code):
    return 0xac00 <= code <= 0xd7a3


def is_nonspacing(character):
    return unicodedata.category(character) == "Mn"


def lower(character):
    """Its simple lower case: that of one code point."""
    return character.lower() if len(character.lower()) == 1 else character


def plain(character):
    """The code points that it becomes."""
    decomposed = unicodedata.normalize("NFD", character)
    return [ord(lower(c)) for c in decomposed if not is_nonspacing(c)]


def lines_of(words):
    lines, line = [], "   "
    for word in words:
        if len(line) + 1 + len(word) > 100:
            lines.append(line)
            line = "   "
        line += " " + word
    return "\n".join([*lines, line])


table = {code: plain(chr(code)) for code in range(sys.maxunicode + 1)
         if not (is_syllable(code) or is_nonspacing(chr(code)))}
table = {code: to for code, to in table.items() if to != [code]}
assert all(1 <= len(to) <= 3 for to in table.values())
one = lines_of(f"{{{code:#x}, {to[0]:#x}}}," for code, to in table.items() if len(to) == 1)
more = lines_of("{" + ", ".join(f"{c:#x}" for c in [code, *to, 0][:4]) + "},"
                for code, to in table.items() if len(to) > 1)

print(f"""// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \\file
/// Lower case without accents of Unicode {unicodedata.unidata_version}, sorted by code point.
/// Made by unicode_plain.py, which says how; not to be edited.

// clang-format off

namespace unicode {{

/// A code point, and the one that it becomes.
struct Plain {{
  char32_t code, plain;
}};
inline constexpr Plain plain_letters[] = {{
{one}
}};

/// A code point, and the two or three that it becomes; 0: none.
struct PlainSequence {{
  char32_t code, first, second, third;
}};
inline constexpr PlainSequence plain_sequences[] = {{
{more}
}};

}}  // namespace unicode

// clang-format on""")
