// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Truncated singular value decomposition, plain or in a weighted metric: the best two factors of a
/// rank, W [out x in] ~ left [out x k] right [k x in].
///
/// ```cpp
/// auto plain = truncated_svd(w, {.rank = 128});
/// auto small = truncated_svd(pare::simd.threads(4), w, {.tolerance = 0.05});
/// auto fwsvd = factorize(w, OutputWeights(importance), {.rank = 128});
/// plain.left, plain.right, plain.relative_error(), plain.parameter_saving(), small.rank()
/// ```
///
/// Only a basis of the dominant subspace is computed, on the smaller side. The other factor is W
/// projected on it, which is the least-squares optimum for that basis. Route::Auto chooses how to
/// find the basis:
///
/// - **Exact**: all eigenvectors of the Gram matrix in double. Chosen if a side has at most 128
///   elements, or for all of its vectors.
/// - **Gram**: forms the Gram matrix G of the smaller side, then iterates on it (subspace
///   iteration). Chosen if that needs fewer FLOPs than Randomized, and G is at most four times as
///   large as the sample and its image. From a rank of about a fifth of the side on, and where the
///   sample would be as wide as the side, all of G is decomposed in its stead (then `steps` is 0),
///   unless steps, the sample's width or the route is asked for: a model of what both take,
///   measured on one thread of a Zen 5 at 256 to 1536 rows, says which is cheaper.
/// - **Randomized**: subspace iteration with W itself (Halko, Martinsson and Tropp 2011).
///
/// The iteration starts from a random sample. Gram's is 21/16 k + 16 columns wide, Randomized's 3/2
/// k + 32, with at least 2 steps each; for Accuracy::High it is 3/2 k + 32 wide, with 4 and 5
/// steps. These are our choice, by measurement on singular values i^-0.6. Then the residuals of the
/// vectors tell what another step would gain. Steps are added, 100 in all at most, until the excess
/// over the best possible error is what the accuracy promises. This is an estimate with a margin,
/// which held for singular values i^-0.1 to i^-1 and for normal matrices (Standard needs 5 to 10
/// steps for i^-0.1, 2 or 3 for i^-0.6). For i^-0.05, which falls by a quarter in all, Standard
/// reached an excess of 0.0035 at small ranks, and of 0.0051 where one value lies far above the
/// others.
///
/// Float input is multiplied in float if all of this holds: the singular values kept span less than
/// a factor of 1e3 (Gram) or 1e5 (Randomized), what is left is above 7e-4 of the norm, steps gain
/// until the excess is reached, and no tolerance below 3e-3 is asked for. Where all of G is
/// decomposed in float, so much must be left that its rounding cannot cost more than the excess, by
/// a bound for any spectrum. Otherwise it is multiplied, and decomposed, in double. Singular values
/// below 3e-8 of the largest (1e-6 for factors in float) are rounding. A tolerance below 1.2e-7 is
/// met in double: further rounds factor what the rounds before left, and the small factor is
/// decomposed by rotations, which takes about 70 k^3 FLOPs on one thread.
///
/// For a tolerance the rank is guessed from the first values, found by a step on few columns, and
/// vectors are sought for it; if they do not do, others are sought beside them. Where all of G is
/// decomposed, also that of a covariance, the rank is read off its values. Below a tolerance of
/// 1e-3 the rank is doubled from 32 on, and each rank is sought for itself.
///
/// The same bits come out for every executor and number of threads. NaN or infinity in W is
/// refused.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/factorize.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/operator_svd.hpp>
#include <pare/factor/detail/reference_factorize.hpp>
#include <pare/factor/linear_operator.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/sparse_transpose.hpp>

#include <type_traits>

