// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What methods check of weights, matrices and covariances, on threads where there are some.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/metric.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Squares below this are known to fewer digits than double has.
inline constexpr double least_energy = 0x1p-970;

/// Whether ok(i) holds for all i below `count`, asked on the backend's threads.
template <class B, class Ok>
bool holds_for_all(const B& backend, Index count, const Ok& ok) {
  if constexpr (KernelBackend<B>) {
    std::vector<char> fails(static_cast<std::size_t>(count));
    parallel_for(on_any_executor(backend).executor, count, [&](Index i, int) {
      fails[static_cast<std::size_t>(i)] = static_cast<char>(!ok(i));
    });
    return std::find(fails.begin(), fails.end(), 1) == fails.end();
  } else {
    for (Index i = 0; i < count; ++i)
      if (!ok(i)) return false;
    return true;
  }
}

/// Whether no element of row i is a NaN or an infinity.
template <StorageScalar S>
bool is_finite_row(const TensorView<const S, 2>& x, Index i) {
  bool finite = true;
  for (Index j = 0; j < x.cols(); ++j)
    finite = finite & is_finite(static_cast<double>(static_cast<compute_t<S>>(x(i, j))));
  return finite;
}

/// Refuses a matrix with a NaN or an infinity, and names the first.
template <class B, StorageScalar S>
void check_finite(const B& backend, const char* function, const char* name,
                  TensorView<const S, 2> x) {
  if (holds_for_all(backend, x.rows(), [&](Index i) { return is_finite_row(x, i); })) return;
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = 0; j < x.cols(); ++j) {
      const auto value = static_cast<double>(static_cast<compute_t<S>>(x(i, j)));
      check(is_finite(value), function, name, value, "finite elements");
    }
}
template <StorageScalar S>
void check_finite(const char* function, const char* name, TensorView<const S, 2> x) {
  check_finite(reference, function, name, x);
}

/// Refuses weights unless they are finite, none below 0, and one above it.
template <StorageScalar S>
void check_weights(const char* function, const char* name, TensorView<const S, 2> weights) {
  bool positive = false;
  for (Index i = 0; i < weights.rows(); ++i)
    for (Index j = 0; j < weights.cols(); ++j) {
      const auto weight = static_cast<double>(static_cast<compute_t<S>>(weights(i, j)));
      check(is_finite(weight) && weight >= 0, function, name, weight,
            "finite weights of at least 0");
      positive = positive || weight > 0;
    }
  check(positive, function, name, "all weights 0", "a weight above 0");
}

inline void check_weights(const char* function, const char* name, std::span<const double> weights,
                          Index wanted) {
  const auto size = static_cast<Index>(weights.size());
  check_extents<1>(function, name, {size}, {wanted});
  check_weights<double>(function, name,
                        TensorView<const double, 2>{weights.data(), {1, size}, {0, 1}});
}

/// What the halves of a matrix may differ by: 1e-5 of the geometric mean of the two diagonal
/// elements.
template <class T>
class Symmetry {
 public:
  explicit Symmetry(TensorView<const T, 2> m) : m_(m), roots_(static_cast<std::size_t>(m.rows())) {
    for (std::size_t i = 0; i < roots_.size(); ++i) {
      const auto at = static_cast<Index>(i);
      roots_[i] = std::sqrt(static_cast<double>(m(at, at)));
    }
  }

  Index blocks() const { return ceil_div(m_.rows(), block); }
  /// Calls use(difference, bound) for what is below the diagonal in a block of rows, in blocks
  /// of columns, so that both halves stay in L1.
  template <class Use>
  void each(Index row_block, const Use& use) const {
    const Index row = row_block * block, end = std::min(row + block, m_.rows());
    for (Index column = 0; column <= row; column += block)
      for (Index i = row; i < end; ++i)
        for (Index j = column; j < std::min(column + block, i); ++j)
          use(static_cast<double>(m_(i, j)) - static_cast<double>(m_(j, i)),
              1e-5 * (roots_[static_cast<std::size_t>(i)] * roots_[static_cast<std::size_t>(j)]));
  }

