// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The element-wise weighted problem as its solvers see it: matrices in rows, weights up to about
/// 1, factors in double, and the loss.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// W ~ left^T right. Both lie with k rows, so that one code fits either of them.
struct ElementwiseFactors {
  RowMatrix<double> left;   ///< [k x out]
  RowMatrix<double> right;  ///< [k x in]
};

template <class B, ComputeScalar T, ComputeScalar F>
struct ElementwiseProblem {
  const B& backend;
  RowMatrix<T> w;    ///< [out x in]
  RowMatrix<F> f;    ///< [out x in], the greatest near 1
  double scale = 1;  ///< the power of two by which f was divided
};

/// A copy in rows, each element times a factor.
template <class B, StorageScalar S>
RowMatrix<compute_t<S>> copy_rows(const B& backend, TensorView<const S, 2> from, double factor) {
  constexpr Index block = 64;
  RowMatrix<compute_t<S>> to(from.rows(), from.cols());
  // Squares of 64: each line of either layout is in cache until its last element is taken.
  parallel_for(backend.executor, (to.rows() + block - 1) / block, [&](Index item, int) {
    const Index end = std::min((item + 1) * block, to.rows());
    for (Index column = 0; column < to.cols(); column += block)
      for (Index i = item * block; i < end; ++i)
        for (Index j = column; j < std::min(column + block, to.cols()); ++j)
          to(i, j) = static_cast<compute_t<S>>(
              static_cast<double>(static_cast<compute_t<S>>(from(i, j))) * factor);
  });
  return to;
}

/// The power of two that brings the greatest weight into [0.5, 1) when it is divided by it, as far
/// as it and its reciprocal are numbers.
template <StorageScalar S>
double weight_scale(TensorView<const S, 2> f) {
  double most = 0;
  for (Index i = 0; i < f.rows(); ++i)
    for (Index j = 0; j < f.cols(); ++j)
      most = std::max(most, static_cast<double>(static_cast<compute_t<S>>(f(i, j))));
  int exponent = 0;
  std::frexp(most, &exponent);
  return std::ldexp(1.0, std::clamp(exponent, -1022, 1023));
}

/// The sum of term(j) for all j below size, in eight sums so that the additions overlap.
template <class Term>
double lane_sum(Index size, const Term& term) {
  constexpr Index lanes = 8;
  double sums[lanes] = {};
  Index j = 0;
  for (; j + lanes <= size; j += lanes)
    for (Index i = 0; i < lanes; ++i) sums[i] += term(j + i);
  for (; j < size; ++j) sums[0] += term(j);
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

/// sum_j f_j (w_j - x_j)^2.
template <class T, class F>
double line_loss(const T* w, const F* f, const double* x, Index size) {
  return lane_sum(size, [&](Index j) {
    const double residual = static_cast<double>(w[j]) - x[j];
    return static_cast<double>(f[j]) * residual * residual;
  });
}

/// Lines of `size` doubles that are taken at a time: 32 MiB of them, or as many as keep workers
/// busy.
inline Index block_lines(Index size) {
  constexpr Index elements = Index(1) << 22, least = 96;
  return std::max(elements / std::max<Index>(size, 1), least);
}

/// Refuses a W whose squares, weighted by F of about 1, overflow or vanish: losses would tell
/// nothing.
template <StorageScalar S, StorageScalar F>
void check_weighted_squares(const char* function, TensorView<const S, 2> w,
                            TensorView<const F, 2> f, double squares) {
  check(is_finite(squares), function, "w", squares, "a weighted sum of squares that is finite");
  if (squares >= least_energy) return;
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j)
      check(static_cast<compute_t<S>>(w(i, j)) == 0 || static_cast<compute_t<F>>(f(i, j)) == 0,
            function, "w", squares, "a weighted sum of squares of 0 or at least 1e-292");
}

/// Refuses factors whose loss no number holds.
inline void check_loss(const char* function, double loss) {
  check(is_finite(loss), function, "left", loss, "factors whose loss is finite");
}

/// sum_ij f_ij (W - left^T right)_ij^2, without the scale. The order of the sum is fixed.
template <class B, class T, class F>
double scaled_loss(ElementwiseProblem<B, T, F>& p, const ElementwiseFactors& factors) {
  const Index out = p.w.rows(), in = p.w.cols(), most = std::min(block_lines(in), out);
  std::vector<double> lines(static_cast<std::size_t>(out));
  RowMatrix<double> x(most, in);
  for (Index begin = 0; begin < out; begin += most) {
    const Index count = std::min(most, out - begin);
    linalg::multiply(p.backend, transpose(columns_of(const_view(factors.left), begin, count)),
                     const_view(factors.right), rows_of(to_view(x), 0, count));
    parallel_for(p.backend.executor, count, [&](Index i, int) {
      lines[static_cast<std::size_t>(begin + i)] =
          line_loss(&p.w(begin + i, 0), &p.f(begin + i, 0), &x(i, 0), in);
    });
  }
  double total = 0;
  for (double line : lines) total += line;
  return total;
}

PARE_ABI_END
}  // namespace pare::factor::detail
