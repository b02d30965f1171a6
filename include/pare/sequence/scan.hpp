// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The scan of a linear state-space model with a diagonal transition, selective or constant: the
/// recurrence of Mamba-2 and RetNet (one decay a head), of gated linear attention, RWKV-6 and Mamba
/// (one a state), and of S4D (a constant).
///
///     h_t[n, p] = a_t[n] h_{t-1}[n, p] + b_t[n] x_t[p]
///     y_t[p]    = sum_n c_t[n] h_t[n, p]
///
/// ```cpp
/// // x, y [batch, tokens, heads, dim]; a [batch, tokens, heads, 1]; b, c [batch, tokens, groups,
/// // states]; state [batch, heads, states, dim], zeros before the first token
/// scan(x, a, b, c, state, y);                              // a prompt
/// scan(pare::simd.threads(4), x1, a1, b1, c1, state, y1);  // and the next token, from there on
/// ```
///
/// Tensors are by extent, with any strides but a last dimension of stride 1. A stride of 0 along
/// tokens makes a constant, and along heads what heads share; head h reads b and c of group h /
/// (heads / groups). What a model does before and after is the caller's: a = exp(dt A) and x times
/// dt (Mamba), gates, the term D x.
///
/// x, b, c and y are of one scalar (float, double, bf16 or f16), a of what it is computed in, the
/// state of either. A state of 16 bits is rounded when a call ends. Decays stay as wide as sums,
/// since bf16 makes 1 of 0.999.
///
/// An element of y and of the state has the same bits wherever a stream is cut into calls (unless
/// the state is of 16 bits, or there are chunks), for any strides and any number of threads; but
/// heads of one value whose states lie apart are summed in another order than those whose states
/// follow one another. NaN and infinity follow the formula: they stay in their head, one of x in
/// its value, and last. |a| above 1 grows without a check.
///
/// Source: Gu and Dao, "Mamba", 2023, eq. 2; Dao and Gu, "Transformers are SSMs", ICML 2024;
/// Yang et al., "Gated linear attention", ICML 2024. Ours: the layout by (states, dim), and the
/// plain recurrence in registers in the place of the papers' products of chunks: those save the
/// product b x, a third of the arithmetic, but not at a call of one token, and no two cuts of a
/// stream would have the same bits.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/sequence/detail/roles.hpp>
#include <pare/sequence/detail/scan_runner.hpp>
#include <pare/sequence/scan_options.hpp>

#include <type_traits>

namespace pare::sequence {

/// The scalars that a scan takes: tokens of S, the state in S or in what that is computed in.
template <class X, class A, class H>
concept ScanScalars = std::is_same_v<scalar_of<A>, compute_t<scalar_of<X>>> &&
                      (std::is_same_v<scalar_of<H>, scalar_of<X>> ||
                       std::is_same_v<scalar_of<H>, compute_t<scalar_of<X>>>);

PARE_ABI_BEGIN

/// h_t[n, p] = a_t[n] h_{t-1}[n, p] + b_t[n] x_t[p] and y_t[p] = sum_n c_t[n] h_t[n, p] for every
/// sequence and head.
///
/// \param backend left out: pare::simd
/// \param x       [batch, tokens, heads, dim], dim at least 1
/// \param a       [batch, tokens, heads, states], or [batch, tokens, heads, 1] for one decay a head
/// \param b       [batch, tokens, groups, states], at least 1 state; groups divide the heads
/// \param c       [batch, tokens, groups, states]
/// \param state   [batch, heads, states, dim]: what the tokens before left, zeros at a start;
///                written: what these leave
/// \param y       [batch, tokens, heads, dim]
/// \throws std::invalid_argument if an extent does not fit, a last dimension is not contiguous, y
///         or state overlaps anything else, or chunk is below 1. Nothing is written then. No
///         sequence, token or head: a no-op.
///
/// Cost: two multiply-adds and a product for each token, head, state and value, which bind: of 64
/// states a value of x has 192 operations for 8 bytes. Of one token memory binds, which reads and
/// writes the state; of a dim of 1 with decays of its own for each state, reading them does.
/// Memory: for each worker with 64 states 20 KiB (double 32, a state of 16 bits 36), in the
/// backend's workspace; with chunks the states before them. Work is shared out by sequences, heads,
/// and 256 bytes of values; where that is too little, by chunks.
template <Backend B, In<4> X, In<4> A, In<4> I, In<4> C, Out<4> H, Out<4> Y>
requires ScanScalars<X, A, H> && SameScalar<X, I, C, Y>
void scan(const B& backend, const X& x, const A& a, const I& b, const C& c, H&& state, Y&& y,
          const ScanOptions& options = {}) {
  detail::run_scan(backend, detail::ScanCall<scalar_of<X>, scalar_of<H>>{.x = as_const(to_view(x)),
                                                                         .a = as_const(to_view(a)),
                                                                         .b = as_const(to_view(b)),
                                                                         .c = as_const(to_view(c)),
                                                                         .state = to_view(state),
                                                                         .y = to_view(y),
                                                                         .options = options});
}

/// \overload
template <In<4> X, In<4> A, In<4> I, In<4> C, Out<4> H, Out<4> Y>
requires ScanScalars<X, A, H> && SameScalar<X, I, C, Y>
void scan(const X& x, const A& a, const I& b, const C& c, H&& state, Y&& y,
          const ScanOptions& options = {}) {
  scan(simd, x, a, b, c, state, y, options);
}

PARE_REFUSE_CALLS(scan, "sequence::scan", "after y: wanted ScanOptions, members spelt as declared",
                  (INPUT, (roles::Reads<4>), "x", "[batch, tokens, heads, dim]"),
                  (INPUT, (detail::ReadsComputed<4>), "a",
                   "[batch, tokens, heads, states or 1] of what x is computed in"),
                  (INPUT, (roles::ReadsSame<4>), "b", "[batch, tokens, groups, states]"),
                  (INPUT, (roles::ReadsSame<4>), "c", "[batch, tokens, groups, states]"),
                  (OUTPUT, (roles::WritesEither<4>), "state", "[batch, heads, states, dim]"),
                  (OUTPUT, (roles::WritesSame<4>), "y",
                   "[batch, tokens, heads, dim] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::sequence

#include <pare/core/macros_on.hpp>
