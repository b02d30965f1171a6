// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A dense times sparse factorization block by block, and its checks.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/dense_sparse_options.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/factor/structured/detail/dense_sparse_block.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Rows of W over a scale, in double.
template <StorageScalar S>
RowMatrix<double> scaled_rows(TensorView<const S, 2> w, Index begin, Index count, double scale) {
  RowMatrix<double> rows(count, w.cols());
  for (Index i = 0; i < count; ++i)
    for (Index j = 0; j < w.cols(); ++j)
      rows(i, j) = static_cast<double>(static_cast<compute_t<S>>(w(begin + i, j))) / scale;
  return rows;
}

/// The largest |w|, or 1 of zeros.
template <StorageScalar S>
double largest_size(TensorView<const S, 2> w) {
  double most = 0;
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j)
      most = std::max(most, std::abs(static_cast<double>(static_cast<compute_t<S>>(w(i, j)))));
  return most > 0 ? most : 1;
}

/// A block of an earlier weight, its values over the scale.
template <ComputeScalar T>
BlockStart start_of(const DenseSparse<T>& weight, Index b, double scale) {
  BlockStart start;
  const Index block = weight.block(), nonzeros = weight.nonzeros();
  start.atoms =
      row_matrix<double>(rows_of(weight.dictionary(), b * weight.atoms(), weight.atoms()));
  start.codes.values.resize(block, nonzeros);
  start.codes.places.resize(block, nonzeros);
  for (Index o = 0; o < block; ++o)
    for (Index k = 0; k < nonzeros; ++k) {
      start.codes.values(o, k) = static_cast<double>(weight.value(b * block + o, k)) / scale;
      start.codes.places(o, k) = static_cast<std::int32_t>(weight.place(b * block + o, k));
    }
  return start;
}

/// Writes a block, its values times their scale and its atoms over the root of the metric's.
template <ComputeScalar T>
void store_block(const char* function, const BlockFit& fit, Index b, double scale, double variance,
                 DenseSparse<T>& weight) {
  const double root = std::sqrt(variance);
  const auto fitting = [&](double value) {
    const T rounded = static_cast<T>(value);
    check(is_finite(static_cast<double>(rounded)), function, "w", value,
          "values that fit the scalar of the result");
    return rounded;
  };
  const auto dictionary = rows_of(weight.own_dictionary(), b * weight.atoms(), weight.atoms());
  for (Index a = 0; a < dictionary.rows(); ++a)
    for (Index i = 0; i < dictionary.cols(); ++i)
      dictionary(a, i) = fitting(fit.atoms(a, i) / root);
  for (Index o = 0; o < weight.block(); ++o)
    for (Index k = 0; k < weight.nonzeros(); ++k)
      weight.set(b * weight.block() + o, k, fit.codes.places(o, k),
                 fitting(fit.codes.values(o, k) * (scale * root)));
}

/// Adds a block's losses, each sweep to its own; what ended earlier stays as it was.
inline void add_losses(const std::vector<double>& block, double scale, std::vector<double>& all) {
  const double ended = all.empty() ? 0 : all.back();
  if (all.size() < block.size()) all.resize(block.size(), ended);
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] += scale * block[std::min(i, block.size() - 1)];
}

template <class B, StorageScalar S>
DenseSparseFit<compute_t<S>> dense_sparse_views(const char* function, const B& backend,
                                                TensorView<const S, 2> w,
                                                const RowMatrix<double>* covariance,
                                                const DenseSparse<compute_t<S>>* start,
                                                const DenseSparseOptions& options) {
  const Index block = options.block.value_or(w.rows());
  const double scale = largest_size(w);
  double variance = 1;
  RowMatrix<double> metric;
  if (covariance != nullptr) {
    const double most = covariance->diagonal().maxCoeff();
    variance = most > 0 ? most : 1;
    metric = *covariance / variance;
  }
  const double unit = scale * scale * variance;
  Workspace own;
  const B kept = keeping(backend, own);
  DenseSparseFit<compute_t<S>> result{
      DenseSparse<compute_t<S>>({w.rows(), w.cols(), block, options.atoms, options.nonzeros}),
      {},
      0};
  bool has_energy = false;
  for (Index b = 0; b < w.rows() / block; ++b) {
    const RowMatrix<double> rows = scaled_rows(w, b * block, block, scale);
    BlockStart from;
    if (start != nullptr)
      from = start_of(*start, b, scale);
    else
      from.atoms = start_atoms(rows, options.atoms);
    const BlockFit fit =
        BlockFitter<B>(kept, rows, covariance != nullptr ? &metric : nullptr,
                       {options.nonzeros, options.sweeps, options.tolerance, options.ridge})
            .run(std::move(from));
    store_block(function, fit, b, scale, variance, result.weight);
    add_losses(fit.losses, unit, result.losses);
    result.total_energy += unit * fit.energy;
    has_energy = has_energy || fit.energy > 0;
  }
  check(is_finite(result.total_energy) && (result.total_energy > 0 || !has_energy), function, "w",
        result.total_energy, "a sum of squares that double holds");
  return result;
}

template <StorageScalar S>
void check_dense_sparse(const char* function, TensorView<const S, 2> w,
                        const DenseSparseOptions& options) {
  check_view(function, "w", w);
  check(w.rows() >= 1 && w.cols() >= 1, function, "w", w.extent, "extents of at least 1");
  validate(function, options, w.rows(), w.cols());
  check_finite(function, "w", w);
}

template <ComputeScalar T>
void check_start(const char* function, const DenseSparse<T>& start) {
  check_finite(function, "start", start.dictionary());
  for (Index o = 0; o < start.outputs(); ++o)
    for (Index k = 0; k < start.nonzeros(); ++k) {
      const auto value = static_cast<double>(start.value(o, k));
      check(is_finite(value), function, "start", value, "finite values");
    }
}

/// A covariance that sums of x x^T give, of finite inputs.
inline RowMatrix<double> checked_moments(const char* function, RowMatrix<double> c, Index inputs) {
  check_extents<2>(function, "covariance", {c.rows(), c.cols()}, {inputs, inputs});
  check_finite<double>(function, "covariance", const_view(c));
  return c;
}

PARE_ABI_END
}  // namespace pare::factor::detail

#include <pare/core/macros_on.hpp>
