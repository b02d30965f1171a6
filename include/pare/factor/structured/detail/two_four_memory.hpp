// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The memory of a 2:4 matrix, for what writes both mask and values: it answers for two bits in
/// each group.

#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/two_four.hpp>

#include <cstdint>
#include <utility>

namespace pare::factor::detail {
PARE_ABI_BEGIN

struct TwoFourMemory {
  template <class S>
  static TensorView<std::uint16_t, 2> words(TwoFour<S>& m) {
    TwoFourMask& mask = m.mask_;
    return {mask.words_.data(), {mask.outputs(), mask.row_words()}, {mask.row_words(), 1}};
  }

  /// A matrix of these extents: `kept` itself if it has them, which what was moved from has
  /// not. Its values are whatever they were.
  template <class S>
  static TwoFour<S> of(Index outputs, Index inputs, TwoFour<S>&& kept) {
    if (kept.outputs() == outputs && kept.inputs() == inputs) return std::move(kept);
    return TwoFour<S>(TwoFourMask(outputs, inputs));
  }
};

PARE_ABI_END
}  // namespace pare::factor::detail
