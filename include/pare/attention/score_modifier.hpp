// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How a score is changed before the softmax: the concept, and the modifiers users know.
///
/// ```cpp
/// attend(q, k, v, out, SoftCap{.cap = 50});
/// attend(q, k, v, out, alibi_of(slopes), {.causal = true});  // slopes [query heads]
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
/// before causality and windows hide keys, on several threads at once. -infinity hides the key; of
/// a key that is hidden already, because q.k is -infinity or an earlier modifier said so, the
/// result is not looked at. It is noexcept: kernels are, so that an exception would end the
/// program.
template <class M>
concept ScoreModifier = std::is_trivially_copyable_v<M> &&
    requires(const M& m, float single, double twice, const ScorePlace& place) {
  { m.modify(single, place) }
  noexcept->std::convertible_to<float>;
  { m.modify(twice, place) }
  noexcept->std::convertible_to<double>;
};

/// The modifier that adds `bias` [batch, heads, queries, keys], each extent as the call has it
/// or 1. The caller keeps the bias alive; an object that owns its elements and dies with the
/// expression is not taken.
template <In<4> X>
AddBias<scalar_of<X>> bias_of(X& bias) {
  const auto view = to_view(bias);
  AddBias<scalar_of<X>> modifier{view.data, {}};
  for (std::size_t d = 0; d < 4; ++d) {
    modifier.stride[d] = view.extent[d] == 1 ? 0 : view.stride[d];
    modifier.extent[d] = view.extent[d];
  }
  return modifier;
}

/// \overload
template <class T>
AddBias<std::remove_const_t<T>> bias_of(const TensorView<T, 4>& bias) {
  return bias_of<const TensorView<T, 4>>(bias);
}

/// The modifier that subtracts distances times `slopes` [query heads], float. The caller keeps the
/// slopes alive.
template <In<1> X>
requires std::is_same_v < scalar_of<X>,
float > Alibi alibi_of(X& slopes) {
  const auto view = to_vector_view(slopes);
  check(view.stride[0] == 1 || view.extent[0] <= 1, "attention::alibi_of", "slopes",
        "a stride other than 1", "contiguous slopes");
  return {view.data, view.extent[0]};
}

}  // namespace pare::attention
