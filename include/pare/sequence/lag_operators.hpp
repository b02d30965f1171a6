// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The lag operators of a linear state-space model, L_l = C A^l B: what a token leaves in the
/// output l tokens later. And the span of a set of operators, whose dimension says how many heads
/// of attention it takes to do the same (heads_of_ssm.hpp).
///
/// ```cpp
/// const auto lags = lag_operators(a, b, c, 128);        // [128, out * in], row l is L_l by rows
/// const auto span = operator_span(lags);                // span.dimension, span.singular_values
/// operator_span(values).dimension;                      // of the value maps of heads
/// ```
///
/// Source: arXiv 2512.15115, "How many heads make an SSM" (known to us by its abstract and a study
/// of it). Derived by us: the singular value decomposition. By Cayley and Hamilton the span has at
/// most as many dimensions as the minimal polynomial of A has degrees, and so as there are states.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/sequence/detail/lag_call.hpp>
#include <pare/sequence/detail/span_svd.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

namespace pare::sequence {

/// Options of `operator_span`.
struct SpanOptions {
  /// Singular values up to this share of the largest count as 0; in [0, 1). Left out: the larger
  /// extent times epsilon of the scalar, as NumPy's matrix_rank has it.
  std::optional<double> tolerance{};
};

PARE_ABI_BEGIN

/// What `operator_span` finds: operators ~ coordinates basis.
struct OperatorSpan {
  Index dimension = 0;
  Eigen::VectorXd singular_values;  ///< all that rounding does not hide, the largest first
  RowMatrix<double> coordinates;    ///< [operators, dimension]: column k has the length of value k
  RowMatrix<double> basis;          ///< [dimension, out * in], orthonormal rows
};

/// L_l = C A^l B for l in [0, n).
///
/// \param a [states, states], at least one; float or double
/// \param b [states, in], in at least 1
/// \param c [out, states], out at least 1
/// \param n the number of lags, at least 1
/// \returns [n, out * in] of a's scalar: row l holds L_l by rows
/// \throws std::invalid_argument if an extent does not fit, n is below 1, sizes overflow, or a lag
///         is not finite: A is unstable and its powers overflow, or something is NaN.
///
/// Cost: states in (states + out) multiply-adds a lag, which bind. Memory: the result, and two
/// matrices [states, in]. The same bits for any number of threads.
template <Backend B, In<2> A, In<2> I, In<2> C>
requires SameScalar<A, I, C> && ComputeScalar<scalar_of<A>>
RowMatrix<scalar_of<A>> lag_operators(const B& backend, const A& a, const I& b, const C& c,
                                      Index n) {
  return detail::run_lag_operators(
      backend, detail::LagCall<scalar_of<A>>{as_const(to_view(a)), as_const(to_view(b)),
                                             as_const(to_view(c)), n});
}

/// \overload
template <In<2> A, In<2> I, In<2> C>
requires SameScalar<A, I, C> && ComputeScalar<scalar_of<A>>
RowMatrix<scalar_of<A>> lag_operators(const A& a, const I& b, const C& c, Index n) {
  return lag_operators(simd, a, b, c, n);
}

/// The span of operators: a pivoted orthogonalization, which ends where nothing but rounding is
/// left, then a singular value decomposition of the coordinates in double.
///
/// \param operators [operators, out * in], at least one of each; float or double: lag operators, or
///                  the value maps of heads, one in a row
/// \throws std::invalid_argument if there are none, something is not finite, the largest singular
///         value overflows, or the tolerance is out of [0, 1).
///
/// Cost: 4 operators * width * dimension multiply-adds in double on one thread, and 10 operators
/// dimension^2. Memory: a copy in double. Accuracy: singular values to about epsilon of the
/// largest one.
template <In<2> M>
requires ComputeScalar<scalar_of<M>>
OperatorSpan operator_span(const M& operators, const SpanOptions& options = {}) {
  using T = scalar_of<M>;
  constexpr const char* f = "sequence::operator_span";
  const TensorView<const T, 2> m = as_const(to_view(operators));
  check_view(f, "operators", m);
  check(m.rows() >= 1 && m.cols() >= 1, f, "operators", m.extent, "at least one operator");
  const double tolerance =
      options.tolerance.value_or(static_cast<double>(std::max(m.rows(), m.cols())) *
                                 static_cast<double>(std::numeric_limits<T>::epsilon()));
  check(tolerance >= 0 && tolerance < 1, f, "tolerance", tolerance, "a share in [0, 1)");
  detail::SpanSvd svd = detail::span_svd(f, row_matrix<double>(m));
  check(svd.values.size() == 0 || is_finite(svd.values[0]), f, "operators",
        "a singular value that overflows", "operators whose norm is a number");
  OperatorSpan span;
  while (span.dimension < svd.values.size() && svd.values[span.dimension] > 0 &&
         svd.values[span.dimension] > tolerance * svd.values[0])
    ++span.dimension;
  span.coordinates = svd.coordinates.leftCols(span.dimension);
  span.basis = svd.basis.topRows(span.dimension);
  span.singular_values = std::move(svd.values);
  return span;
}

PARE_REFUSE_CALLS(operator_span, "sequence::operator_span",
                  "after operators: wanted SpanOptions, members spelt as declared",
                  (INPUT, (roles::ReadsCompute<2>), "operators", "[operators, out * in]"))
PARE_REFUSE_CALLS(lag_operators, "sequence::lag_operators", "after n: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "a", "[states, states]"),
                  (INPUT, (roles::ReadsSame<2>), "b", "[states, in]"),
                  (INPUT, (roles::ReadsSame<2>), "c", "[out, states]"),
                  (ANY, (roles::TakesAny), "n", "the number of lags"))

PARE_ABI_END
}  // namespace pare::sequence

#include <pare/core/macros_on.hpp>