 private:
  static constexpr Index block = 32;

  TensorView<const T, 2> m_;
  std::vector<double> roots_;
};

/// Refuses a matrix whose halves differ by more.
template <class B, class T>
void check_symmetric(const B& backend, const char* function, const char* name,
                     TensorView<const T, 2> m) {
  const Symmetry<T> symmetry(m);
  const auto is_symmetric = [&](Index row_block) {
    bool symmetric = true;
    symmetry.each(row_block, [&](double difference, double bound) {
      symmetric = symmetric & (std::abs(difference) <= bound);
    });
    return symmetric;
  };
  if (holds_for_all(backend, symmetry.blocks(), is_symmetric)) return;
  for (Index row_block = 0; row_block < symmetry.blocks(); ++row_block)
    symmetry.each(row_block, [&](double difference, double bound) {
      check(std::abs(difference) <= bound, function, name, difference, "a symmetric matrix");
    });
}

/// What can be told of a covariance [n x n] without its eigenvalues: finite, symmetric to 1e-5 of
/// the geometric mean of the two diagonal elements, no negative diagonal, not all 0.
template <class B, class T>
void check_covariance(const B& backend, const char* function, const char* name,
                      const CovarianceView<T>& c, Index n) {
  check_extents<2>(function, name, c.matrix.extent, {n, n});
  check_finite(backend, function, name, c.matrix);
  double trace = 0;
  for (Index i = 0; i < n; ++i) {
    const auto variance = static_cast<double>(c.matrix(i, i));
    check(variance >= 0, function, name, variance, "a diagonal of at least 0");
    trace += variance;
  }
  check(trace > 0, function, name, "a diagonal of 0", "a variance above 0");
  if (!c.is_moment) check_symmetric(backend, function, name, c.matrix);
  check(is_finite(c.ridge) && c.ridge >= 0, function, "damping", c.ridge,
        "a finite share of at least 0 of the diagonal");
}
template <class T>
void check_covariance(const char* function, const char* name, const CovarianceView<T>& c, Index n) {
  check_covariance(reference, function, name, c, n);
}

/// Refuses a covariance by its extreme eigenvalues, before damping.
inline void check_semi_definite(const char* function, const char* name, double smallest,
                                double largest) {
  check(smallest >= -1e-6 * largest, function, name, smallest,
        "no eigenvalue below -1e-6 of the largest");
}

/// Refuses what a metric says of W [out x in], unless it fits. Not looked at: whether a covariance
/// is semi-definite.
template <Metric M>
void check_metric(const char* function, const M& metric, Index out, Index in) {
  if (!metric.output_weights().empty())
    check_weights(function, "output_weights", metric.output_weights(), out);
  if (!metric.input_weights().empty())
    check_weights(function, "input_weights", metric.input_weights(), in);
  const auto covariance = metric.input_covariance();
  if (covariance.empty()) return;
  check_view(function, "input_covariance", covariance.matrix);
  check(metric.input_weights().empty(), function, "input_covariance", "input weights beside it",
        "one of them");
  check_covariance(function, "input_covariance", covariance, in);
}

/// All checks of a factorization of W, the costly last.
template <StorageScalar S, Metric M>
void check_factorize(const char* function, TensorView<const S, 2> w, const M& metric,
                     const SvdOptions& options) {
  check_view(function, "w", w);
  validate(function, options, w.rows(), w.cols());
  if constexpr (std::is_same_v<compute_t<S>, float>)
    check_tolerance(function, options.tolerance, 1e-6, "at least 1e-6 for factors in float");
  else
    check_tolerance(function, options.tolerance, 2e-14, "at least 2e-14");
  check_metric(function, metric, w.rows(), w.cols());
  if (!metric.input_covariance().empty())
    check_tolerance(function, options.tolerance, 2e-7, "at least 2e-7 with a covariance");
  if (!metric.output_weights().empty() && !metric.input_weights().empty())
    check_tolerance(function, options.tolerance, 2e-7, "at least 2e-7 with both weights");
  check_finite(function, "w", w);
}

PARE_ABI_END
}  // namespace pare::factor::detail
