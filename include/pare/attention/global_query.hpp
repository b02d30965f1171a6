// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Global-query attention (LAMA): many heads for the price of one. A text becomes one row a head;
/// no token attends to another, so that cost grows with tokens, not with their square:
///
///     c    = the mean of the tokens h_t that count, or a learned vector
///     f_ti = tanh(<p_i, c> <q_i, h_t>), then f_t / max(|f_t|, epsilon) over the heads
///     A_it = softmax over t of f_ti,   S_i = sum_t A_it h_t
///
/// Head i scores by a bilinear form of rank 1, c^T p_i q_i^T h: 2 dim numbers a head.
///
/// ```cpp
/// // h [batch, tokens, dim], p and q [dim, heads]; out [batch, heads, dim], a row of heads * dim
/// global_query(h, p, q, out);
/// global_query(pare::simd.threads(4), h, p, q, out,
///              {.context = pare::to_view(learned), .seen = mask, .weights = pare::to_view(a)});
/// ```
///
/// h is float, double, bf16 or f16, all else of what it is computed in. A token that does not count
/// is not read, and has weight 0; where none counts, S is 0. With one head f is 1 or -1, so that
/// all tokens whose product with q has one sign weigh the same. NaN or infinity in a token reaches
/// all weights and sums of its sequence.
///
/// Source: Mehta et al., "Low rank factorization for compact multi-head self-attention", 2019
/// (arXiv 1912.00835), eq. 3.13, as a third party implements it; we have not seen the paper itself.
/// Reconstructed: epsilon, without which a token of zeros is NaN. Ours: zeros where no token
/// counts, for which that implementation weighs padding.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/global_query_runner.hpp>
#include <pare/attention/global_query_options.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <type_traits>

namespace pare::attention {
PARE_ABI_BEGIN

/// S_i = sum_t A_it h_t for every sequence.
///
/// \param backend left out: pare::simd
/// \param h       [batch, tokens, dim], dim at least 1, a stride of 1 along dim
/// \param p       [dim, heads], at least 1 head
/// \param q       [dim, heads]
/// \param out     [batch, heads, dim], a stride of 1 along dim
/// \param options see GlobalQueryOptions
/// \throws std::invalid_argument if an extent or a stride does not fit, sizes overflow, epsilon is
///         not a number above 0, or out or the weights overlap anything else. Nothing is written
///         then. No sequence: a no-op; no token: zeros.
///
/// Cost: 2 heads multiply-adds an element of h and one addition for the mean; up to about 8 heads
/// reading binds; one core of Zen 5 reaches some half of these limits. A sequence of up to 512 KiB
/// is read once from memory, a longer one twice (once, if the context is given). Memory: q once
/// more, some KiB for each worker, and for each 512 KiB of h heads * dim sums, in the backend's
/// workspace. Sequences are cut by their extents alone, and sums added in the order of tokens: the
/// same bits for any number of threads.
template <Backend B, In<3> H, In<2> P, In<2> Q, Out<3> O>
requires SameScalar<P, Q, O> && std::is_same_v<scalar_of<P>, compute_t<scalar_of<H>>>
void global_query(const B& backend, const H& h, const P& p, const Q& q, O&& out,
                  const GlobalQueryOptions<compute_t<scalar_of<H>>>& options = {}) {
  detail::run_global_query(backend, detail::GlobalQueryCall<scalar_of<H>>{.h = as_const(to_view(h)),
                                                                          .p = as_const(to_view(p)),
                                                                          .q = as_const(to_view(q)),
                                                                          .out = to_view(out),
                                                                          .options = options});
}

/// \overload
template <In<3> H, In<2> P, In<2> Q, Out<3> O>
requires SameScalar<P, Q, O> && std::is_same_v<scalar_of<P>, compute_t<scalar_of<H>>>
void global_query(const H& h, const P& p, const Q& q, O&& out,
                  const GlobalQueryOptions<compute_t<scalar_of<H>>>& options = {}) {
  global_query(simd, h, p, q, out, options);
}

PARE_REFUSE_CALLS(global_query, "attention::global_query",
                  "after out: wanted GlobalQueryOptions, members spelt and ordered as declared, "
                  "each a view (pare::to_view of an Eigen object)",
                  (INPUT, (roles::Reads<3>), "h", "[batch, tokens, dim]"),
                  (INPUT, (roles::ReadsCompute<2>), "p", "[dim, heads] of what h is computed in"),
                  (INPUT, (roles::ReadsCompute<2>), "q", "[dim, heads] of what h is computed in"),
                  (OUTPUT, (roles::WritesComputed<3>), "out", "[batch, heads, dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
