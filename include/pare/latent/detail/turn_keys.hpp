// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rotary keys turned from one position to another.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/kernel/turn_row.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <array>
#include <type_traits>

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

/// y = x of position `from` as it is at `to`: turned by the difference of their angles, whatever
/// these are. Where a table has a magnitude, as YaRN's, x keeps its own.
template <class S, class T>
void turn_key(const S* x, S* y, const transformer::RotaryTable<T>& table,
              transformer::RotaryLayout layout, Index from, Index to) {
  const auto angles = [&](Index position) {
    return table.data() + (position - table.first()) * 2 * table.pairs();
  };
  const auto turn = [&](auto interleaved) {
    launch(simd,
           kernel::TurnRow<S, interleaved.value>{x, y, angles(from), angles(to), table.pairs()});
  };
  if (layout == transformer::RotaryLayout::Interleaved)
    turn(std::true_type{});
  else
    turn(std::false_type{});
}

PARE_ABI_END
}  // namespace pare::latent::detail
