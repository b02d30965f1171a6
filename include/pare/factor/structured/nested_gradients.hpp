// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gradients for training nested factors: of the mean loss over all prefixes of a linear layer, of
/// a model's loss where the layer ran with some units, and of the hierarchical group lasso.
///
/// ```cpp
/// auto g = nested_gradients(pare::simd, w, left, right);               // targets W x, C = I
/// auto h = nested_gradients(pare::simd, w, left, right, covariance);   // x of covariance C
/// auto s = nested_gradients(pare::simd, left, right, x, upstream, b);  // y = x V_b U_b^T
/// double penalty = hierarchical_lasso(left, right, 1e-6, s);
/// ```
///
/// The loss of a linear layer with targets W x of inputs of covariance C is
///
///     L = 1/r sum_b tr((W - U_:b V_:b^T) C (W - U_:b V_:b^T)^T).
///
/// Each term is at least what the b-th truncated singular value decomposition (in the metric C)
/// leaves, and that decomposition reaches all at once: it is the minimum, and for W = I the
/// principal components. The sum needs no loop over b: unit j is in r - j terms and the pair (i, j)
/// in r - max(i, j), which weigh the products U^T U and V^T C V.
///
/// The hierarchical group lasso sum_b ||U_:b..||_F + ||V_:b..||_F draws late units to zero. Its
/// gradient at a suffix of zeros is taken as 0; the authors warn not to start there.
///
/// Source: Horvath, Laskaridis, Rajput and Wang, Maestro, ICML 2024, arXiv 2308.14929. Ours: the
/// sum in closed form.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/detail/product.hpp>
#include <pare/factor/structured/nested.hpp>

#include <Eigen/Core>

#include <algorithm>

