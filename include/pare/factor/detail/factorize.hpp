// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The closed forms of metric.hpp on kernels: a basis of the dominant subspace on one side of
/// M = D W R, then the projection of W on it, which makes the other factor the least-squares
/// optimum for that basis.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/factor/detail/energy.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/detail/route.hpp>
#include <pare/factor/detail/subspace.hpp>
#include <pare/factor/detail/views.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/kernel/multiply.hpp>

#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// A basis, the route that found it, and the energy that it is a part of.
template <class T>
struct FoundSubspace {
  Subspace<T> space;
  Route route = Route::Exact;
  double total_energy = 0;
};

/// All eigenvectors of a stored G.
template <class T>
Subspace<T> all_eigenvectors(const RowMatrix<double>& gram, Index rank) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(gram);
  return {eigen.eigenvectors().rightCols(rank).rowwise().reverse().template cast<T>(),
          eigen.eigenvalues().tail(rank).reverse().cwiseMax(0.0), 0};
}

/// The least rank whose subspace leaves at most the tolerance, or all of it.
inline Index rank_within(const Eigen::VectorXd& values, double total, double tolerance) {
  double left = total;
  for (Index k = 0; k < values.size(); ++k) {
    left -= values[k];
    if (left <= tolerance * tolerance * total) return k + 1;
  }
  return values.size() + 1;
}

template <class T>
void keep_rank(Subspace<T>& space, Index rank) {
  space.basis = RowMatrix<T>(space.basis.leftCols(rank));
  space.values = Eigen::VectorXd(space.values.head(rank));
}

/// Calls solve(rank) for the rank, or for ranks that double until the tolerance is met.
template <class Solve>
auto solve_for_rank(const SvdOptions& options, Index limit, double total, const Solve& solve) {
  if (options.tolerance == 0) return solve(limit);
  for (Index rank = std::min<Index>(32, limit);; rank = std::min(2 * rank, limit)) {
    auto space = solve(rank);
    const Index enough = rank_within(space.values, total, options.tolerance);
    if (enough <= rank || rank == limit) {
      keep_rank(space, std::min(enough, rank));
      return space;
    }
  }
}

/// What products in T can tell apart of the values of G: below this share of the largest they are
/// rounding, for G formed in T and for products with M.
template <class T>
constexpr double least_value(Route route) {
  if (std::is_same_v<T, double>) return 0.0;
  return route == Route::Gram ? 1e-6 : 1e-10;
}

/// Whether energies summed of products in T tell which rank leaves at most a tolerance: its square
/// is a share of the energy, which those products know to a few roundings.
template <class T>
bool resolves(double tolerance) {
  return tolerance == 0 || tolerance * tolerance > 64 * std::numeric_limits<T>::epsilon() ||
         std::is_same_v<T, double>;
}

/// The subspace of M M^T, with products in T; none if T does not tell its values apart.
template <class T, class B, class S>
std::optional<Subspace<T>> find_in(const B& backend, const ScaledMatrix<B, S, T>& m,
                                   const SvdOptions& options, Index limit, double total,
                                   Route& route, kernel::ProductWorkspace& workspace) {
  if (!resolves<T>(options.tolerance)) return std::nullopt;
  using Matrix = const ScaledMatrix<B, S, T>;
  std::optional<GramOperator<B, Matrix>> gram;
  const auto solve = [&](Index rank) {
    const SubspacePlan plan = plan_subspace(options, rank, m.rows(), m.cols());
    route = plan.route;
    if (plan.route == Route::Randomized) {
      NormalOperator<B, Matrix> normal(backend, m, workspace);
      return leading_subspace<T>(backend, normal, rank, plan.width, plan.steps, options, workspace);
    }
    if (!gram) gram.emplace(backend, m, workspace);
    return leading_subspace<T>(backend, *gram, rank, plan.width, plan.steps, options, workspace);
  };
  auto space = solve_for_rank(options, limit, total, solve);
  const double last = space.values[space.values.size() - 1];
  if (last < least_value<T>(route) * space.values[0]) return std::nullopt;
  return space;
}

/// Weights over the power of four that brings the largest near 1, so that squares of their roots
/// stay within T.
struct NormalizedWeights {
  std::vector<double> values;
  int root_exponent = 0;  ///< the roots were divided by two to this

  NormalizedWeights() = default;
  explicit NormalizedWeights(std::span<const double> weights)
      : values(weights.begin(), weights.end()) {
    if (values.empty()) return;
    root_exponent = std::ilogb(*std::max_element(values.begin(), values.end())) / 2;
    for (double& value : values) value = std::ldexp(value, -2 * root_exponent);
  }
  bool empty() const { return values.empty(); }
};

