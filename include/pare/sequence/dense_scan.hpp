// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The scan of a linear state-space model with a dense transition, the same at every token:
///
///     h_t = A h_{t-1} + B x_t,   y_t = C h_t
///
/// ```cpp
/// // a [states, states], b [states, in], c [out, states]; x [batch, tokens, in]; h [batch, states]
/// dense_scan(a, b, c, x, h, y);                         // y [batch, tokens, out]
/// dense_scan(pare::simd.threads(4), a, b, c, x1, h, y1);  // and on, from where h is now
/// ```
///
/// x is float, double, bf16 or f16, all else of what it is computed in. Where sequences are few and
/// long, a state waits for the one before it; tokens are therefore cut into chunks of 32 that start
/// from zero and run side by side, and A^l times the state before its chunk is added to each, so
/// that all of it is products of matrices. The cut does not depend on threads, and so bits do not;
/// on where a stream is cut into calls they do.
///
/// NaN and infinity follow the formula, with 0 times them as NaN: they last, and reach the tokens
/// of their sequence behind them. A whose powers overflow gives infinities and NaN.
///
/// Source: Gu et al., "Combining recurrent, convolutional, and continuous-time models with linear
/// state-space layers", NeurIPS 2021. Ours: the chunks (Blelloch's scan over blocks).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/sequence/detail/dense_runner.hpp>
#include <pare/sequence/detail/roles.hpp>

#include <type_traits>

namespace pare::sequence {
PARE_ABI_BEGIN

/// h_t = A h_{t-1} + B x_t and y_t = C h_t for every sequence.
///
/// \param backend left out: pare::simd
/// \param a       [states, states], at least one
/// \param b       [states, in], in at least 1
/// \param c       [out, states], out at least 1
/// \param x       [batch, tokens, in], a stride of 1 along in; its scalar may be of 16 bits
/// \param state   [batch, states], rows contiguous: what the tokens before left; written
/// \param y       [batch, tokens, out], a stride of 1 along out
/// \throws std::invalid_argument if an extent or a stride does not fit, sizes overflow, or y or
///         state overlaps anything else. Nothing is written then. No sequence or token: a no-op.
///
/// Cost: states (in + states + out) multiply-adds a token, which bind; of fewer than 32 sequences
/// states^2 more. Memory: states scalars for each of up to 8192 tokens of a sequence, and 32 powers
/// of A, in the backend's workspace. The same bits for any number of threads.
template <Backend B, In<2> A, In<2> I, In<2> C, In<3> X, Out<2> H, Out<3> Y>
requires SameScalar<A, I, C, H, Y> && std::is_same_v<scalar_of<A>, compute_t<scalar_of<X>>>
void dense_scan(const B& backend, const A& a, const I& b, const C& c, const X& x, H&& state,
                Y&& y) {
  detail::run_dense_scan(backend, detail::DenseScanCall<scalar_of<X>>{.a = as_const(to_view(a)),
                                                                      .b = as_const(to_view(b)),
                                                                      .c = as_const(to_view(c)),
                                                                      .x = as_const(to_view(x)),
                                                                      .state = to_view(state),
                                                                      .y = to_view(y)});
}

/// \overload
template <In<2> A, In<2> I, In<2> C, In<3> X, Out<2> H, Out<3> Y>
requires SameScalar<A, I, C, H, Y> && std::is_same_v<scalar_of<A>, compute_t<scalar_of<X>>>
void dense_scan(const A& a, const I& b, const C& c, const X& x, H&& state, Y&& y) {
  dense_scan(simd, a, b, c, x, state, y);
}

PARE_REFUSE_CALLS(dense_scan, "sequence::dense_scan", "after y: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "a", "[states, states]"),
                  (INPUT, (roles::ReadsSame<2>), "b", "[states, in]"),
                  (INPUT, (roles::ReadsSame<2>), "c", "[out, states]"),
                  (INPUT, (detail::ReadsComputedIn<3>), "x",
                   "[batch, tokens, in], computed in the scalar of a,"),
                  (OUTPUT, (roles::WritesComputed<2>), "state", "[batch, states]"),
                  (OUTPUT, (roles::WritesComputed<3>), "y", "[batch, tokens, out]"))

PARE_ABI_END
}  // namespace pare::sequence

#include <pare/core/macros_on.hpp>
