// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::graph::detail {
PARE_ABI_BEGIN

/// Mean and sum of squared deviations of each column over some rows; merges associatively up to
/// rounding (Chan, Golub, LeVeque). No rows: all zero.
struct ColumnMoments {
  double rows = 0;
  std::vector<double> mean, squares;

  explicit ColumnMoments(Index columns)
      : mean(static_cast<std::size_t>(columns), 0.0), squares(mean) {}

  void merge(const ColumnMoments& other) {
    if (other.rows == 0) return;
    const double total = rows + other.rows;
    for (std::size_t c = 0; c < mean.size(); ++c) {
      const double shift = other.mean[c] - mean[c];
      mean[c] += shift * (other.rows / total);
      squares[c] += other.squares[c] + shift * shift * (rows * other.rows / total);
    }
    rows = total;
  }
};

/// Two passes over rows [first, last), which are few enough to stay in L2. Means are those of the
/// distances from the first row, so that a constant column has exactly its value for a mean.
template <class T>
void measure_rows(TensorView<T, 2> x, Index first, Index last, ColumnMoments& m) {
  std::fill(m.mean.begin(), m.mean.end(), 0.0);
  std::fill(m.squares.begin(), m.squares.end(), 0.0);
  m.rows = static_cast<double>(last - first);
  const std::size_t columns = m.mean.size();
  const T* origin = x.data + first * x.stride[0];
  for (Index u = first; u < last; ++u) {
    const T* row = x.data + u * x.stride[0];
    for (std::size_t c = 0; c < columns; ++c)
      m.mean[c] += static_cast<double>(row[c]) - static_cast<double>(origin[c]);
  }
  for (std::size_t c = 0; c < columns; ++c)
    m.mean[c] = static_cast<double>(origin[c]) + m.mean[c] / m.rows;
  for (Index u = first; u < last; ++u) {
    const T* row = x.data + u * x.stride[0];
    for (std::size_t c = 0; c < columns; ++c) {
      const double d = static_cast<double>(row[c]) - m.mean[c];
      m.squares[c] += d * d;
    }
  }
}

/// Rows in a block that is measured as one: a function of the shape alone.
inline Index rows_measured_at_once(Index columns) {
  return std::clamp(Index{65536} / columns, Index{16}, Index{4096});
}

/// The moments of all rows. Blocks are merged in order, 64 at a time so that their moments take
/// little memory: the same bits for any number of threads.
template <class T, Executor E>
ColumnMoments measure_columns(const E& executor, TensorView<T, 2> x) {
  constexpr Index blocks_at_once = 64;
  const Index block = rows_measured_at_once(x.cols());
  const Index blocks = ceil_div(x.rows(), block);
  std::vector<ColumnMoments> parts(static_cast<std::size_t>(std::min(blocks, blocks_at_once)),
                                   ColumnMoments(x.cols()));
  ColumnMoments total(x.cols());
  for (Index begin = 0; begin < blocks; begin += blocks_at_once) {
    const Index count = std::min(blocks_at_once, blocks - begin);
    parallel_for(executor, count, [&](Index i, int) {
      const Index first = (begin + i) * block;
      measure_rows(x, first, std::min(x.rows(), first + block), parts[static_cast<std::size_t>(i)]);
    });
    for (Index i = 0; i < count; ++i) total.merge(parts[static_cast<std::size_t>(i)]);
  }
  return total;
}

/// Brings columns whose squares leave double to magnitudes of about 1, by powers of two that
/// standardisation cancels. False if there is none; squares of floats never leave it.
template <class T>
bool scale_extreme_columns(TensorView<T, 2> x, const ColumnMoments& moments) {
  if constexpr (std::is_same_v<T, float>) return false;
  const auto in_range = [](double squares) { return squares >= 1e-280 && squares <= 1e280; };
  if (std::all_of(moments.squares.begin(), moments.squares.end(), in_range)) return false;
  std::vector<T> largest(moments.squares.size(), T(0));
  for (Index u = 0; u < x.rows(); ++u)
    for (std::size_t c = 0; c < largest.size(); ++c) {
      const T value = std::abs(x.data[u * x.stride[0] + static_cast<Index>(c)]);
      if (value <= std::numeric_limits<T>::max()) largest[c] = std::max(largest[c], value);
    }
  for (std::size_t c = 0; c < largest.size(); ++c) {
    if (in_range(moments.squares[c]) || largest[c] == T(0)) continue;
    const int exponent = std::ilogb(largest[c]);
    for (Index u = 0; u < x.rows(); ++u) {
      T& value = x.data[u * x.stride[0] + static_cast<Index>(c)];
      value = std::ldexp(value, -exponent);
    }
  }
  return true;
}

/// What a column is divided by: its deviation, or infinity where that is no more than the rounding
/// of T that a column of one value has. Divided by that, the rounding would pass for a result.
template <class T>
double column_divisor(double mean, double squares, double rows) {
  const double deviation = std::sqrt(squares / rows);
  constexpr double rounding = 4 * static_cast<double>(std::numeric_limits<T>::epsilon());
  return deviation <= rounding * std::abs(mean) ? std::numeric_limits<double>::infinity()
                                                : deviation;
}

/// Columns to mean 0 and population variance 1; a column that is constant up to rounding becomes 0.
/// Rows are contiguous.
template <class T, Executor E>
void standardize_columns(const E& executor, TensorView<T, 2> x) {
  if (x.rows() == 0 || x.cols() == 0) return;
  ColumnMoments total = measure_columns(executor, x);
  if (scale_extreme_columns(x, total)) total = measure_columns(executor, x);
  // In double: a mean rounded to T would be left in the result, times mean over deviation.
  const std::vector<double>& shift = total.mean;
  std::vector<double> scale(total.squares);
  for (std::size_t c = 0; c < scale.size(); ++c)
    scale[c] = 1 / column_divisor<T>(total.mean[c], total.squares[c], total.rows);
  const Index block = rows_measured_at_once(x.cols());
  parallel_for(executor, ceil_div(x.rows(), block), [&](Index i, int) {
    const Index last = std::min(x.rows(), (i + 1) * block);
    for (Index u = i * block; u < last; ++u) {
      T* row = x.data + u * x.stride[0];
      for (std::size_t c = 0; c < shift.size(); ++c)
        row[c] = static_cast<T>((static_cast<double>(row[c]) - shift[c]) * scale[c]);
    }
  });
}

PARE_ABI_END
}  // namespace pare::graph::detail
