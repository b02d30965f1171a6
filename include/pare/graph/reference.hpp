// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of FastRP, in plain loops that accumulate in double on one thread.
///
/// ```cpp
/// auto embedding = fast_rp(pare::reference, adjacency);  // the backend that runs it
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/graph/detail/fast_rp_problem.hpp>
#include <pare/graph/detail/standardize.hpp>
#include <pare/graph/fast_rp_options.hpp>
#include <pare/projection/nonzeros.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace pare::graph::detail {
PARE_ABI_BEGIN

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
    projection::Nonzeros(projection::SparseProjection{nodes, node_dim, density, o.seed})
        .visit(reference, u, u + 1, [&](Index, Index c, bool negative) {
          at(u, c) = negative ? -p.start_value(u) : p.start_value(u);
        });
  for (Index f = 0; feature_dim > 0 && f < features.cols(); ++f)
    projection::Nonzeros(projection::SparseProjection{features.cols(), feature_dim, density,
                                                      o.seed ^ 0x9E3779B97F4A7C15u})
        .visit(reference, f, f + 1, [&](Index, Index c, bool negative) {
          const double value = negative ? -p.feature_value() : p.feature_value();
          for (Index u = 0; u < nodes; ++u)
            at(u, node_dim + c) += value * static_cast<double>(features(u, f));
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
}  // namespace pare::graph::detail

#include <pare/core/macros_on.hpp>
