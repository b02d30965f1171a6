// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The dominant subspace of D W C W^T D for a covariance C of the inputs. M = D W and M C are kept,
/// two matrices of W's size in double.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/detail/find_subspace.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/detail/route.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// x C, with the ridge.
template <class B, class C>
RowMatrix<double> weigh_by(const B& backend, const CovarianceView<C>& covariance,
                           const RowMatrix<double>& x) {
  RowMatrix<double> weighed(x.rows(), x.cols());
  if (covariance.ridge != 0) weighed = covariance.ridge * x;
  linalg::multiply(backend, const_view(x), covariance.matrix, to_view(weighed),
                   {.accumulate = covariance.ridge != 0});
  return weighed;
}

/// The lower half of a b^T, which is symmetric.
template <class B>
RowMatrix<double> symmetric_product(const B& backend, const RowMatrix<double>& a,
                                    const RowMatrix<double>& b) {
  RowMatrix<double> product(a.rows(), b.rows());
  linalg::multiply(backend, const_view(a), transpose(const_view(b)), to_view(product),
                   {.half = linalg::Half::Lower});
  return product;
}

/// The sum of the products of elements.
inline double inner_product(const RowMatrix<double>& a, const RowMatrix<double>& b) {
  double sum = 0;
  for (Index i = 0; i < a.rows(); ++i) sum += a.row(i).dot(b.row(i));
  return sum;
}

/// Columns with R R^T = C, none for values of C that are rounding.
template <class B, class C>
RowMatrix<double> covariance_columns(const B& backend, const CovarianceView<C>& covariance) {
  RowMatrix<double> c = row_matrix<double>(covariance.matrix);
  c.diagonal().array() += covariance.ridge;
  auto eigen = linalg::leading_eigen(backend, const_view(c), [](const Eigen::VectorXd& values) {
    Index kept = 1;
    while (kept < values.size() && values[kept] > rounding_value<double> * values[0]) ++kept;
    return kept;
  });
  for (Index i = 0; i < c.rows(); ++i)
    for (Index k = 0; k < eigen.vectors.cols(); ++k)
      eigen.vectors(i, k) *= std::sqrt(std::max(eigen.values[k], 0.0));
  return std::move(eigen.vectors);
}

/// How the leading eigenvectors of M C M^T are found, for M [out x in].
template <class B, class C>
class CovarianceSubspace {
 public:
  CovarianceSubspace(const B& backend, RowMatrix<double> m, const CovarianceView<C>& covariance)
      : backend_(backend),
        m_(std::move(m)),
        covariance_(covariance),
        weighed_(weigh_by(backend, covariance, m_)) {}

  /// The trace of M C M^T.
  double energy() const { return inner_product(m_, weighed_); }

  /// From M C M^T, or where M has fewer columns from R^T M^T M R for C = R R^T, whose vectors M R
  /// turns into those that are sought.
  Subspace<double> exact(const SvdOptions& options, Index limit, double total) const {
    if (m_.cols() < m_.rows())
      if (auto space = from_inputs(options, limit, total)) return std::move(*space);
    return leading_eigenvectors(backend_, symmetric_product(backend_, m_, weighed_), options, limit,
                                total);
  }

 private:
  /// None if vectors of so small values are asked for that M R would not keep them apart.
  std::optional<Subspace<double>> from_inputs(const SvdOptions& options, Index limit,
                                              double total) const {
    const RowMatrix<double> columns = covariance_columns(backend_, covariance_);
    if (columns.cols() < limit && !options.tolerance) return std::nullopt;
    RowMatrix<double> outputs, scratch;
    multiply_plain(backend_, m_, columns, outputs);
    const RowMatrix<double> turned = outputs.transpose();
    auto space = leading_eigenvectors(backend_, symmetric_product(backend_, turned, turned),
                                      options, std::min(limit, columns.cols()), total);
    if (!(space.values[space.values.size() - 1] > 1e-10 * space.values[0])) return std::nullopt;
    const RowMatrix<double> inputs = std::move(space.basis);
    multiply_plain(backend_, outputs, inputs, space.basis);
    linalg::orthonormalize(backend_, space.basis, 0, scratch);
    return space;
  }

  const B& backend_;
  RowMatrix<double> m_;
  CovarianceView<C> covariance_;
  RowMatrix<double> weighed_;
};

/// Whether the exact subspace of M [out x in] is the better choice: forming it and all of a matrix
/// of the smaller side takes at most twice the FLOPs of the iteration, which leaves an excess. The
/// reduction to tridiagonal form counts three times, for half of it waits for memory.
inline bool exact_is_cheap(const SubspacePlan& plan, Index rank, Index out, Index in) {
  const auto o = static_cast<double>(out), i = static_cast<double>(in);
  const auto l = static_cast<double>(plan.width), k = static_cast<double>(rank);
  const double small = std::min(o, i), steps = static_cast<double>(plan.steps) + 1;
  const double eigen = (out <= in ? 1 : 2) * 6 * small * small * small + 2 * small * small * k;
  const double exact = 2 * o * i * i + o * i * small + eigen;
  const double iteration = steps * (2 * l * i * (2 * o + i) + 6 * o * l * l) + 8 * l * l * l;
  return exact <= 2 * iteration;
}

/// The subspace of D W C W^T D, in double: the energies of activations spread widely.
template <class B, class S, class C>
FoundSubspace<double> find_covariance_subspace(FactorProblem<B, S>& problem,
                                               const CovarianceView<C>& covariance) {
  const auto m = problem.template matrix<double>(Axis::Output);
  const CovarianceSubspace<B, C> outputs(problem.backend, m.dense(), covariance);
  // Of a W whose inputs have no energy the sum is rounding, of either sign.
  FoundSubspace<double> found{{}, Route::Randomized, std::max(0.0, outputs.energy())};
  check_energy(problem.function, found.total_energy / (problem.factor * problem.factor),
               problem.exponent());
  if (!(found.total_energy > 0)) return found;
  CovarianceOperator<B, double, C> g(problem.backend, m, covariance);
  const auto iterate = [&](const SubspacePlan& plan, Index rank, const RowMatrix<double>& known) {
    return leading_subspace<double>(problem.backend, g, rank, plan.width, plan.until(),
                                    found.total_energy, problem.options, known);
  };
  const auto solve = [&](Index rank, const RowMatrix<double>& known) {
    const SubspacePlan plan = plan_iteration(problem.options, rank, m.rows(), m.cols());
    const bool open = problem.options.route == Route::Auto;
    if (plan.route == Route::Exact || (open && exact_is_cheap(plan, rank, m.rows(), m.cols()))) {
      found.route = Route::Exact;
      return outputs.exact(problem.options, problem.limit(), found.total_energy);
    }
    return iterate(plan, rank, known);
  };
  const auto probe = [&] { return probed_values(problem.options, m.rows(), m.cols(), iterate); };
  found.space = is_exact(problem.options, m.rows())
                    ? solve(problem.limit(), {})
                    : solve_for_rank(problem.options, problem.limit(), m.rows(), found.total_energy,
                                     probe, solve, keeps_found(problem.options));
  return found;
}

PARE_ABI_END
}  // namespace pare::factor::detail