namespace pare::factor {
PARE_ABI_BEGIN

/// A loss and its gradients with respect to left [out x r] and right [r x in], in double.
struct NestedGradients {
  double loss = 0;
  RowMatrix<double> left, right;
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <StorageScalar S, StorageScalar U>
void check_nested_factors(const char* function, TensorView<const S, 2> left,
                          TensorView<const U, 2> right) {
  check_view(function, "left", left);
  check_view(function, "right", right);
  check(left.rows() >= 1 && left.cols() >= 1, function, "left", left.extent,
        "extents of at least 1");
  check(right.cols() >= 1, function, "right", right.extent, "extents of at least 1");
  check_extents<2>(function, "right", right.extent, {left.cols(), right.cols()});
  check_finite(function, "left", left);
  check_finite(function, "right", right);
}

template <class W, class L, class R>
void check_nested(const char* function, const W& w, const L& left, const R& right) {
  const auto view = as_const(to_view(w));
  const auto u = as_const(to_view(left));
  const auto v = as_const(to_view(right));
  check_nested_factors(function, u, v);
  check_view(function, "w", view);
  check_extents<2>(function, "w", view.extent, {u.rows(), v.cols()});
  check_finite(function, "w", view);
}

template <class L, class R, class X, class Y>
void check_given(const char* function, L left, R right, X x, Y upstream, Index units) {
  check_nested_factors(function, left, right);
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {x.rows(), right.cols()});
  check_view(function, "upstream", upstream);
  check_extents<2>(function, "upstream", upstream.extent, {x.rows(), left.rows()});
  check(units >= 0 && units <= left.cols(), function, "units", units,
        Worded{"0 to the rank, ", left.cols()});
  check_finite(function, "x", x);
  check_finite(function, "upstream", upstream);
}

/// products_ij (r - max(i, j)): how many prefixes have both units.
inline void weigh_pairs(RowMatrix<double>& products) {
  const Index r = products.rows();
  for (Index i = 0; i < r; ++i)
    for (Index j = 0; j < r; ++j) products(i, j) *= static_cast<double>(r - std::max(i, j));
}

/// The mean over all prefixes, and its gradients. `metric` is null for C = I.
template <class B>
NestedGradients prefix_mean(const B& backend, const RowMatrix<double>& w,
                            const RowMatrix<double>* metric, const RowMatrix<double>& left,
                            const RowMatrix<double>& right) {
  const Index r = left.cols();
  const double share = 1.0 / static_cast<double>(r);
  const auto in_metric = [&](const RowMatrix<double>& m) {
    return metric != nullptr ? product(backend, const_view(m), const_view(*metric)) : m;
  };
  const RowMatrix<double> wc = in_metric(w), rc = in_metric(right);
  RowMatrix<double> to_left = product(backend, const_view(wc), transpose(const_view(right)));
  RowMatrix<double> to_right = product(backend, transpose(const_view(left)), const_view(wc));
  for (Index j = 0; j < r; ++j) {
    to_left.col(j) *= static_cast<double>(r - j);
    to_right.row(j) *= static_cast<double>(r - j);
  }
  RowMatrix<double> lefts = product(backend, transpose(const_view(left)), const_view(left));
  RowMatrix<double> rights = product(backend, const_view(rc), transpose(const_view(right)));
  NestedGradients g;
  const double crossed = left.cwiseProduct(to_left).sum();
  weigh_pairs(lefts);
  g.loss = w.cwiseProduct(wc).sum() + share * (lefts.cwiseProduct(rights).sum() - 2 * crossed);
  weigh_pairs(rights);
  g.left = product(backend, const_view(left), const_view(rights)) - to_left;
  g.right = product(backend, const_view(lefts), const_view(rc)) - to_right;
  g.left *= 2 * share;
  g.right *= 2 * share;
  return g;
}

/// Adds the gradient of lambda sum_b ||X_b..|| to that of X, whose unit b is row(b), and returns
/// the value.
template <class Row, class GradientRow>
double add_suffix_lasso(Index units, double lambda, const Row& row, const GradientRow& gradient) {
  Eigen::VectorXd norms(units);
  for (Index b = 0; b < units; ++b) norms(b) = row(b).squaredNorm();
  suffix_norms(norms);
  double inverses = 0;
  for (Index b = 0; b < units; ++b) {
    if (norms(b) > 0) inverses += 1 / norms(b);
    gradient(b) += lambda * inverses * row(b);
  }
  return lambda * norms.sum();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The mean over all prefixes b of tr((W - U_:b V_:b^T) C (W - U_:b V_:b^T)^T), with gradients.
///
/// \param backend    which products run on
/// \param w          [out x in], any storage scalar, finite
/// \param left       [out x r], any storage scalar
/// \param right      [r x in], any storage scalar
/// \param covariance C [in x in], any storage scalar, symmetric; left out: I
/// \throws std::invalid_argument if an extent is below 1 or does not fit, or an element is not
///         finite
///
/// Cost: 4 out in r + 4 (out + in) r^2 FLOPs in double, and 2 (out + r) in^2 with a covariance.
/// The bits are the same for every executor.
template <Backend B, In<2> W, In<2> L, In<2> R, In<2> C>
NestedGradients nested_gradients(const B& backend, const W& w, const L& left, const R& right,
                                 const C& covariance) {
  constexpr const char* function = "factor::nested_gradients";
  const auto c = as_const(to_view(covariance));
  detail::check_nested(function, w, left, right);
  check_view(function, "covariance", c);
  const Index in = to_view(w).cols();
  check_extents<2>(function, "covariance", c.extent, {in, in});
  detail::check_finite(function, "covariance", c);
  const auto metric = row_matrix<double>(c);
  return detail::prefix_mean(backend, row_matrix<double>(as_const(to_view(w))), &metric,
                             row_matrix<double>(as_const(to_view(left))),
                             row_matrix<double>(as_const(to_view(right))));
}

/// \overload
template <Backend B, In<2> W, In<2> L, In<2> R>
NestedGradients nested_gradients(const B& backend, const W& w, const L& left, const R& right) {
  detail::check_nested("factor::nested_gradients", w, left, right);
  return detail::prefix_mean(backend, row_matrix<double>(as_const(to_view(w))), nullptr,
                             row_matrix<double>(as_const(to_view(left))),
                             row_matrix<double>(as_const(to_view(right))));
}

/// Gradients of a loss of y = x V_:b U_:b^T, given dL/dy: those of units from b on are 0. `loss` is
/// the caller's, and 0 here.
///
/// \param x        [rows x in], any storage scalar
/// \param upstream [rows x out], any storage scalar: dL/dy
/// \param units    b, in [0, r]
/// \throws std::invalid_argument if an extent does not fit, units is out of its range, or an
///         element is not finite
template <Backend B, In<2> L, In<2> R, In<2> X, In<2> Y>
NestedGradients nested_gradients(const B& backend, const L& left, const R& right, const X& x,
                                 const Y& upstream, Index units) {
  constexpr const char* function = "factor::nested_gradients";
  const auto l = as_const(to_view(left));
  const auto r = as_const(to_view(right));
  detail::check_given(function, l, r, as_const(to_view(x)), as_const(to_view(upstream)), units);
  const auto u = row_matrix<double>(columns_of(l, 0, units));
  const auto v = row_matrix<double>(rows_of(r, 0, units));
  const auto in = row_matrix<double>(as_const(to_view(x)));
  const auto out = row_matrix<double>(as_const(to_view(upstream)));
  NestedGradients g;
  g.left.setZero(l.rows(), l.cols());
  g.right.setZero(r.rows(), r.cols());
  if (units == 0 || in.rows() == 0) return g;
  const auto middle = detail::product(backend, const_view(in), transpose(const_view(v)));
  const auto back = detail::product(backend, const_view(out), const_view(u));
  g.left.leftCols(units) = detail::product(backend, transpose(const_view(out)), const_view(middle));
  g.right.topRows(units) = detail::product(backend, transpose(const_view(back)), const_view(in));
  return g;
}

/// lambda sum_b (||U_:b..||_F + ||V_:b..||_F), whose gradient is added to `gradients`.
///
/// \param left   [out x r], any storage scalar
/// \param right  [r x in], any storage scalar
/// \param lambda at least 0
/// \throws std::invalid_argument if an extent does not fit, or lambda is negative or not finite
template <In<2> L, In<2> R>
double hierarchical_lasso(const L& left, const R& right, double lambda,
                          NestedGradients& gradients) {
  constexpr const char* function = "factor::hierarchical_lasso";
  const auto l = as_const(to_view(left));
  const auto r = as_const(to_view(right));
  check_view(function, "left", l);
  check_view(function, "right", r);
  const auto u = row_matrix<double>(l), v = row_matrix<double>(r);
  check(is_finite(lambda) && lambda >= 0, function, "lambda", lambda,
        "a finite number of at least 0");
  check_extents<2>(function, "right", {v.rows(), v.cols()}, {u.cols(), v.cols()});
  check_extents<2>(function, "gradients", {gradients.left.rows(), gradients.left.cols()},
                   {u.rows(), u.cols()});
  check_extents<2>(function, "gradients", {gradients.right.rows(), gradients.right.cols()},
                   {v.rows(), v.cols()});
  return detail::add_suffix_lasso(
             u.cols(), lambda, [&](Index b) { return u.col(b); },
             [&](Index b) { return gradients.left.col(b); }) +
         detail::add_suffix_lasso(
             v.rows(), lambda, [&](Index b) { return v.row(b); },
             [&](Index b) { return gradients.right.row(b); });
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