/// The roots of weights, times a factor; none for no weights and no factor.
template <class T>
std::vector<T> weight_roots(const std::vector<double>& weights, Index size, double factor) {
  if (weights.empty() && factor == 1.0) return {};
  std::vector<T> roots(static_cast<std::size_t>(size), static_cast<T>(factor));
  for (std::size_t i = 0; i < weights.size(); ++i)
    roots[i] = static_cast<T>(factor * std::sqrt(weights[i]));
  return roots;
}

/// What a factorization is asked for, after its checks.
template <class B, class S>
struct FactorProblem {
  const char* function;
  const B& backend;
  TensorView<const S, 2> w;
  NormalizedWeights output_weights;
  NormalizedWeights input_weights;
  SvdOptions options;
  kernel::ProductWorkspace workspace{};
  /// A power of two by which M is multiplied so that its squares stay within T.
  double factor = 1;

  FactorProblem(const char* name, const B& b, TensorView<const S, 2> weight,
                std::span<const double> outputs, std::span<const double> inputs,
                const SvdOptions& o)
      : function(name),
        backend(b),
        w(weight),
        output_weights(outputs),
        input_weights(inputs),
        options(o) {}

  /// By how many powers of two norms in the metric were divided.
  int exponent() const { return output_weights.root_exponent + input_weights.root_exponent; }

  Index limit() const { return rank_limit(options, w.rows(), w.cols()); }

  /// M times `times`, rows being outputs.
  template <class T>
  ScaledMatrix<B, S, T> matrix(double times) {
    return {backend, workspace, w, weight_roots<T>(output_weights.values, w.rows(), times),
            weight_roots<T>(input_weights.values, w.cols(), 1.0)};
  }

  /// What the subspace of a side is sought in: that side's elements are rows.
  template <class T>
  ScaledMatrix<B, S, T> sided(Axis side) {
    ScaledMatrix<B, S, T> m = matrix<T>(factor);
    return side == Axis::Output ? m : m.transposed();
  }
};

/// The side that needs one product with W after the basis is known, unless the other is smaller.
inline Axis basis_side(Index out, Index in, bool outputs_weighed, bool inputs_weighed) {
  const Axis smaller = out <= in ? Axis::Output : Axis::Input;
  if (outputs_weighed == inputs_weighed || out != in) return smaller;
  return outputs_weighed ? Axis::Input : Axis::Output;
}

/// The dominant subspace of M on a side, in T where T will do and in double elsewhere.
template <class T, class B, class S>
FoundSubspace<T> find_subspace(FactorProblem<B, S>& problem, Axis side, double total) {
  FoundSubspace<T> found{{}, Route::Exact, total};
  const Index dimension = side == Axis::Output ? problem.w.rows() : problem.w.cols();
  const Index other = side == Axis::Output ? problem.w.cols() : problem.w.rows();
  const SubspacePlan plan = plan_subspace(problem.options, problem.limit(), dimension, other);
  if (plan.route == Route::Exact && problem.options.tolerance == 0) {
    const auto m = problem.template sided<double>(side);
    const GramOperator<B, ScaledMatrix<B, S, double>> gram(problem.backend, m, problem.workspace);
    found.space = all_eigenvectors<T>(gram.matrix(), problem.limit());
    return found;
  }
  const auto m = problem.template sided<T>(side);
  auto space = find_in<T>(problem.backend, m, problem.options, problem.limit(), total, found.route,
                          problem.workspace);
  if (space) {
    found.space = std::move(*space);
    return found;
  }
  const auto exact = problem.template sided<double>(side);
  auto wide = find_in<double>(problem.backend, exact, problem.options, problem.limit(), total,
                              found.route, problem.workspace);
  found.space = {wide->basis.template cast<T>(), wide->values, wide->steps};
  return found;
}

/// Values of G that are rounding, as a share of the largest: values of a G in double are known to
/// 1e-16 of it, and factors in float carry singular values down to about 1e-6.
template <class T>
constexpr double rounding_value = std::is_same_v<T, double> ? 1e-15 : 1e-12;

/// What makes the other factor the least-squares optimum for one whose lines have the Gram matrix
/// K in the metric.
template <class T>
struct GramInverse {
  std::vector<T> reciprocal;  ///< 1 / the length of each line, 0 where that is rounding
  RowMatrix<T> matrix;        ///< K^-1 but for a factor `reciprocal` of its rows
};

