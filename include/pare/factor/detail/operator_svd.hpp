// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Truncated decomposition of a sparse matrix or of an operator: Route::Randomized on its products.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/factorize.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/linear_operator.hpp>
#include <pare/linalg/sparse_transpose.hpp>
#include <pare/linalg/spmm.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
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
    constexpr Index step = linalg::rows_per_spmm_item;
    parallel_for(backend_.executor, (a.outer_size + step - 1) / step, [&](Index item, int) {
      const Index first = item * step, last = std::min(a.outer_size, first + step);
      launch(backend_, linalg::spmm_rows(a, static_cast<const T*>(nullptr), x,
                                         y.data + first * y.stride[0], y.stride[0], first, last));
    });
  }

  const B& backend_;
  CompressedView<T, I> lines_;
  linalg::SparseTranspose<T, I> transposed_;
};

/// The values of a sparse matrix times the power of two that keeps squares of products in range.
template <class T, class I>
class ScaledValues {
 public:
  ScaledValues(const CompressedView<T, I>& lines, double factor) : lines_(lines) {
    if (factor == 1.0) return;
    const Index size = lines.outer_size == 0 ? 0 : lines.end(lines.outer_size - 1);
    values_.resize(static_cast<std::size_t>(size));
    for (Index u = 0; u < lines.outer_size; ++u)
      for (Index e = lines.begin(u); e < lines.end(u); ++e)
        values_[static_cast<std::size_t>(e)] = static_cast<T>(factor * double{lines.values[e]});
    lines_.values = values_.data();
  }
  ScaledValues(const ScaledValues&) = delete;
  ScaledValues& operator=(const ScaledValues&) = delete;
  const CompressedView<T, I>& view() const { return lines_; }

 private:
  std::vector<T> values_;
  CompressedView<T, I> lines_;
};

/// An operator, or its transpose, with the products that NormalOperator asks for, times `factor`.
/// Refuses products that are not finite.
template <class B, LinearOperator W>
class OperatorMatrix final : public Multiplier<typename W::scalar> {
 public:
  using scalar = typename W::scalar;

  OperatorMatrix(const char* function, const B& backend, const W& w, bool transposed)
      : function_(function), backend_(backend), w_(w), transposed_(transposed) {}

  /// By which all products from now on are multiplied.
  void scale_by(double factor) { factor_ = factor; }

  Index rows() const override { return transposed_ ? w_.cols() : w_.rows(); }
  Index cols() const override { return transposed_ ? w_.rows() : w_.cols(); }

  void multiply(const RowMatrix<scalar>& x, RowMatrix<scalar>& y) const override {
    product(x, y, transposed_);
  }
  void multiply_transposed(const RowMatrix<scalar>& x, RowMatrix<scalar>& y) const override {
    product(x, y, !transposed_);
  }

  /// A Gaussian sample, whose mean squared column is ||W||_F^2.
  void sketch(const SvdOptions& options, RowMatrix<scalar>& y) override {
    RowMatrix<scalar> omega(cols(), y.cols());
    linalg::fill_normal(backend_.executor, options.seed, 0, omega);
    multiply(omega, y);
    sampled_energy_ = y.template cast<double>().squaredNorm() / static_cast<double>(y.cols());
    sample_is_zero_ = y.isZero(0);
  }

  /// Of the operator itself. \throws std::invalid_argument if it cannot be what it says it is.
  double energy() const {
    if constexpr (requires { w_.squared_norm(); }) {
      const auto known = static_cast<double>(w_.squared_norm());
      check(is_finite(known) && known >= 0, function_, "w", known,
            "finite elements, and a squared_norm() of at least 0");
      check(known > 0 || sample_is_zero_, function_, "w", known,
            "a squared_norm() above 0 where products are not 0");
      return known;
    } else {
      check(sampled_energy_ > 0 || sample_is_zero_, function_, "w", "squares that vanish",
            "a squared norm of 0 or at least 1e-292");
      return sampled_energy_;
    }
  }

 private:
  void product(const RowMatrix<scalar>& x, RowMatrix<scalar>& y, bool transposed) const {
    y.resize(transposed ? w_.cols() : w_.rows(), x.cols());
    const auto factor = static_cast<scalar>(factor_);
    // A factor below 1 comes first: products of large elements could overflow.
    const bool shrinks = factor_ < 1;
    const RowMatrix<scalar> smaller = shrinks ? RowMatrix<scalar>(factor * x) : RowMatrix<scalar>();
    const auto from = const_view(shrinks ? smaller : x);
    if (transposed)
      w_.multiply_transposed(from, to_view(y));
    else
      w_.multiply(from, to_view(y));
    for (scalar& value : y.reshaped()) {
      check(is_finite(double{value}), function_, "w", double{value},
            "finite elements, and finite products with unit vectors");
      if (factor_ > 1) value *= factor;
    }
  }

