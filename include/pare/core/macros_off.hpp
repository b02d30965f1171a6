// SPDX-License-Identifier: Apache-2.0
// No include guard: every public header includes this file first and <pare/core/macros_on.hpp>
// last.

/// \file
/// Sets aside, until macros_on.hpp, macros of other libraries whose names Pare or what it stands on
/// uses: Qt's keywords, AssertMacros.h of macOS, C's complex.h, windows.h and X11. Public headers
/// include each other within the pair, and the user's macros are back after the outermost.

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "pare needs C++20 or newer: pass -std=c++20"
#include <pare/core/stops_here_below_cxx20>  // no such file: nothing else is worth reading
#endif

// Qt.
#pragma push_macro("slots")
#undef slots
#pragma push_macro("signals")
#undef signals
#pragma push_macro("emit")
#undef emit
#pragma push_macro("foreach")
#undef foreach
#pragma push_macro("forever")
#undef forever
// AssertMacros.h.
#pragma push_macro("check")
#undef check
#pragma push_macro("require")
#undef require
#pragma push_macro("verify")
#undef verify
// complex.h.
#pragma push_macro("I")
#undef I
#pragma push_macro("complex")
#undef complex
#pragma push_macro("imaginary")
#undef imaginary
// windows.h.
#pragma push_macro("min")
#undef min
#pragma push_macro("max")
#undef max
#pragma push_macro("small")
#undef small
#pragma push_macro("near")
#undef near
#pragma push_macro("far")
#undef far
// X11.
#pragma push_macro("Bool")
#undef Bool
#pragma push_macro("None")
#undef None
#pragma push_macro("Status")
#undef Status
#pragma push_macro("Success")
#undef Success
#pragma push_macro("True")
#undef True
#pragma push_macro("False")
#undef False
