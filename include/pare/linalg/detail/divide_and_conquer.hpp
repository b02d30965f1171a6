// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Eigenvalues and vectors of a symmetric tridiagonal matrix by divide and conquer.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/linalg/detail/secular_root.hpp>
#include <pare/linalg/detail/tridiagonal_merge.hpp>
#include <pare/linalg/detail/tridiagonalize.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>
#include <vector>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

template <class T>
struct ConquerMemory {
  AlignedBuffer<T> vectors;     ///< [n x n]
  AlignedBuffer<T> turn;        ///< [roots x roots]
  AlignedBuffer<T> gathered;    ///< [half x roots]
  AlignedBuffer<double> poles;  ///< [roots x roots]
};

/// How many vectors are wanted, those of the largest values, given all values in descending order.
using WantedVectors = std::function<Index(const Eigen::VectorXd&)>;

/// Values and vectors of one tridiagonal matrix.
template <class B, class T>
class DivideAndConquer {
  static constexpr Index leaf = 32, rows_of_copy = 64;

 public:
  /// `scratch`: n^2 elements that serve until run() returns.
  DivideAndConquer(const B& backend, const Tridiagonal<T>& t, const WantedVectors& wanted,
                   AlignedBuffer<T>& scratch, ConquerMemory<T>& memory)
      : backend_(backend),
        n_(static_cast<Index>(t.diagonal.size())),
        wanted_of_(wanted),
        memory_(memory),
        values_(t.diagonal),
        below_(t.below),
        vectors_(matrix_in(memory.vectors, n_, n_)),
        scratch_(matrix_in(scratch, n_, n_)) {}

  /// Values in descending order, and `vectors` [n x wanted], the first of the largest value.
  void run(Eigen::VectorXd& values, RowMatrix<T>& vectors) {
    divide(0, n_);
    over_rows(vectors_, [&](Index r) { std::fill_n(&vectors_(r, 0), n_, T(0)); });
    parallel_for(backend_.executor, static_cast<Index>(leaves_.size()), [&](Index i, int) {
      const auto [begin, size] = leaves_[static_cast<std::size_t>(i)];
      solve_leaf(begin, size);
    });
    conquer(0, n_);
    const std::vector<Index> order = descending();
    ask();
    values.resize(n_);
    for (Index i = 0; i < n_; ++i) values[i] = at(order[static_cast<std::size_t>(i)]);
    vectors.resize(n_, wanted_);
    over_rows(vectors_, [&](Index r) {
      for (Index j = 0; j < wanted_; ++j)
        vectors(r, j) = last_(r, order[static_cast<std::size_t>(j)]);
    });
  }

 private:
  struct Leaf {
    Index begin, size;
  };

  double& at(Index i) { return values_[static_cast<std::size_t>(i)]; }

  /// f(row) for the rows of a square, shared by blocks.
  template <class F>
  void over_rows(const TensorView<T, 2>& m, const F& f) {
    parallel_for(backend_.executor, ceil_div(m.rows(), rows_of_copy), [&](Index item, int) {
      const Index end = std::min(m.rows(), (item + 1) * rows_of_copy);
      for (Index r = item * rows_of_copy; r < end; ++r) f(r);
    });
  }

