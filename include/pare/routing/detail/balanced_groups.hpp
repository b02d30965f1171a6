// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Balanced k-means of columns by cosine, and permutations of rows.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// |columns| as rows of length 1, in double; a column of zeros stays one.
template <class T>
RowMatrix<double> unit_columns(const TensorView<const T, 2>& a) {
  RowMatrix<double> unit(a.cols(), a.rows());
  for (Index i = 0; i < a.cols(); ++i) {
    double most = 0;
    for (Index t = 0; t < a.rows(); ++t)
      most = std::max(most, std::abs(static_cast<double>(a(t, i))));
    for (Index t = 0; t < a.rows(); ++t)
      unit(i, t) = most > 0 ? std::abs(static_cast<double>(a(t, i))) / most : 0;
    const double length = unit.row(i).norm();
    if (length > 0) unit.row(i) /= length;
  }
  return unit;
}

/// Centres: a neuron by the seed, then those least like any before.
inline RowMatrix<double> first_centres(const RowMatrix<double>& unit, Index groups,
                                       std::uint64_t seed) {
  RowMatrix<double> centres(groups, unit.cols());
  Eigen::VectorXd nearest = Eigen::VectorXd::Constant(unit.rows(), -1);
  auto next = static_cast<Index>(seed % static_cast<std::uint64_t>(unit.rows()));
  for (Index g = 0; g < groups; ++g) {
    centres.row(g) = unit.row(next);
    nearest = nearest.cwiseMax(unit * centres.row(g).transpose());
    nearest.minCoeff(&next);
  }
  return centres;
}

/// The group of each neuron: pairs by falling similarity, as long as a group has room; of equal
/// ones the lower neuron, then the lower group.
inline std::vector<Index> assign_balanced(const RowMatrix<double>& similarity) {
  const Index neurons = similarity.rows(), groups = similarity.cols();
  std::vector<Index> pairs(static_cast<std::size_t>(neurons * groups));
  std::iota(pairs.begin(), pairs.end(), Index{0});
  std::stable_sort(pairs.begin(), pairs.end(),
                   [&](Index a, Index b) { return similarity.data()[a] > similarity.data()[b]; });
  std::vector<Index> group(static_cast<std::size_t>(neurons), -1);
  std::vector<Index> room(static_cast<std::size_t>(groups), neurons / groups);
  for (const Index pair : pairs) {
    Index& of = group[static_cast<std::size_t>(pair / groups)];
    Index& left = room[static_cast<std::size_t>(pair % groups)];
    if (of >= 0 || left == 0) continue;
    of = pair % groups;
    --left;
  }
  return group;
}

template <class T>
std::vector<Index> balanced_groups(const TensorView<const T, 2>& activations, Index groups,
                                   Index rounds, std::uint64_t seed) {
  const RowMatrix<double> unit = unit_columns(activations);
  RowMatrix<double> centres = first_centres(unit, groups, seed);
  std::vector<Index> group = assign_balanced(unit * centres.transpose());
  for (Index round = 0; round < rounds; ++round) {
    centres.setZero();
    for (Index i = 0; i < unit.rows(); ++i)
      centres.row(group[static_cast<std::size_t>(i)]) += unit.row(i);
    for (Index g = 0; g < groups; ++g) {
      const double length = centres.row(g).norm();
      if (length > 0) centres.row(g) /= length;
    }
    std::vector<Index> next = assign_balanced(unit * centres.transpose());
    if (next == group) break;
    group.swap(next);
  }
  std::vector<Index> order(group.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
    return group[static_cast<std::size_t>(a)] < group[static_cast<std::size_t>(b)];
  });
  return order;
}

/// Each of 0 .. size - 1 once.
inline void check_order(const char* function, std::span<const Index> order, Index size) {
  check(static_cast<Index>(order.size()) == size, function, "order", order.size(),
        Worded{"one for each of the neurons, ", size});
  std::vector<char> seen(order.size(), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Index at = order[i];
    const std::array<Index, 2> got{static_cast<Index>(i), at};
    check(at >= 0 && at < size, function, "order", got,
          Worded{"[place, neuron] with a neuron from 0 to below ", size});
    check(seen[static_cast<std::size_t>(at)] == 0, function, "order", got,
          "[place, neuron] with each neuron once");
    seen[static_cast<std::size_t>(at)] = 1;
  }
}

template <class S>
void permute_rows(std::span<const Index> order, const TensorView<S, 2>& m) {
  RowMatrix<S> copy(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) copy(i, j) = m(i, j);
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) m(i, j) = copy(order[static_cast<std::size_t>(i)], j);
}

PARE_ABI_END
}  // namespace pare::routing::detail
