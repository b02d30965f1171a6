// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear state-space model as heads of causal attention whose weights depend on the distance
/// alone, and the heads applied:
///
///     y_i = sum_h V_h sum_{j<=i} w_h[i - j] x_j
///
/// ```cpp
/// const auto lags = lag_operators(a, b, c, 512);           // L_l = C A^l B
/// auto heads = heads_of_lags(lags, out);                   // as many as the lags span dimensions
/// auto fewer = heads_of_lags(lags, out, {.heads = 4});     // the best 4; fewer.residual is lost
/// apply_heads(pare::simd.threads(4), heads, x, y);         // [batch, tokens, in] -> [.., out]
/// ```
///
/// If the lag operators of a model span k dimensions on sequences of length n, then k heads are
/// enough, and fewer are not: H value maps span at most H dimensions. Heads here are made from the
/// singular value decomposition of the matrix of lags, rows vec(L_l) = U S W^T: V_h is row h of W^T
/// as a matrix, w_h column h of U S. With one head less than k the error of the best heads is the
/// k-th singular value, in the norm of that matrix; and whatever set of heads is given,
/// operator_span of their value maps says what they can do.
///
/// Source: arXiv 2512.15115 (its claim, by the abstract). Derived by us: the recipe by singular
/// values, which is optimal by Eckart and Young.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/sequence/detail/apply_heads.hpp>
#include <pare/sequence/lag_operators.hpp>
#include <pare/sequence/toeplitz_heads.hpp>

#include <cmath>
#include <optional>
#include <type_traits>

namespace pare::sequence {

namespace detail {
template <class X>
inline constexpr bool is_toeplitz_heads = false;
template <class T>
inline constexpr bool is_toeplitz_heads<ToeplitzHeads<T>> = true;
template <class X>
using IsToeplitzHeads = std::bool_constant<is_toeplitz_heads<std::remove_cvref_t<X>>>;
}  // namespace detail

/// Options of `heads_of_lags`.
struct HeadsOptions {
  /// Heads, from 1 to the dimensions of the span; left out: as many as these.
  std::optional<Index> heads{};

  /// As in SpanOptions.
  std::optional<double> tolerance{};
};

PARE_ABI_BEGIN

/// The heads that come closest to lag operators in the Frobenius norm of all of them.
///
/// \param lags    [n, outputs * in], as lag_operators returns them
/// \param outputs rows of a lag operator, at least 1; divides the columns
/// \throws std::invalid_argument as operator_span, if outputs do not divide the columns, the lags
///         are all 0, a weight overflows, or there are more heads than dimensions.
///
/// Cost and memory as operator_span.
template <In<2> M>
requires ComputeScalar<scalar_of<M>>
ToeplitzHeads<scalar_of<M>> heads_of_lags(const M& lags, Index outputs,
                                          const HeadsOptions& options = {}) {
  using T = scalar_of<M>;
  constexpr const char* f = "sequence::heads_of_lags";
  const TensorView<const T, 2> m = as_const(to_view(lags));
  check_view(f, "lags", m);
  check(outputs >= 1 && m.cols() % outputs == 0, f, "outputs", outputs,
        Worded{"a divisor of the ", m.cols(), " elements of a lag operator"});
  const OperatorSpan span = operator_span(m, {.tolerance = options.tolerance});
  check(span.dimension >= 1, f, "lags", "zeros", "an operator that is not 0");
  const Index count = options.heads.value_or(span.dimension);
  check(count >= 1 && count <= span.dimension, f, "heads", count,
        Worded{"from 1 to the ", span.dimension, " dimensions that the lags span"});
  ToeplitzHeads<T> heads;
  heads.weights = RowMatrix<T>(m.rows(), count);
  heads.values = RowMatrix<T>(count, m.cols());
  heads.outputs = outputs;
  heads.inputs = m.cols() / outputs;
  for (Index h = 0; h < count; ++h) {
    for (Index l = 0; l < m.rows(); ++l) {
      heads.weights(l, h) = static_cast<T>(span.coordinates(l, h));
      check(is_finite(static_cast<double>(heads.weights(l, h))), f, "lags", span.coordinates(l, h),
            "lags whose heads have weights that are numbers of their scalar");
    }
    for (Index j = 0; j < m.cols(); ++j) heads.values(h, j) = static_cast<T>(span.basis(h, j));
  }
  for (Index k = count; k < span.singular_values.size(); ++k)
    heads.residual = std::hypot(heads.residual, span.singular_values[k]);
  return heads;
}

/// y_i = sum_h V_h sum_{j<=i} w_h[i - j] x_j for every sequence.
///
/// \param backend left out: pare::simd
/// \param heads   checked as a whole: extents that fit, at least one head, output and input
/// \param x       [batch, tokens, in], of the heads' scalar, a stride of 1 along in; at most
///                as many tokens as the heads have weights
/// \param y       [batch, tokens, out], likewise; apart from x
/// \throws std::invalid_argument if something does not fit or y overlaps. Nothing is written then.
///         No sequence or token: a no-op.
///
/// Cost: heads * out * (in + tokens / 2) multiply-adds a token, which bind. Memory: tokens * heads
/// * out scalars, in the backend's workspace. NaN and infinity of a token reach the tokens behind
/// it, and those before it in a block of 256. The same bits for any number of threads.
template <Backend B, ComputeScalar T, In<3> X, Out<3> Y>
requires std::is_same_v<scalar_of<X>, T> && std::is_same_v<scalar_of<Y>, T>
void apply_heads(const B& backend, const ToeplitzHeads<T>& heads, const X& x, Y&& y) {
  detail::run_apply_heads(backend, heads, as_const(to_view(x)), to_view(y));
}

/// \overload
template <ComputeScalar T, In<3> X, Out<3> Y>
requires std::is_same_v<scalar_of<X>, T> && std::is_same_v<scalar_of<Y>, T>
void apply_heads(const ToeplitzHeads<T>& heads, const X& x, Y&& y) {
  apply_heads(simd, heads, x, y);
}

PARE_REFUSE_CALLS(heads_of_lags, "sequence::heads_of_lags",
                  "after lags: wanted the outputs (rows of a lag operator) and HeadsOptions",
                  (INPUT, (roles::ReadsCompute<2>), "lags", "[lags, outputs * in]"))
PARE_REFUSE_CALLS(apply_heads, "sequence::apply_heads",
                  "wanted x and y of the scalar of the heads, and nothing after y",
                  (PLAIN, (roles::Takes<detail::IsToeplitzHeads>), "heads", "ToeplitzHeads"),
                  (INPUT, (roles::Reads<3>), "x", "[batch, tokens, in]"),
                  (OUTPUT, (roles::WritesSame<3>), "y", "[batch, tokens, out] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::sequence

#include <pare/core/macros_on.hpp>
