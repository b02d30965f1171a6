// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How a score is changed before the softmax: the concept, and the modifiers users know.
///
/// ```cpp
/// attend(q, k, v, out, SoftCap{.cap = 50});
/// attend(q, k, v, out, alibi_of(slopes), {.causal = true});  // slopes [query heads]
/// attend(q, k, v, out, bias_of(bias));           // bias [batch, heads, queries, keys]
/// attend(q, k, v, out, key_mask_of(seen));       // bool [batch, keys]: padding
/// attend(q, k, v, out, Chain{SoftCap{}, my_modifier});
/// ```
///
/// | modifier | score s of query i (at position p) and key j (at position j) becomes |
/// |---|---|
/// | `Exact` | s |
/// | `SoftCap` | cap tanh(s / cap), cap finite and above 0 (Gemma 2) |
/// | `Alibi` | s - slope[head] \|p - j\| (Press et al., ALiBi, section 3) |
/// | `AddBias` | s + bias[batch, head, i, j] |
/// | `KeyMask` | s where seen[batch, head, i, j], -infinity elsewhere |
/// | `ClampScores` | s within [least, most], finite (SPT: +-10) |
/// | `Chain` | second(first(s)); what the first hides stays hidden |
///
/// The functions below make modifiers that view the caller's memory. They copy nothing; `attend`
/// checks extents against the call, and throws std::invalid_argument if they do not fit.

#include <pare/core/macros_off.hpp>

#include <pare/core/tensor_view.hpp>
#include <pare/kernel/score_modifier.hpp>

#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::attention {

using kernel::AddBias;
using kernel::Alibi;
using kernel::Chain;
using kernel::ClampScores;
using kernel::Exact;
using kernel::ScorePlace;
using kernel::SoftCap;

/// A plain struct that replaces a score. `modify` is called for every score that is computed,
/// before causality and windows hide keys, by several threads at the same time. A result of
/// -infinity hides the key. If a key is hidden already, because q.k is -infinity or an earlier
/// modifier hid it, the result is ignored. `modify` is noexcept because kernels are: an exception
/// would end the program. A modifier may also have `bool hides(Index sequence, Index key) const
/// noexcept`. If it returns true, no query of the sequence sees the key, which is then not even
/// read. And it may have `bool keeps(std::int64_t sequence, std::int64_t first, std::int64_t last)
/// const noexcept`: if it returns true, `modify` would change no score of the keys at positions
/// from first to last, and need not be asked.
template <class M>
concept ScoreModifier = std::is_trivially_copyable_v<M> &&
                        requires(const M& m, float single, double twice, const ScorePlace& place) {
                          { m.modify(single, place) } noexcept -> std::convertible_to<float>;
                          { m.modify(twice, place) } noexcept -> std::convertible_to<double>;
                        };

/// The modifier that adds `bias` [batch, heads, queries, keys], each extent as the call has it
/// or 1. The caller keeps the bias alive; a temporary that owns its elements is not taken.
template <class X>
requires In<std::remove_reference_t<X>, 4> && (!pare::detail::OwningRvalue<X>)
AddBias<scalar_of<X>> bias_of(X&& bias) {
  const auto view = as_const(to_view(bias));
  AddBias<scalar_of<X>> modifier{view.data, {}};
  for (std::size_t d = 0; d < 4; ++d) {
    modifier.stride[d] = view.extent[d] == 1 ? 0 : view.stride[d];
    modifier.extent[d] = view.extent[d];
  }
  return modifier;
}

/// The modifier that subtracts distances times `slopes` [query heads], contiguous floats. The
/// caller keeps the slopes alive; a temporary that owns them is not taken.
/// \throws std::invalid_argument if the slopes are not contiguous.
template <class X>
requires In<std::remove_reference_t<X>, 1> && std::is_same_v<scalar_of<X>, float> &&
         (!pare::detail::OwningRvalue<X>)
Alibi alibi_of(X&& slopes) {
  const auto view = as_const(to_view(slopes));
  check(view.stride[0] == 1 || view.extent[0] <= 1, "attention::alibi_of", "slopes",
        "a stride other than 1", "contiguous slopes");
  return {view.data, view.extent[0]};
}

/// Keys that are seen, as booleans [batch, heads, queries, keys], each extent as the call has it
/// or 1: true where the query sees the key.
///
/// The score of a hidden key is ignored, so a NaN in it does not matter. If the mask is the same
/// for all queries and heads, as one for padding is, hidden keys and their values are not read and
/// cost nothing. Otherwise a NaN or infinity in a value may reach rows of its tile that do not see
/// it.
struct KeyMask {
  TensorView<const bool, 4> seen{};

  template <class T>
  T modify(T score, const ScorePlace& at) const noexcept {
    const bool shown = seen.data[offset(at.batch, 0) + offset(at.head, 1) + offset(at.query, 2) +
                                 offset(at.key, 3)];
    return shown ? score : -std::numeric_limits<T>::infinity();
  }

  /// Whether no query of any head of a sequence sees a key, without looking at many bits.
  bool hides(Index sequence, Index key) const noexcept {
    return seen.extent[1] == 1 && seen.extent[2] == 1 &&
           !seen.data[offset(sequence, 0) + offset(key, 3)];
  }

 private:
  Index offset(Index i, std::size_t d) const noexcept {
    return seen.extent[d] == 1 ? 0 : i * seen.stride[d];
  }
};

/// The modifier that hides the keys for which `seen` [batch, keys] is false, from all queries and
/// heads. The caller keeps the booleans alive; a temporary that owns them is not taken.
template <class X>
requires(std::is_same_v<std::remove_const_t<typename view_of<X>::scalar>, bool> &&
         view_of<X>::rank == 2 && !pare::detail::OwningRvalue<X>)
KeyMask key_mask_of(X&& seen) {
  const auto view = as_const(to_view(seen));
  return {
      {view.data, {view.extent[0], 1, 1, view.extent[1]}, {view.stride[0], 0, 0, view.stride[1]}}};
}

/// The same with `seen` [batch, heads, queries, keys], each extent as the call has it or 1.
template <class X>
requires(std::is_same_v<std::remove_const_t<typename view_of<X>::scalar>, bool> &&
         view_of<X>::rank == 4 && !pare::detail::OwningRvalue<X>)
KeyMask key_mask_of(X&& seen) {
  return {as_const(to_view(seen))};
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
