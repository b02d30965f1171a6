// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The dominant subspace of M = D W R on a side: by which route, in which precision.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/detail/normal_operator.hpp>
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

/// The first eigenvectors of a stored G, of which the lower half is read, without iteration.
template <class T, class B>
Subspace<T> leading_eigenvectors(const B& backend, const RowMatrix<double>& gram, Index rank) {
  const auto eigen = linalg::leading_eigen(backend, const_view(gram), rank);
  return {row_matrix<T>(const_view(eigen.vectors)), eigen.values.head(rank).cwiseMax(0.0), 0};
}

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

template <class T>
void keep_rank(Subspace<T>& space, Index rank) {
  space.basis = row_matrix<T>(columns_of(const_view(space.basis), 0, rank));
  space.values.conservativeResize(rank);
}

/// Calls solve(rank) for the rank, or for ranks that double until the tolerance is met.
template <class Solve>
auto solve_for_rank(const SvdOptions& options, Index limit, double total, const Solve& solve,
                    double rounding = energy_rounding) {
  if (!options.tolerance) return solve(limit);
  for (Index rank = std::min<Index>(32, limit);; rank = std::min(2 * rank, limit)) {
    auto space = solve(rank);
    const Index enough = rank_within(space.values, total, *options.tolerance, rounding);
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
bool resolves(std::optional<double> tolerance) {
  return !tolerance || *tolerance * *tolerance > 64 * std::numeric_limits<T>::epsilon();
}

/// The subspace of M M^T, with products in T; none if T does not tell its values apart.
template <class T, class B>
std::optional<Subspace<T>> find_in(const B& backend, StoredMultiplier<T>& m,
                                   const SvdOptions& options, Index limit, double total,
                                   Route& route) {
  if (!std::is_same_v<T, double> && !resolves<T>(options.tolerance)) return std::nullopt;
  std::optional<GramOperator<B, T>> gram;
  const auto solve = [&](Index rank) {
    const SubspacePlan plan = plan_subspace(options, rank, m.rows(), m.cols());
    route = plan.route;
    if (plan.route == Route::Randomized) {
      NormalOperator<B, T> normal(backend, m);
      return leading_subspace<T>(backend, normal, rank, plan.width, plan.until(), total, options);
    }
    if (!gram) gram.emplace(backend, m);
    return leading_subspace<T>(backend, *gram, rank, plan.width, plan.until(), total, options);
  };
  auto space = solve_for_rank(options, limit, total, solve);
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

/// y -= x.
template <class T>
void subtract(const RowMatrix<T>& x, RowMatrix<T>& y) {
  for (Index i = 0; i < y.size(); ++i) y.data()[i] -= x.data()[i];
}

/// The columns of Q, and then those of U.
template <class T>
RowMatrix<T> beside(const RowMatrix<T>& q, const RowMatrix<T>& u) {
  RowMatrix<T> both(u.rows(), q.cols() + u.cols());
  for (Index i = 0; i < both.rows(); ++i)
    for (Index j = 0; j < both.cols(); ++j)
      both(i, j) = j < q.cols() ? q(i, j) : u(i, j - q.cols());
  return both;
}

/// U - Q (Q^T U), for Q with orthonormal columns.
template <class B>
void take_out(const B& backend, const RowMatrix<double>& q, RowMatrix<double>& u) {
  if (q.cols() == 0) return;
  RowMatrix<double> inside(q.cols(), u.cols()), image;
  linalg::multiply(backend, transpose(const_view(q)), const_view(u), to_view(inside));
  multiply_plain(backend, q, inside, image);
  subtract(image, u);
}

/// A basis Q of M that leaves at most a tenth of the tolerance, by rounds: each finds the dominant
/// subspace of what the rounds before left of M, to 1e-6 of its norm at most, since products of M
/// with itself hold what is above 1e-8 of the norm. `left` becomes what Q leaves.
template <class B, class S>
RowMatrix<double> deflated_basis(FactorProblem<B, S>& problem, Axis side, double total,
                                 Route& route, double& left) {
  const auto m = problem.template sided<double>(side);
  const B& backend = problem.backend;
  RowMatrix<double> rest = m.dense(), q(m.rows(), 0), inside, image;
  const double wanted = *problem.options.tolerance * *problem.options.tolerance * total / 100;
  for (left = total; left > wanted && q.cols() < problem.limit();) {
    SvdOptions options = problem.options;
    options.tolerance = std::clamp(std::sqrt(wanted / left), 1e-6, 0.5);
    ScaledMatrix<B, double, double> part(backend, const_view(rest), {}, {});
    RowMatrix<double> u =
        find_in<double>(backend, part, options, m.rows() - q.cols(), left, route)->basis;
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
  // Factors in float have no tolerance that double does not resolve.
  if constexpr (std::is_same_v<compute_t<S>, double>)
    if (!resolves<double>(problem.options.tolerance)) return find_deflated(problem, side, total);
  if (plan.route == Route::Exact && !problem.options.tolerance) {
    RowMatrix<double> gram;
    problem.template sided<double>(side).form_gram(gram);
    found.space = leading_eigenvectors<T>(problem.backend, gram, problem.limit());
    return found;
  }
  auto m = problem.template sided<T>(side);
  auto space = find_in<T>(problem.backend, m, problem.options, problem.limit(), total, found.route);
  if constexpr (!std::is_same_v<T, double>)
    if (!space) {
      auto exact = problem.template sided<double>(side);
      auto wide = find_in<double>(problem.backend, exact, problem.options, problem.limit(), total,
                                  found.route);
      found.space = {row_matrix<T>(const_view(wide->basis)), std::move(wide->values), wide->steps};
      return found;
    }
  found.space = std::move(*space);
  return found;
}

PARE_ABI_END
}  // namespace pare::factor::detail
