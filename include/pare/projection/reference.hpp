// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in plain loops that accumulate in double on one thread.
///
/// ```cpp
/// project(pare::reference, x, omega, y);                 // the backend that runs them
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/random.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/projection/detail/binomial.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// Calls visit(row, sign) for the nonzeros of column j of R, rows ascending.
template <class Visit>
void reference_column(const SparseProjection& r, Index j, const Visit& visit) {
  const PhiloxKey key(r.seed);
  const auto low = static_cast<std::uint32_t>(j);
  const auto high = static_cast<std::uint32_t>(static_cast<std::uint64_t>(j) >> 32);
  const BinomialTable whole_block(64, r.effective_density());
  const BinomialTable last_block(static_cast<int>(r.output_dim % 64), r.effective_density());
  for (Index row = 0; row < r.output_dim; row += 64) {
    const auto block = static_cast<std::uint32_t>(row / 64);
    const int rows = static_cast<int>(std::min<Index>(64, r.output_dim - row));
    const PhiloxCounter head = philox({block, low, high, 0}, key);
    const std::uint64_t draw = (std::uint64_t{head[0]} << 32) | head[1];
    const std::uint64_t signs = (std::uint64_t{head[2]} << 32) | head[3];
    const int count = (rows == 64 ? whole_block : last_block).count(draw);
    std::vector<bool> taken(static_cast<std::size_t>(rows), false);
    for (int i = 0; i < count; ++i) {
      const auto t = static_cast<std::uint32_t>(i / 4 + 1);
      const std::uint32_t word =
          philox({block, low, high, t}, key)[static_cast<std::size_t>(i % 4)];
      const auto top = static_cast<std::uint32_t>(rows - count + i);
      const std::uint32_t place = scale_to_range(word, top + 1);
      taken[taken[place] ? top : place] = true;
    }
    for (int i = 0; i < rows; ++i)
      if (taken[static_cast<std::size_t>(i)]) visit(row + i, ((signs >> i) & 1u) != 0 ? -1 : 1);
  }
}

/// Calls visit(row, sign) for the nonzeros of column j of S, rows ascending.
template <class Visit>
void reference_column(const SparseSignProjection& s, Index j, const Visit& visit) {
  const PhiloxKey key(s.seed);
  const auto low = static_cast<std::uint32_t>(j);
  const auto high = static_cast<std::uint32_t>(static_cast<std::uint64_t>(j) >> 32);
  for (Index group = 0; group < s.nonzeros; ++group) {
    const Index first = group * s.output_dim / s.nonzeros;
    const Index last = (group + 1) * s.output_dim / s.nonzeros;
    const auto quad = static_cast<std::uint32_t>(group / 4);
    const PhiloxCounter places = philox({quad, low, high, 0x534a4c54u}, key);
    const PhiloxCounter signs = philox({quad / 32, low, high, 0x534a4c55u}, key);
    const Index row = first + scale_to_range(places[static_cast<std::size_t>(group % 4)],
                                             static_cast<std::uint32_t>(last - first));
    const std::uint32_t sign_word = signs[static_cast<std::size_t>(group % 128 / 32)];
    visit(row, ((sign_word >> (group % 32)) & 1u) != 0 ? -1 : 1);
  }
}

/// Y = X R^T with dense X: y(i, r) = scale * sum_j sign(r, j) x(i, j).
template <RandomOperator R, class X, class T>
void reference_project(TensorView<const X, 2> x, const R& r, double scale, TensorView<T, 2> y) {
  std::vector<double> sum(static_cast<std::size_t>(y.rows() * y.cols()), 0.0);
  for (Index j = 0; j < r.input_dim; ++j)
    reference_column(r, j, [&](Index row, int sign) {
      for (Index i = 0; i < x.rows(); ++i)
        sum[static_cast<std::size_t>(i * y.cols() + row)] +=
            sign * static_cast<double>(static_cast<compute_t<X>>(x(i, j)));
    });
  for (Index i = 0; i < y.rows(); ++i)
    for (Index k = 0; k < y.cols(); ++k)
      y(i, k) = static_cast<T>(scale * sum[static_cast<std::size_t>(i * y.cols() + k)]);
}

/// Y = X R^T with the rows of a sparse X.
template <RandomOperator R, class T, class I>
void reference_project(const CompressedView<T, I>& x, const R& r, TensorView<T, 2> y) {
  for (Index i = 0; i < x.outer_size; ++i) {
    std::vector<double> sum(static_cast<std::size_t>(y.cols()), 0.0);
    for (Index e = x.begin(i); e < x.end(i); ++e)
      reference_column(r, static_cast<Index>(x.inner[e]), [&](Index row, int sign) {
        sum[static_cast<std::size_t>(row)] += sign * static_cast<double>(x.values[e]);
      });
    for (Index k = 0; k < y.cols(); ++k)
      y(i, k) = static_cast<T>(r.entry_scale() * sum[static_cast<std::size_t>(k)]);
  }
}

PARE_ABI_END
}  // namespace pare::projection::detail

#include <pare/core/macros_on.hpp>
