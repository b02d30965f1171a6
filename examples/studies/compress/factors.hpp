// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The factors of one layer, in the type that the file has.

#include "compress/importance.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/svd.hpp>
#include <pare/io/safetensors.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace compress {

/// Both factors, row-major.
template <class S>
struct Pair {
  std::vector<S> left;   ///< [out x columns]
  std::vector<S> right;  ///< [columns x in]
};

/// A layer's best factors of `columns` columns. Those of any lower rank are their first columns and
/// rows, since columns are ordered by singular value and only one factor carries it.
struct Factors {
  std::variant<Pair<float>, Pair<double>, Pair<pare::f16>, Pair<pare::bf16>> pair;
  Index columns = 0;
  Eigen::VectorXd singular_values{};  ///< in the metric
  double total_energy = 0;            ///< of W in the metric, squared
  double seconds = 0;

  /// ||W - left right|| / ||W|| in the metric after a cut to the rank, before factors are rounded
  /// to the type of the file.
  double relative_error(Index rank) const {
    const double lost = total_energy - singular_values.head(rank).squaredNorm();
    return total_energy > 0 ? std::sqrt(std::max(lost, 0.0) / total_energy) : 0.0;
  }

  /// Both factors cut to the rank; they view this object.
  std::vector<pare::io::NamedTensor> tensors(const Layer& layer, Index rank) const {
    const auto cut = [&](const auto& factors) -> std::vector<pare::io::NamedTensor> {
      using S = std::remove_cvref_t<decltype(factors.left[0])>;
      const pare::TensorView<const S, 2> left{
          factors.left.data(), {layer.out(), rank}, {columns, 1}};
      const pare::TensorView<const S, 2> right{
          factors.right.data(), {rank, layer.in()}, {layer.in(), 1}};
      return {{layer.left_name(), left}, {layer.right_name(), right}};
    };
    return std::visit(cut, pair);
  }
};

namespace detail {

/// The elements row by row as S; refused if one of them is too large for it.
template <class S, class T>
std::vector<S> narrow(const pare::RowMatrix<T>& factor, const Layer& layer) {
  std::vector<S> elements(static_cast<std::size_t>(factor.size()));
  std::transform(factor.data(), factor.data() + factor.size(), elements.begin(),
                 [](T x) { return static_cast<S>(x); });
  for (const S x : elements)
    if (!pare::is_finite(static_cast<double>(static_cast<pare::compute_t<S>>(x))))
      throw std::invalid_argument("got a factor with elements that " + layer.tensor->dtype +
                                  " does not hold");
  return elements;
}

template <class S>
Factors factorize_as(const pare::io::SafetensorsFile& file, const Layer& layer,
                     const Importance& importance, const Arguments& arguments, Index rank) {
  namespace factor = pare::factor;
  factor::SvdOptions how{.rank = rank};
  if (arguments.accurate) how.accuracy = factor::Accuracy::High;
  const auto w = file.read_matrix<pare::compute_t<S>>(layer.name());
  const auto result = importance.with_metric(layer, [&](const auto& metric) {
    return factor::factorize(pare::simd.threads(arguments.threads), w, metric, how);
  });
  return {Pair<S>{narrow<S>(result.left, layer), narrow<S>(result.right, layer)}, rank,
          result.singular_values, result.total_energy};
}

}  // namespace detail

/// The best factors of the rank, in the metric of the layer.
/// \throws std::invalid_argument that names the layer, if it or what is known of it is not finite.
inline Factors factorize(const pare::io::SafetensorsFile& file, const Layer& layer,
                         const Importance& importance, const Arguments& arguments, Index rank) {
  const auto start = std::chrono::steady_clock::now();
  const std::string& dtype = layer.tensor->dtype;
  const auto run = dtype == "F64"    ? detail::factorize_as<double>
                   : dtype == "F32"  ? detail::factorize_as<float>
                   : dtype == "BF16" ? detail::factorize_as<pare::bf16>
                                     : detail::factorize_as<pare::f16>;
  try {
    Factors factors = run(file, layer, importance, arguments, rank);
    factors.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return factors;
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("'" + layer.name() + "': " + error.what());
  }
}

}  // namespace compress
