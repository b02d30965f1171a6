// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Alternating least squares for the element-wise weighted problem.
///
/// For a fixed factor V [k x n] with orthonormal rows, line i of the other is moved by the d that
/// solves (V diag(f_i) V^T + e I) d = V diag(f_i) (w_i - x_i V)^T. The ridge e is on the step, not
/// on the line: the loss changes by -d^T (G + 2 e I) d, which is never above 0, and what no weight
/// determines stays. A ridge on the line would pull it to 0, and weights of 1e-12 beside 1 could
/// not hold it.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/elementwise_orthonormal.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The ridge on the step as a share of the mean of the diagonal.
inline constexpr double step_ridge = 1e-9;

/// Elements of a lower triangle.
inline Index triangle(Index k) { return k * (k + 1) / 2; }

/// Rows [begin, begin + products.rows()) of the matrix of all v_p v_q, q <= p, of a run of columns
/// of V: row p (p + 1) / 2 + q of it.
template <class B>
void pair_products(const B& backend, TensorView<const double, 2> v, Index begin,
                   TensorView<double, 2> products) {
  std::vector<Index> upper(static_cast<std::size_t>(products.rows()));
  Index p = 0;
  for (Index c = 0; c < products.rows(); ++c) {
    while (triangle(p + 1) <= begin + c) ++p;
    upper[static_cast<std::size_t>(c)] = p;
  }
  parallel_for(backend.executor, products.rows(), [&](Index c, int) {
    const Index first = upper[static_cast<std::size_t>(c)];
    const double *x = &v(first, 0), *y = &v(begin + c - triangle(first), 0);
    double* out = &products(c, 0);
    for (Index j = 0; j < v.cols(); ++j) out[j] = x[j] * y[j];
  });
}

/// The lower triangles of V diag(f_i) V^T for all lines i, a triangle a row: one product of F with
/// all products of two rows of V, in blocks that stay in cache.
template <class B, class F>
void weighted_grams(const B& backend, TensorView<const F, 2> f, TensorView<const double, 2> v,
                    TensorView<double, 2> grams) {
  constexpr Index depth = 256, width = 2048;
  RowMatrix<double> products(std::min(width, grams.cols()), std::min(depth, f.cols()));
  for (Index column = 0; column < grams.cols(); column += width)
    for (Index begin = 0; begin < f.cols(); begin += depth) {
      const Index count = std::min(depth, f.cols() - begin);
      const Index pairs = std::min(width, grams.cols() - column);
      const auto block = columns_of(rows_of(to_view(products), 0, pairs), 0, count);
      pair_products(backend, columns_of(v, begin, count), column, block);
      linalg::multiply(backend, columns_of(f, begin, count), transpose(as_const(block)),
                       columns_of(grams, column, pairs), {.accumulate = begin > 0});
    }
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

/// V diag(f_i) (w_i - x_i V)^T for all lines i of W, as columns [k x lines]. W and F may be
/// transposes of matrices in rows.
template <class B, class T, class F>
RowMatrix<double> descent(const B& backend, TensorView<const T, 2> w, TensorView<const F, 2> f,
                          TensorView<const double, 2> x, TensorView<const double, 2> v) {
  const bool turned = w.stride[1] != 1;
  RowMatrix<double> residual(turned ? w.cols() : w.rows(), turned ? w.rows() : w.cols());
  linalg::multiply(backend, transpose(turned ? v : x), turned ? x : v, to_view(residual));
  weigh_residual(backend, turned ? transpose(w) : w, turned ? transpose(f) : f, to_view(residual));
  RowMatrix<double> out(v.rows(), w.rows());
  linalg::multiply(backend, v, turned ? const_view(residual) : transpose(const_view(residual)),
                   to_view(out));
  return out;
}

/// What a worker solves for a line, [k x k] and [k].
struct LineSystem {
  Eigen::MatrixXd matrix;
  Eigen::LLT<Eigen::MatrixXd> cholesky;
  Eigen::VectorXd step;

  explicit LineSystem(Index k) : matrix(Eigen::MatrixXd::Zero(k, k)), cholesky(k), step(k) {}
};

/// Moves line x, a column of k, by the step for its triangle and descent.
template <class = void>
void take_step(const double* gram, TensorView<const double, 2> descent, TensorView<double, 2> x,
               LineSystem& line) {
  Eigen::MatrixXd& system = line.matrix;
  Eigen::VectorXd& step = line.step;
  const Index k = system.rows();
  for (Index p = 0; p < k; ++p) {
    for (Index q = 0; q <= p; ++q) system(p, q) = gram[triangle(p) + q];
    step[p] = descent(p, 0);
  }
  const double trace = system.diagonal().sum();
  if (!(trace > 0)) return;
  system.diagonal().array() += step_ridge * trace / static_cast<double>(k);
  if (line.cholesky.compute(std::as_const(system)).info() != Eigen::Success) return;
  line.cholesky.solveInPlace(step);
  for (Index p = 0; p < k; ++p) x(p, 0) += step[p];
}

/// Fits x [k x lines] to W [lines x n] for a fixed V [k x n] with orthonormal rows.
///
/// Cost: lines n (k^2 + 5 k) FLOPs in double, which bind, and lines k^3 / 3 by Eigen, a line a
/// worker. Memory: at least 96 lines of k^2 / 2 and of n doubles, and 64 MiB where there are more.
template <class B, class T, class F>
void fit_lines(const B& backend, TensorView<const T, 2> w, TensorView<const F, 2> f,
               TensorView<double, 2> x, TensorView<const double, 2> v) {
  const Index k = v.rows(), pairs = triangle(k);
  const Index most = std::min(block_lines(std::max(pairs, v.cols())), w.rows());
  RowMatrix<double> grams(most, pairs);
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, most));
  std::vector<LineSystem> systems(workers, LineSystem(k));
  for (Index begin = 0; begin < w.rows(); begin += most) {
    const Index count = std::min(most, w.rows() - begin);
    const auto f_lines = rows_of(f, begin, count);
    const auto x_lines = columns_of(x, begin, count);
    weighted_grams(backend, f_lines, v, rows_of(to_view(grams), 0, count));
    const RowMatrix<double> right_sides =
        descent(backend, rows_of(w, begin, count), f_lines, as_const(x_lines), v);
    parallel_for(backend.executor, count, [&](Index i, int worker) {
      const auto at = static_cast<std::size_t>(worker);
      take_step(&grams(i, 0), columns_of(const_view(right_sides), i, 1), columns_of(x_lines, i, 1),
                systems[at]);
    });
  }
}

/// Rows of the left factor, then columns of the right.
template <class B, class T, class F>
void als_sweep(ElementwiseProblem<B, T, F>& p, ElementwiseFactors& factors) {
  balance(p.backend, factors.right, factors.left);
  fit_lines(p.backend, const_view(p.w), const_view(p.f), to_view(factors.left),
            const_view(factors.right));
  balance(p.backend, factors.left, factors.right);
  fit_lines(p.backend, transpose(const_view(p.w)), transpose(const_view(p.f)),
            to_view(factors.right), const_view(factors.left));
}

PARE_ABI_END
}  // namespace pare::factor::detail