/// Lines of a factor are singular vectors times values up to the rounding of products in T, which
/// shares of the largest values dominate in the lines of small ones: dividing by the values alone
/// would multiply those by the ratio of both.
template <class T>
GramInverse<T> invert_gram(const RowMatrix<double>& gram) {
  const double least = rounding_value<T> * gram.diagonal().maxCoeff();
  const Eigen::VectorXd reciprocal = gram.diagonal().unaryExpr(
      [&](double square) { return square > least ? 1 / std::sqrt(square) : 0.0; });
  Eigen::MatrixXd unit = reciprocal.asDiagonal() * gram * reciprocal.asDiagonal();
  // Keeps lines that are rounding of others from being told apart, and the decomposition definite.
  unit.diagonal().array() +=
      std::max(16.0 * std::numeric_limits<T>::epsilon(),
               8.0 * static_cast<double>(gram.rows()) * std::numeric_limits<double>::epsilon());
  const Eigen::MatrixXd inverse =
      Eigen::LLT<Eigen::MatrixXd>(unit).solve(Eigen::MatrixXd(reciprocal.asDiagonal()));
  GramInverse<T> result{{}, inverse.cast<T>()};
  for (const double value : reciprocal) result.reciprocal.push_back(static_cast<T>(value));
  return result;
}

/// The factor that carries the singular values unless something else is asked for.
template <class B, class S>
Split wanted_split(const FactorProblem<B, S>& problem, bool inputs_weighed) {
  if (problem.options.split != Split::Natural) return problem.options.split;
  return inputs_weighed ? Split::Right : Split::Left;
}

/// Moves the singular values from the factor that carries them to the one that shall. A direction
/// whose value is rounding has no line to be divided by it: it becomes 0.
template <class T>
void move_singular_values(LowRank<T>& result, Split from, Split to) {
  if (to == from) return;
  const double least = std::sqrt(rounding_value<T>) * result.singular_values[0];
  const Eigen::ArrayXd values =
      (result.singular_values.array() > least).select(result.singular_values.array(), 0.0);
  const Eigen::ArrayXd moved = to == Split::Both ? Eigen::ArrayXd(values.sqrt()) : values;
  const Eigen::ArrayXd back = (moved > 0).select(moved.inverse(), 0.0);
  const bool to_right = from == Split::Left;
  result.left.array().rowwise() *= (to_right ? back : moved).template cast<T>().transpose();
  result.right.array().colwise() *= (to_right ? moved : back).template cast<T>();
}

/// A B in a matrix of its own.
template <class T, class B, class A, class C>
RowMatrix<T> product_of(FactorProblem<B, A>& problem, TensorView<const C, 2> a,
                        TensorView<const C, 2> b, const T* depth_scale = nullptr) {
  RowMatrix<T> out(a.rows(), b.cols());
  kernel::multiply(problem.backend, a, b, to_view(out),
                   kernel::ProductOptions<T>{.depth_scale = depth_scale}, problem.workspace);
  return out;
}

/// Both factors from the basis U of the output side (the table of metric.hpp).
template <class T, class B, class S, class Weigh>
void factors_from_outputs(FactorProblem<B, S>& problem, const Subspace<T>& space,
                          const Weigh& weigh_inputs, LowRank<T>& result) {
  const auto m = problem.template matrix<T>(1.0);
  result.right.resize(space.basis.cols(), problem.w.cols());
  kernel::multiply(problem.backend, transpose(read(space.basis)), problem.w, to_view(result.right),
                   kernel::ProductOptions<T>{.depth_scale = scale_of(m.row)}, problem.workspace);
  if (m.row.empty()) {
    result.left = space.basis;
    return;
  }
  RowMatrix<T> weighed = weigh_inputs(result.right);
  const auto inverse =
      invert_gram<T>(product_of<double>(problem, read(weighed), transpose(read(result.right))));
  for (Index k = 0; k < weighed.rows(); ++k)
    weighed.row(k) *= inverse.reciprocal[static_cast<std::size_t>(k)];
  RowMatrix<T> image(problem.w.rows(), space.basis.cols());
  kernel::multiply(problem.backend, problem.w, transpose(read(weighed)), to_view(image),
                   kernel::ProductOptions<T>{}, problem.workspace);
  result.left = product_of<T>(problem, read(image), read(inverse.matrix));
}