namespace pare::factor {
namespace detail {

template <class X>
using IsMetric = std::bool_constant<Metric<std::remove_cvref_t<X>>>;
template <class X>
using IsLinearOperator = std::bool_constant<LinearOperator<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

template <class B, class S, Metric M>
LowRank<compute_t<S>> factorize_views(const char* function, const B& backend,
                                      TensorView<const S, 2> w, const M& metric,
                                      const SvdOptions& options) {
  if constexpr (KernelBackend<B>) {
    check_factorize(function, w, metric, options);
    Workspace own;
    const auto kept = keeping(on_any_executor(backend), own);
    FactorProblem<OnAnyExecutor<B>, S> problem(function, kept, w, metric.output_weights(),
                                               metric.input_weights(), options);
    const auto covariance = metric.input_covariance();
    if (covariance.empty()) return factorize_weighted(problem);
    return factorize_covariance(problem, covariance);
  } else {
    return reference_factorize(function, w, metric, options);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// min over A [out x k], B [k x in] of ||D (W - A B) R||_F in the metric's norm.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any dense Eigen matrix of float, double, bf16 or f16
/// \param metric  how errors are weighed (metric.hpp)
/// \param options the rank or the tolerance, and how to get there
/// \return factors of compute_t of W's scalar, with energies and singular values in the metric
/// \throws std::invalid_argument if W is empty or not finite, the rank is not in [1, min(out, in)],
///         an option is out of range, weights are negative, not finite, all 0 or of another length,
///         a covariance is not symmetric and positive semi-definite, the squared norm in the metric
///         is not finite, or below 1e-292 but not 0, or a factor does not fit its scalar
///
/// Cost, with r the smaller side, n the larger one and l the width of the sample: r^2 n + 6 r^2 l +
/// 2 r n k FLOPs (Gram; r^2 n + 4 r^3 + 2 r^2 k + 2 r n k where G is decomposed) or 12 r n l
/// (Randomized), and about 4 l^3; with a covariance, in double,
/// the less of 2 in (2 out + in) l FLOPs per step and 2 out in^2 + out in r + 6 r^3 for the exact
/// vectors, which are taken up to twice that. Memory besides the result: r^2 scalars (Gram; six
/// times as many where G is decomposed, and r^2 doubles), 3 (r + n) l scalars and 2 l^2 doubles;
/// with a covariance also two copies of W and one of C in double.
template <Backend B, In<2> W, Metric M>
auto factorize(const B& backend, const W& w, const M& metric, const SvdOptions& options) {
  return detail::factorize_views("factor::factorize", backend, as_const(to_view(w)), metric,
                                 options);
}

/// \overload
template <In<2> W, Metric M>
auto factorize(const W& w, const M& metric, const SvdOptions& options) {
  return factorize(simd, w, metric, options);
}

/// min over A [out x k], B [k x in] of ||W - A B||_F: factorize with the plain Frobenius norm.
/// Parameters, result, cost and memory as factorize.
/// \throws std::invalid_argument as factorize.
template <Backend B, In<2> W>
auto truncated_svd(const B& backend, const W& w, const SvdOptions& options) {
  return detail::factorize_views("factor::truncated_svd", backend, as_const(to_view(w)), Uniform{},
                                 options);
}

/// \overload
template <In<2> W>
auto truncated_svd(const W& w, const SvdOptions& options) {
  return truncated_svd(simd, w, options);
}

/// The same for a sparse matrix of float or double, by Route::Randomized. Cost: its nonzeros are
/// multiplied with 4 l columns per step. Memory: a row- and a column-wise copy of it.
/// \throws std::invalid_argument as factorize, if an index is outside, and for another route.
template <Backend B, SparseIn W>
auto truncated_svd(const B& backend, const W& w, const SvdOptions& options) {
  constexpr const char* function = "factor::truncated_svd";
  const auto lines = to_compressed(w);
  check_compressed(function, "w", lines);
  if constexpr (KernelBackend<B>) {
    if constexpr (bool(W::IsRowMajor)) {
      return detail::sparse_svd(function, on_any_executor(backend), lines, options);
    } else {
      const linalg::SparseTranspose rows(lines);
      return detail::sparse_svd(function, on_any_executor(backend), rows.view(), options);
    }
  } else {
    RowMatrix<sparse_scalar_of<W>> dense = RowMatrix<sparse_scalar_of<W>>::Zero(w.rows(), w.cols());
    dense += w;  // adds up entries with equal indices, where assigning keeps the last
    return truncated_svd(backend, dense, options);
  }
}

/// \overload
template <SparseIn W>
auto truncated_svd(const W& w, const SvdOptions& options) {
  return truncated_svd(simd, w, options);
}

/// The same for a matrix that is known only by its products (linear_operator.hpp). Cost: 4 products
/// with l columns per step.
/// \throws std::invalid_argument if it is empty, a product is not finite, squared_norm() is
///         negative or less than its products show, an option is out of range, or another route
///         than Randomized is asked for.
template <Backend B, LinearOperator W>
auto truncated_svd(const B& backend, const W& w, const SvdOptions& options) {
  constexpr const char* function = "factor::truncated_svd";
  if constexpr (KernelBackend<B>) {
    return detail::operator_svd(function, on_any_executor(backend), w, options);
  } else {
    using T = typename W::scalar;
    detail::check_operator_options<T>(function, options, w.rows(), w.cols());
    const RowMatrix<T> identity = RowMatrix<T>::Identity(w.cols(), w.cols());
    RowMatrix<T> dense(w.rows(), w.cols());
    w.multiply(const_view(identity), to_view(dense));
    return truncated_svd(backend, dense, options);
  }
}

/// \overload
template <LinearOperator W>
auto truncated_svd(const W& w, const SvdOptions& options) {
  return truncated_svd(simd, w, options);
}

PARE_REFUSE_CALLS(
    factorize, "factor::factorize",
    "after metric: wanted SvdOptions such as {.rank = 16}, members spelt and ordered as declared",
    (INPUT, (roles::Reads<2>), "w", "[out, in]"),
    (PLAIN, (roles::Takes<detail::IsMetric>), "metric",
     "a Metric such as OutputWeights (metric.hpp)"))
PARE_REFUSE_CALLS(
    truncated_svd, "factor::truncated_svd",
    "after w: wanted SvdOptions such as {.rank = 16}, members spelt and ordered as declared",
    (INPUT, (roles::Unless<roles::ReadsMatrix, detail::IsLinearOperator, roles::right>), "w",
     "[out, in]"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
