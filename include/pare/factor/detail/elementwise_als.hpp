// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Alternating least squares for the element-wise weighted problem.
///
/// For a fixed factor V [k x n], line i of the other is moved by the d that lowers
/// sum_j f_ij (w_ij - (x_i + d) V_j)^2: d solves V diag(f_i) V^T d = V diag(f_i) (w_i - x_i V)^T.
/// Conjugate gradients find it (elementwise_steps.hpp). They are fast where V diag(f_i) V^T is near
/// a multiple of the identity, and weights are mostly not far from a_i b_j. V is therefore first
/// made orthonormal in the sums b of the weights of each column, V diag(b) V^T = I: with weights of
/// rank one, one iteration is exact. Mean squares of a language model's gradients take 6 to 12.
///
/// What is solved for is a step from the line before, which is never worse; what no weight
/// determines stays. The gradient is in double, the iterations in the scalar of W.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/elementwise_orthonormal.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/factor/detail/elementwise_start.hpp>
#include <pare/factor/detail/elementwise_steps.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The least weight of a column as a share of the greatest, where V is made orthonormal.
inline constexpr double least_column = 1e-12;

/// The weights F [lines x n] over the sums of their columns, a line's greatest 1.
template <class T>
struct LineWeights {
  std::vector<double> roots;     ///< [n] of the columns' sums
  std::vector<double> greatest;  ///< [lines] by which each line was divided; 0 without weight
  RowMatrix<T> shares;           ///< [lines x n]
};

/// \param sums [n] of the columns of f
template <class T, class B, class F>
LineWeights<T> line_weights(const B& backend, const RowMatrix<F>& f, Eigen::VectorXd sums) {
  const double least = least_column * sums.maxCoeff();
  LineWeights<T> to{{}, std::vector<double>(static_cast<std::size_t>(f.rows())), {}};
  for (double& sum : sums) {
    sum = std::max(sum, least);
    to.roots.push_back(std::sqrt(sum));
  }
  to.shares.resize(f.rows(), f.cols());
  parallel_for(backend.executor, f.rows(), [&](Index i, int) {
    double& greatest = to.greatest[static_cast<std::size_t>(i)];
    const auto share = [&](Index j) { return static_cast<double>(f(i, j)) / sums(j); };
    for (Index j = 0; j < f.cols(); ++j) greatest = std::max(greatest, share(j));
    for (Index j = 0; j < f.cols(); ++j)
      to.shares(i, j) = static_cast<T>(greatest > 0 ? share(j) / greatest : 0);
  });
  return to;
}

/// The weights as each factor's lines see them.
template <class T>
struct AlsWeights {
  LineWeights<T> left, right;
};

template <class B, class T, class F>
AlsWeights<T> als_weights(const ElementwiseProblem<B, T, F>& p) {
  const ElementwiseMargins margins(const_view(p.f));
  const RowMatrix<F> turned = copy_rows(p.backend, transpose(const_view(p.f)), 1.0);
  return {line_weights<T>(p.backend, p.f, margins.columns),
          line_weights<T>(p.backend, turned, margins.rows)};
}

/// x <- F.*(W - x) for matrices in rows.
template <class B, class T, class F>
void weigh_residual(const B& backend, TensorView<const T, 2> w, TensorView<const F, 2> f,
                    TensorView<double, 2> x) {
  parallel_for(backend.executor, x.rows(), [&](Index i, int) {
    const T* a = &w(i, 0);
    const F* weight = &f(i, 0);
    double* line = &x(i, 0);
    for (Index j = 0; j < x.cols(); ++j)
      line[j] = static_cast<double>(weight[j]) * (static_cast<double>(a[j]) - line[j]);
  });
}

/// V diag(f_i) (w_i - x_i V)^T for all lines i of W, in rows [lines x k]. W and F may be transposes
/// of matrices in rows.
template <class B, class T, class F>
RowMatrix<double> descent(const B& backend, TensorView<const T, 2> w, TensorView<const F, 2> f,
                          TensorView<const double, 2> x, TensorView<const double, 2> v) {
  const bool turned = w.stride[1] != 1;
  RowMatrix<double> residual(turned ? w.cols() : w.rows(), turned ? w.rows() : w.cols());
  linalg::multiply(backend, transpose(turned ? v : x), turned ? x : v, to_view(residual));
  weigh_residual(backend, turned ? transpose(w) : w, turned ? transpose(f) : f, to_view(residual));
  RowMatrix<double> out(w.rows(), v.rows());
  linalg::multiply(backend, turned ? transpose(const_view(residual)) : const_view(residual),
                   transpose(v), to_view(out));
  return out;
}

