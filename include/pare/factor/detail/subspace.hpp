// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The leading eigenvectors of G = M M^T: subspace iteration and Rayleigh-Ritz projection.

#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/detail/orthonormal.hpp>
#include <pare/factor/detail/views.hpp>

#include <Eigen/Eigenvalues>

#include <cstdint>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Orthonormal columns that span the leading subspace, each with u^T G u, in descending order.
template <class T>
struct Subspace {
  RowMatrix<T> basis;  ///< [dimension x rank]
  Eigen::VectorXd values;
  int steps = 0;
};

/// Iterates Q <- orth(G Q) from a random sample of the range, `width` columns wide.
///
/// After s steps the k-th direction is found up to (sigma_(width + 1) / sigma_k)^(2 s + 1):
/// widening the sample helps more than another step while the spectrum decays slowly (Halko,
/// Martinsson and Tropp 2011, section 10; Saad, Numerical Methods for Large Eigenvalue Problems,
/// section 5.2). Cost: steps + 1 applications of G, 3 dimension width^2 FLOPs a step and about 9
/// width^3 at the end.
template <class T, class B, class Operator>
Subspace<T> leading_subspace(const B& backend, Operator& g, Index rank, Index width, int steps,
                             const SvdOptions& options, kernel::ProductWorkspace& workspace) {
  const std::uint64_t seed = options.seed;
  RowMatrix<T> q(g.dimension(), width), y;
  g.start(options, q);
  orthonormalize(backend, q, seed, y, workspace);
  for (int step = 0; step < steps; ++step) {
    g.apply(q, y);
    q.swap(y);
    orthonormalize(backend, q, seed, y, workspace);
  }
  // Q is orthonormal only up to its condition number: the small problem takes that into account.
  const RowMatrix<double> rayleigh = g.rayleigh(q);
  const RowMatrix<double> inverse =
      inverse_cholesky_factor(inner_products(backend, q, q, workspace));
  const auto product = [&](TensorView<const double, 2> a, TensorView<const double, 2> b) {
    RowMatrix<double> c(a.rows(), b.cols());
    kernel::multiply(backend, a, b, to_view(c), kernel::ProductOptions<double>{}, workspace);
    return c;
  };
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(
      product(transpose(read(inverse)), read(product(read(rayleigh), read(inverse)))));
  const RowMatrix<double> vectors = eigen.eigenvectors().rightCols(rank).rowwise().reverse();
  const RowMatrix<T> factor = product(read(inverse), read(vectors)).template cast<T>();
  Subspace<T> result{RowMatrix<T>(q.rows(), rank),
                     eigen.eigenvalues().tail(rank).reverse().cwiseMax(0.0), steps};
  kernel::multiply(backend, read(q), read(factor), to_view(result.basis),
                   kernel::ProductOptions<T>{}, workspace);
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
