#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes unicode_ranges.hpp from Python's unicodedata:  unicode_ranges.py > unicode_ranges.hpp

The tables are of the Unicode version that the Python at hand has; the header names it.
"""
import sys
import unicodedata


def is_white_space(code):
    """The property White_Space of PropList.txt: all separators, and six control characters."""
    return unicodedata.category(chr(code))[0] == "Z" or code in (9, 10, 11, 12, 13, 0x85)


def ranges(belongs):
    """First, last, first, last, ... of the stretches of code points that belong."""
    ends = []
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and belongs(code)
        if inside and len(ends) % 2 == 0:
            ends.append(code)
        elif not inside and len(ends) % 2 == 1:
            ends.append(code - 1)
    return ends


def category_is(*wanted):
    """Whether a code point's general category begins with one of those."""
    return lambda code: unicodedata.category(chr(code)).startswith(wanted)


def array(name, what, ends):
    lines = [f"/// {what}: {len(ends) // 2} ranges.",
             f"inline constexpr char32_t {name}[] = {{"]
    words = [f"0x{first:04x}, 0x{last:04x}," for first, last in zip(ends[::2], ends[1::2])]
    line = "   "
    for word in words:
        if len(line) + 1 + len(word) > 100:
            lines.append(line)
            line = "   "
        line += " " + word
    return "\n".join(lines + [line, "};"])


print(f"""// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \\file
/// Code points of Unicode {unicodedata.unidata_version} by class, as sorted ranges: the first and the last of each.
/// Made by unicode_ranges.py; not to be edited.

// clang-format off

namespace unicode {{

{array("letters", "General category L", ranges(category_is("L")))}

{array("numbers", "General category N", ranges(category_is("N")))}

{array("spaces", "Property White_Space", ranges(is_white_space))}

{array("punctuation", "General category P", ranges(category_is("P")))}

{array("controls", "General categories Cc, Cf and Co", ranges(category_is("Cc", "Cf", "Co")))}

{array("nonspacing_marks", "General category Mn", ranges(category_is("Mn")))}

}}  // namespace unicode

// clang-format on""")
