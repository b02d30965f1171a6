// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Balanced k-means by its definition: one greedy pass, and the means of its clusters.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Rows of cluster k: the first rows % clusters clusters take one more.
inline Index balanced_size(Index rows, Index clusters, Index k) {
  return rows / clusters + (k < rows % clusters ? 1 : 0);
}

/// |x_i - c_k|^2 in double.
template <class T>
double squared_distance(TensorView<const T, 2> rows, Index i, TensorView<const T, 2> centroids,
                        Index k) {
  double sum = 0;
  for (Index c = 0; c < rows.cols(); ++c) {
    const double apart = static_cast<double>(rows(i, c)) - static_cast<double>(centroids(k, c));
    sum += apart * apart;
  }
  return sum;
}

/// A row that has no cluster yet.
struct FreeRow {
  double distance = 0;
  Index row = 0;
};
struct IsNearer {
  bool operator()(const FreeRow& a, const FreeRow& b) const {
    return a.distance < b.distance || (a.distance == b.distance && a.row < b.row);
  }
};

/// One cluster after the other takes the nearest rows that are left. Returns whether a row moved.
template <class T>
bool reference_assign_balanced(TensorView<const T, 2> rows, TensorView<const T, 2> centroids,
                               std::vector<std::uint32_t>& assigned) {
  std::vector<FreeRow> left(static_cast<std::size_t>(rows.rows()));
  for (std::size_t i = 0; i < left.size(); ++i) left[i].row = static_cast<Index>(i);
  bool moved = false;
  for (Index k = 0; k < centroids.rows(); ++k) {
    for (FreeRow& x : left) x.distance = squared_distance(rows, x.row, centroids, k);
    std::sort(left.begin(), left.end(), IsNearer{});
    const auto taken =
        left.begin() + static_cast<std::ptrdiff_t>(balanced_size(rows.rows(), centroids.rows(), k));
    for (auto x = left.begin(); x != taken; ++x) {
      std::uint32_t& cluster = assigned[static_cast<std::size_t>(x->row)];
      moved = moved || cluster != static_cast<std::uint32_t>(k);
      cluster = static_cast<std::uint32_t>(k);
    }
    left.erase(left.begin(), taken);
  }
  return moved;
}

/// Moves each centroid to the mean of its rows; returns the sum of squared distances to it.
template <class T>
double reference_move_to_means(TensorView<const T, 2> rows,
                               const std::vector<std::uint32_t>& assigned,
                               RowMatrix<T>& centroids) {
  RowMatrix<double> sums = RowMatrix<double>::Zero(centroids.rows(), centroids.cols());
  for (Index i = 0; i < rows.rows(); ++i)
    for (Index c = 0; c < rows.cols(); ++c)
      sums(static_cast<Index>(assigned[static_cast<std::size_t>(i)]), c) +=
          static_cast<double>(rows(i, c));
  for (Index k = 0; k < sums.rows(); ++k)
    for (Index c = 0; c < sums.cols(); ++c)
      centroids(k, c) = static_cast<T>(
          sums(k, c) / static_cast<double>(balanced_size(rows.rows(), centroids.rows(), k)));
  double inertia = 0;
  for (Index i = 0; i < rows.rows(); ++i)
    inertia += squared_distance(rows, i, const_view(centroids),
                                static_cast<Index>(assigned[static_cast<std::size_t>(i)]));
  return inertia;
}

/// The cluster of the nearest centroid, of equal ones the first.
template <class T>
std::uint32_t reference_nearest(TensorView<const T, 2> rows, Index i,
                                TensorView<const T, 2> centroids) {
  Index best = 0;
  double least = squared_distance(rows, i, centroids, 0);
  for (Index k = 1; k < centroids.rows(); ++k) {
    const double distance = squared_distance(rows, i, centroids, k);
    if (!(distance < least)) continue;
    least = distance;
    best = k;
  }
  return static_cast<std::uint32_t>(best);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