/// Multiplies the columns of m by f(column).
template <class B, class F>
void scale_columns(const B& backend, RowMatrix<double>& m, const F& f) {
  parallel_for(backend.executor, m.rows(), [&](Index i, int) {
    for (Index j = 0; j < m.cols(); ++j) m(i, j) *= f(static_cast<std::size_t>(j));
  });
}

/// Makes V diag(b) V^T = I for the b whose roots are given, and leaves other^T V as it is.
/// \return V diag(roots), whose rows are orthonormal
template <class T, class B>
RowMatrix<T> balance_in(const B& backend, const std::vector<double>& roots, RowMatrix<double>& v,
                        RowMatrix<double>& other) {
  scale_columns(backend, v, [&](std::size_t j) { return roots[j]; });
  balance(backend, v, other);
  RowMatrix<T> scaled = row_matrix<T>(const_view(v));
  scale_columns(backend, v, [&](std::size_t j) { return 1 / roots[j]; });
  return scaled;
}

/// Right sides in T, each line's greatest 1, and what that leaves for the steps.
template <class T>
struct ScaledLines {
  RowMatrix<T> right;
  std::vector<double> scale;  ///< of the step
  std::vector<double> worth;  ///< of the gain
};

template <class T, class B>
ScaledLines<T> scaled_lines(const B& backend, const RowMatrix<double>& right,
                            const double* greatest) {
  const auto lines = static_cast<std::size_t>(right.rows());
  ScaledLines<T> to{RowMatrix<T>(right.rows(), right.cols()), std::vector<double>(lines),
                    std::vector<double>(lines)};
  parallel_for(backend.executor, right.rows(), [&](Index i, int) {
    double most = 0;
    for (Index p = 0; p < right.cols(); ++p) most = std::max(most, std::abs(right(i, p)));
    const bool moves = most > 0 && greatest[i] > 0;
    for (Index p = 0; p < right.cols(); ++p)
      to.right(i, p) = static_cast<T>(moves ? right(i, p) / most : 0);
    to.scale[static_cast<std::size_t>(i)] = moves ? most / greatest[i] : 0;
    to.worth[static_cast<std::size_t>(i)] = moves ? most * (most / greatest[i]) : 0;
  });
  return to;
}

/// x += scale of its line times the step, which lies by lines.
template <class B, class T>
void add_steps(const B& backend, const RowMatrix<T>& steps, const std::vector<double>& scale,
               TensorView<double, 2> x) {
  constexpr Index block = 64;
  parallel_for(backend.executor, (x.cols() + block - 1) / block, [&](Index item, int) {
    const Index begin = item * block, end = std::min(begin + block, x.cols());
    for (Index p = 0; p < x.rows(); ++p)
      for (Index i = begin; i < end; ++i)
        x(p, i) += scale[static_cast<std::size_t>(i)] * static_cast<double>(steps(i, p));
  });
}

/// Fits x [k x lines] to W [lines x n] for the other factor V [k x n], both of which are first
/// turned so that V is orthonormal in the weights.
///
/// Cost: lines n k FLOPs 4 times in double and 4 times in T for each iteration, which bind. Memory:
/// for `most` lines, which are taken at a time, n doubles and T and k of four T.
template <class B, class T, class F>
void fit_lines(const B& backend, TensorView<const T, 2> w, TensorView<const F, 2> f,
               const LineWeights<T>& weights, RowMatrix<double>& x, RowMatrix<double>& v,
               Index most) {
  const RowMatrix<T> scaled = balance_in<T>(backend, weights.roots, v, x);
  for (Index begin = 0; begin < w.rows(); begin += most) {
    const Index count = std::min(most, w.rows() - begin);
    const auto lines = columns_of(to_view(x), begin, count);
    const RowMatrix<double> right =
        descent(backend, rows_of(w, begin, count), rows_of(f, begin, count), as_const(lines),
                const_view(v));
    ScaledLines<T> system = scaled_lines<T>(backend, right, weights.greatest.data() + begin);
    LineSteps<B, T> steps(backend, const_view(scaled),
                          rows_of(const_view(weights.shares), begin, count),
                          std::move(system.right), system.worth);
    add_steps(backend, steps.solve(), system.scale, lines);
  }
}

/// Rows of the left factor, then columns of the right.
template <class B, class T, class F>
void als_sweep(ElementwiseProblem<B, T, F>& p, const AlsWeights<T>& weights,
               ElementwiseFactors& factors) {
  fit_lines(p.backend, const_view(p.w), const_view(p.f), weights.left, factors.left, factors.right,
            block_lines(factors.right.cols()));
  fit_lines(p.backend, transpose(const_view(p.w)), transpose(const_view(p.f)), weights.right,
            factors.right, factors.left, block_lines(factors.left.cols()));
}

PARE_ABI_END
}  // namespace pare::factor::detail
