// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whether a second moment C = L L^T has directions without energy, as far as its numbers tell: no
/// pivot is small where such a direction is spread over many inputs.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/random.hpp>
#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <limits>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// x <- L^-1 x for the lower half of a matrix.
inline void solve_lower(const RowMatrix<double>& lower, Eigen::VectorXd& x) {
  for (Index i = 0; i < lower.rows(); ++i)
    x[i] = (x[i] - lower.row(i).head(i).transpose().dot(x.head(i))) / lower(i, i);
}

/// x <- L^-T x.
inline void solve_lower_transposed(const RowMatrix<double>& lower, Eigen::VectorXd& x) {
  for (Index i = lower.rows() - 1; i >= 0; --i) {
    x[i] /= lower(i, i);
    x.head(i) -= x[i] * lower.row(i).head(i).transpose();
  }
}

/// x <- L L^T x.
inline void multiply_by_moment(const RowMatrix<double>& lower, Eigen::VectorXd& x) {
  Eigen::VectorXd turned = Eigen::VectorXd::Zero(x.size());
  for (Index i = 0; i < x.size(); ++i)
    turned.head(i + 1) += x[i] * lower.row(i).head(i + 1).transpose();
  for (Index i = 0; i < x.size(); ++i)
    x[i] = lower.row(i).head(i + 1).transpose().dot(turned.head(i + 1));
}

/// ||A x|| / ||x|| in the last of so many steps x <- A x / ||A x|| from a random x: a lower bound
/// of the norm of a symmetric A, of one step at least n^(-1/2) of it, of four n^(-1/8), if the x
/// has 1 / sqrt(n) of its eigenvector. Infinity if A x is not finite.
template <class Apply>
double estimated_norm(Index n, int steps, const Apply& apply) {
  Eigen::VectorXd x(n);
  for (Index i = 0; i < n; ++i) {
    const PhiloxCounter words = philox({static_cast<std::uint32_t>(i), 0, 0, 0}, PhiloxKey(7));
    x[i] = 2 * to_unit_double(words[0], words[1]) - 1;
  }
  double norm = 1;
  for (int step = 0; step < steps; ++step) {
    x /= x.stableNorm();
    apply(x);
    norm = x.stableNorm();
    if (!is_finite(norm)) return std::numeric_limits<double>::infinity();
  }
  return norm;
}

/// The trace of L L^T, an upper bound of its largest eigenvalue.
inline double trace_of_moment(const RowMatrix<double>& lower) {
  double trace = 0;
  for (Index i = 0; i < lower.rows(); ++i) trace += lower.row(i).head(i + 1).squaredNorm();
  return trace;
}

/// Whether the smallest eigenvalue of L L^T, lower half, is at most `share` of the largest, both as
/// estimated, which may take it for 8 times as much at 4096 rows.
///
/// One step settles it for most matrices: of a random direction one in eighty has less than 1 / (64
/// sqrt(n)) of a given eigenvector. If even 64 sqrt(n) times the norm that it finds of the inverse,
/// with the trace for the largest eigenvalue, is not enough, C is not singular.
///
/// Cost: L is read 3 times, on the calling thread, which binds, or 19 times.
inline bool is_singular(const RowMatrix<double>& lower, double share) {
  const Index n = lower.rows();
  const auto solve = [&](Eigen::VectorXd& x) {
    solve_lower(lower, x);
    solve_lower_transposed(lower, x);
  };
  const double bound = 64 * std::sqrt(static_cast<double>(n)) * estimated_norm(n, 1, solve);
  if (bound * (share * trace_of_moment(lower)) < 1) return false;
  const double largest =
      estimated_norm(n, 4, [&](Eigen::VectorXd& x) { multiply_by_moment(lower, x); });
  return !(estimated_norm(n, 4, solve) * (share * largest) < 1);
}

PARE_ABI_END
}  // namespace pare::factor::detail
