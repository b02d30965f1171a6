// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The atoms of a block: where they start, and those that fit given codes best.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/structured/detail/product.hpp>
#include <pare/factor/structured/detail/sparse_codes.hpp>
#include <pare/linalg/spmm.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Squared norms below this are those of no atom.
inline constexpr double least_atom = 0x1p-900;

/// Rows of W at even distances: (block k) / atoms.
inline RowMatrix<double> start_atoms(const RowMatrix<double>& w, Index atoms) {
  RowMatrix<double> start(atoms, w.cols());
  for (Index k = 0; k < atoms; ++k) start.row(k) = w.row(w.rows() * k / atoms);
  return start;
}

/// S^T [atoms x rows] by rows.
inline Eigen::SparseMatrix<double, Eigen::RowMajor, std::int64_t> turned_codes(
    const SparseCodes& codes, Index atoms) {
  Eigen::SparseMatrix<double, Eigen::RowMajor, std::int64_t> turned(atoms, codes.values.rows());
  turned.resizeNonZeros(codes.values.size());
  std::int64_t* const begin = turned.outerIndexPtr();
  std::fill_n(begin, atoms + 1, 0);
  for (Index e = 0; e < codes.places.size(); ++e) ++begin[codes.places.data()[e] + 1];
  for (Index a = 0; a < atoms; ++a) begin[a + 1] += begin[a];
  std::vector<std::int64_t> at(begin, begin + atoms);
  for (Index row = 0; row < codes.values.rows(); ++row)
    for (Index k = 0; k < codes.values.cols(); ++k) {
      const std::int64_t to = at[static_cast<std::size_t>(codes.places(row, k))]++;
      turned.innerIndexPtr()[to] = row;
      turned.valuePtr()[to] = codes.values(row, k);
    }
  return turned;
}

/// S^T S [atoms x atoms].
inline Eigen::MatrixXd code_products(const SparseCodes& codes, Index atoms) {
  Eigen::MatrixXd products = Eigen::MatrixXd::Zero(atoms, atoms);
  for (Index row = 0; row < codes.values.rows(); ++row)
    for (Index i = 0; i < codes.values.cols(); ++i)
      for (Index j = 0; j <= i; ++j)
        products(codes.places(row, i), codes.places(row, j)) +=
            codes.values(row, i) * codes.values(row, j);
  return products.selfadjointView<Eigen::Lower>();
}

/// (S^T S + ridge m I)^-1, m the mean of the diagonal; a ridge that rounding swallows is raised. I
/// where no code is, or their products are beyond double.
template <class = void>  // compiled where it is called
RowMatrix<double> inverse_products(const Eigen::MatrixXd& products, double ridge) {
  const double mean = products.diagonal().mean();
  const Index n = products.rows();
  if (!(mean > 0) || !is_finite(mean)) return RowMatrix<double>::Identity(n, n);
  for (;; ridge = std::max(100 * ridge, 1e-14)) {
    Eigen::MatrixXd ridged = products;
    ridged.diagonal().array() += ridge * mean;
    const Eigen::LLT<Eigen::MatrixXd> cholesky(ridged);
    if (cholesky.info() != Eigen::Success) continue;
    RowMatrix<double> inverse = cholesky.solve(Eigen::MatrixXd::Identity(n, n));
    if (inverse.allFinite()) return inverse;
  }
}

/// Atoms that no row uses become the rows that are left furthest from their codes, the furthest
/// first.
inline void replace_unused(const RowMatrix<double>& w, const SparseCodes& codes,
                           const Eigen::MatrixXd& products, RowMatrix<double>& atoms) {
  std::vector<Index> order(static_cast<std::size_t>(w.rows()));
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return codes.errors(a) > codes.errors(b); });
  std::size_t next = 0;
  for (Index k = 0; k < atoms.rows() && next < order.size(); ++k)
    if (!(products(k, k) > 0)) atoms.row(k) = w.row(order[next++]);
}

/// min over D of ||W - S D||^2 + ridge m ||D||^2, which does not depend on the metric of inputs.
template <class B>
RowMatrix<double> fitted_atoms(const B& backend, const RowMatrix<double>& w,
                               const SparseCodes& codes, Index atoms, double ridge) {
  const Eigen::MatrixXd products = code_products(codes, atoms);
  const auto turned = turned_codes(codes, atoms);
  RowMatrix<double> sums(atoms, w.cols());
  linalg::spmm(backend, turned, w, sums);
  RowMatrix<double> fitted =
      product(backend, const_view(inverse_products(products, ridge)), const_view(sums));
  replace_unused(w, codes, products, fitted);
  return fitted;
}

/// Atoms scaled to norm 1 in the metric, and what a pursuit reads of them.
struct Dictionary {
  RowMatrix<double> atoms;  ///< [atoms x inputs]
  Eigen::VectorXd norms;    ///< that they had; 0 of one that was none
  PursuitProblem problem;
};

template <class B>
Dictionary dictionary_of(const B& backend, const RowMatrix<double>& w,
                         const RowMatrix<double>* covariance, const Eigen::VectorXd& energies,
                         RowMatrix<double> atoms) {
  Dictionary d;
  RowMatrix<double> metric;
  if (covariance != nullptr) metric = product(backend, const_view(atoms), const_view(*covariance));
  RowMatrix<double>& dual = covariance != nullptr ? metric : atoms;
  d.norms.resize(atoms.rows());
  for (Index k = 0; k < atoms.rows(); ++k) {
    const double square = atoms.row(k).dot(dual.row(k));
    d.norms(k) = square > least_atom ? std::sqrt(square) : 0;
    const double scale = d.norms(k) > 0 ? 1 / d.norms(k) : 0;
    atoms.row(k) *= scale;
    if (covariance != nullptr) metric.row(k) *= scale;
  }
  d.problem.gram = product(backend, const_view(atoms), transpose(const_view(dual)));
  d.problem.correlations = product(backend, const_view(w), transpose(const_view(dual)));
  d.problem.energies = energies;
  d.atoms = std::move(atoms);
  return d;
}

PARE_ABI_END
}  // namespace pare::factor::detail

#include <pare/core/macros_on.hpp>
