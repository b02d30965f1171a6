// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A layer whose weight was factored: W ~ left right, W [out x in].
///
/// ```cpp
/// auto lowrank = truncated_svd(w, {.rank = 128});
/// apply(lowrank, x, y);                    // x [tokens x in], y [tokens x out]
/// apply(left, right, x, y);                // factors of any origin
/// apply(pare::simd.threads(4).with(workspace), lowrank, x, y);
/// ```
///
/// The product in the middle, [tokens x rank], is computed for a block of rows at a time, and
/// multiplied by the left factor before it leaves the cache. Up to 48 tokens, in float, factors
/// with contiguous rows are read where they lie instead, once for every 16 tokens. Sums of either
/// way have one order: a token has the same bits for every executor, and among as many tokens as
/// are computed in its way. A NaN or infinity in a token reaches its own row of y only.
///
/// Where x and the right factor are bf16, their products are those of pairs (linalg::multiply; up
/// to 48 tokens linalg::multiply_weight_pairs, where that is fast), which count subnormals as 0.
/// The product in the middle is float and is not rounded, so its products with the left factor are
/// those of floats: frameworks that round it to bf16 multiply that part twice as fast, with an
/// error of 2^-9 in each term.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/low_rank_product.hpp>
#include <pare/factor/low_rank.hpp>

#include <type_traits>

namespace pare {

/// Factors compute with their own scalar.
template <class T>
struct roles::element<factor::LowRank<T>> {
  using type = T;
};

namespace factor {
namespace detail {

template <class X>
inline constexpr bool is_low_rank = false;
template <class T>
inline constexpr bool is_low_rank<LowRank<T>> = true;
template <class X>
using IsLowRank = std::bool_constant<is_low_rank<std::remove_cvref_t<X>>>;
template <class X>
using IsNoLowRank = std::bool_constant<!IsLowRank<X>::value>;

PARE_ABI_BEGIN

template <class B, class S, class U, class T>
void apply_views(const B& backend, TensorView<const U, 2> left, TensorView<const U, 2> right,
                 TensorView<const S, 2> x, TensorView<T, 2> y) {
  constexpr const char* function = "factor::apply";
  check_extents<2>(function, "right", right.extent, {left.cols(), x.cols()});
  check_extents<2>(function, "y", y.extent, {x.rows(), left.rows()});
  const auto l = linalg::checked_lines(function, "left", left),
             r = linalg::checked_lines(function, "right", right);
  const auto from = linalg::checked_lines(function, "x", x);
  const auto to = linalg::checked_lines(function, "y", y);
  check_writable(function, "y", y);
  check_no_overlap(function, "y", y, "left", left);
  check_no_overlap(function, "y", y, "right", right);
  check_no_overlap(function, "y", y, "x", x);
  if (y.rows() == 0 || y.cols() == 0) return;
  if constexpr (KernelBackend<B>) {
    if (x.cols() == 0 || right.rows() == 0) return linalg::fill_zeros(y);
    multiply_low_rank(on_any_executor(backend), l, r, from, to, [](Index, Index) {});
  } else {
    reference_low_rank_product(l, r, from, to);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Y = (X right^T) left^T: the layer x -> left (right x) of each token.
///
/// \param backend left out: pare::simd
/// \param left    [out x rank], any dense Eigen matrix of any storage scalar
/// \param right   [rank x in], of the same scalar
/// \param x       [tokens x in], any storage scalar
/// \param y       [tokens x out], written: double where a factor or x is, else float; must not
///                overlap an input
/// \throws std::invalid_argument if shapes do not fit, a matrix is contiguous neither by rows nor
///         by columns, or y overlaps an input. Nothing is written then. No tokens: a no-op; rank
///         or in 0: y = 0.
///
/// Cost: 2 tokens rank (in + out) FLOPs, which bind from some 8 tokens on (12 of float); with
/// fewer, reading the factors does. From 64 tokens on products reach 0.8 to 0.9 of the peak, of 16
/// some 0.65, since sums of float that run along rows are added up at their ends. x is read once, y
/// written once. Memory, kept in the backend's workspace: both factors once, and per worker a block
/// of at most 192 rows of length rank. If columns of y are contiguous, it is (rank + out) tokens
/// scalars instead of the blocks. Up to 48 tokens: rank tokens scalars, and those of x and y if
/// they are copied, since their rows are not contiguous floats.
template <Backend B, In<2> L, In<2> R, In<2> X, Out<2> Y>
requires SameScalar<L, R> && ProductOf<X, scalar_of<L>, Y>
void apply(const B& backend, const L& left, const R& right, const X& x, Y&& y) {
  detail::apply_views(backend, as_const(to_view(left)), as_const(to_view(right)),
                      as_const(to_view(x)), to_view(y));
}

/// \overload
template <In<2> L, In<2> R, In<2> X, Out<2> Y>
requires SameScalar<L, R> && ProductOf<X, scalar_of<L>, Y>
void apply(const L& left, const R& right, const X& x, Y&& y) {
  apply(simd, left, right, x, y);
}

/// The same with the factors of a factorization's result; x [tokens x in], y [tokens x out].
/// \throws std::invalid_argument as for two factors.
template <Backend B, ComputeScalar T, In<2> X, Out<2> Y>
requires ProductOf<X, T, Y>
void apply(const B& backend, const LowRank<T>& factors, const X& x, Y&& y) {
  apply(backend, factors.left, factors.right, x, y);
}

/// \overload
template <ComputeScalar T, In<2> X, Out<2> Y>
requires ProductOf<X, T, Y>
void apply(const LowRank<T>& factors, const X& x, Y&& y) {
  apply(simd, factors, x, y);
}

PARE_REFUSE_CALLS(apply, "factor::apply", "after y: wanted nothing",
                  (PLAIN, (roles::Unless<roles::TakesAny, detail::IsNoLowRank, roles::other_call>),
                   "factors", "a LowRank"),
                  (INPUT, (roles::Reads<2>), "x", "[tokens, in]"),
                  (OUTPUT, (roles::WritesTogether<2>), "y", "[tokens, out]"))
PARE_REFUSE_CALLS(apply, "factor::apply", "after y: wanted nothing",
                  (INPUT, (roles::Unless<roles::Reads<2>, detail::IsLowRank, roles::other_call>),
                   "left", "[out, rank]"),
                  (INPUT, (roles::ReadsSame<2>), "right", "[rank, in]"),
                  (INPUT, (roles::Reads<2>), "x", "[tokens, in]"),
                  (OUTPUT, (roles::WritesTogether<2>), "y", "[tokens, out]"))

PARE_ABI_END
}  // namespace factor
}  // namespace pare

#include <pare/core/macros_on.hpp>
