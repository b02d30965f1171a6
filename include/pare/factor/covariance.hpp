// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The second moment of the inputs that a layer sees, which covariance-aware factorization weighs
/// its error with.
///
/// ```cpp
/// Covariance covariance(in);
/// for (const auto& x : batches) covariance.add(x);  // [tokens x in]
/// auto lowrank = covariance_svd(w, covariance, {.rank = 128});
/// ```
///
/// C = 1 / N sum_t x_t x_t^T. It is not centred, since the mean of the inputs passes the layer too.
/// Inputs are not checked for NaN and infinities: their rows and columns of C become NaN or
/// infinite, and the solvers refuse such a C.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/reference_statistics.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/linalg/gram.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::factor {

/// What products of float and 16-bit inputs are summed in.
enum class CovarianceProducts {
  Float,   ///< float for chunks of at most 512 tokens, which are added in double
  Double,  ///< double throughout: half of the speed for float, a quarter or less for bf16
};

namespace detail {

PARE_ABI_BEGIN

/// The accumulator of Covariance: X^T X, of which the lower half counts.
struct CovarianceSum {
  Index dim = 0;
  std::vector<double> products;  ///< [dim x dim]

  TensorView<double, 2> view() { return {products.data(), {dim, dim}, {dim, 1}}; }
  TensorView<const double, 2> view() const { return {products.data(), {dim, dim}, {dim, 1}}; }
  double at(Index i, Index j) const { return products[static_cast<std::size_t>(i * dim + j)]; }
};

inline CovarianceSum empty_covariance(Index dim, CovarianceProducts products) {
  constexpr const char* name = "factor::Covariance";
  check(dim >= 1, name, "dim", dim, "at least 1");
  check_enumerator(name, "products", products, CovarianceProducts::Double);
  const Index size = checked_product(name, "dim", dim, dim);
  checked_count(name, "dim", size, sizeof(double));
  return {dim, std::vector<double>(static_cast<std::size_t>(size))};
}

/// Adds x^T x, and says whether it was summed in float.
template <class B, class S>
bool add_covariance(const B& backend, TensorView<const S, 2> x, CovarianceProducts products,
                    CovarianceSum& sum) {
  constexpr const char* name = "factor::Covariance::add";
  check_extents<2>(name, "x", x.extent, {x.rows(), sum.dim});
  x = linalg::checked_lines(name, "x", x);
  if (x.rows() == 0) return false;
  if constexpr (!KernelBackend<B>) {
    Eigen::MatrixXd all = Eigen::MatrixXd::Zero(sum.dim, sum.dim);
    reference_add_covariance(x, all);
    for (Index i = 0; i < sum.dim; ++i)
      for (Index j = 0; j <= i; ++j) sum.view()(i, j) += all(i, j);
  } else {
    const auto any = on_any_executor(backend);
    if constexpr (!std::is_same_v<S, double>)
      if (products == CovarianceProducts::Float) {
        linalg::ChunkedGram<OnAnyExecutor<B>, S>(any, x, sum.view()).run();
        return true;
      }
    linalg::multiply(any, transpose(x), x, sum.view(),
                     {.accumulate = true, .half = linalg::Half::Lower});
  }
  return false;
}

inline void merge_covariance(const CovarianceSum& from, CovarianceSum& to) {
  check(from.dim == to.dim, "factor::Covariance::merge", "other", from.dim, to.dim);
  for (std::size_t i = 0; i < to.products.size(); ++i) to.products[i] += from.products[i];
}

inline double mean_diagonal(const char* function, const CovarianceSum& sum, Index count) {
  check(count > 0, function, "count", count, "a token that was added");
  return diagonal_mean(sum.view()) / static_cast<double>(count);
}

inline std::vector<double> covariance_diagonal(const CovarianceSum& sum, Index count) {
  check(count > 0, "factor::Covariance::diagonal", "count", count, "a token that was added");
  std::vector<double> diagonal(static_cast<std::size_t>(sum.dim));
  for (Index i = 0; i < sum.dim; ++i)
    diagonal[static_cast<std::size_t>(i)] = sum.at(i, i) / static_cast<double>(count);
  return diagonal;
}

template <KernelBackend B>
RowMatrix<double> mean_covariance(const char* function, const B& backend, const CovarianceSum& sum,
                                  Index count) {
  check(count > 0, function, "count", count, "a token that was added");
  constexpr Index block = 64;
  RowMatrix<double> mean(sum.dim, sum.dim);
  parallel_for(backend.executor, ceil_div(sum.dim, block), [&](Index at, int) {
    for (Index i = at * block; i < std::min((at + 1) * block, sum.dim); ++i)
      for (Index j = 0; j <= i; ++j) mean(i, j) = sum.at(i, j) / static_cast<double>(count);
  });
  linalg::mirror_lower(backend, to_view(mean));
  return mean;
}

inline RowMatrix<double> damped_covariance(const CovarianceSum& sum, Index count, double damping) {
  constexpr const char* name = "factor::Covariance::damped";
  check(is_finite(damping) && damping >= 0, name, "damping", damping,
        "a finite share of at least 0");
  RowMatrix<double> c = mean_covariance(name, simd, sum, count);
  c.diagonal().array() += damping * mean_diagonal(name, sum, count);
  return c;
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Accumulates X^T X of the tokens that a layer sees, in any grouping of calls.
///
/// The sum is kept in double. With CovarianceProducts::Float the tokens of each call are cut into
/// chunks of 512 (bf16) or 256 (float, f16), whose products are summed in float: an element is off
/// by at most gamma = 513 * 2^-24 of sum_t |x_ti x_tj|, in practice 1e-6 of the geometric mean of
/// its two diagonal elements. bf16 products are exact where an arch has no bf16 dot product;
/// where it has one, subnormal factors and sums count as 0 too. With Double, and for double inputs,
/// merging the parts of a set of tokens is the same as one pass, to 1e-12.
class Covariance {
 public:
  /// Of inputs of `dim` features.
  /// \throws std::invalid_argument if dim is below 1, or products is no enumerator.
  PARE_ALWAYS_INLINE explicit Covariance(Index dim,
                                         CovarianceProducts products = CovarianceProducts::Float)
      : sum_(detail::empty_covariance(dim, products)), products_(products) {}

  Index dim() const { return sum_.dim; }

  /// Tokens that were added.
  Index count() const { return count_; }

  /// Adds tokens.
  ///
  /// \param backend left out: pare::simd
  /// \param x       [tokens x dim], any storage scalar, rows or columns contiguous
  /// \throws std::invalid_argument if the columns are not dim, or neither rows nor columns are
  ///         contiguous
  ///
  /// Cost: tokens dim^2 FLOPs, which bind from about 500 tokens per call on; the sum is read and
  /// written once for every 2048 tokens of bf16, 1024 of float and f16, 256 of double. Memory: up
  /// to 16 MiB of packed tokens, and 1 MiB per worker.
  template <Backend B, In<2> X>
  PARE_ALWAYS_INLINE void add(const B& backend, const X& x) {
    const auto tokens = as_const(to_view(x));
    constexpr const char* name = "factor::Covariance::add";
    check_view(name, "x", tokens);
    const Index count = checked_sum(name, "count", count_, tokens.rows());
    if (detail::add_covariance(backend, tokens, products_, sum_)) has_float_sums_ = true;
    count_ = count;
  }

  /// \overload
  template <In<2> X>
  PARE_ALWAYS_INLINE void add(const X& x) {
    add(simd, x);
  }

  PARE_REFUSE_CALLS(add, "factor::Covariance::add", "after x: wanted nothing",
                    (INPUT, (roles::Reads<2>), "x", "[tokens, dim]"))

  /// Adds the tokens of another accumulator.
  /// \throws std::invalid_argument if its dim is another, or both have more tokens than Index
  ///         counts.
  PARE_ALWAYS_INLINE void merge(const Covariance& other) {
    const Index count = checked_sum("factor::Covariance::merge", "count", count_, other.count_);
    detail::merge_covariance(other.sum_, sum_);
    has_float_sums_ |= other.has_float_sums_;
    count_ = count;
  }

  /// Whether chunks of tokens were summed in float, here or in what was merged: eigenvalues of C
  /// below some 2^-24 of the largest are then rounding.
  bool has_float_sums() const { return has_float_sums_; }

  /// C [dim x dim], a copy, symmetric bit for bit.
  /// \throws std::invalid_argument if no token was added.
  PARE_ALWAYS_INLINE RowMatrix<double> matrix() const { return matrix(simd); }

  /// \overload
  /// \param backend whose threads share the copy
  template <Backend B>
  PARE_ALWAYS_INLINE RowMatrix<double> matrix(const B& backend) const {
    constexpr const char* name = "factor::Covariance::matrix";
    if constexpr (KernelBackend<B>)
      return detail::mean_covariance(name, on_any_executor(backend), sum_, count_);
    else
      return detail::mean_covariance(name, on_any_executor(simd), sum_, count_);
  }

  /// tr(C) / dim.
  /// \throws std::invalid_argument if no token was added.
  PARE_ALWAYS_INLINE double mean_diagonal() const {
    return detail::mean_diagonal("factor::Covariance::mean_diagonal", sum_, count_);
  }

  /// C_jj [dim]: the mean square of each input.
  /// \throws std::invalid_argument if no token was added.
  PARE_ALWAYS_INLINE std::vector<double> diagonal() const {
    return detail::covariance_diagonal(sum_, count_);
  }

  /// C + damping mean_diagonal() I, a copy.
  /// \throws std::invalid_argument if no token was added, or damping is negative or not finite.
  PARE_ALWAYS_INLINE RowMatrix<double> damped(double damping) const {
    return detail::damped_covariance(sum_, count_, damping);
  }

 private:
  detail::CovarianceSum sum_;
  CovarianceProducts products_;
  Index count_ = 0;
  bool has_float_sums_ = false;
};

PARE_ABI_END

}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
