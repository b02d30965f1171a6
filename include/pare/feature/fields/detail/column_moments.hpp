// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Variances of fields, summed over their columns.

#include <pare/core/backend.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/kernel/column_statistics.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// sum_c (1/B) sum_b (x_bc - mean_c)^2 of each field.
template <class T>
std::vector<double> reference_total_variances(const FieldBatch<const T>& x) {
  std::vector<double> variances;
  for (Index j = 0; j < x.layout->fields(); ++j) {
    const auto block = x.block(j);
    const auto rows = static_cast<double>(block.rows());
    double total = 0;
    for (Index c = 0; c < block.cols(); ++c) {
      double mean = 0, squares = 0;
      for (Index b = 0; b < block.rows(); ++b) mean += static_cast<double>(block(b, c)) / rows;
      for (Index b = 0; b < block.rows(); ++b) {
        const double difference = static_cast<double>(block(b, c)) - mean;
        squares += difference * difference;
      }
      total += squares / rows;
    }
    variances.push_back(total);
  }
  return variances;
}

/// The same by sums of x less its first row, which keeps a far mean from cancelling.
template <class B, class T>
double total_variance(const B& backend, TensorView<const T, 2> block,
                      std::vector<double>& scratch) {
  const auto columns = static_cast<std::size_t>(block.cols());
  scratch.assign(2 * columns, 0.0);
  launch(backend,
         kernel::ColumnMoments<T>{block.data, block.stride[0], block.stride[1], block.rows(),
                                  block.cols(), scratch.data(), scratch.data() + columns});
  const auto rows = static_cast<double>(block.rows());
  double total = 0;
  for (std::size_t c = 0; c < columns; ++c) {
    const double mean = scratch[c] / rows;
    const double variance = scratch[columns + c] / rows - mean * mean;
    total += variance < 0 ? 0 : variance;
  }
  return total;
}

template <class B, class T>
std::vector<double> total_variances(const B& backend, const FieldBatch<const T>& x) {
  constexpr Index fields_of_item = 16;
  const Index fields = x.layout->fields(), items = (fields + fields_of_item - 1) / fields_of_item;
  std::vector<double> variances(static_cast<std::size_t>(fields));
  std::vector<std::vector<double>> scratch(
      static_cast<std::size_t>(worker_count(backend.executor, items)));
  parallel_for(backend.executor, items, [&](Index item, int worker) {
    const Index end = std::min(fields, (item + 1) * fields_of_item);
    for (Index j = item * fields_of_item; j < end; ++j)
      variances[static_cast<std::size_t>(j)] =
          total_variance(backend, x.block(j), scratch[static_cast<std::size_t>(worker)]);
  });
  return variances;
}

PARE_ABI_END
}  // namespace pare::feature::detail
