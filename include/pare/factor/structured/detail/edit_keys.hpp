// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Keys of edits: their Gram matrix in the inner product of C^-1, and what a layer keeps of them.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/inverse_moment.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace pare::factor::detail {

template <class X>
using IsInverseMoment = std::bool_constant<std::is_same_v<std::remove_cvref_t<X>, InverseMoment>>;

PARE_ABI_BEGIN

/// Whether values are met exactly, by what is linear in x, or given by a gate.
enum class EditKind { Linear, Gated };

template <class S>
Eigen::VectorXd key_of(const char* function, const char* name, TensorView<S, 1> x) {
  check_view(function, name, x);
  check(x.extent[0] >= 1, function, name, x.extent, "at least one element");
  Eigen::VectorXd key(x.extent[0]);
  for (Index i = 0; i < key.size(); ++i) {
    key[i] = static_cast<double>(static_cast<compute_t<std::remove_const_t<S>>>(x(i)));
    check(is_finite(key[i]), function, name, key[i], "finite elements");
  }
  return key;
}

/// Rows in double, finite.
template <class S>
RowMatrix<double> key_rows(const char* function, const char* name, TensorView<const S, 2> rows,
                           Index wanted) {
  check_view(function, name, rows);
  check(rows.rows() >= 1, function, name, rows.extent, "at least one concept");
  check(rows.cols() == wanted, function, name, rows.extent,
        Worded{"a row per concept, of length ", wanted});
  check_finite(function, name, rows);
  return row_matrix<double>(rows);
}

template <class S>
TensorView<const S, 2> checked_weight(const char* function, TensorView<const S, 2> w) {
  w = linalg::checked_lines(function, "w", w);
  check(w.rows() >= 1 && w.cols() >= 1, function, "w", w.extent,
        "at least one output and one input");
  return w;
}

/// W i of each key in double, [concepts x out].
template <class B, class S>
RowMatrix<double> products_of(const B& backend, TensorView<const S, 2> w,
                              const RowMatrix<double>& keys) {
  RowMatrix<double> products(keys.rows(), w.rows());
  linalg::multiply(backend, const_view(keys), transpose(w), to_view(products));
  return products;
}

/// Keys in the inner product of C^-1.
struct EditKeys {
  RowMatrix<double> images;  ///< [concepts x in] C^-1 i
  Eigen::VectorXd energies;  ///< [concepts] E = i^T C^-1 i
  /// [concepts x concepts] lower triangular R: the Gram matrix of i / sqrt(E) is R R^T.
  Eigen::MatrixXd root;
};

/// R of the Gram matrix of unit vectors, whose diagonal is the sine of the angle between a vector
/// and the span of those before it.
inline Eigen::MatrixXd gram_root(const char* function, const Eigen::MatrixXd& gram) {
  constexpr double least_sine = 1e-5;
  const Index n = gram.rows();
  Eigen::MatrixXd root = Eigen::MatrixXd::Zero(n, n);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j <= i; ++j) {
      double rest = gram(i, j);
      for (Index k = 0; k < j; ++k) rest -= root(i, k) * root(j, k);
      if (j < i) {
        root(i, j) = rest / root(j, j);
        continue;
      }
      check(rest > least_sine * least_sine, function, "keys",
            Worded{"key ", i, " in the span of those before it"}, "keys that are independent");
      root(i, i) = std::sqrt(rest);
    }
  return root;
}

template <class = void>  // compiled where it is called
EditKeys edit_keys(const char* function, const InverseMoment& inverse,
                   const RowMatrix<double>& keys) {
  const Index n = keys.rows();
  EditKeys result{RowMatrix<double>(n, keys.cols()), Eigen::VectorXd(n), {}};
  Eigen::MatrixXd units(keys.cols(), n);  // L^-1 i / sqrt(E)
  for (Index c = 0; c < n; ++c) {
    const Eigen::VectorXd w = inverse.whitened(keys.row(c).transpose());
    const double energy = result.energies[c] = w.squaredNorm();
    check(is_finite(energy) && energy > 0, function, "keys", energy,
          "i^T C^-1 i above 0 and finite for each key");
    units.col(c) = w / std::sqrt(energy);
    result.images.row(c) = inverse.unwhitened(w).transpose();
  }
  Eigen::MatrixXd gram(n, n);
  for (Index a = 0; a < n; ++a)
    for (Index b = 0; b < n; ++b) gram(a, b) = a == b ? 1.0 : units.col(a).dot(units.col(b));
  result.root = gram_root(function, gram);
  return result;
}

