// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One step of divide and conquer: the values and vectors of a symmetric tridiagonal matrix from
/// those of its two halves.

#include <pare/core/macros_off.hpp>

#include <pare/core/matrix.hpp>
#include <pare/linalg/detail/secular_root.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// Two halves of T, each diagonalised, and the element that joins them: T is their vectors times
/// (diag(d) + weight z z^T) times their vectors transposed. What z hardly touches and pairs of
/// nearly equal d are set apart (deflation); the rest has new values and vectors.
///
/// Values are computed in double, whatever the scalar of the vectors, of whose roundings the
/// tolerances of deflation are made.
///
/// Cuppen 1981, A divide and conquer method for the symmetric tridiagonal eigenproblem; vectors
/// from a z that belongs to the values as computed: Gu and Eisenstat 1995.
template <class T>
class Merge {
 public:
  /// Which rows of a vector are not 0: those of the first half, of the second, or both.
  enum class Part { First, Both, Second };

  struct Column {
    Index at;  ///< among the columns of the halves
    Part part;
  };

  /// `values` are those of the halves, `z` the rows of their vectors where the halves meet. Columns
  /// of `vectors` are turned where two values are one.
  Merge(std::vector<double>& values, std::vector<double>& z, double weight, Index first_half,
        TensorView<T, 2> vectors)
      : values_(values), z_(z), vectors_(vectors), weight_(weight) {
    const auto n = static_cast<Index>(values.size());
    parts_.resize(values.size(), Part::Second);
    std::fill_n(parts_.begin(), first_half, Part::First);
    order_.resize(values.size());
    std::iota(order_.begin(), order_.end(), Index{0});
    std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) { return d(a) < d(b); });
    set_apart(n);
  }

  /// Columns that stay as they are; their values are in `values`.
  const std::vector<Index>& kept() const { return kept_; }
  /// Columns that the roots combine, by the part they have rows of.
  const std::vector<Column>& combined() const { return combined_; }
  /// Number i of `combined` is number rank[i] of the equation.
  const std::vector<Index>& rank() const { return rank_; }

  SecularEquation equation() const {
    return {poles_.data(), weights_.data(), static_cast<Index>(poles_.size()), weight_};
  }

 private:
  double& d(Index i) { return values_[static_cast<std::size_t>(i)]; }
  double& z(Index i) { return z_[static_cast<std::size_t>(i)]; }
  Part& part(Index i) { return parts_[static_cast<std::size_t>(i)]; }

  void set_apart(Index n) {
    double largest = 0;
    for (Index i = 0; i < n; ++i) largest = std::max({largest, std::abs(d(i)), std::abs(z(i))});
    const double least = 8 * double{std::numeric_limits<T>::epsilon()} * largest;
    Index open = -1;
    for (const Index i : order_) {
      if (weight_ * std::abs(z(i)) <= least)
        kept_.push_back(i);
      else if (open < 0 || !merge_equal(open, i, least))
        combine(std::exchange(open, i));
      else
        kept_.push_back(std::exchange(open, i));
    }
    combine(open);
    sort_by_part();
  }

  void combine(Index i) {
    if (i < 0) return;
    combined_.push_back({i, part(i)});
    poles_.push_back(d(i));
    weights_.push_back(z(i));
  }

  /// If values a and b are one as far as rounding can tell, turns their vectors so that z has
  /// nothing of a's.
  bool merge_equal(Index a, Index b, double least) {
    const double length = std::hypot(z(a), z(b)), c = z(b) / length, s = -z(a) / length;
    if (std::abs((d(b) - d(a)) * c * s) > least) return false;
    z(b) = length;
    z(a) = 0;
    for (Index r = 0; r < vectors_.rows(); ++r) {
      const double x{vectors_(r, a)}, y{vectors_(r, b)};
      vectors_(r, a) = static_cast<T>(c * x + s * y);
      vectors_(r, b) = static_cast<T>(c * y - s * x);
    }
    if (part(a) != part(b)) part(a) = part(b) = Part::Both;
    const double lower = d(a) * c * c + d(b) * s * s;
    d(b) = d(a) * s * s + d(b) * c * c;
    d(a) = lower;
    return true;
  }

  /// Columns that have rows of one half stand together: products leave the zeros out.
  void sort_by_part() {
    rank_.resize(combined_.size());
    std::iota(rank_.begin(), rank_.end(), Index{0});
    const auto of = [&](Index i) { return combined_[static_cast<std::size_t>(i)].part; };
    std::stable_sort(rank_.begin(), rank_.end(), [&](Index a, Index b) { return of(a) < of(b); });
    std::stable_sort(combined_.begin(), combined_.end(),
                     [](const Column& a, const Column& b) { return a.part < b.part; });
  }

  std::vector<double>& values_;
  std::vector<double>& z_;
  TensorView<T, 2> vectors_;
  double weight_;
  std::vector<Part> parts_;
  std::vector<Index> order_, kept_, rank_;
  std::vector<Column> combined_;
  std::vector<double> poles_, weights_;
};

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
