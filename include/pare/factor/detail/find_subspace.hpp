// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The dominant subspace of M = D W R on a side: by which route, in which precision.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/detail/reference_factorize.hpp>
#include <pare/factor/detail/reference_svd.hpp>
#include <pare/factor/detail/route.hpp>
#include <pare/factor/detail/subspace.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Values of G that are rounding, as a share of the largest: values of a G in double are known to
/// 1e-16 of it, and factors in float carry singular values down to about 1e-6.
template <class T>
constexpr double rounding_value = std::is_same_v<T, double> ? 1e-15 : 1e-12;

/// A basis, the route that found it, and the energy that it is a part of.
template <class T>
struct FoundSubspace {
  Subspace<T> space;
  Route route = Route::Exact;
  double total_energy = 0;
  /// Values below this share of the largest are rounding.
  double rounding = rounding_value<T>;
};

/// By how much energies in double may be off, as a share of the total: sums of stored elements, and
/// what an operator says of its norm.
inline constexpr double energy_rounding = 4 * std::numeric_limits<double>::epsilon();
inline constexpr double operator_rounding = 4 * energy_rounding;

/// The least rank whose subspace leaves at most the tolerance, or all of it; what is left is known
/// to `rounding` of the total.
inline Index rank_within(const Eigen::VectorXd& values, double total, double tolerance,
                         double rounding) {
  double left = total;
  for (Index k = 0; k < values.size(); ++k) {
    left -= values[k];
    if (left <= (tolerance * tolerance - rounding) * total) return k + 1;
  }
  return values.size() + 1;
}

/// How many vectors leave at most the tolerance, or the most there may be.
inline Index wanted_rank(const SvdOptions& options, Index limit, const Eigen::VectorXd& values,
                         double total) {
  if (!options.tolerance) return limit;
  return std::min(limit, rank_within(values, total, *options.tolerance, energy_rounding));
}

/// Whether vectors found in T of a G of these `values` leave no more than Accuracy promises: an
/// error E of G costs them at most 2 sqrt(k) ||E||_F of the energy (Ky Fan), and decompositions in
/// float were off by n / 9 roundings of ||G||_F at most, from 256 to 1536 rows.
template <class T>
bool tells_apart(const SvdOptions& options, const Eigen::VectorXd& values, Index rank,
                 double total) {
  if (std::is_same_v<T, double>) return true;
  constexpr double epsilon = std::numeric_limits<T>::epsilon();
  const double left = total - values.head(rank).sum();
  const double roundings = static_cast<double>(values.size()) / 8 + 32;
  const double loss = std::sqrt(static_cast<double>(rank)) * roundings * epsilon * values.norm();
  const double excess = options.accuracy == Accuracy::High ? high_excess : standard_excess;
  return left > 4 * epsilon * total && loss <= 2 * excess * left;
}

/// The first eigenvectors of a stored G, of which the lower half is read, without iteration; none
/// is asked for, and it has not converged, where T does not tell them apart.
template <class T, class B>
Subspace<T> leading_eigenvectors(const B& backend, const RowMatrix<T>& gram,
                                 const SvdOptions& options, Index limit, double total) {
  Subspace<T> space;
  space.whole = true;
  auto eigen = linalg::leading_eigen(backend, const_view(gram), [&](const Eigen::VectorXd& values) {
    const Index rank = wanted_rank(options, limit, values, total);
    space.converged = tells_apart<T>(options, values, rank, total);
    return space.converged ? rank : Index{1};
  });
  space.basis = std::move(eigen.vectors);
  space.values = eigen.values.head(space.basis.cols()).cwiseMax(0.0);
  return space;
}

template <class T>
void keep_rank(Subspace<T>& space, Index rank) {
  space.basis = row_matrix<T>(columns_of(const_view(space.basis), 0, rank));
  space.values.conservativeResize(rank);
}

/// The rank that leaves `allowed` of an energy, as it is guessed from the first `values`, of which
/// `left` is left: as if those beyond fell as the power of their number that makes up for it.
inline Index likely_rank(const Eigen::VectorXd& values, double left, double allowed,
                         Index dimension) {
  const auto k = static_cast<double>(values.size()), n = static_cast<double>(dimension);
  const double last = values[values.size() - 1];
  // The integral of last (x / k)^-q from `from` to n.
  const auto beyond = [&](double q, double from) {
    const double p = 1 - q, a = std::log(from / k), b = std::log(n / k);
    const double integral = std::abs(p) < 1e-9 ? b - a : (std::exp(p * b) - std::exp(p * a)) / p;
    return last * k * integral;
  };
  double low = 0, high = 64;
  for (int step = 0; step < 60; ++step) {
    const double q = (low + high) / 2;
    (beyond(q, k) > left ? low : high) = q;
  }
  double from = k, to = n;
  for (int step = 0; step < 60; ++step) {
    const double middle = (from + to) / 2;
    (beyond(low, middle) > allowed ? from : to) = middle;
  }
  return static_cast<Index>(std::ceil(to));
}

