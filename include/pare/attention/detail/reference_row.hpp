// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the definitions of this folder share: dot products, softmax, ranking and means, in double.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

inline constexpr double reference_hidden = -std::numeric_limits<double>::infinity();

template <StorageScalar T>
double reference_value(T x) {
  return static_cast<double>(static_cast<compute_t<T>>(x));
}

template <StorageScalar T>
T reference_cast(double x) {
  return static_cast<T>(static_cast<compute_t<T>>(x));
}

/// Judged on the bits, so that no compiler flag can assume it away.
inline bool reference_is_nan(double x) {
  return (std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
}

template <StorageScalar T, StorageScalar U>
double reference_dot(const T* a, const U* b, Index dim) {
  double sum = 0;
  for (Index c = 0; c < dim; ++c) sum += reference_value(a[c]) * reference_value(b[c]);
  return sum;
}

/// Row i of a matrix whose rows are contiguous.
template <StorageScalar T>
const T* reference_row(TensorView<const T, 2> x, Index i) {
  return x.data + i * x.stride[0];
}

/// A list of rows * cols numbers read as a matrix.
inline TensorView<const double, 2> reference_matrix(const std::vector<double>& list, Index cols) {
  return {list.data(), {static_cast<Index>(list.size()) / cols, cols}, {cols, 1}};
}

/// 0, 1, ... n-1 by falling score; equal scores keep their order, NaN comes last.
inline std::vector<std::uint32_t> reference_rank(std::span<const double> scores) {
  std::vector<std::uint32_t> rank(scores.size());
  std::iota(rank.begin(), rank.end(), std::uint32_t{0});
  std::stable_sort(rank.begin(), rank.end(), [scores](std::uint32_t a, std::uint32_t b) {
    if (reference_is_nan(scores[a])) return false;
    return reference_is_nan(scores[b]) || scores[a] > scores[b];
  });
  return rank;
}

/// p_j = e^(s_j - max s) / sum; a score of -inf has probability 0, and a row of nothing else is 0.
inline std::vector<double> reference_softmax(const std::vector<double>& scores) {
  double highest = reference_hidden, sum = 0;
  for (const double s : scores) highest = std::max(highest, s);
  std::vector<double> p(scores.size(), 0.0);
  for (std::size_t j = 0; j < scores.size(); ++j)
    if (scores[j] != reference_hidden) sum += p[j] = std::exp(scores[j] - highest);
  for (std::size_t j = 0; j < p.size(); ++j)
    if (scores[j] != reference_hidden) p[j] /= sum;
  return p;
}

/// log sum_j e^(s_j), -inf for nothing but -inf.
inline double reference_log_sum_exp(const std::vector<double>& scores) {
  double highest = reference_hidden, sum = 0;
  for (const double s : scores) highest = std::max(highest, s);
  for (const double s : scores)
    if (s != reference_hidden) sum += std::exp(s - highest);
  return highest + std::log(sum);
}

/// The mean over heads of x [heads, tokens, dim], as [tokens, dim].
template <StorageScalar T>
std::vector<double> reference_mean_heads(TensorView<const T, 3> x) {
  const Index heads = x.extent[0], tokens = x.extent[1], dim = x.extent[2];
  std::vector<double> mean(static_cast<std::size_t>(tokens * dim), 0.0);
  for (Index i = 0; i < tokens; ++i)
    for (Index c = 0; c < dim; ++c) {
      double& sum = mean[static_cast<std::size_t>(i * dim + c)];
      for (Index h = 0; h < heads; ++h) sum += reference_value(x(h, i, c));
      sum /= static_cast<double>(heads);
    }
  return mean;
}

/// The mean of rows [first, last) of x, zero if there are none.
template <StorageScalar T>
std::vector<double> reference_mean_rows(TensorView<const T, 2> x, Index first, Index last) {
  std::vector<double> mean(static_cast<std::size_t>(x.cols()), 0.0);
  for (Index i = first; i < last; ++i)
    for (Index c = 0; c < x.cols(); ++c)
      mean[static_cast<std::size_t>(c)] +=
          reference_value(x(i, c)) / static_cast<double>(last - first);
  return mean;
}

PARE_ABI_END
}  // namespace pare::attention::detail
