// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Eigenvalues and vectors of a symmetric tridiagonal matrix by divide and conquer.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/detail/secular_root.hpp>
#include <pare/linalg/detail/tridiagonalize.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// Two halves of T, each diagonalised, and the element that joins them: T is their vectors times
/// (diag(d) + weight z z^T) times their vectors transposed. What z hardly touches and pairs of
/// nearly equal d are set apart (deflation); the rest has new values and vectors.
///
/// Cuppen 1981, A divide and conquer method for the symmetric tridiagonal eigenproblem; vectors
/// from a z that belongs to the values as computed: Gu and Eisenstat 1995.
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
        TensorView<double, 2> vectors)
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
    const double least = 8 * std::numeric_limits<double>::epsilon() * largest;
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
      const double x = vectors_(r, a), y = vectors_(r, b);
      vectors_(r, a) = c * x + s * y;
      vectors_(r, b) = c * y - s * x;
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
  TensorView<double, 2> vectors_;
  double weight_;
  std::vector<Part> parts_;
  std::vector<Index> order_, kept_, rank_;
  std::vector<Column> combined_;
  std::vector<double> poles_, weights_;
};

/// Values and vectors of one tridiagonal matrix.
template <class B>
class DivideAndConquer {
  static constexpr Index leaf = 32;

 public:
  /// `wanted`: how many vectors, those of the largest values.
  DivideAndConquer(const B& backend, const Tridiagonal& t, Index wanted)
      : backend_(backend),
        n_(static_cast<Index>(t.diagonal.size())),
        wanted_(wanted),
        values_(t.diagonal),
        below_(t.below),
        vectors_(RowMatrix<double>::Zero(n_, n_)),
        scratch_(n_, n_) {}