/// Rows m_c for (R R^T)^-1 m, in place.
inline void solve_gram(const Eigen::MatrixXd& root, RowMatrix<double>& m) {
  const Index n = root.rows();
  for (Index i = 0; i < n; ++i) {
    for (Index k = 0; k < i; ++k) m.row(i) -= root(i, k) * m.row(k);
    m.row(i) /= root(i, i);
  }
  for (Index i = n - 1; i >= 0; --i) {
    for (Index k = i + 1; k < n; ++k) m.row(i) -= root(k, i) * m.row(k);
    m.row(i) /= root(i, i);
  }
}

/// The projection of x on the keys is sum_c i_c t'_c with t' = G^-1 K C^-1 x. What is linear takes
/// the t' for its similarities, so that it meets its values; what is gated keeps s_c / E_c, and has
/// G^-1 in what is removed.
template <class Edits, class B, class S, class SK, class SV, class Gate>
Edits edits_of(const char* function, const B& backend, TensorView<const S, 2> weight,
               const InverseMoment& inverse, TensorView<const SK, 2> keys,
               TensorView<const SV, 2> values, const Gate& gate, EditKind kind) {
  using T = typename Edits::scalar;
  const auto w = checked_weight(function, weight);
  check(inverse.dim() == w.cols(), function, "inverse", inverse.dim(), w.cols());
  const RowMatrix<double> k = key_rows(function, "keys", keys, w.cols());
  check_extents<2>(function, "values", values.extent, {k.rows(), w.rows()});
  const RowMatrix<double> o = key_rows(function, "values", values, w.rows());
  EditKeys found = edit_keys(function, inverse, k);
  RowMatrix<double> removed = products_of(backend, w, k);
  const Eigen::VectorXd roots = found.energies.cwiseSqrt();
  RowMatrix<double>& solved = kind == EditKind::Linear ? found.images : removed;
  for (Index c = 0; c < k.rows(); ++c) {
    found.images.row(c) /= kind == EditKind::Linear ? roots[c] : found.energies[c];
    if (kind == EditKind::Gated) removed.row(c) /= roots[c];
  }
  solve_gram(found.root, solved);
  for (Index c = 0; c < k.rows(); ++c)
    kind == EditKind::Linear ? found.images.row(c) /= roots[c] : removed.row(c) *= roots[c];
  Edits edits{found.images.template cast<T>(),
              removed.template cast<T>(),
              o.template cast<T>(),
              gate,
              found.energies,
              inverse.clamped_directions()};
  // 1 / i and o may be beyond T.
  check_finite(function, "keys", const_view(edits.directions));
  check_finite(function, "values", const_view(edits.values));
  return edits;
}

/// edited = W + changes^T directions. What is beyond T is refused, unless the row of W is not
/// finite.
template <class B, class S, class T>
void add_edits(const char* function, const B& backend, TensorView<const S, 2> w,
               const RowMatrix<double>& changes, const RowMatrix<double>& directions,
               RowMatrix<T>& edited) {
  constexpr Index block = 64;
  const auto fill = [&](Index begin, Index end) {
    Eigen::RowVectorXd row(w.cols());
    for (Index o = begin; o < end; ++o) {
      for (Index i = 0; i < w.cols(); ++i)
        row[i] = static_cast<double>(static_cast<compute_t<S>>(w(o, i)));
      for (Index c = 0; c < changes.rows(); ++c) row += changes(c, o) * directions.row(c);
      edited.row(o) = row.template cast<T>();
      if (edited.row(o).allFinite()) continue;
      // A row of W that is not finite is NaN in the edit.
      check(!is_finite_row(w, o), function, "values",
            Worded{"an edited weight whose row ", o, " is beyond its scalar"},
            "edits that fit the scalar of the result");
    }
  };
  if constexpr (KernelBackend<B>)
    parallel_for(on_any_executor(backend).executor, ceil_div(w.rows(), block),
                 [&](Index at, int) { fill(at * block, std::min((at + 1) * block, w.rows())); });
  else
    fill(0, w.rows());
}

PARE_ABI_END
}  // namespace pare::factor::detail

#include <pare/core/macros_on.hpp>
