// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Lag operators: the definition, and as products of matrices.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/sequence/detail/dense_runner.hpp>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

template <class T>
struct LagCall {
  static constexpr const char* function = "sequence::lag_operators";

  TensorView<const T, 2> a{};  ///< [states, states]
  TensorView<const T, 2> b{};  ///< [states, in]
  TensorView<const T, 2> c{};  ///< [out, states]
  Index n = 0;
};

template <class T>
TensorView<T, 2> lag_of(RowMatrix<T>& lags, Index l, Index outputs, Index inputs) {
  return {lags.data() + l * lags.cols(), {outputs, inputs}, {inputs, 1}};
}

/// After each product: what overflowed stays infinite or becomes NaN, and the first lag tells.
template <class T>
void check_lag(Index l, TensorView<const T, 2> m) {
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      check(is_finite(static_cast<double>(m(i, j))), LagCall<T>::function, "a",
            Worded{"a lag operator ", l, " that is not finite"},
            "a model whose lag operators are numbers; one that grows has few");
}

/// The definition: A^l B by plain loops, kept in double. The reference's lags are rounded once.
template <class T>
void reference_lags(const LagCall<T>& s, RowMatrix<T>& lags) {
  const Index states = s.a.rows(), in = s.b.cols(), out = s.c.rows();
  RowMatrix<double> now = row_matrix<double>(s.b), next(states, in);
  for (Index l = 0; l < s.n; ++l) {
    const TensorView<T, 2> lag = lag_of(lags, l, out, in);
    for (Index i = 0; i < out; ++i)
      for (Index j = 0; j < in; ++j) {
        double sum = 0;
        for (Index k = 0; k < states; ++k) sum += static_cast<double>(s.c(i, k)) * now(k, j);
        lag(i, j) = static_cast<T>(sum);
      }
    check_lag(l, as_const(lag));
    if (l + 1 == s.n) break;
    for (Index i = 0; i < states; ++i)
      for (Index j = 0; j < in; ++j) {
        next(i, j) = 0;
        for (Index k = 0; k < states; ++k) next(i, j) += static_cast<double>(s.a(i, k)) * now(k, j);
      }
    now.swap(next);
  }
}

template <class B, class T>
void product_lags(const B& backend, const LagCall<T>& s, RowMatrix<T>& lags) {
  Workspace own;
  const auto kept = keeping(backend, own);
  RowMatrix<T> now = row_matrix<T>(s.b), next(s.a.rows(), s.b.cols());
  for (Index l = 0; l < s.n; ++l) {
    const TensorView<T, 2> lag = lag_of(lags, l, s.c.rows(), s.b.cols());
    linalg::multiply(kept, s.c, const_view(now), lag);
    check_lag(l, as_const(lag));
    if (l + 1 == s.n) break;
    linalg::multiply(kept, s.a, const_view(now), to_view(next));
    now.swap(next);
  }
}

template <class B, class T>
RowMatrix<T> run_lag_operators(const B& backend, const LagCall<T>& s) {
  constexpr const char* f = LagCall<T>::function;
  check_model(f, s.a, s.b, s.c);
  check(s.n >= 1, f, "n", s.n, "at least 1 lag");
  const Index width = checked_product(f, "c", s.c.rows(), s.b.cols());
  checked_count(f, "n", checked_product(f, "n", s.n, width), sizeof(T));
  RowMatrix<T> lags(s.n, width);
  if constexpr (!KernelBackend<B>)
    reference_lags(s, lags);
  else
    product_lags(on_any_executor(backend), s, lags);
  return lags;
}

PARE_ABI_END
}  // namespace pare::sequence::detail
