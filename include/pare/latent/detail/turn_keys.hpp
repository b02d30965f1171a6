// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rotary keys turned from one position to another.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <array>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// Throws unless a table turns rows of `rope` numbers at positions [first, end).
template <class T>
void check_turn(const char* function, const transformer::RotaryTable<T>& table,
                transformer::RotaryLayout layout, Index rope, Index first, Index end) {
  check(2 * table.pairs() == rope, function, "table", 2 * table.pairs(),
        Worded{"pairs of the ", rope, " numbers of a rotary key"});
  check_enumerator(function, "layout", layout, transformer::RotaryLayout::HalfSplit);
  check(first >= end || (table.has(first) && table.has(end - 1)), function, "table",
        std::array<Index, 2>{table.first(), table.first() + table.count()},
        Worded{"positions up to ", end});
}

/// x at position `from` as it is at `to`: turned by the difference of their angles, whatever these
/// are. Where a table has a magnitude, as YaRN's, x keeps its own.
template <class S, class T>
void turn_key(S* x, const transformer::RotaryTable<T>& table, transformer::RotaryLayout layout,
              Index from, Index to) {
  const Index pairs = table.pairs();
  const bool interleaved = layout == transformer::RotaryLayout::Interleaved;
  for (Index i = 0; i < pairs; ++i) {
    const double c0 = table.cosine(from, i), s0 = table.sine(from, i);
    const double c1 = table.cosine(to, i), s1 = table.sine(to, i);
    const double size = c0 * c0 + s0 * s0;
    const double cosine = (c1 * c0 + s1 * s0) / size, sine = (s1 * c0 - c1 * s0) / size;
    S& first = x[interleaved ? 2 * i : i];
    S& second = x[interleaved ? 2 * i + 1 : i + pairs];
    const auto a = static_cast<double>(static_cast<compute_t<S>>(first));
    const auto b = static_cast<double>(static_cast<compute_t<S>>(second));
    first = static_cast<S>(static_cast<compute_t<S>>(a * cosine - b * sine));
    second = static_cast<S>(static_cast<compute_t<S>>(b * cosine + a * sine));
  }
}

PARE_ABI_END
}  // namespace pare::latent::detail
