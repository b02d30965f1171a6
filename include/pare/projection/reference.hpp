// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in plain loops that accumulate in double on one thread.
///
/// ```cpp
/// project(pare::reference, x, omega, y);                 // the backend that runs them
/// auto embedding = fast_rp(pare::reference, adjacency);
/// spmm(pare::reference, a, b, c);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/random.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/projection/detail/binomial.hpp>
#include <pare/projection/detail/fast_rp_problem.hpp>
#include <pare/projection/detail/standardize.hpp>
#include <pare/projection/fast_rp_options.hpp>
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
void reference_project(TensorView<const X, 2> x, const R& r, TensorView<T, 2> y) {
  std::vector<double> sum(static_cast<std::size_t>(y.rows() * y.cols()), 0.0);
  for (Index j = 0; j < r.input_dim; ++j)
    reference_column(r, j, [&](Index row, int sign) {
      for (Index i = 0; i < x.rows(); ++i)
        sum[static_cast<std::size_t>(i * y.cols() + row)] +=
            sign * static_cast<double>(static_cast<compute_t<X>>(x(i, j)));
    });
  for (Index i = 0; i < y.rows(); ++i)
    for (Index k = 0; k < y.cols(); ++k)
      y(i, k) = static_cast<T>(r.entry_scale() * sum[static_cast<std::size_t>(i * y.cols() + k)]);
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

/// C = A B with the rows of a sparse A.
template <class T, class I>
void reference_spmm(const CompressedView<T, I>& a, TensorView<const T, 2> b, TensorView<T, 2> c) {
  for (Index u = 0; u < a.outer_size; ++u)
    for (Index k = 0; k < b.cols(); ++k) {
      double sum = 0;
      for (Index e = a.begin(u); e < a.end(u); ++e)
        sum += static_cast<double>(a.values[e]) *
               static_cast<double>(b(static_cast<Index>(a.inner[e]), k));
      c(u, k) = static_cast<T>(sum);
    }
}

/// N_0 of FastRP: D^beta R, the last dimensions from features.
template <class T, class I>
std::vector<double> reference_start(const FastRpProblem<T, I>& p, TensorView<const T, 2> features) {
  const FastRpOptions& o = p.options;
  const Index nodes = p.graph.outer_size, feature_dim = o.feature_dim();
  const Index node_dim = o.dim - feature_dim;
  const double density = p.density(o, nodes);
  std::vector<double> start(static_cast<std::size_t>(nodes * o.dim), 0.0);
  const auto at = [&](Index u, Index c) -> double& {
    return start[static_cast<std::size_t>(u * o.dim + c)];
  };
  for (Index u = 0; node_dim > 0 && u < nodes; ++u)
    reference_column(SparseProjection{nodes, node_dim, density, o.seed}, u,
                     [&](Index c, int sign) { at(u, c) = sign * p.start_value(u); });
  for (Index f = 0; feature_dim > 0 && f < features.cols(); ++f)
    reference_column(
        SparseProjection{features.cols(), feature_dim, density, o.seed ^ 0x9E3779B97F4A7C15u}, f,
        [&](Index c, int sign) {
          for (Index u = 0; u < nodes; ++u)
            at(u, node_dim + c) += sign * p.feature_value() * static_cast<double>(features(u, f));
        });
  return start;
}

/// The exponent of two of the largest finite element: squares of what is left stay in range.
inline int reference_exponent(const double* x, Index count, Index stride) {
  double largest = 0;
  for (Index i = 0; i < count; ++i)
    if (is_finite(x[i * stride])) largest = std::max(largest, std::abs(x[i * stride]));
  return largest > 0 ? std::ilogb(largest) : 0;
}

/// Adds weight * row, of unit length if `normalize`, to a row of the sum.
inline void reference_add_row(const double* row, Index dim, double weight, bool normalize,
                              double* sum) {
  const int exponent = normalize ? reference_exponent(row, dim, 1) : 0;
  double squares = 0;
  for (Index c = 0; c < dim; ++c)
    squares += std::ldexp(row[c], -exponent) * std::ldexp(row[c], -exponent);
  const double scale = normalize && squares > 0 ? weight / std::sqrt(squares) : weight;
  for (Index c = 0; c < dim; ++c) sum[c] += scale * std::ldexp(row[c], -exponent);
}

/// E = sum_i weights[i] unit(P^i D^beta R), then standardised columns.
template <class T, class I>
void reference_fast_rp(const FastRpProblem<T, I>& p, TensorView<const T, 2> features,
                       TensorView<T, 2> out) {
  const CompressedView<T, I>& a = p.graph;
  const FastRpOptions& o = p.options;
  const Index nodes = a.outer_size, dim = o.dim, columns = o.output_columns();
  std::vector<double> sum(static_cast<std::size_t>(nodes * columns), 0.0);
  std::vector<double> current = reference_start(p, features);
  if (o.self_influence > 0)
    for (Index u = 0; u < nodes; ++u)
      reference_add_row(&current[static_cast<std::size_t>(u * dim)], dim, o.self_influence,
                        o.normalize_rows, &sum[static_cast<std::size_t>(u * columns)]);
  const auto steps = static_cast<std::size_t>(o.steps());
  for (std::size_t i = 0; i < steps; ++i) {
    std::vector<double> next(current.size(), 0.0);
    for (Index u = 0; u < nodes; ++u) {
      double* row = &next[static_cast<std::size_t>(u * dim)];
      const double degree = degree_of(a, u, o.degree);
      for (Index e = a.begin(u); e < a.end(u) && degree > 0; ++e)
        for (Index c = 0; c < dim; ++c)
          row[c] += static_cast<double>(a.values[e]) / degree *
                    current[static_cast<std::size_t>(static_cast<Index>(a.inner[e]) * dim + c)];
      const Index first = o.concatenate ? static_cast<Index>(i) * dim : 0;
      reference_add_row(row, dim, o.weights[i], o.normalize_rows,
                        &sum[static_cast<std::size_t>(u * columns + first)]);
    }
    current.swap(next);
    if (o.progress) o.progress(static_cast<int>(i + 1), static_cast<int>(steps));
  }
  for (Index c = 0; c < columns; ++c) {
    double shift = 0, squares = 0;
    const int exponent =
        o.standardize ? reference_exponent(&sum[static_cast<std::size_t>(c)], nodes, columns) : 0;
    const auto at = [&](Index u) {
      return std::ldexp(sum[static_cast<std::size_t>(u * columns + c)], -exponent);
    };
    // From row 0, so that a constant column has its value for a mean.
    for (Index u = 0; u < nodes; ++u) shift += (at(u) - at(0)) / static_cast<double>(nodes);
    const double mean = at(0) + shift;
    for (Index u = 0; u < nodes; ++u) squares += (at(u) - mean) * (at(u) - mean);
    const double divisor = column_divisor<T>(mean, squares, static_cast<double>(nodes));
    for (Index u = 0; u < nodes; ++u)
      out(u, c) = static_cast<T>(o.standardize ? (at(u) - mean) / divisor : at(u));
  }
}

PARE_ABI_END
}  // namespace pare::projection::detail

#include <pare/core/macros_on.hpp>
