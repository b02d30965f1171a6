// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// FastRP as a polynomial of dense matrices, and how far rounding may take a computed embedding
/// from it.

#include <Eigen/Core>

#include <pare/graph/fast_rp_options.hpp>
#include <pare/projection/materialize.hpp>

#include <cmath>
#include <vector>

#include "support/tolerance.hpp"

namespace pare::testing {

struct ExplicitFastRp {
  Eigen::MatrixXd value;
  Eigen::MatrixXd bound;  ///< of |computed - value| in scalar T
};

/// R of the nodes, [nodes x dim], with the scale of fast_rp.
inline Eigen::MatrixXd node_vectors(Index nodes, const graph::FastRpOptions& o) {
  const double density = o.density ? *o.density : 1 / std::sqrt(static_cast<double>(nodes));
  const projection::SparseProjection r{nodes, o.dim, density, o.seed};
  return projection::materialize<double>(r).toDense().transpose();
}

/// P = D^-1 A, rows without edges zero.
inline Eigen::MatrixXd transition(const Eigen::MatrixXd& a, const Eigen::VectorXd& degrees) {
  Eigen::MatrixXd p = a;
  for (Index u = 0; u < a.rows(); ++u) p.row(u) *= degrees(u) > 0 ? 1 / degrees(u) : 0;
  return p;
}

/// sum_i weights[i] unit(P^i start), then standardised, with `self` for weight 0.
///
/// The bound is of first order in u, with half of it again for the rest. Start: rounded once, and
/// the power once. A step sums at most m terms: m products and sums, the rounded inverse and its
/// product, relative to what |start| gives (P is not negative). A row's norm is wrong by no more
/// than the norm of the row's error; standardisation divides by a deviation that is wrong by no
/// more than the root mean square of the column's errors.
template <class T>
ExplicitFastRp explicit_fast_rp(const Eigen::MatrixXd& p, const Eigen::MatrixXd& start, double self,
                                const graph::FastRpOptions& o) {
  using Tol = Tolerance<T>;
  const Index n = p.rows(), dim = start.cols(), steps = static_cast<Index>(o.weights.size());
  const double longest = static_cast<double>((p.array() != 0).rowwise().count().maxCoeff());
  const Index columns = o.concatenate ? dim * steps : dim;
  ExplicitFastRp e{Eigen::MatrixXd::Zero(n, columns), Eigen::MatrixXd::Zero(n, columns)};
  Eigen::MatrixXd current = start, magnitude = start.cwiseAbs();
  const double u = Tol::unit_roundoff, d = static_cast<double>(dim);
  for (Index i = 0; i <= steps; ++i) {
    if (i > 0) {
      current = (p * current).eval();
      magnitude = (p * magnitude).eval();
    }
    const double weight = i == 0 ? self : o.weights[static_cast<std::size_t>(i - 1)];
    if (weight == 0) continue;
    const Eigen::MatrixXd error =
        Tol::gamma(3 + static_cast<double>(i) * (longest + 4)) * magnitude;
    const Index first = o.concatenate ? (i - 1) * dim : 0;
    for (Index row = 0; row < n; ++row) {
      const double norm = o.normalize_rows ? current.row(row).norm() : 1;
      if (norm == 0) continue;
      const double relative = o.normalize_rows ? error.row(row).norm() / norm : 0;
      const double rounding = (o.normalize_rows ? d / 2 + 4 : 0) + static_cast<double>(steps) + 4;
      e.value.row(row).segment(first, dim) += weight / norm * current.row(row);
      e.bound.row(row).segment(first, dim) +=
          1.5 * std::abs(weight) / norm *
          (error.row(row) + (relative + rounding * u) * current.row(row).cwiseAbs());
    }
  }
  if (!o.standardize) return e;
  for (Index c = 0; c < columns; ++c) {
    const double mean = e.value.col(c).mean();
    const Eigen::VectorXd centred = e.value.col(c).array() - mean;
    const double deviation = std::sqrt(centred.squaredNorm() / static_cast<double>(n));
    const Eigen::VectorXd error = e.bound.col(c).array() + 2 * u * std::abs(mean);
    const double scale = deviation > 0 ? 1 / deviation : 1;
    const double relative = std::sqrt(error.squaredNorm() / static_cast<double>(n)) * scale;
    e.value.col(c) = centred * scale;
    e.bound.col(c) = 1.5 * (scale * (error.array() + error.mean()) +
                            (relative + 4 * u) * e.value.col(c).array().abs())
                               .matrix();
  }
  return e;
}

/// Degrees of FastRP in its own convention, and the starting vectors D^beta R.
inline Eigen::VectorXd degrees_of(const Eigen::MatrixXd& a) { return a.rowwise().sum(); }

inline Eigen::MatrixXd start_of(const Eigen::VectorXd& degrees, const Eigen::MatrixXd& r,
                                double exponent) {
  Eigen::MatrixXd start = r;
  for (Index u = 0; u < r.rows(); ++u)
    start.row(u) *= degrees(u) > 0 ? std::pow(degrees(u), exponent) : exponent == 0 ? 1.0 : 0.0;
  return start;
}

/// Rounding that the bound leaves, as a share of the largest entry: what the page asks of 1e-6.
inline double worst_relative(const ExplicitFastRp& e) {
  return e.bound.maxCoeff() / e.value.cwiseAbs().maxCoeff();
}

template <class M>
::testing::AssertionResult close_to(const M& got, const ExplicitFastRp& wanted) {
  for (Index i = 0; i < got.rows(); ++i)
    for (Index j = 0; j < got.cols(); ++j)
      if (!within(static_cast<double>(got(i, j)), wanted.value(i, j), wanted.bound(i, j)))
        return ::testing::AssertionFailure()
               << "at " << i << ' ' << j << ": got " << got(i, j) << ", wanted "
               << wanted.value(i, j) << " +- " << wanted.bound(i, j);
  return got.rows() == wanted.value.rows() && got.cols() == wanted.value.cols()
             ? ::testing::AssertionSuccess()
             : ::testing::AssertionFailure() << "another shape";
}

}  // namespace pare::testing