  /// The columns by value; those of equal values from the last to the first.
  std::vector<Index> descending() {
    std::vector<Index> order(static_cast<std::size_t>(n_));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return at(a) < at(b); });
    std::reverse(order.begin(), order.end());
    return order;
  }

  /// Settles how many vectors are wanted, when all values are known.
  void ask() {
    if (wanted_ > 0) return;
    Eigen::VectorXd values(n_);
    const std::vector<Index> order = descending();
    for (Index i = 0; i < n_; ++i) values[i] = at(order[static_cast<std::size_t>(i)]);
    wanted_ = wanted_of_(values);
  }

  /// Takes the joints off the diagonal, down to leaves.
  void divide(Index begin, Index size) {
    if (size <= leaf) {
      leaves_.push_back({begin, size});
      return;
    }
    const Index half = size / 2, meet = begin + half;
    const double joint = below_[static_cast<std::size_t>(meet - 1)];
    at(meet - 1) -= std::abs(joint);
    at(meet) -= std::abs(joint);
    divide(begin, half);
    divide(meet, size - half);
  }

  void conquer(Index begin, Index size) {
    if (size <= leaf) return;
    const Index half = size / 2, meet = begin + half;
    conquer(begin, half);
    conquer(meet, size - half);
    const double joint = below_[static_cast<std::size_t>(meet - 1)];
    if (joint != 0) merge(begin, half, size, joint);
  }

  void solve_leaf(Index begin, Index size) {
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(size);
    const Eigen::Map<const Eigen::VectorXd> diagonal(values_.data() + begin, size);
    const Eigen::Map<const Eigen::VectorXd> below(below_.data() + begin, size - 1);
    solver.computeFromTridiagonal(diagonal, below);
    for (Index i = 0; i < size; ++i) {
      at(begin + i) = solver.eigenvalues()[i];
      for (Index j = 0; j < size; ++j)
        vectors_(begin + i, begin + j) = static_cast<T>(solver.eigenvectors()(i, j));
    }
  }

  static TensorView<T, 2> square(TensorView<T, 2> m, Index begin, Index size) {
    return rows_of(columns_of(m, begin, size), begin, size);
  }

  void merge(Index begin, Index half, Index size, double joint) {
    const auto vectors = square(vectors_, begin, size);
    std::vector<double> values(values_.begin() + begin, values_.begin() + begin + size);
    std::vector<double> z(static_cast<std::size_t>(size));
    const double sign = joint < 0 ? -1 : 1, root_half = std::sqrt(0.5);
    for (Index i = 0; i < size; ++i)
      z[static_cast<std::size_t>(i)] =
          root_half * (i < half ? double{vectors(half - 1, i)} : sign * double{vectors(half, i)});
    const Merge<T> merge(values, z, 2 * std::abs(joint), half, vectors);
    const auto count = static_cast<Index>(merge.combined().size());
    const auto poles = find_roots(merge.equation(), begin);
    const auto& kept = merge.kept();
    for (std::size_t i = 0; i < kept.size(); ++i)
      at(begin + count + static_cast<Index>(i)) = values[static_cast<std::size_t>(kept[i])];
    // Of the whole matrix, the vectors of the largest roots are enough.
    if (size == n_) ask();
    const Index first = size == n_ ? std::max<Index>(count - wanted_, 0) : 0;
    combine(merge, turn_of(merge, poles, first), vectors, begin, half, first);
    const auto scratch = square(scratch_, begin, size);
    over_rows(scratch, [&](Index r) {
      for (std::size_t i = 0; i < kept.size(); ++i)
        scratch(r, count + static_cast<Index>(i)) = vectors(r, kept[i]);
      if (size < n_) std::copy_n(&scratch(r, 0), size, &vectors(r, 0));
    });
    if (size == n_) last_ = scratch_;
  }

  /// The roots, and in row i all d_j - root_i, by the number of j in the equation.
  TensorView<double, 2> find_roots(const SecularEquation& f, Index begin) {
    const auto poles = matrix_in(memory_.poles, f.count, f.count);
    parallel_for(backend_.executor, ceil_div(f.count, roots_of_item), [&](Index item, int) {
      const Index end = std::min(f.count, (item + 1) * roots_of_item);
      for (Index i = item * roots_of_item; i < end; ++i) {
        const SecularRoot root = SecularSearch<B>(backend_, f, i).run();
        for (Index j = 0; j < f.count; ++j) poles(i, j) = (f.d[j] - f.d[root.origin]) - root.shift;
        at(begin + i) = f.d[root.origin] + root.shift;
      }
    });
    fitting_ = fitting(f, poles);
    return poles;
  }

  /// Row i holds, for each of `combined`, what vector number first + i takes of it.
  TensorView<const T, 2> turn_of(const Merge<T>& merge, TensorView<double, 2> poles, Index first) {
    const Index count = poles.rows();
    const auto turn = matrix_in(memory_.turn, count - first, count);
    parallel_for(backend_.executor, ceil_div(count - first, roots_of_item), [&](Index item, int) {
      const Index end = std::min(count - first, (item + 1) * roots_of_item);
      for (Index row = item * roots_of_item; row < end; ++row) {
        double* const line = &poles(first + row, 0);
        double norm = 0;
        for (Index j = 0; j < count; ++j) {
          line[j] = fitting_[static_cast<std::size_t>(j)] / line[j];
          norm += line[j] * line[j];
        }
        norm = 1 / std::sqrt(norm);
        for (Index j = 0; j < count; ++j)
          turn(row, j) = static_cast<T>(line[merge.rank()[static_cast<std::size_t>(j)]] * norm);
      }
    });
    return as_const(turn);
  }

  /// The z for which the roots are exact, up to a factor.
  std::vector<double> fitting(const SecularEquation& f, TensorView<double, 2> poles) {
    std::vector<double> z(static_cast<std::size_t>(f.count), 1.0);
    parallel_for(backend_.executor, ceil_div(f.count, rows_of_copy), [&](Index item, int) {
      const Index begin = item * rows_of_copy, end = std::min(f.count, begin + rows_of_copy);
      const auto take = [&](Index i, Index from, Index to) {
        for (Index j = from; j < to; ++j)
          z[static_cast<std::size_t>(j)] *= poles(i, j) / (f.d[j] - f.d[i]);
      };
      for (Index i = 0; i < f.count; ++i) {
        const bool own = i >= begin && i < end;
        take(i, begin, own ? i : end);
        if (!own) continue;
        z[static_cast<std::size_t>(i)] *= -poles(i, i);
        take(i, i + 1, end);
      }
    });
    for (Index j = 0; j < f.count; ++j) {
      double& element = z[static_cast<std::size_t>(j)];
      element = std::copysign(std::sqrt(std::max(element, 0.0)), f.z[j]);
    }
    return z;
  }

  /// scratch <- the columns of `combined` times turn^T, half by half.
  void combine(const Merge<T>& merge, TensorView<const T, 2> turn, TensorView<T, 2> vectors,
               Index begin, Index half, Index first) {
    const auto& columns = merge.combined();
    const auto count = static_cast<Index>(columns.size());
    if (first == count) return;
    const auto after = [&](typename Merge<T>::Part part) {
      return std::partition_point(
                 columns.begin(), columns.end(),
                 [&](const typename Merge<T>::Column& c) { return c.part <= part; }) -
             columns.begin();
    };
    const Index from_second = after(Merge<T>::Part::First), to_first = after(Merge<T>::Part::Both);
    const auto out = columns_of(square(scratch_, begin, vectors.rows()), first, count - first);
    multiply_part(columns, turn, vectors, {0, half}, {0, to_first}, out);
    multiply_part(columns, turn, vectors, {half, vectors.rows()}, {from_second, count}, out);
  }

  struct Range {
    Index begin, end;
    Index size() const { return end - begin; }
  };

  void multiply_part(const std::vector<typename Merge<T>::Column>& columns,
                     TensorView<const T, 2> turn, TensorView<T, 2> vectors, Range rows, Range taken,
                     TensorView<T, 2> out) {
    const auto gathered = matrix_in(memory_.gathered, rows.size(), taken.size());
    over_rows(gathered, [&](Index r) {
      for (Index j = 0; j < taken.size(); ++j)
        gathered(r, j) =
            vectors(rows.begin + r, columns[static_cast<std::size_t>(taken.begin + j)].at);
    });
    multiply(backend_, as_const(gathered), transpose(columns_of(turn, taken.begin, taken.size())),
             rows_of(out, rows.begin, rows.size()));
  }

  static constexpr Index roots_of_item = 8;

  const B& backend_;
  Index n_, wanted_ = 0;
  const WantedVectors& wanted_of_;
  ConquerMemory<T>& memory_;
  std::vector<double> values_, below_, fitting_;
  std::vector<Leaf> leaves_;
  TensorView<T, 2> vectors_, scratch_, last_ = vectors_;
};

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
