// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The singular value decomposition of a matrix of few dimensions, whatever its extents.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/options.hpp>
#include <pare/factor/svd.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

/// M = coordinates basis; column k of coordinates has length values[k].
struct SpanSvd {
  Eigen::VectorXd values;         ///< that do not increase
  RowMatrix<double> coordinates;  ///< [rows, values]
  RowMatrix<double> basis;        ///< [values, cols], orthonormal rows
};

/// Takes the row's part along a unit vector away.
inline void project_out(double* row, const double* unit, Index size) {
  double dot = 0;
  for (Index j = 0; j < size; ++j) dot += row[j] * unit[j];
  for (Index j = 0; j < size; ++j) row[j] -= dot * unit[j];
}

inline double squared_length(const double* row, Index size) {
  double sum = 0;
  for (Index j = 0; j < size; ++j) sum += row[j] * row[j];
  return sum;
}

/// Orthonormal rows that span those of m, by modified Gram-Schmidt that takes the longest row left
/// next, until all that is left is rounding.
inline std::vector<Eigen::VectorXd> spanning_rows(RowMatrix<double> m) {
  std::vector<Eigen::VectorXd> units;
  const Index most = std::min(m.rows(), m.cols());
  double first = 0;
  while (static_cast<Index>(units.size()) < most) {
    Index at = 0;
    double longest = -1;
    for (Index i = 0; i < m.rows(); ++i) {
      const double length = squared_length(m.data() + i * m.cols(), m.cols());
      if (length > longest) longest = length, at = i;
    }
    const double length = std::sqrt(longest);
    if (units.empty()) first = length;
    if (!(length > 2 * std::numeric_limits<double>::epsilon() * first)) break;
    Eigen::VectorXd unit = m.row(at).transpose() / length;
    // Once more: what is left of a row that was mostly taken away is not orthogonal.
    for (const Eigen::VectorXd& u : units) project_out(unit.data(), u.data(), m.cols());
    unit /= std::sqrt(squared_length(unit.data(), m.cols()));
    for (Index i = 0; i < m.rows(); ++i)
      project_out(m.data() + i * m.cols(), unit.data(), m.cols());
    units.push_back(std::move(unit));
  }
  return units;
}

/// The decomposition of m, by the definition. A template, so that a unit that includes this and
/// does not call it compiles no solver.
/// \throws std::invalid_argument if something is not finite.
template <class B = Reference>
SpanSvd span_svd(const char* function, RowMatrix<double> m) {
  double largest = 0;
  for (Index i = 0; i < m.size(); ++i) {
    check(is_finite(m.data()[i]), function, "operators", m.data()[i], "finite elements");
    largest = std::max(largest, std::abs(m.data()[i]));
  }
  if (largest == 0) return {};
  // So that no square overflows or vanishes.
  const int exponent = std::ilogb(largest);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = std::ldexp(m.data()[i], -exponent);
  const std::vector<Eigen::VectorXd> units = spanning_rows(m);
  const auto rank = static_cast<Index>(units.size());
  RowMatrix<double> inner(m.rows(), rank);
  for (Index i = 0; i < m.rows(); ++i)
    for (Index k = 0; k < rank; ++k)
      inner(i, k) = m.row(i).dot(units[static_cast<std::size_t>(k)].transpose());
  const auto svd = factor::truncated_svd(B{}, inner, {.rank = rank, .split = factor::Split::Left});
  SpanSvd span{Eigen::VectorXd(rank), svd.left, RowMatrix<double>::Zero(rank, m.cols())};
  for (Index k = 0; k < rank; ++k) {
    for (Index r = 0; r < rank; ++r)
      span.basis.row(k) += svd.right(k, r) * units[static_cast<std::size_t>(r)].transpose();
    span.values[k] = std::ldexp(span.coordinates.col(k).norm(), exponent);
    for (Index i = 0; i < m.rows(); ++i)
      span.coordinates(i, k) = std::ldexp(span.coordinates(i, k), exponent);
  }
  return span;
}

PARE_ABI_END
}  // namespace pare::sequence::detail
