// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/projection/detail/project_dense.hpp>
#include <pare/projection/detail/sampler.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// Part of R's entries that are not 0 from which on a matrix product is faster than sums of signs:
/// measured on Zen 5, where 4000 x 5000 to 1024 in float take 166 and 184 ms at .25, 238 and 191 at
/// .35.
inline constexpr double product_density = 0.28;

/// Whether to project by a matrix product: of as many rows as the sums of signs take at once, and
/// matrices that a product reads by lines.
template <class X, class T>
bool projects_by_product(TensorView<const X, 2> x, double column_nonzeros, TensorView<T, 2> y) {
  const auto has_lines = [](const auto& m) { return m.stride[0] == 1 || m.stride[1] == 1; };
  return column_nonzeros >= product_density * static_cast<double>(y.cols()) &&
         x.rows() >= kernel::panel_rows<T> && has_lines(x) && has_lines(y);
}

/// The signs of rows [first_row, first_row + outputs) and columns [first, last) of R, at most 64 of
/// them: by column, `outputs` apart. first_row is a multiple of rows_per_block.
template <class T, class Sampler, KernelBackend B>
void draw_signs(const Sampler& sampler, const B& backend, Index first, Index last, Index first_row,
                Index outputs, T* signs) {
  std::array<Index, 64> columns;
  for (Index j = first; j < last; ++j) columns[static_cast<std::size_t>(j - first)] = j;
  std::fill_n(signs, (last - first) * outputs, T(0));
  sampler.sample(backend, columns.data(), last - first, first_row, first_row + outputs,
                 [&](Index column, Index row, std::uint64_t mask, std::uint64_t negative) {
                   T* out = signs + column * outputs + row - first_row;
                   const Index rows = std::min(rows_per_block, outputs - (row - first_row));
                   for (Index r = 0; r < rows; ++r) {  // no branch: compilers vectorize it
                     const auto bit = static_cast<int>((mask >> r) & 1u);
                     out[r] += static_cast<T>(bit - 2 * (bit & static_cast<int>(negative >> r)));
                   }
                 });
}

/// factor * c.
template <class T>
struct ScaleAll {
  T factor;
  T operator()(Index, Index, T sum) const { return factor * sum; }
};

/// Y = scale * X * (signs of R)^T by products with dense pieces of R, each drawn once.
template <class Sampler, class X, class T, KernelBackend B>
void multiply_by_signs(const B& backend, TensorView<const X, 2> x, const Sampler& sampler,
                       double scale, TensorView<T, 2> y) {
  constexpr Index most_columns = 4 * linalg::product_depth, columns_per_item = 64;
  constexpr auto most_outputs =
      static_cast<Index>(operator_bytes) / (most_columns * static_cast<Index>(sizeof(T)));
  const auto memory = leased<AlignedBuffer<T>>(backend);
  T* signs = memory->resize(static_cast<std::size_t>(std::min(most_outputs, y.cols()) *
                                                     std::min(most_columns, x.cols())));
  for (Index row = 0; row < y.cols(); row += most_outputs) {
    const Index outputs = std::min(most_outputs, y.cols() - row);
    const TensorView<T, 2> part{&y(0, row), {y.rows(), outputs}, y.stride};
    for (Index first = 0; first < x.cols(); first += most_columns) {
      const Index columns = std::min(most_columns, x.cols() - first);
      parallel_for(backend.executor, ceil_div(columns, columns_per_item), [&](Index item, int) {
        const Index begin = item * columns_per_item;
        const Index end = std::min(columns, begin + columns_per_item);
        draw_signs(sampler, backend, first + begin, first + end, row, outputs,
                   signs + begin * outputs);
      });
      const TensorView<const X, 2> left{&x(0, first), {x.rows(), columns}, x.stride};
      const TensorView<const T, 2> right{signs, {columns, outputs}, {outputs, 1}};
      const linalg::ProductOptions<T> options{.accumulate = first > 0};
      if (first + columns < x.cols())
        linalg::multiply(backend, left, right, part, options);
      else
        linalg::multiply(backend, left, right, part, options, ScaleAll<T>{entry_factor<T>(scale)});
    }
  }
}

/// The same, with the bits of project_dense: products add in ascending order of the columns to what
/// Y holds, and a product with a sign is exact. Not so where X is not finite, whose product with 0
/// is NaN: every output of its row is then infinite or NaN, and the rows from the first to the last
/// such one are projected again, by sums of signs.
template <class Sampler, class X, class T, KernelBackend B>
void project_by_product(const B& backend, TensorView<const X, 2> x, const Sampler& sampler,
                        double column_nonzeros, double scale, TensorView<T, 2> y) {
  multiply_by_signs(backend, x, sampler, scale, y);
  const auto finite = [&](Index u) { return is_finite(static_cast<double>(y(u, 0))); };
  Index first = 0, last = y.rows();
  while (first < last && finite(first)) ++first;
  while (first < last && finite(last - 1)) --last;
  if (first == last) return;
  const TensorView<const X, 2> rows{&x(first, 0), {last - first, x.cols()}, x.stride};
  const TensorView<T, 2> sums{&y(first, 0), {last - first, y.cols()}, y.stride};
  project_dense(backend, rows, sampler, column_nonzeros, scale, sums);
}

PARE_ABI_END
}  // namespace pare::projection::detail
