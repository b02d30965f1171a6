// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a step of the layer costs in time and memory where there are thousands of fields.

#include <pare/core/aligned_buffer.hpp>
#include <pare/feature/fields/sparse_fields.hpp>
#include <pare/feature/leap/leap.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace table {

using pare::feature::FieldBatch;
using pare::feature::FieldLayout;
using pare::feature::SparseFields;
using pare::feature::Storage;
using Index = std::ptrdiff_t;

/// Scalars to embeddings of 64, as recommenders have them.
inline FieldLayout recommender_layout(Index fields) {
  constexpr Index cycle[] = {1, 1, 8, 1, 2, 1, 64, 1, 4, 1, 16, 1, 2, 1, 8, 4};
  std::vector<Index> widths;
  for (Index j = 0; j < fields; ++j) widths.push_back(cycle[j % 16]);
  return FieldLayout(widths);
}

/// Fields of which one row in a hundred is no default.
inline SparseFields<float> sparse_batch(const FieldLayout& layout, Index rows) {
  std::mt19937_64 bits(1);
  SparseFields<float> x(layout, rows);
  std::vector<std::vector<std::uint32_t>> entries(static_cast<std::size_t>(layout.fields()));
  std::vector<Index> counts;
  for (auto& list : entries) {
    for (Index b = 0; b < rows; ++b)
      if (bits() % 100 == 0) list.push_back(static_cast<std::uint32_t>(b));
    counts.push_back(static_cast<Index>(list.size()));
  }
  x.reserve(counts);
  for (Index j = 0; j < layout.fields(); ++j) {
    x.set_rows(j, entries[static_cast<std::size_t>(j)]);
    const auto values = x.values(j);
    for (Index i = 0; i < values.rows() * values.cols(); ++i)
      values.data[i] = static_cast<float>(bits() >> 40) * 0x1p-24f - 0.5f;
  }
  return x;
}

/// Median milliseconds of a call.
template <class F>
double milliseconds(const F& f) {
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::nth_element(times.begin(), times.begin() + 3, times.end());
  return times[3];
}

/// Prints time and memory of a step of 12,000 fields, 4,096 rows, dense and sparse.
inline void print_scale(Index fields, Index rows, int threads) {
  const auto backend = pare::simd.threads(threads);
  const FieldLayout layout = recommender_layout(fields);
  const SparseFields<float> x = sparse_batch(layout, rows);
  pare::feature::Leap<float> leap(layout, {.donors = pare::feature::DonorPolicy::Shift});
  pare::feature::SparseMix<float> mixed;
  leap.forward(backend, x, mixed);
  SparseFields<float> gradient = mixed.fields(), grad_x;
  const auto entry_bytes = [&](const SparseFields<float>& f) {
    double bytes = 0;
    for (Index j = 0; j < layout.fields(); ++j)
      bytes += 4.0 * static_cast<double>(f.entries(j) * (layout.width(j) + 1));
    return bytes;
  };
  leap.backward(backend, x, mixed, gradient, grad_x);
  const double sparse_mib =
      (entry_bytes(x) + entry_bytes(mixed.fields()) + entry_bytes(gradient) + entry_bytes(grad_x)) /
      (1 << 20);
  // Each forward pass draws anew which rows are mixed, and with them the entries of the gradient.
  const double forward = milliseconds([&] { leap.forward(backend, x, mixed); });
  gradient = mixed.fields();
  const double backward = milliseconds([&] { leap.backward(backend, x, mixed, gradient, grad_x); });
  leap.step_gates();
  std::printf(
      "%td fields of 1 to 64 columns, %td columns, %td rows, 1 in 100 no default, %d threads\n",
      layout.fields(), layout.dim(), rows, threads);
  std::printf("  sparse: forward %8.2f ms, backward %8.2f ms, %8.1f MiB of entries\n", forward,
              backward, sparse_mib);

  const auto size = static_cast<std::size_t>(rows * layout.dim());
  pare::AlignedBuffer<float> dense_x(size), dense_mixed(size), dense_gradient(size);
  const auto batch = [&](pare::AlignedBuffer<float>& buffer) {
    return FieldBatch<float>{buffer.data(), rows, &layout, Storage::FieldBlocked, 0};
  };
  to_dense(x, batch(dense_x));
  std::fill_n(dense_mixed.data(), size, 0.0f);
  to_dense(gradient, batch(dense_gradient));
  const double dense_forward =
      milliseconds([&] { leap.forward(backend, batch(dense_x), batch(dense_mixed)); });
  const double dense_backward =
      milliseconds([&] { leap.backward(backend, batch(dense_gradient), batch(dense_gradient)); });
  std::printf("  dense:  forward %8.2f ms, backward %8.2f ms, %8.1f MiB in three batches\n",
              dense_forward, dense_backward, 12.0 * static_cast<double>(size) / (1 << 20));
  std::printf("  a sparse step takes %.3f of the time of a dense one\n",
              (forward + backward) / (dense_forward + dense_backward));
}

}  // namespace table
