// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Truncated decomposition of a sparse matrix or of an operator: Route::Randomized on its products.

#include <pare/core/sparse_view.hpp>
#include <pare/factor/detail/factorize.hpp>
#include <pare/factor/linear_operator.hpp>
#include <pare/projection/detail/project_sparse.hpp>
#include <pare/projection/spmm.hpp>

#include <cmath>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// A sparse matrix and its transpose, both by rows.
template <class B, class T, class I>
class SparseOperator {
 public:
  using scalar = T;

  SparseOperator(const B& backend, const CompressedView<T, I>& lines)
      : backend_(backend), lines_(lines), transposed_(lines) {}

  Index rows() const { return lines_.outer_size; }
  Index cols() const { return lines_.inner_size; }
  void multiply(TensorView<const T, 2> x, TensorView<T, 2> y) const { product(lines_, x, y); }
  void multiply_transposed(TensorView<const T, 2> x, TensorView<T, 2> y) const {
    product(transposed_.view(), x, y);
  }

  /// Entries with equal indices add up before they are squared.
  double squared_norm() const {
    std::vector<double> row(static_cast<std::size_t>(cols()));
    double total = 0;
    for (Index u = 0; u < rows(); ++u) {
      for (Index e = lines_.begin(u); e < lines_.end(u); ++e)
        row[static_cast<std::size_t>(lines_.inner[e])] += static_cast<double>(lines_.values[e]);
      for (Index e = lines_.begin(u); e < lines_.end(u); ++e) {
        double& sum = row[static_cast<std::size_t>(lines_.inner[e])];
        total += sum * sum;
        sum = 0;
      }
    }
    return total;
  }

 private:
  void product(const CompressedView<T, I>& a, TensorView<const T, 2> x, TensorView<T, 2> y) const {
    constexpr Index step = projection::detail::rows_per_spmm_item;
    parallel_for(backend_.executor, (a.outer_size + step - 1) / step, [&](Index item, int) {
      const Index first = item * step, last = std::min(a.outer_size, first + step);
      launch(backend_,
             projection::detail::spmm_rows(a, static_cast<const T*>(nullptr), x,
                                           y.data + first * y.stride[0], y.stride[0], first, last));
    });
  }

  const B& backend_;
  CompressedView<T, I> lines_;
  projection::detail::TransposedStorage<T, I> transposed_;
};

/// An operator, or its transpose, with the products that NormalOperator asks for.
template <class B, LinearOperator W>
class OperatorMatrix {
 public:
  using scalar = typename W::scalar;

  OperatorMatrix(const B& backend, const W& w, bool transposed)
      : backend_(backend), w_(w), transposed_(transposed) {}

  Index rows() const { return transposed_ ? w_.cols() : w_.rows(); }
  Index cols() const { return transposed_ ? w_.rows() : w_.cols(); }

  void multiply(const RowMatrix<scalar>& x, RowMatrix<scalar>& y) const {
    product(x, y, transposed_);
  }
  void multiply_transposed(const RowMatrix<scalar>& x, RowMatrix<scalar>& y) const {
    product(x, y, !transposed_);
  }

  /// A Gaussian sample, whose mean squared column is ||W||_F^2.
  void sketch(const SvdOptions& options, RowMatrix<scalar>& y) {
    RowMatrix<scalar> omega(cols(), y.cols());
    fill_normal(backend_.executor, options.seed, 0, omega);
    multiply(omega, y);
    sampled_energy_ = y.template cast<double>().squaredNorm() / static_cast<double>(y.cols());
  }

  double energy() const {
    if constexpr (requires { w_.squared_norm(); })
      return static_cast<double>(w_.squared_norm());
    else
      return sampled_energy_;
  }

 private:
  void product(const RowMatrix<scalar>& x, RowMatrix<scalar>& y, bool transposed) const {
    y.resize(transposed ? w_.cols() : w_.rows(), x.cols());
    if (transposed)
      w_.multiply_transposed(read(x), to_view(y));
    else
      w_.multiply(read(x), to_view(y));
  }

  const B& backend_;
  const W& w_;
  bool transposed_;
  double sampled_energy_ = 0;
};

/// min ||W - A B||_F for an operator.
template <class B, LinearOperator W>
LowRank<typename W::scalar> operator_svd(const char* function, const B& backend, const W& w,
                                         const SvdOptions& options) {
  using T = typename W::scalar;
  const Index out = w.rows(), in = w.cols();
  validate(function, options, out, in);
  check(options.route == Route::Auto || options.route == Route::Randomized, function, "route",
        "Gram or Exact", "Auto or Randomized for what is known by its products");
  const bool outputs = out <= in;
  OperatorMatrix<B, W> m(backend, w, !outputs);
  kernel::ProductWorkspace workspace;
  NormalOperator<B, OperatorMatrix<B, W>> normal(backend, m, workspace);
  // The first sample tells the energy where the operator does not.
  RowMatrix<T> sample(m.rows(), std::min<Index>(32, m.rows()));
  m.sketch(options, sample);
  FoundSubspace<T> found{{}, Route::Randomized, m.energy()};
  check(is_finite(found.total_energy), function, "w", found.total_energy, "finite elements");
  if (!(found.total_energy > 0)) return zero_result<T>(out, in, options);
  SvdOptions randomized = options;
  randomized.route = Route::Randomized;
  found.space =
      solve_for_rank(options, rank_limit(options, out, in), found.total_energy, [&](Index rank) {
        const SubspacePlan plan = plan_subspace(randomized, rank, m.rows(), m.cols());
        return leading_subspace<T>(backend, normal, rank, plan.width, plan.steps, options,
                                   workspace);
      });
  LowRank<T> result;
  RowMatrix<T> image;
  m.multiply_transposed(found.space.basis, image);
  if (outputs) {
    result.left = found.space.basis;
    result.right = image.transpose();
  } else {
    result.left = image;
    result.right = found.space.basis.transpose();
  }
  describe(found, 1.0, 0, result);
  move_singular_values(result, outputs ? Split::Right : Split::Left,
                       options.split == Split::Natural ? Split::Left : options.split);
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