/// Both factors from the basis V of the input side.
template <class T, class B, class S>
void factors_from_inputs(FactorProblem<B, S>& problem, const Subspace<T>& space,
                         LowRank<T>& result) {
  const auto m = problem.template matrix<T>(1.0);
  result.left.resize(problem.w.rows(), space.basis.cols());
  kernel::multiply(problem.backend, problem.w, read(space.basis), to_view(result.left),
                   kernel::ProductOptions<T>{.depth_scale = scale_of(m.column)}, problem.workspace);
  if (m.column.empty()) {
    result.right = space.basis.transpose();
    return;
  }
  RowMatrix<T> weighed = result.left;
  for (Index i = 0; i < weighed.rows() && !m.row.empty(); ++i)
    weighed.row(i) *= m.row[static_cast<std::size_t>(i)] * m.row[static_cast<std::size_t>(i)];
  const auto inverse =
      invert_gram<T>(product_of<double>(problem, transpose(read(weighed)), read(result.left)));
  for (Index k = 0; k < weighed.cols(); ++k)
    weighed.col(k) *= inverse.reciprocal[static_cast<std::size_t>(k)];
  RowMatrix<T> image(space.basis.cols(), problem.w.cols());
  kernel::multiply(problem.backend, transpose(read(weighed)), problem.w, to_view(image),
                   kernel::ProductOptions<T>{}, problem.workspace);
  result.right = product_of<T>(problem, transpose(read(inverse.matrix)), read(image));
}

/// Numbers of the result; values are of M times `factor` and two to minus `exponent`.
template <class T>
void describe(const FoundSubspace<T>& found, double factor, int exponent, LowRank<T>& result) {
  const auto energy_of = [&](double value) {
    return std::ldexp(value / (factor * factor), 2 * exponent);
  };
  result.singular_values = found.space.values.unaryExpr(
      [&](double value) { return std::ldexp(std::sqrt(value) / factor, exponent); });
  result.captured_energy = energy_of(found.space.values.sum());
  result.total_energy = energy_of(found.total_energy);
  result.route = found.route;
  result.steps = found.space.steps;
  // Each value of G is known to about the roundoff of a product in T.
  const double rounding = std::numeric_limits<T>::epsilon() * result.total_energy;
  result.error_bound =
      std::sqrt(std::max(0.0, result.total_energy - result.captured_energy) + rounding);
}

/// Gives `with` the scale that weights lost when they were normalized, and takes it from the other:
/// as far as factors in float bear it.
template <class T>
void restore_scale(RowMatrix<T>& with, RowMatrix<T>& against, int exponent) {
  const int within = std::clamp(exponent, -60, 60);
  if (within == 0) return;
  with *= static_cast<T>(std::ldexp(1.0, within));
  against *= static_cast<T>(std::ldexp(1.0, -within));
}

/// The result for a W that is 0 in the metric: factors of W's shape whose product is 0, of rank 1
/// where a tolerance is asked for.
template <class T>
LowRank<T> zero_result(Index out, Index in, const SvdOptions& options) {
  const Index rank = options.tolerance == 0 ? rank_limit(options, out, in) : 1;
  LowRank<T> result;
  result.left = RowMatrix<T>::Identity(out, rank);
  result.right = RowMatrix<T>::Zero(rank, in);
  result.singular_values = Eigen::VectorXd::Zero(rank);
  return result;
}

/// The power of two that brings a sum of squares near 1, where it is so far off that squares of T
/// could overflow or vanish.
inline double safe_factor(double total) {
  if (total > 1e-20 && total < 1e20) return 1.0;
  return std::exp2(-std::round(std::log2(total) / 2));
}

/// Refuses a W whose energy in the metric, `energy` times four to the exponent, is beyond double.
inline void check_energy(const char* function, double energy, int exponent) {
  const double whole = std::ldexp(energy, 2 * exponent);
  check(is_finite(whole), function, "w", whole, "a squared norm in the metric that is finite");
}

/// The subspace of D W C W^T D, in double: the energies of activations spread widely.
template <class B, class S, class C>
FoundSubspace<double> find_covariance_subspace(FactorProblem<B, S>& problem,
                                               const CovarianceView<C>& covariance) {
  const auto m = problem.template matrix<double>(1.0);
  CovarianceOperator<B, ScaledMatrix<B, S, double>, C> g(problem.backend, m, covariance,
                                                         problem.workspace);
  FoundSubspace<double> found{{}, Route::Randomized, g.energy()};
  check_energy(problem.function, found.total_energy, problem.exponent());
  if (!(found.total_energy > 0)) return found;
  const auto solve = [&](Index rank) {
    SubspacePlan plan = plan_subspace(problem.options, rank, m.rows(), m.cols());
    if (plan.route == Route::Exact) {
      RowMatrix<double> identity = RowMatrix<double>::Identity(m.rows(), m.rows());
      found.route = Route::Exact;
      return all_eigenvectors<double>(g.rayleigh(identity), rank);
    }
    return leading_subspace<double>(problem.backend, g, rank, plan.width, plan.steps,
                                    problem.options, problem.workspace);
  };
  found.space = solve_for_rank(problem.options, problem.limit(), found.total_energy, solve);
  return found;
}