  const char* function_;
  const B& backend_;
  const W& w_;
  bool transposed_;
  double factor_ = 1;
  double sampled_energy_ = 0;
  bool sample_is_zero_ = true;
};

/// What the energies of products in T tell of an error.
template <class T>
void check_operator_options(const char* function, const SvdOptions& options, Index out, Index in) {
  validate(function, options, out, in);
  if constexpr (std::is_same_v<T, float>)
    check_tolerance(function, options.tolerance, 1e-3,
                    "at least 1e-3 for what is known by its products in float");
  else
    check_tolerance(function, options.tolerance, 5e-8,
                    "at least 5e-8 for what is known by its products");
  check(options.route == Route::Auto || options.route == Route::Randomized, function, "route",
        "Gram or Exact", "Auto or Randomized for what is known by its products");
}

/// min ||W - A B||_F for an operator, which is the one asked for times `scale`, a power of two.
template <class B, LinearOperator W>
LowRank<typename W::scalar> operator_svd(const char* function, const B& given, const W& w,
                                         const SvdOptions& options, double scale = 1.0) {
  using T = typename W::scalar;
  const Index out = w.rows(), in = w.cols();
  check_operator_options<T>(function, options, out, in);
  const bool outputs = out <= in;
  Workspace own;
  const B backend = keeping(given, own);
  OperatorMatrix<B, W> m(function, backend, w, !outputs);
  NormalOperator<B, T> normal(backend, m);
  // The first sample tells the energy where the operator does not.
  RowMatrix<T> sample(m.rows(), std::min<Index>(32, m.rows()));
  m.sketch(options, sample);
  const double energy = m.energy();
  check_energy(function, energy, 0);
  if (!(energy > 0)) return zero_result<T>(out, in, options);
  const double factor = safe_factor<T>(energy);
  m.scale_by(factor);
  FoundSubspace<T> found{{}, Route::Randomized, energy * factor * factor};
  SvdOptions randomized = options;
  randomized.route = Route::Randomized;
  const auto iterate = [&](const SubspacePlan& plan, Index rank, const RowMatrix<T>& known) {
    return leading_subspace<T>(backend, normal, rank, plan.width, plan.until(), found.total_energy,
                               options, known);
  };
  const auto solve = [&](Index rank, const RowMatrix<T>& known) {
    return iterate(plan_iteration(randomized, rank, m.rows(), m.cols()), rank, known);
  };
  const auto probe = [&] { return probed_values(randomized, m.rows(), m.cols(), iterate); };
  found.space = solve_for_rank(options, rank_limit(options, out, in), m.rows(), found.total_energy,
                               probe, solve, keeps_found(options), operator_rounding);
  // An estimate may lie below, a norm that is known may not.
  const double captured = found.space.values.sum();
  if constexpr (requires { w.squared_norm(); })
    check(captured <= 1.001 * found.total_energy, function, "w", energy,
          "a squared_norm() of at least the energy of its products");
  else
    found.total_energy = std::max(found.total_energy, captured);
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
  describe(found, factor * scale, 0, std::numeric_limits<T>::epsilon(), result);
  move_singular_values(result, outputs ? Split::Right : Split::Left,
                       options.split == Split::Natural ? Split::Left : options.split,
                       factor * scale, found.rounding);
  check_factors(function, result);
  set_signs(result, options.signs);
  return result;
}

/// The power of two that brings the elements of a sparse matrix, which are checked, near 1.
template <class T, class I>
double sparse_factor(const char* function, const CompressedView<T, I>& lines) {
  double energy = 0;
  bool zero = true;
  for (Index u = 0; u < lines.outer_size; ++u)
    for (Index e = lines.begin(u); e < lines.end(u); ++e) {
      energy += double{lines.values[e]} * double{lines.values[e]};
      zero = zero && lines.values[e] == 0;
    }
  check(is_finite(energy), function, "w", energy, "finite elements, and squares that are");
  check(zero || energy >= least_energy, function, "w", energy,
        "a squared norm of 0 or at least 1e-292");
  return zero ? 1.0 : safe_factor<T>(energy);
}

/// The same for a sparse matrix [outer x inner] by rows.
template <class B, class T, class I>
LowRank<T> sparse_svd(const char* function, const B& backend, const CompressedView<T, I>& lines,
                      const SvdOptions& options) {
  check_operator_options<T>(function, options, lines.outer_size, lines.inner_size);
  const double factor = sparse_factor(function, lines);
  const ScaledValues<T, I> scaled(lines, factor);
  return operator_svd(function, backend, SparseOperator(backend, scaled.view()), options, factor);
}

PARE_ABI_END
}  // namespace pare::factor::detail
