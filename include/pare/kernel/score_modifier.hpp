// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What may be done to a score before the softmax, as types that attention kernels inline.
///
/// A modifier is a plain struct with
/// ```cpp
/// template <class T> T modify(T score, const ScorePlace& place) const noexcept;
/// ```
/// where `score` is scale * <q, k> and the result takes its place; -infinity hides the key.

#include <pare/core/scalar.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/score_place.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// Scores as they are.
struct Exact {
  template <class T>
  constexpr T modify(T score, const ScorePlace&) const noexcept {
    return score;
  }
};

/// cap * tanh(score / cap), which keeps scores within +-cap (Gemma 2).
struct SoftCap {
  float cap = 50;

  template <class T>
  T modify(T score, const ScorePlace&) const noexcept {
    // tanh(x) = 1 - 2 / (e^2x + 1); beyond 20 it is 1 to the last bit of a double.
    constexpr T two_log2_e = T(2.8853900817779268147);
    const T x = score / T(cap);
    const T bounded = x > T(20) ? T(20) : x;
    return T(cap) * (T(1) - T(2) / (exp2<arch::scalar>(bounded * two_log2_e) + T(1)));
  }
};

/// score - slope[head] * (query position - key position) (Press et al., ALiBi, section 3).
struct Alibi {
  const float* slopes = nullptr;  ///< [query heads]

  template <class T>
  T modify(T score, const ScorePlace& place) const noexcept {
    return score - T(slopes[place.head]) * static_cast<T>(place.query_position - place.key);
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

/// First one modifier, then the other.
template <class First, class Second>
struct Chain {
  First first{};
  Second second{};

  template <class T>
  T modify(T score, const ScorePlace& place) const noexcept {
    return second.modify(first.modify(score, place), place);
  }
};
template <class First, class Second>
Chain(First, Second) -> Chain<First, Second>;

}  // namespace pare::kernel