  /// Values that do not decrease, and vectors [n x wanted].
  void run(Eigen::VectorXd& values, Eigen::MatrixXd& vectors) {
    solve(0, n_);
    std::vector<Index> order(static_cast<std::size_t>(n_));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return at(a) < at(b); });
    for (Index i = 0; i < n_; ++i) values[i] = at(order[static_cast<std::size_t>(i)]);
    for (Index j = 0; j < wanted_; ++j)
      for (Index r = 0; r < n_; ++r)
        vectors(r, j) = vectors_(r, order[static_cast<std::size_t>(n_ - wanted_ + j)]);
  }

 private:
  double& at(Index i) { return values_[static_cast<std::size_t>(i)]; }

  void solve(Index begin, Index size) {
    if (size <= leaf) return solve_leaf(begin, size);
    const Index half = size / 2, meet = begin + half;
    const double joint = below_[static_cast<std::size_t>(meet - 1)];
    at(meet - 1) -= std::abs(joint);
    at(meet) -= std::abs(joint);
    solve(begin, half);
    solve(meet, size - half);
    if (joint != 0) merge(begin, half, size, joint);
  }

  void solve_leaf(Index begin, Index size) {
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(size);
    const Eigen::Map<const Eigen::VectorXd> diagonal(values_.data() + begin, size);
    const Eigen::Map<const Eigen::VectorXd> below(below_.data() + begin, size - 1);
    solver.computeFromTridiagonal(diagonal, below);
    for (Index i = 0; i < size; ++i) {
      at(begin + i) = solver.eigenvalues()[i];
      for (Index j = 0; j < size; ++j) vectors_(begin + i, begin + j) = solver.eigenvectors()(i, j);
    }
  }

  TensorView<double, 2> square(RowMatrix<double>& m, Index begin, Index size) {
    return rows_of(columns_of(to_view(m), begin, size), begin, size);
  }

  void merge(Index begin, Index half, Index size, double joint) {
    const auto vectors = square(vectors_, begin, size);
    std::vector<double> values(values_.begin() + begin, values_.begin() + begin + size);
    std::vector<double> z(static_cast<std::size_t>(size));
    const double sign = joint < 0 ? -1 : 1, root_half = std::sqrt(0.5);
    for (Index i = 0; i < size; ++i)
      z[static_cast<std::size_t>(i)] =
          root_half * (i < half ? vectors(half - 1, i) : sign * vectors(half, i));
    const Merge merge(values, z, 2 * std::abs(joint), half, vectors);
    const auto count = static_cast<Index>(merge.combined().size());
    // Of the whole matrix, the vectors of the largest roots are enough.
    const Index first = size == n_ ? std::max<Index>(count - wanted_, 0) : 0;
    combine(merge, find_roots(merge, begin, first), vectors, begin, half, first);
    const auto scratch = square(scratch_, begin, size);
    for (std::size_t i = 0; i < merge.kept().size(); ++i) {
      const Index from = merge.kept()[i], to = count + static_cast<Index>(i);
      at(begin + to) = values[static_cast<std::size_t>(from)];
      for (Index r = 0; r < size; ++r) scratch(r, to) = vectors(r, from);
    }
    for (Index r = 0; r < size; ++r)
      for (Index j = first; j < size; ++j) vectors(r, j) = scratch(r, j);
  }

  /// Row i holds, for each of `combined`, what vector number i takes of it; from `first` on.
  RowMatrix<double> find_roots(const Merge& merge, Index begin, Index first) {
    const SecularEquation f = merge.equation();
    RowMatrix<double> poles(f.count, f.count);  // d_j - root_i, by the number of j in the equation
    parallel_for(backend_.executor, f.count, [&](Index i, int) {
      const SecularRoot root = SecularSearch<B>(backend_, f, i).run();
      for (Index j = 0; j < f.count; ++j) poles(i, j) = (f.d[j] - f.d[root.origin]) - root.shift;
      at(begin + i) = f.d[root.origin] + root.shift;
    });
    const std::vector<double> z = fitting(f, poles);
    RowMatrix<double> turn(f.count - first, f.count);
    parallel_for(backend_.executor, f.count - first, [&](Index row, int) {
      double norm = 0;
      for (Index j = 0; j < f.count; ++j) {
        double& element = poles(first + row, j);
        element = z[static_cast<std::size_t>(j)] / element;
        norm += element * element;
      }
      norm = std::sqrt(norm);
      for (Index j = 0; j < f.count; ++j)
        turn(row, j) = poles(first + row, merge.rank()[static_cast<std::size_t>(j)]) / norm;
    });
    return turn;
  }

  /// The z for which the roots are exact, up to a factor.
  static std::vector<double> fitting(const SecularEquation& f, const RowMatrix<double>& poles) {
    std::vector<double> z(static_cast<std::size_t>(f.count), 1.0);
    for (Index i = 0; i < f.count; ++i)
      for (Index j = 0; j < f.count; ++j)
        z[static_cast<std::size_t>(j)] *= i == j ? -poles(i, j) : poles(i, j) / (f.d[j] - f.d[i]);
    for (Index j = 0; j < f.count; ++j) {
      double& element = z[static_cast<std::size_t>(j)];
      element = std::copysign(std::sqrt(std::max(element, 0.0)), f.z[j]);
    }
    return z;
  }

  /// scratch <- the columns of `combined` times turn^T, half by half.
  void combine(const Merge& merge, const RowMatrix<double>& turn, TensorView<double, 2> vectors,
               Index begin, Index half, Index first) {
    const auto& columns = merge.combined();
    const auto count = static_cast<Index>(columns.size());
    if (first == count) return;
    const auto after = [&](Merge::Part part) {
      return std::partition_point(columns.begin(), columns.end(),
                                  [&](const Merge::Column& c) { return c.part <= part; }) -
             columns.begin();
    };
    const Index from_second = after(Merge::Part::First), to_first = after(Merge::Part::Both);
    const auto out = columns_of(square(scratch_, begin, vectors.rows()), first, count - first);
    multiply_part(columns, turn, vectors, {0, half}, {0, to_first}, out);
    multiply_part(columns, turn, vectors, {half, vectors.rows()}, {from_second, count}, out);
  }

  struct Range {
    Index begin, end;
    Index size() const { return end - begin; }
  };

  void multiply_part(const std::vector<Merge::Column>& columns, const RowMatrix<double>& turn,
                     TensorView<double, 2> vectors, Range rows, Range taken,
                     TensorView<double, 2> out) {
    RowMatrix<double> gathered(rows.size(), taken.size());
    for (Index r = 0; r < rows.size(); ++r)
      for (Index j = 0; j < taken.size(); ++j)
        gathered(r, j) =
            vectors(rows.begin + r, columns[static_cast<std::size_t>(taken.begin + j)].at);
    multiply(backend_, const_view(gathered),
             transpose(columns_of(const_view(turn), taken.begin, taken.size())),
             rows_of(out, rows.begin, rows.size()));
  }

  const B& backend_;
  Index n_, wanted_;
  std::vector<double> values_, below_;
  RowMatrix<double> vectors_, scratch_;
};

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
