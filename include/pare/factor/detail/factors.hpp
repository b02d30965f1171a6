// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Both factors from a basis of the dominant subspace on one side of M = D W R: that basis, and W
/// projected on it, which makes the other factor the least-squares optimum for it; their scale, and
/// the singular values moved between them.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/detail/find_subspace.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// What makes the other factor the least-squares optimum for one whose lines have the Gram matrix
/// K in the metric.
struct GramInverse {
  Eigen::VectorXd reciprocal;  ///< 1 / the length of each line, 0 where that is rounding
  Eigen::MatrixXd matrix;      ///< K^-1 but for a factor `reciprocal` of its rows
};

/// Lines of a factor are singular vectors times values up to the rounding of products in T, which
/// shares of the largest values dominate in the lines of small ones: dividing by the values alone
/// would multiply those by the ratio of both.
///
/// Loops, here and below, where expressions of Eigen's would do: they compile in a tenth of the
/// time.
///
/// \param rounding of squares, as a share of the largest
/// \param epsilon  of the scalar of the factors
template <class = void>
GramInverse invert_gram(const RowMatrix<double>& gram, double rounding, double epsilon) {
  const Index size = gram.rows();
  double most = gram(0, 0);
  for (Index i = 0; i < size; ++i) most = std::max(most, gram(i, i));
  GramInverse result{Eigen::VectorXd(size), Eigen::MatrixXd::Zero(size, size)};
  Eigen::MatrixXd unit(size, size), &inverse = result.matrix;
  for (Index i = 0; i < size; ++i) {
    const double square = gram(i, i);
    inverse(i, i) = square > rounding * most ? 1 / std::sqrt(square) : 0.0;
    result.reciprocal[i] = inverse(i, i);
  }
  for (Index j = 0; j < size; ++j)
    for (Index i = 0; i < size; ++i) unit(i, j) = inverse(i, i) * gram(i, j) * inverse(j, j);
  // Keeps lines that are rounding of others from being told apart, and the decomposition definite.
  const double added = std::max(
      16.0 * epsilon, 8.0 * static_cast<double>(size) * std::numeric_limits<double>::epsilon());
  for (Index i = 0; i < size; ++i) unit(i, i) = unit(i, i) + added;
  const Eigen::LLT<Eigen::MatrixXd> cholesky(unit);
  cholesky.solveInPlace(inverse);
  return result;
}

/// The same where the factors are of T.
template <class T>
GramInverse invert_gram(const RowMatrix<double>& gram) {
  return invert_gram(gram, rounding_value<T>, double{std::numeric_limits<T>::epsilon()});
}

/// The factor that carries the singular values unless something else is asked for.
template <class B, class S>
Split wanted_split(const FactorProblem<B, S>& problem, bool inputs_weighed) {
  if (problem.options.split != Split::Natural) return problem.options.split;
  return inputs_weighed ? Split::Right : Split::Left;
}

template <class T>
void multiply_by_power(RowMatrix<T>& m, int exponent) {
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<T>(std::ldexp(double{m.data()[i]}, exponent));
}

/// As move_singular_values, but for the factor of both.
template <class T>
void turn_singular_values(LowRank<T>& result, Split from, Split to, double factor,
                          double rounding) {
  const Index rank = result.rank();
  const double largest = factor * result.singular_values[0];
  const bool to_right = from == Split::Left;
  for (Index k = 0; k < rank; ++k) {
    const double all = factor * result.singular_values[k];
    const double value = all > std::sqrt(rounding) * largest ? all : 0.0;
    const double moved = to == Split::Both ? std::sqrt(value) : value;
    const double back = moved > 0 ? 1 / moved : 0.0;
    const T left = static_cast<T>(to_right ? back : moved),
            right = static_cast<T>(to_right ? moved : back);
    for (Index i = 0; i < result.left.rows(); ++i) result.left(i, k) *= left;
    for (Index j = 0; j < result.right.cols(); ++j) result.right(k, j) *= right;
  }
}

/// Moves the singular values from the factor that carries them to the one that shall. A direction
/// whose value is rounding has no line to be divided by it: it becomes 0. The factor that carries
/// them was multiplied by `factor`, a power of two; that is undone.
template <class T>
void move_singular_values(LowRank<T>& result, Split from, Split to, double factor,
                          double rounding) {
  if (to != from) turn_singular_values(result, from, to, factor, rounding);
  if (factor == 1.0) return;
  const int exponent = -std::ilogb(factor);
  const int left = to == Split::Left ? exponent : to == Split::Both ? exponent / 2 : 0;
  multiply_by_power(result.left, left);
  multiply_by_power(result.right, exponent - left);
}

/// A B in a matrix of its own.
template <class T, class B, class A, class C>
RowMatrix<T> product_of(FactorProblem<B, A>& problem, TensorView<const C, 2> a,
                        TensorView<const C, 2> b, const T* depth_scale = nullptr) {
  RowMatrix<T> out(a.rows(), b.cols());
  linalg::multiply(problem.backend, a, b, to_view(out), {.depth_scale = depth_scale});
  return out;
}

/// A scale for `size` lines that is the problem's factor; none where that is 1.
template <class T, class B, class S>
std::vector<T> factor_scale(const FactorProblem<B, S>& problem, Index size) {
  return weight_roots<T>({}, size, problem.factor);
}

