// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How a score is changed before the softmax: the concept, and the modifiers users know.
///
/// ```cpp
/// attend(q, k, v, out, SoftCap{.cap = 50});
/// attend(q, k, v, out, Alibi{slopes.data()}, {.causal = true});
/// attend(q, k, v, out, bias_of(bias));                       // bias [batch, heads, queries, keys]
/// attend(q, k, v, out, Chain{SoftCap{}, my_modifier});
/// ```

#include <pare/core/tensor_view.hpp>
#include <pare/kernel/score_modifier.hpp>

#include <concepts>
#include <type_traits>

namespace pare::attention {

using kernel::AddBias;
using kernel::Alibi;
using kernel::Chain;
using kernel::Exact;
using kernel::ScorePlace;
using kernel::SoftCap;

/// A plain struct that replaces a score. `modify` is called for every score that is computed,
/// before causality and windows hide keys, on several threads at once; -infinity hides the key.
template <class M>
concept ScoreModifier = std::is_trivially_copyable_v<M> &&
    requires(const M& m, float single, double twice, const ScorePlace& place) {
  { m.modify(single, place) } -> std::convertible_to<float>;
  { m.modify(twice, place) } -> std::convertible_to<double>;
};

/// The modifier that adds `bias` [batch, heads, queries, keys], each extent as the call has it
/// or 1. The caller keeps the bias alive.
template <In<4> X>
AddBias<scalar_of<X>> bias_of(const X& bias) {
  const auto view = to_view(bias);
  AddBias<scalar_of<X>> modifier{view.data, {}};
  for (std::size_t d = 0; d < 4; ++d) {
    modifier.stride[d] = view.extent[d] == 1 ? 0 : view.stride[d];
    modifier.extent[d] = view.extent[d];
  }
  return modifier;
}

}  // namespace pare::attention