/// \throws std::invalid_argument if C has an eigenvalue below -1e-6 of the largest: then C plus
/// that much of the identity has no Cholesky decomposition.
template <class C>
void check_semi_definite(const char* function, const CovarianceView<C>& covariance) {
  const Index n = covariance.matrix.rows();
  Eigen::MatrixXd c(n, n);
  for (Index j = 0; j < n; ++j)
    for (Index i = 0; i < n; ++i) c(i, j) = static_cast<double>(covariance.matrix(i, j));
  Eigen::VectorXd x = c.diagonal();
  double largest = 0;
  for (int step = 0; step < 20 && x.norm() > 0; ++step) {
    x = (c * x.normalized()).eval();
    largest = std::max(largest, x.norm());
  }
  c.diagonal().array() += 1e-6 * largest;
  check(Eigen::LLT<Eigen::MatrixXd>(c).info() == Eigen::Success, function, "input_covariance",
        "an indefinite matrix", "no eigenvalue below -1e-6 of the largest");
}

/// min over rank k of ||D (W - A B) R||_F for a covariance of the inputs.
template <class B, class S, class C>
LowRank<compute_t<S>> factorize_covariance(FactorProblem<B, S>& problem,
                                           const CovarianceView<C>& covariance) {
  using T = compute_t<S>;
  const auto found = find_covariance_subspace(problem, covariance);
  if (!(found.total_energy > 0))
    return zero_result<T>(problem.w.rows(), problem.w.cols(), problem.options);
  LowRank<double> wide;
  factors_from_outputs(
      problem, found.space,
      [&](const RowMatrix<double>& right) {
        RowMatrix<double> weighed = covariance.ridge * right;
        kernel::multiply(problem.backend, read(right), covariance.matrix, to_view(weighed),
                         kernel::ProductOptions<double>{.accumulate = true}, problem.workspace);
        return weighed;
      },
      wide);
  restore_scale(wide.right, wide.left, problem.output_weights.root_exponent);
  describe(found, problem.factor, problem.exponent(), wide);
  move_singular_values(wide, Split::Right, wanted_split(problem, true));
  LowRank<T> result;
  result.left = wide.left.template cast<T>();
  result.right = wide.right.template cast<T>();
  result.singular_values = wide.singular_values;
  result.captured_energy = wide.captured_energy;
  result.total_energy = wide.total_energy;
  result.error_bound = wide.error_bound;
  result.route = wide.route;
  result.steps = wide.steps;
  return result;
}

/// The same for weights on the diagonals, or none.
template <class B, class S>
LowRank<compute_t<S>> factorize_weighted(FactorProblem<B, S>& problem) {
  using T = compute_t<S>;
  const Index out = problem.w.rows(), in = problem.w.cols();
  const NormalizedWeights &outputs = problem.output_weights, &inputs = problem.input_weights;
  const double plain =
      energy(problem.backend, problem.w, scale_of(outputs.values), scale_of(inputs.values));
  check_energy(problem.function, plain, problem.exponent());
  if (!(plain > 0)) return zero_result<T>(out, in, problem.options);
  problem.factor = safe_factor(plain);
  const Axis side = basis_side(out, in, !outputs.empty(), !inputs.empty());
  const auto found = find_subspace<T>(problem, side, plain * problem.factor * problem.factor);
  LowRank<T> result;
  const std::vector<T> input_weights = squares_of(weight_roots<T>(inputs.values, in, 1.0));
  if (side == Axis::Output) {
    factors_from_outputs(
        problem, found.space,
        [&](const RowMatrix<T>& right) {
          RowMatrix<T> weighed = right;
          for (Index j = 0; j < in && !input_weights.empty(); ++j)
            weighed.col(j) *= input_weights[static_cast<std::size_t>(j)];
          return weighed;
        },
        result);
    restore_scale(result.right, result.left, outputs.root_exponent);
  } else {
    factors_from_inputs(problem, found.space, result);
    restore_scale(result.left, result.right, inputs.root_exponent);
  }
  describe(found, problem.factor, problem.exponent(), result);
  move_singular_values(result, side == Axis::Output ? Split::Right : Split::Left,
                       wanted_split(problem, !inputs.empty()));
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
