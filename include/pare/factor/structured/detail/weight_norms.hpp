// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Norms of the columns and rows of a weight, as NoWag normalises it; and where it is not finite.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/squared_sums.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// work(row) for every row, on threads where there are some.
template <Backend B, class Work>
void each_row(const B& backend, Index rows, const Work& work) {
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, rows, [&](Index i, int) { work(i); });
  else
    for (Index i = 0; i < rows; ++i) work(i);
}

/// What NoWag's code adds to each norm.
inline constexpr double norm_epsilon = 1e-5;

/// Rows that a worker takes at once: their columns are summed in T, blocks in double.
inline constexpr Index weight_block_rows = 64;

template <StorageScalar S>
double entry_of(TensorView<const S, 2> w, Index i, Index j) {
  return static_cast<double>(static_cast<compute_t<S>>(w(i, j)));
}

/// Refuses a row of W that has a number which is not finite, and says where.
template <StorageScalar S>
void check_finite_row(const char* function, TensorView<const S, 2> w, Index row) {
  for (Index j = 0; j < w.cols(); ++j) {
    const double value = entry_of(w, row, j);
    if (!is_finite(value))
      check(false, function, "w",
            std::to_string(value) + " at row " + std::to_string(row) + ", column " +
                std::to_string(j),
            "finite numbers");
  }
}

/// The rows of an item, contiguous: as they lie, or copied to a worker's buffer.
template <class B, StorageScalar S>
class ContiguousRows {
 public:
  ContiguousRows(const B& backend, TensorView<const S, 2> w, Index block)
      : w_(w), size_(w.stride[1] == 1 || w.cols() == 1 ? 0 : block * w.cols()) {
    if (size_ > 0)
      copies_.resize(static_cast<std::size_t>(
          size_ * worker_count(backend.executor, ceil_div(w.rows(), block))));
  }

  TensorView<const S, 2> at(Index begin, Index count, int worker) {
    const auto rows = rows_of(w_, begin, count);
    if (size_ == 0) return {rows.data, rows.extent, {rows.stride[0], 1}};
    const TensorView<S, 2> copy{copies_.data() + worker * size_, rows.extent, {w_.cols(), 1}};
    for (Index j = 0; j < rows.cols(); ++j)
      for (Index i = 0; i < count; ++i) copy(i, j) = rows(i, j);
    return pare::as_const(copy);
  }

 private:
  TensorView<const S, 2> w_;
  Index size_;
  AlignedBuffer<S> copies_;
};

/// sqrt(sum_i w_ij^2) of one column, in double and at any scale.
template <StorageScalar S>
double plain_column_norm(const char* function, TensorView<const S, 2> w, Index j) {
  double largest = 0, sum = 0;
  for (Index i = 0; i < w.rows(); ++i) {
    const double size = std::abs(entry_of(w, i, j));
    if (!is_finite(size)) check_finite_row(function, w, i);
    largest = std::max(largest, size);
  }
  if (largest == 0) return 0;
  for (Index i = 0; i < w.rows(); ++i) {
    const double share = entry_of(w, i, j) / largest;
    sum += share * share;
  }
  return largest * std::sqrt(sum);
}

/// The same of all columns.
/// \throws std::invalid_argument if a number is not finite.
template <Backend B, StorageScalar S>
std::vector<double> column_norms(const char* function, const B& backend, TensorView<const S, 2> w) {
  std::vector<double> norms(static_cast<std::size_t>(w.cols()));
  const auto exact = [&](Index j) {
    norms[static_cast<std::size_t>(j)] = plain_column_norm(function, w, j);
  };
  if constexpr (!KernelBackend<B>) {
    for (Index j = 0; j < w.cols(); ++j) exact(j);
  } else {
    using T = compute_t<S>;
    const Index blocks = ceil_div(w.rows(), weight_block_rows), in = w.cols();
    ContiguousRows<B, S> rows(backend, w, weight_block_rows);
    std::vector<T> sums(static_cast<std::size_t>(blocks * in));
    parallel_for(backend.executor, blocks, [&](Index item, int worker) {
      const Index begin = item * weight_block_rows;
      const auto part = rows.at(begin, std::min(weight_block_rows, w.rows() - begin), worker);
      launch(backend, kernel::SquaredSums<S>{part.data, part.stride[0], part.rows(), in, nullptr,
                                             sums.data() + item * in, nullptr});
    });
    for (Index b = 0; b < blocks; ++b)
      for (Index j = 0; j < in; ++j)
        norms[static_cast<std::size_t>(j)] +=
            static_cast<double>(sums[static_cast<std::size_t>(b * in + j)]);
    // Squares that overflowed, or a number that is not finite.
    for (Index j = 0; j < in; ++j) {
      double& norm = norms[static_cast<std::size_t>(j)];
      if (is_finite(norm))
        norm = std::sqrt(norm);
      else
        exact(j);
    }
  }
  return norms;
}

PARE_ABI_END
}  // namespace pare::factor::detail
