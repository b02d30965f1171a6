// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The leading eigenvectors of G = M M^T: subspace iteration and Rayleigh-Ritz projection.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Orthonormal columns that span the leading subspace, each with u^T G u, in descending order.
template <class T>
struct Subspace {
  RowMatrix<T> basis;  ///< [dimension x rank]
  Eigen::VectorXd values;
  int steps = 0;
  bool converged = true;  ///< the excess that was asked for is reached, as far as G tells
  bool whole = false;     ///< there are no others to be found
};

/// How many steps are taken, and what ends them.
struct Convergence {
  int steps = 0;      ///< at least
  int most = 0;       ///< at most
  double excess = 0;  ///< over the least possible error that ends them in between
};

/// What the basis U of the leading subspace, with values lambda, may still gain of the energy:
/// each vector turned towards its residual r = G u - lambda u, whose values are at most `beyond`,
/// the least of the sample. Those 2 x 2 problems gain (sqrt(d^2 + 4 |r|^2) - d) / 2 for
/// d = lambda - beyond.
template <class T>
double possible_gain(const RowMatrix<T>& image, const Subspace<T>& space, double beyond) {
  Eigen::VectorXd squares = Eigen::VectorXd::Zero(image.cols());
  for (Index i = 0; i < image.rows(); ++i)
    for (Index k = 0; k < image.cols(); ++k) {
      const double residual = static_cast<double>(image(i, k)) -
                              space.values[k] * static_cast<double>(space.basis(i, k));
      squares[k] += residual * residual;
    }
  double gain = 0;
  for (Index k = 0; k < squares.size(); ++k) {
    const double distance = space.values[k] - beyond;
    const double root = std::sqrt(distance * distance + 4 * squares[k]);
    if (squares[k] > 0) gain += 2 * squares[k] / (distance + root);
  }
  return gain;
}

/// The excess of the error over the least possible, from what may be gained of the energy that is
/// left; `slow`: the least number of steps did not do. On singular values i^-p, p in [0.1, 1], and
/// those of normal matrices, the excess was 1.02 to 1.48 times gain / (2 left); of i^-0.05 up to
/// 1.88 times after the least number of steps, and up to 1.66 times after more.
inline double likely_excess(double gain, double left, bool slow) {
  const double safety = slow ? 1.75 : 1.5;
  return left > 0 ? safety * gain / (2 * left) : 0.0;
}

/// The small problem of Rayleigh and Ritz: of `rayleigh` = Q^T G Q for a Q whose Gram matrix is
/// `gram`, since Q is orthonormal only up to its condition number.
struct RitzVectors {
  RowMatrix<double> factor;  ///< [width x rank]: the vectors are Q times it
  Eigen::VectorXd values;    ///< [rank], in descending order
  double least = 0;          ///< of all values
};

template <class B>
RitzVectors ritz_vectors(const B& backend, const RowMatrix<double>& rayleigh,
                         const RowMatrix<double>& gram, Index rank) {
  const Eigen::MatrixXd upper = linalg::inverse_cholesky_factor(gram);
  const RowMatrix<double> inverse = row_matrix<double>(as_const(to_view(upper)));
  RowMatrix<double> half, turned(inverse.cols(), inverse.cols());
  multiply_plain(backend, rayleigh, inverse, half);
  linalg::multiply(backend, transpose(const_view(inverse)), const_view(half), to_view(turned));
  const auto eigen = linalg::leading_eigen(backend, const_view(turned), rank);
  const Eigen::VectorXd values = eigen.values.cwiseMax(0.0);
  RitzVectors ritz{{}, values.head(rank), values[values.size() - 1]};
  multiply_plain(backend, inverse, eigen.vectors, ritz.factor);
  return ritz;
}

/// The leading `rank` vectors of the range of Q, which are Q times `factor`.
template <class T, class B>
Subspace<T> leading_vectors(const B& backend, SymmetricOperator<T>& g, const RowMatrix<T>& q,
                            Index rank, RowMatrix<T>& factor, double& least) {
  const RowMatrix<double> rayleigh = g.rayleigh(q);
  RitzVectors ritz = ritz_vectors(backend, rayleigh, linalg::inner_products(backend, q, q), rank);
  factor = row_matrix<T>(const_view(ritz.factor));
  least = ritz.least;
  Subspace<T> result{{}, std::move(ritz.values)};
  multiply_plain(backend, q, factor, result.basis);
  return result;
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
template <class B, class T>
void take_out(const B& backend, const RowMatrix<T>& q, RowMatrix<T>& u) {
  if (q.cols() == 0) return;
  RowMatrix<T> inside(q.cols(), u.cols()), image;
  linalg::multiply(backend, transpose(const_view(q)), const_view(u), to_view(inside));
  multiply_plain(backend, q, inside, image);
  subtract(image, u);
}

/// Iterates Q <- orth(G Q) from a random sample of the range, `width` columns wide, until what can
/// still be gained of `total`, the trace of G, is the excess that is allowed.
///
/// After s steps the k-th direction is found up to (sigma_(width + 1) / sigma_k)^(2 s + 1):
/// widening the sample helps more than another step while the spectrum decays slowly (Halko,
/// Martinsson and Tropp 2011, section 10; Saad, Numerical Methods for Large Eigenvalue Problems,
/// section 5.2). Cost: steps + 1 applications of G and one to the result, 3 dimension width^2 FLOPs
/// a step and about 9 width^3 at the end; the last two again where steps are added.
///
/// \param found vectors of fewer than `width` that were found before: the others are sought beside
///              them, and steps that are added take all
template <class T, class B>
Subspace<T> leading_subspace(const B& backend, SymmetricOperator<T>& g, Index rank, Index width,
                             const Convergence& until, double total, SvdOptions options,
                             const RowMatrix<T>& found = {}) {
  const std::uint64_t seed = options.seed;
  options.seed += static_cast<std::uint64_t>(found.cols());
  RowMatrix<T> q(g.dimension(), width - found.cols()), y, factor;
  g.start(options, q);
  take_out(backend, found, q);
  linalg::orthonormalize(backend, q, seed, y);
  double least = 0, before = 0;
  for (int step = 0, next = until.steps;;) {
    for (; step < next; ++step) {
      g.apply(q, y);
      q.swap(y);
      if (q.cols() < width) take_out(backend, found, q);
      linalg::orthonormalize(backend, q, seed, y);
    }
    if (q.cols() < width) q = beside(found, q);
    auto space = leading_vectors<T>(backend, g, q, rank, factor, least);
    space.steps = step;
    if (until.most == until.steps || width == g.dimension()) return space;
    g.image(factor, y);
    const double left = total - space.values.sum();
    const double rounding = 4 * double{std::numeric_limits<T>::epsilon()} * total;
    const double excess =
        likely_excess(possible_gain(y, space, least), std::max(left, rounding), step > until.steps);
    // Of less than the rounding of energies nothing is known.
    space.converged = left > rounding;
    if (excess <= until.excess) return space;
    // What does not shrink any more is rounding.
    space.converged = step < until.most && !(step > until.steps && excess > 0.95 * before);
    if (!space.converged) return space;
    before = excess;
    // Where values fall slowly the excess falls as 1 / steps, and a check costs as much as a step.
    const double halvings = std::log2(excess / until.excess);
    const int more = static_cast<int>(std::ceil(halvings * step / 2));
    next = std::min(until.most, step + std::clamp(more, 1 + step / 4, 1 + 2 * step));
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
