// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What may be done to a score before the softmax, as types that attention kernels inline.
///
/// A modifier is a plain struct with
/// ```cpp
/// template <class T> T modify(T score, const ScorePlace& place) const noexcept;
/// ```
/// where `score` is scale * <q, k> and the result takes its place. -infinity hides the key, and no
/// later modifier shows it again.

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/score_place.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>

namespace pare::kernel {

/// Scores as they are.
struct Exact {
  template <class T>
  constexpr T modify(T score, const ScorePlace&) const noexcept {
    return score;
  }
};

/// cap * tanh(score / cap), which keeps scores within +-cap (Gemma 2). cap is finite and above 0.
struct SoftCap {
  float cap = 50;

  template <class T>
  T modify(T score, const ScorePlace&) const noexcept {
    // tanh(x) = (e^2x - 1) / (e^2x + 1). Beyond 20 it is 1 to the last bit of a double, and below
    // `straight` it is x; there x may even be subnormal.
    constexpr T two_log2_e = T(2.8853900817779268147);
    constexpr T straight = std::is_same_v<T, float> ? T(0x1p-12) : T(0x1p-27);
    const T x = score / T(cap);
    const T size = x < T(0) ? -x : x;
    const T bounded = size > T(20) ? T(20) : size;
    const T e = exp2_minus_one(bounded * two_log2_e);
    const T capped = T(cap) * (e / (e + T(2)));
    return size < straight ? score : x < T(0) ? -capped : capped;
  }
};

/// score - slope[head] * |query position - key| (Press et al., ALiBi, section 3). The paper is
/// causal; without causality the distance counts both ways, as in its authors' encoder.
///
/// `attention::alibi_of(slopes)` makes one from a vector or a view, whose size is checked. A bare
/// `Alibi{pointer}` has no size to check: a call of more heads than slopes reads past them.
struct Alibi {
  const float* slopes = nullptr;  ///< [query heads]
  /// How many slopes there are; a call of another number of heads is refused. Left out: not
  /// checked.
  std::optional<std::ptrdiff_t> heads{};

  template <class T>
  T modify(T score, const ScorePlace& place) const noexcept {
    const T ahead = static_cast<T>(place.query_position - place.key);
    return score - T(slopes[place.head]) * (ahead < T(0) ? -ahead : ahead);
  }
};

/// score + bias(batch, head, query, key); a stride of 0 broadcasts.
template <class B>
struct AddBias {
  const B* bias = nullptr;
  std::ptrdiff_t stride[4] = {};
  std::ptrdiff_t extent[4] = {1, 1, 1, 1};  ///< what the caller of attention is checked against

  template <class T>
  T modify(T score, const ScorePlace& place) const noexcept {
    return score + static_cast<T>(static_cast<compute_t<B>>(
                       bias[place.batch * stride[0] + place.head * stride[1] +
                            place.query * stride[2] + place.key * stride[3]]));
  }
};

/// The score within [least, most]; a NaN stays one. SPT clamps to +-10, which bounds the
/// exponentials of a softmax without a maximum.
struct ClampScores {
  double least = -10;
  double most = 10;

  template <class T>
  T modify(T score, const ScorePlace&) const noexcept {
    const T low = static_cast<T>(least), high = static_cast<T>(most);
    return score < low ? low : score > high ? high : score;
  }
};

/// What a modifier makes of a score: of one that hides its key nothing else. Asked in any case, so
/// that a loop of these needs no branch.
template <class M, class T>
PARE_ALWAYS_INLINE T modified(const M& modifier, T score, const ScorePlace& place) noexcept {
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  const T next = static_cast<T>(modifier.modify(score, place));
  return score == hidden ? hidden : next;
}

/// First one modifier, then the other, which cannot show a key that the first hides.
template <class First, class Second>
struct Chain {
  First first{};
  Second second{};

  template <class T>
  T modify(T score, const ScorePlace& place) const
      noexcept(noexcept(first.modify(score, place)) && noexcept(second.modify(score, place))) {
    return modified(second, static_cast<T>(first.modify(score, place)), place);
  }
};
template <class First, class Second>
Chain(First, Second) -> Chain<First, Second>;

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