/// Calls solve(rank, basis found so far) for the rank, or for ranks that grow until the tolerance
/// is met. `probe` gives a few of the first values. The first rank is a guess from those, later
/// ones are guesses from what was found, which is kept.
///
/// Where it does not grow, ranks double from 32 and each is sought for itself: what is found beside
/// known vectors is known to fewer digits.
template <class Probe, class Solve>
auto solve_for_rank(const SvdOptions& options, Index limit, Index dimension, double total,
                    const Probe& probe, const Solve& solve, bool grows,
                    double rounding = energy_rounding) {
  using Space = decltype(solve(limit, {}));
  if (!options.tolerance) return solve(limit, {});
  const double allowed = *options.tolerance * *options.tolerance * total;
  const auto guess = [&](const Eigen::VectorXd& values) {
    const Index rank = likely_rank(values, total - values.sum(), allowed, dimension);
    return std::min(limit, rank + rank / 32 + 2);
  };
  Space space = solve(grows ? guess(probe()) : std::min<Index>(32, limit), {});
  for (;;) {
    const Index enough = rank_within(space.values, total, *options.tolerance, rounding);
    const Index found = space.values.size();
    if (enough <= found || found >= limit || space.whole) {
      keep_rank(space, std::min(enough, found));
      return space;
    }
    if (grows) {
      const Index next = std::max(guess(space.values), found + found / 16 + 1);
      space = solve(std::min(next, limit), std::move(space.basis));
    } else {
      space = solve(std::min(2 * found, limit), {});
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
bool resolves(std::optional<double> tolerance) {
  return !tolerance || *tolerance * *tolerance > 64 * std::numeric_limits<T>::epsilon();
}

/// About the first values of G, by a step on a sample of few columns.
template <class Iterate>
Eigen::VectorXd probed_values(const SvdOptions& options, Index dimension, Index other,
                              const Iterate& iterate) {
  // The route of the least rank for which G or M would be multiplied often.
  const Index rank = std::min(dimension, std::clamp<Index>(dimension / 64, 8, 32));
  const Index most = std::min(dimension, std::max<Index>(dimension / 16, 32));
  SubspacePlan plan = plan_subspace(options, most, dimension, other);
  if (plan.route == Route::Exact || plan.whole) plan.route = Route::Gram;
  plan.width = std::min(dimension, 2 * rank);
  plan.steps = plan.most_steps = 1;
  return iterate(plan, rank, {}).values;
}

/// Whether vectors of G that were found are kept where more are sought.
inline bool keeps_found(const SvdOptions& options) {
  return options.tolerance.value_or(1.0) >= small_tolerance;
}

/// The subspace of M M^T, with products in T; none if T does not tell its values apart. `grows`: as
/// of solve_for_rank; elsewhere G is not decomposed either, unless all of it is asked for.
template <class T, class B>
std::optional<Subspace<T>> find_in(const B& backend, StoredMultiplier<T>& m,
                                   const SvdOptions& options, Index limit, double total,
                                   Route& route, bool grows) {
  if (!std::is_same_v<T, double> && !resolves<T>(options.tolerance)) return std::nullopt;
  std::optional<GramOperator<B, T>> gram;
  const auto stored = [&]() -> GramOperator<B, T>& {
    return gram ? *gram : gram.emplace(backend, m);
  };
  const auto iterate = [&](const SubspacePlan& plan, Index rank, const RowMatrix<T>& found) {
    if (plan.route != Route::Randomized)
      return leading_subspace<T>(backend, stored(), rank, plan.width, plan.until(), total, options,
                                 found);
    NormalOperator<B, T> normal(backend, m);
    return leading_subspace<T>(backend, normal, rank, plan.width, plan.until(), total, options,
                               found);
  };
  const auto solve = [&](Index rank, const RowMatrix<T>& found) {
    const SubspacePlan plan = grows ? plan_subspace(options, rank, m.rows(), m.cols())
                                    : plan_iteration(options, rank, m.rows(), m.cols());
    route = plan.route;
    if (plan.route == Route::Exact || plan.whole)
      return leading_eigenvectors<T>(backend, stored().matrix(), options, limit, total);
    return iterate(plan, rank, found);
  };
  const auto probe = [&] { return probed_values(options, m.rows(), m.cols(), iterate); };
  auto space = is_exact(options, m.rows())
                   ? solve(limit, {})
                   : solve_for_rank(options, limit, m.rows(), total, probe, solve, grows);
  const double last = space.values[space.values.size() - 1];
  if (last < least_value<T>(route) * space.values[0]) return std::nullopt;
  if (!space.converged && !std::is_same_v<T, double>) return std::nullopt;
  return space;
}

/// The side that needs one product with W after the basis is known, unless the other is smaller.
inline Axis basis_side(Index out, Index in, bool outputs_weighed, bool inputs_weighed) {
  const Axis smaller = out <= in ? Axis::Output : Axis::Input;
  if (outputs_weighed == inputs_weighed || out != in) return smaller;
  return outputs_weighed ? Axis::Input : Axis::Output;
}

/// A basis Q of M that leaves at most a fortieth of the tolerance, by rounds: each finds the
/// dominant subspace of what the rounds before left of M, to 1e-6 of its norm at most, since
/// products of M with itself hold what is above 1e-8 of the norm. `left` becomes what Q leaves.
template <class B, class S>
RowMatrix<double> deflated_basis(FactorProblem<B, S>& problem, Axis side, double total,
                                 Route& route, double& left) {
  const auto m = problem.template sided<double>(side);
  const B& backend = problem.backend;
  RowMatrix<double> rest = m.dense(), q(m.rows(), 0), inside, image;
  const double wanted = *problem.options.tolerance * *problem.options.tolerance * total / 1600;
  for (left = total; left > wanted && q.cols() < problem.limit();) {
    SvdOptions options = problem.options;
    options.tolerance = std::clamp(std::sqrt(wanted / left), 1e-6, 0.5);
    ScaledMatrix<B, double, double> part(backend, const_view(rest), {}, {});
    RowMatrix<double> u =
        find_in<double>(backend, part, options, m.rows() - q.cols(), left, route, false)->basis;
    for (int twice = 0; twice < 2; ++twice) {
      take_out(backend, q, u);
      linalg::orthonormalize(backend, u, options.seed + 1, image);
    }
    inside.resize(u.cols(), rest.cols());
    linalg::multiply(backend, transpose(const_view(u)), const_view(rest), to_view(inside));
    multiply_plain(backend, u, inside, image);
    subtract(image, rest);
    left = rest.squaredNorm();
    q = beside(q, u);
  }
  return q;
}

/// The dominant subspace of M for a tolerance that energies in double do not resolve: the least
/// rank by singular values that are known to a roundoff of the largest.
template <class B, class S>
FoundSubspace<double> find_deflated(FactorProblem<B, S>& problem, Axis side, double total) {
  FoundSubspace<double> found{{}, Route::Exact, total};
  double left = 0;
  const RowMatrix<double> q = deflated_basis(problem, side, total, found.route, left);
  RowMatrix<double> image;
  problem.template sided<double>(side).multiply_transposed(q, image);
  const ReferenceSvd svd = reference_svd(reference_matrix(const_view(image)));
  const Index rank = reference_rank(svd.s, left, problem.options);
  const RowMatrix<double> turn = row_matrix<double>(columns_of(as_const(to_view(svd.v)), 0, rank));
  multiply_plain(problem.backend, q, turn, found.space.basis);
  found.space.values.resize(rank);
  for (Index k = 0; k < rank; ++k) found.space.values[k] = svd.s[k] * svd.s[k];
  found.rounding = 1e-28;
  return found;
}

/// The dominant subspace of M on a side, in T where T will do and in double elsewhere.
template <class T, class B, class S>
FoundSubspace<T> find_subspace(FactorProblem<B, S>& problem, Axis side, double total) {
  FoundSubspace<T> found{{}, Route::Exact, total};
  const Index dimension = side == Axis::Output ? problem.w.rows() : problem.w.cols();
  const Index other = side == Axis::Output ? problem.w.cols() : problem.w.rows();
  const SubspacePlan plan = plan_subspace(problem.options, problem.limit(), dimension, other);
  const bool exact = is_exact(problem.options, dimension) ||
                     (plan.route == Route::Exact && !problem.options.tolerance);
  // Factors in float have no tolerance that double does not resolve.
  if constexpr (std::is_same_v<compute_t<S>, double>)
    if (!resolves<double>(problem.options.tolerance)) return find_deflated(problem, side, total);
  const auto find_wide = [&] {
    auto m = problem.template sided<double>(side);
    auto wide = find_in<double>(problem.backend, m, problem.options, problem.limit(), total,
                                found.route, keeps_found(problem.options));
    found.space = {row_matrix<T>(const_view(wide->basis)), std::move(wide->values), wide->steps};
    return found;
  };
  if (exact) return find_wide();
  auto m = problem.template sided<T>(side);
  auto space = find_in<T>(problem.backend, m, problem.options, problem.limit(), total, found.route,
                          keeps_found(problem.options));
  if (!space) return find_wide();
  found.space = std::move(*space);
  return found;
}

PARE_ABI_END
}  // namespace pare::factor::detail
