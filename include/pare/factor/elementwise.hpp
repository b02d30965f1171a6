// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Low rank with a weight for each element: min over A, B of sum_ij F_ij (W - A B)_ij^2.
///
/// ```cpp
/// FisherDiagonal fisher(out, in, FisherTerms::Elements);
/// auto r = elementwise_svd(pare::simd.threads(4), w, fisher.elements(), {.rank = 64});
/// r.factors.left, r.factors.right, r.losses.front(), r.losses.back()
/// double plain = elementwise_loss(w, f, svd.left, svd.right);       // of any other factors
/// ```
///
/// There is no closed form unless F has rank one, and what is found is a local minimum. Both
/// methods start from a closed form, or from given factors; `restarts` adds random starts. The form
/// is that for the row sums of F or for the products of its row and column sums, whichever has the
/// lower loss. No sweep raises the loss. Row sums are only a substitute for F: their optimum can be
/// worse than plain SVD in this loss.
///
/// If only few elements of a row have weight (fewer than k, as with a Fisher information that is
/// nearly 0 elsewhere), the rest of the row is free: the loss falls, but the plain error may not.
///
/// Sources: Srebro and Jaakkola, "Weighted low-rank approximations", ICML 2003; Hastie, Mazumder,
/// Lee and Zadeh, "Matrix completion and low-rank SVD via fast alternating least squares", JMLR 16
/// (2015), for steps of Em that start from the factors before. Ours: both closed forms, and that
/// Als finds its lines by conjugate gradients in the metric of F's column sums, with a ridge.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/elementwise_closed_form.hpp>
#include <pare/factor/detail/elementwise_orthonormal.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/factor/detail/elementwise_start.hpp>
#include <pare/factor/detail/elementwise_sweeps.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/reference_elementwise.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace pare::factor {
namespace detail {
PARE_ABI_BEGIN

template <StorageScalar S, StorageScalar F>
void check_elementwise(const char* function, TensorView<const S, 2> w, TensorView<const F, 2> f) {
  check_view(function, "w", w);
  check_view(function, "f", f);
  check_extents<2>(function, "f", f.extent, w.extent);
  check_weights(function, "f", f);
  check_finite(function, "w", w);
}

template <class B, StorageScalar S, StorageScalar F>
ElementwiseProblem<B, compute_t<S>, compute_t<F>> elementwise_problem(const B& backend,
                                                                      TensorView<const S, 2> w,
                                                                      TensorView<const F, 2> f) {
  const double scale = weight_scale(f);
  return {backend, copy_rows(backend, w, 1.0), copy_rows(backend, f, 1 / scale), scale};
}

template <StorageScalar S, StorageScalar F>
void check_elementwise(const char* function, TensorView<const S, 2> w, TensorView<const F, 2> f,
                       const ElementwiseOptions& options) {
  validate(function, options, w.rows(), w.cols());
  check_elementwise(function, w, f);
}

/// sum_ij f_ij W_ij^2, without the scale.
template <class B, class T, class F>
double scaled_energy(ElementwiseProblem<B, T, F>& p) {
  return scaled_loss(
      p, {RowMatrix<double>::Zero(0, p.w.rows()), RowMatrix<double>::Zero(0, p.w.cols())});
}

/// The factors of the documented form: singular values on the left, orthonormal rows on the right.
template <class T, class B>
LowRank<T> elementwise_result(const B& backend, ElementwiseFactors& factors) {
  // Orthonormal to 1e-4 after the first at worst, to rounding after the second.
  for (int pass = 0; pass < 2; ++pass) balance(backend, factors.right, factors.left);
  RowMatrix<double> basis = factors.left;
  const ReferenceSvd svd = reference_svd(orthonormal_rows(backend, basis));
  const auto turn = transpose(as_const(to_view(svd.v)));
  multiply_left(backend, turn, factors.left);
  multiply_left(backend, turn, factors.right);
  LowRank<T> result;
  result.left = row_matrix<T>(transpose(const_view(factors.left)));
  result.right = row_matrix<T>(const_view(factors.right));
  result.singular_values = svd.s;
  return result;
}

template <class B, StorageScalar S, StorageScalar F>
ElementwiseLowRank<compute_t<S>> elementwise_views(const char* function, const B& backend,
                                                   TensorView<const S, 2> w,
                                                   TensorView<const F, 2> f,
                                                   const ElementwiseOptions& options,
                                                   const ElementwiseStart& given = {}) {
  check_elementwise(function, w, f, options);
  Workspace own;
  const B kept = keeping(backend, own);
  auto problem = elementwise_problem(kept, w, f);
  const double squares = scaled_energy(problem), energy = squares * problem.scale;
  check_weighted_squares(function, w, f, squares);
  check(is_finite(energy), function, "w", energy, "a weighted sum of squares that is finite");
  const auto turned = [](const ElementwiseStart& start) {
    return ElementwiseFactors{start.left.transpose(), start.right};
  };
  ElementwiseFactors factors =
      given.empty() ? closed_form_start(problem, options.rank, squares) : turned(given);
  ElementwiseLowRank<compute_t<S>> result;
  result.losses = run_method(problem, options, factors);
  check_loss(function, problem.scale * result.losses.front());
  const double size = std::sqrt(squares / problem.f.template cast<double>().sum());
  for (int start = 0; start < options.restarts; ++start) {
    ElementwiseFactors other = turned(random_start(w.rows(), w.cols(), options, start, size));
    std::vector<double> losses = run_method(problem, options, other);
    if (!(losses.back() < result.losses.back())) continue;
    factors = std::move(other);
    result.losses = std::move(losses);
  }
  for (double& loss : result.losses) loss *= problem.scale;
  result.factors = elementwise_result<compute_t<S>>(kept, factors);
  check_factors(function, result.factors);
  result.factors.total_energy = energy;
  result.factors.captured_energy = energy - result.losses.back();
  result.factors.error_bound = std::sqrt(result.losses.back());
  result.factors.steps = static_cast<int>(result.losses.size()) - 1;
  return result;
}

/// A factor in double, its rank as rows.
template <StorageScalar S>
RowMatrix<double> wide_factor(TensorView<const S, 2> factor) {
  RowMatrix<double> wide(factor.rows(), factor.cols());
  for (Index i = 0; i < wide.rows(); ++i)
    for (Index j = 0; j < wide.cols(); ++j)
      wide(i, j) = static_cast<double>(static_cast<compute_t<S>>(factor(i, j)));
  return wide;
}

template <class B, StorageScalar S, StorageScalar F, StorageScalar U, StorageScalar V>
double elementwise_loss_views(const char* function, const B& backend, TensorView<const S, 2> w,
                              TensorView<const F, 2> f, TensorView<const U, 2> left,
                              TensorView<const V, 2> right) {
  check(w.rows() >= 1 && w.cols() >= 1, function, "w", w.extent, "extents of at least 1");
  check_elementwise(function, w, f);
  check_view(function, "left", left);
  check_view(function, "right", right);
  check_extents<2>(function, "left", left.extent, {w.rows(), left.cols()});
  check_extents<2>(function, "right", right.extent, {left.cols(), w.cols()});
  check_finite(function, "left", left);
  check_finite(function, "right", right);
  double loss = 0;
  if constexpr (KernelBackend<B>) {
    Workspace own;
    const auto kept = keeping(on_any_executor(backend), own);
    auto problem = elementwise_problem(kept, w, f);
    loss = problem.scale * scaled_loss(problem, {wide_factor(transpose(left)), wide_factor(right)});
  } else {
    loss = reference_loss(reference_matrix(w), reference_matrix(f),
                          reference_matrix(left) * reference_matrix(right));
  }
  check_loss(function, loss);
  return loss;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A local minimum over A [out x k], B [k x in] of sum_ij f_ij (W - A B)_ij^2.
///
/// \param backend left out: pare::simd
/// \param w       [out x in], any storage scalar
/// \param f       [out x in] weights of any storage scalar, finite, at least 0, not all 0
/// \param options the rank, the method, and when to stop
/// \return factors of compute_t of w's scalar (left carries the singular values of the product,
///         right has orthonormal rows) and the loss after each sweep, never above the one before
/// \throws std::invalid_argument if w is empty or not finite, its weighted sum of squares is beyond
///         double or, with weights of about 1, below 1e-292 but not 0, f has another shape or a
///         weight out of its range, an option is out of range, or a factor does not fit its scalar
///
/// Als finds each factor by up to 30 iterations of conjugate gradients, fewer where one gains less
/// than 1e-5 of what all have; on mean squares of gradients it takes about 11, and is within 1e-5
/// of the loss of exact sweeps. Em finds its best approximation by two subspace iterations from the
/// factors before. Cost per sweep: out in k times 10 FLOPs in double and 8 for each iteration in
/// the scalar of the factors (Als), or 12 in double (Em), which bind, and 5 (out + in) k^2 in
/// double; a sweep of Als lowers the loss further. The start takes two truncated decompositions.
/// Memory: copies of w and f; out in doubles (Em), or two more of f and up to 200 MiB (Als). The
/// bits are the same for every executor.
template <Backend B, In<2> W, In<2> F>
auto elementwise_svd(const B& backend, const W& w, const F& f, const ElementwiseOptions& options) {
  constexpr const char* function = "factor::elementwise_svd";
  const auto weight = as_const(to_view(w));
  const auto importance = as_const(to_view(f));
  if constexpr (KernelBackend<B>)
    return detail::elementwise_views(function, on_any_executor(backend), weight, importance,
                                     options);
  else
    return detail::reference_elementwise_svd(function, weight, importance, options);
}

/// \overload
template <In<2> W, In<2> F>
auto elementwise_svd(const W& w, const F& f, const ElementwiseOptions& options) {
  return elementwise_svd(simd, w, f, options);
}

/// The same, but starts from the caller's factors instead of the closed form: those of an earlier
/// call, say, or of another method.
/// \param left  [out x k], any storage scalar, finite; k: options.rank
/// \param right [k x in], any storage scalar, finite
/// \throws std::invalid_argument also if a factor has another shape or is not finite, or their loss
///         is beyond double
template <Backend B, In<2> W, In<2> F, In<2> L, In<2> R>
auto elementwise_svd(const B& backend, const W& w, const F& f, const L& left, const R& right,
                     const ElementwiseOptions& options) {
  constexpr const char* function = "factor::elementwise_svd";
  const auto weight = as_const(to_view(w));
  const auto importance = as_const(to_view(f));
  detail::check_elementwise(function, weight, importance, options);
  const detail::ElementwiseStart start =
      detail::checked_start(function, as_const(to_view(left)), as_const(to_view(right)),
                            weight.rows(), weight.cols(), options);
  if constexpr (KernelBackend<B>)
    return detail::elementwise_views(function, on_any_executor(backend), weight, importance,
                                     options, start);
  else
    return detail::reference_elementwise_svd(function, weight, importance, options, start);
}

/// \overload
template <In<2> W, In<2> F, In<2> L, In<2> R>
auto elementwise_svd(const W& w, const F& f, const L& left, const R& right,
                     const ElementwiseOptions& options) {
  return elementwise_svd(simd, w, f, left, right, options);
}

/// sum_ij f_ij (W - left right)_ij^2 in double.
///
/// \param backend left out: pare::simd
/// \param w, f    as of elementwise_svd
/// \param left    [out x k] of any storage scalar
/// \param right   [k x in] of any storage scalar
/// \throws std::invalid_argument if a shape differs, f has weights as elementwise_svd refuses, or
///         another matrix a NaN or an infinity, or the loss is beyond double
///
/// Cost: 2 out in k FLOPs in double. Memory: copies of all four, and 32 MiB.
template <Backend B, In<2> W, In<2> F, In<2> L, In<2> R>
double elementwise_loss(const B& backend, const W& w, const F& f, const L& left, const R& right) {
  return detail::elementwise_loss_views("factor::elementwise_loss", backend, as_const(to_view(w)),
                                        as_const(to_view(f)), as_const(to_view(left)),
                                        as_const(to_view(right)));
}

/// \overload
template <In<2> W, In<2> F, In<2> L, In<2> R>
double elementwise_loss(const W& w, const F& f, const L& left, const R& right) {
  return elementwise_loss(simd, w, f, left, right);
}

PARE_REFUSE_CALLS(elementwise_svd, "factor::elementwise_svd",
                  "after f: wanted ElementwiseOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (INPUT, (roles::Reads<2>), "f", "[out, in]"))
PARE_REFUSE_CALLS(elementwise_loss, "factor::elementwise_loss", "after right: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[out, in]"),
                  (INPUT, (roles::Reads<2>), "f", "[out, in]"),
                  (INPUT, (roles::Reads<2>), "left", "[out, k]"),
                  (INPUT, (roles::Reads<2>), "right", "[k, in]"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
