// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Expectation and maximisation for the element-wise weighted problem.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/elementwise_orthonormal.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/linalg/multiply.hpp>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Subspace iterations a step. From the factors before, each lowers ||M - left^T right||, so that a
/// step lowers the loss however few there are.
inline constexpr int em_iterations = 2;

/// M = X + P.*(W - X) with X = left^T right and P = F / max F.
template <class B, class T, class F>
void fill_expected(ElementwiseProblem<B, T, F>& p, double greatest,
                   const ElementwiseFactors& factors, RowMatrix<double>& m) {
  m.resize(p.w.rows(), p.w.cols());
  linalg::multiply(p.backend, transpose(const_view(factors.left)), const_view(factors.right),
                   to_view(m));
  parallel_for(p.backend.executor, m.rows(), [&](Index i, int) {
    const T* w = &p.w(i, 0);
    const F* f = &p.f(i, 0);
    double* x = &m(i, 0);
    for (Index j = 0; j < m.cols(); ++j)
      x[j] += static_cast<double>(f[j]) / greatest * (static_cast<double>(w[j]) - x[j]);
  });
}

/// left^T right <- nearly the best rank-k approximation of M, by subspace iteration from the
/// factors before. Cost: (4 em_iterations + 2) out in k FLOPs in double.
template <class B, class T, class F>
void em_sweep(ElementwiseProblem<B, T, F>& p, double greatest, ElementwiseFactors& factors,
              RowMatrix<double>& m) {
  fill_expected(p, greatest, factors, m);
  for (int iteration = 0; iteration < em_iterations; ++iteration) {
    orthonormal_rows(p.backend, factors.right);
    linalg::multiply(p.backend, const_view(factors.right), transpose(const_view(m)),
                     to_view(factors.left));
    orthonormal_rows(p.backend, factors.left);
    linalg::multiply(p.backend, const_view(factors.left), const_view(m), to_view(factors.right));
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