/// Both factors from the basis U of the output side (the table of metric.hpp); the right one times
/// the problem's factor.
template <class T, class B, class S, class Weigh>
void factors_from_outputs(FactorProblem<B, S>& problem, const Subspace<T>& space,
                          const Weigh& weigh_inputs, LowRank<T>& result) {
  const auto m = problem.template matrix<T>(Axis::Output);
  result.right.resize(space.basis.cols(), problem.w.cols());
  linalg::multiply(problem.backend, transpose(const_view(space.basis)), problem.w,
                   to_view(result.right), {.depth_scale = scale_of(m.row)});
  if (problem.output_weights.empty()) {
    result.left = space.basis;
    return;
  }
  RowMatrix<T> weighed = weigh_inputs(result.right);
  const auto inverse = invert_gram<T>(
      product_of<double>(problem, const_view(weighed), transpose(const_view(result.right))));
  for (Index k = 0; k < weighed.rows(); ++k)
    for (Index j = 0; j < weighed.cols(); ++j)
      weighed(k, j) *= static_cast<T>(inverse.reciprocal[k]);
  RowMatrix<T> image(problem.w.rows(), space.basis.cols());
  const auto scale = factor_scale<T>(problem, problem.w.rows());
  linalg::multiply(problem.backend, problem.w, transpose(const_view(weighed)), to_view(image),
                   {.row_scale = scale_of(scale)});
  const RowMatrix<T> turn = row_matrix<T>(as_const(to_view(inverse.matrix)));
  result.left = product_of<T>(problem, const_view(image), const_view(turn));
}

/// Both factors from the basis V of the input side; the left one times the problem's factor.
template <class T, class B, class S>
void factors_from_inputs(FactorProblem<B, S>& problem, const Subspace<T>& space,
                         LowRank<T>& result) {
  const auto scale = factor_scale<T>(problem, problem.w.rows());
  const auto column = weight_roots<T>(problem.input_weights.values, problem.w.cols(), 1.0);
  result.left.resize(problem.w.rows(), space.basis.cols());
  linalg::multiply(problem.backend, problem.w, const_view(space.basis), to_view(result.left),
                   {.row_scale = scale_of(scale), .depth_scale = scale_of(column)});
  if (column.empty()) {
    result.right = row_matrix<T>(transpose(const_view(space.basis)));
    return;
  }
  RowMatrix<T> weighed = result.left;
  const auto row = weight_roots<T>(problem.output_weights.values, problem.w.rows(), 1.0);
  const std::vector<T> squares = squares_of(row);
  for (Index i = 0; i < weighed.rows() && !row.empty(); ++i)
    for (Index j = 0; j < weighed.cols(); ++j)
      weighed(i, j) *= squares[static_cast<std::size_t>(i)];
  const auto inverse = invert_gram<T>(
      product_of<double>(problem, transpose(const_view(weighed)), const_view(result.left)));
  for (Index i = 0; i < weighed.rows(); ++i)
    for (Index k = 0; k < weighed.cols(); ++k)
      weighed(i, k) *= static_cast<T>(inverse.reciprocal[k]);
  RowMatrix<T> image(space.basis.cols(), problem.w.cols());
  linalg::multiply(problem.backend, transpose(const_view(weighed)), problem.w, to_view(image),
                   {.depth_scale = scale_of(scale)});
  const RowMatrix<T> turn = row_matrix<T>(as_const(to_view(inverse.matrix)));
  result.right = product_of<T>(problem, transpose(const_view(turn)), const_view(image));
}

/// Numbers of the result; values are of M times `factor` and two to minus `exponent`, known to
/// about `roundoff` of the largest.
template <class T, class U>
void describe(const FoundSubspace<T>& found, double factor, int exponent, double roundoff,
              LowRank<U>& result) {
  const auto energy_of = [&](double value) {
    return std::ldexp(value / (factor * factor), 2 * exponent);
  };
  result.singular_values = found.space.values;
  for (double& value : result.singular_values)
    value = std::ldexp(std::sqrt(value) / factor, exponent);
  result.captured_energy = energy_of(found.space.values.sum());
  result.total_energy = energy_of(found.total_energy);
  result.route = found.route;
  result.steps = found.space.steps;
  const double rounding = 16 * roundoff * result.total_energy;
  result.error_bound =
      std::sqrt(std::max(0.0, result.total_energy - result.captured_energy) + rounding);
}

/// Gives `with` the scale that weights lost when they were normalized, and takes it from the other:
/// as far as factors in float bear it.
template <class T>
void restore_scale(RowMatrix<T>& with, RowMatrix<T>& against, int exponent) {
  const int within = std::clamp(exponent, -60, 60);
  if (within == 0) return;
  multiply_by_power(with, within);
  multiply_by_power(against, -within);
}

/// The result for a W that is 0 in the metric: factors of W's shape whose product is 0, of rank 1
/// where a tolerance is asked for.
template <class T>
LowRank<T> zero_result(Index out, Index in, const SvdOptions& options) {
  const Index rank = !options.tolerance ? rank_limit(options, out, in) : 1;
  LowRank<T> result;
  result.left = RowMatrix<T>::Zero(out, rank);
  for (Index k = 0; k < rank; ++k) result.left(k, k) = 1;
  result.right = RowMatrix<T>::Zero(rank, in);
  result.singular_values = Eigen::VectorXd::Zero(rank);
  return result;
}

/// The same result with factors of T.
template <class T, class U>
LowRank<T> rounded_to(LowRank<U> wide) {
  if constexpr (std::is_same_v<T, U>) {
    return wide;
  } else {
    LowRank<T> result;
    result.left = row_matrix<T>(const_view(wide.left));
    result.right = row_matrix<T>(const_view(wide.right));
    result.singular_values = wide.singular_values;
    result.captured_energy = wide.captured_energy;
    result.total_energy = wide.total_energy;
    result.error_bound = wide.error_bound;
    result.route = wide.route;
    result.steps = wide.steps;
    return result;
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
