// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Pruning a weight to 2:4 sparsity: of each four consecutive inputs of an output the two with the
/// largest score stay, as they are.
///
/// ```cpp
/// Covariance covariance(in);
/// for (...) covariance.add(activations);                   // or mean squares in a vector
/// TwoFour<float> core = two_four(w, NowagP(covariance));   // w [outputs, inputs]
/// core = two_four(simd.threads(2), w2, Wanda(h), std::move(core));  // in the same memory
/// ```
///
/// Scores are those of two_four_score.hpp, or your own. No weight is changed: sparse_gpt.hpp makes
/// the others take over what is lost, armor.hpp puts the sparse matrix between two dense ones.

#include <pare/core/macros_off.hpp>

#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/detail/select_two_four.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/factor/structured/two_four_score.hpp>

#include <concepts>
#include <type_traits>
#include <utility>

namespace pare::factor {
namespace detail {
template <class X>
using IsTwoFourScore = std::bool_constant<TwoFourScore<std::remove_cvref_t<X>> ||
                                          std::constructible_from<SecondMoments, const X&>>;
}  // namespace detail
PARE_ABI_BEGIN

/// Keeps the two of each four inputs with the largest scores; of equal ones the lower columns.
///
/// \param backend left out: pare::simd
/// \param w       [outputs, inputs] of float, double, bf16 or f16, any strides, inputs a multiple
///                of 4
/// \param score   a TwoFourScore: Magnitude, Wanda, NowagP or your own
/// \param memory  a result that is no longer needed, whose memory is used again if its extents are
///                those of w; left out: new memory, which takes longer than the choice
/// \return        mask and values of w's own scalar
/// \throws std::invalid_argument if extents do not fit, a number of w is not finite, factors of a
///         score are not as InputScore says, or a score is a NaN. `memory` is gone then.
///
/// A score abs(w) f is rounded once to compute_t of w, with factors divided by the largest; scores
/// below the least number of it are all 0, and equal. pare::reference chooses the same, bit for
/// bit, of the same factors; those of NowagP differ by the rounding of norms.
///
/// Cost: w is read once and half of it written, which binds: 1.53 times reading w in float, at
/// least; NowagP reads w once more, for its norms: 2.53 times. A score of entries takes a call for
/// each. Any strides but contiguous rows cost a copy of rows. Memory: the result. Same bits for any
/// number of threads.
template <Backend B, In<2> W, TwoFourScore P>
TwoFour<scalar_of<W>> two_four(const B& backend, const W& w, const P& score,
                               TwoFour<scalar_of<W>>&& memory = {}) {
  return detail::select_two_four(backend, as_const(to_view(w)), score, std::move(memory));
}

/// \overload
template <In<2> W, TwoFourScore P>
TwoFour<scalar_of<W>> two_four(const W& w, const P& score, TwoFour<scalar_of<W>>&& memory = {}) {
  return two_four(simd, w, score, std::move(memory));
}

/// By Wanda's score.
/// \param second_moments a SecondMoments, or what one is made of: mean squares of inputs in a
///        vector, or a Covariance
/// \throws std::invalid_argument as above and as SecondMoments
template <Backend B, In<2> W, class H>
requires std::constructible_from<SecondMoments, const H&>
TwoFour<scalar_of<W>> two_four(const B& backend, const W& w, const H& second_moments,
                               TwoFour<scalar_of<W>>&& memory = {}) {
  return two_four(backend, w, Wanda(second_moments), std::move(memory));
}

/// \overload
template <In<2> W, class H>
requires std::constructible_from<SecondMoments, const H&>
TwoFour<scalar_of<W>> two_four(const W& w, const H& second_moments,
                               TwoFour<scalar_of<W>>&& memory = {}) {
  return two_four(simd, w, Wanda(second_moments), std::move(memory));
}

PARE_REFUSE_CALLS(two_four, "factor::two_four",
                  "after the score: wanted nothing, or an rvalue TwoFour of w's scalar",
                  (INPUT, (roles::Reads<2>), "w", "[outputs, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsTwoFourScore>), "score",
                   "a TwoFourScore such as Magnitude{} or Wanda(h), or mean squares of inputs"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
