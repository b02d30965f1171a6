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

/// ||A x|| / ||x|| after three steps x <- A x / ||A x|| from a random x: a lower bound of the norm
/// of a symmetric A, at least n^(-1/8) of it if the x has 1 / sqrt(n) of its eigenvector.
/// Infinity if A x is not finite.
template <class Apply>
double estimated_norm(Index n, const Apply& apply) {
  Eigen::VectorXd x(n);
  for (Index i = 0; i < n; ++i) {
    const PhiloxCounter words = philox({static_cast<std::uint32_t>(i), 0, 0, 0}, PhiloxKey(7));
    x[i] = 2 * to_unit_double(words[0], words[1]) - 1;
  }
  double norm = 1;
  for (int step = 0; step < 4; ++step) {
    x /= x.stableNorm();
    apply(x);
    norm = x.stableNorm();
    if (!is_finite(norm)) return std::numeric_limits<double>::infinity();
  }
  return norm;
}

/// Whether the smallest eigenvalue of L L^T, lower half, is at most `share` of the largest, both as
/// estimated, which may take it for 8 times as much at 4096 rows.
///
/// Cost: 16 n^2 FLOPs in double on the calling thread; L is read 16 times, which binds.
inline bool is_singular(const RowMatrix<double>& lower, double share) {
  const Index n = lower.rows();
  const double largest =
      estimated_norm(n, [&](Eigen::VectorXd& x) { multiply_by_moment(lower, x); });
  const double inverse = estimated_norm(n, [&](Eigen::VectorXd& x) {
    solve_lower(lower, x);
    solve_lower_transposed(lower, x);
  });
  return !(inverse * (share * largest) < 1);
}

PARE_ABI_END
}  // namespace pare::factor::detail
