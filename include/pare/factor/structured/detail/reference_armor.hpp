// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The steps of ARMOR as they are defined, in double: each block of A and B by its normal
/// equations, each group by the residual without it and the six masks.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/detail/armor_problem.hpp>
#include <pare/kernel/sweep_two_four.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/LU>

#include <cstdint>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// X with X G = cross, with the ridge 1e-12 tr(G) / n.
template <class = void>  // compiled where it is called, as the next
Eigen::MatrixXd reference_fitted(Eigen::MatrixXd gram, const Eigen::MatrixXd& cross) {
  gram.diagonal().array() += 1e-12 * gram.trace() / static_cast<double>(gram.rows());
  return Eigen::LDLT<Eigen::MatrixXd>(gram).solve(cross.transpose()).transpose();
}

template <class = void>
class ReferenceArmor {
 public:
  explicit ReferenceArmor(ArmorProblem<double>& problem) : p_(problem) {}

  void measure() {
    for (Index i = 0; i < p_.row_blocks; ++i)
      for (Index j = 0; j < p_.column_blocks; ++j) p_.losses(i, j) = loss(i, j);
  }

  void fit_left() {
    for (Index i = 0; i < p_.row_blocks; ++i) {
      Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(p_.rows, p_.rows), cross = gram;
      for (Index j = 0; j < p_.column_blocks; ++j) {
        const Eigen::MatrixXd image = core(i, j) * right(j);
        gram += image * moments(j).asDiagonal() * image.transpose();
        cross += weight(i, j) * moments(j).asDiagonal() * image.transpose();
      }
      replace(p_.left, i * p_.rows, reference_fitted(gram, cross));
    }
  }

  void fit_right() {
    for (Index j = 0; j < p_.column_blocks; ++j) {
      Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(p_.columns, p_.columns), cross = gram;
      for (Index i = 0; i < p_.row_blocks; ++i) {
        const Eigen::MatrixXd image = left(i) * core(i, j);
        gram += image.transpose() * image;
        cross += weight(i, j).transpose() * image;
      }
      replace(p_.right, j * p_.columns, reference_fitted(gram, cross).transpose());
    }
  }

  void fit_core() {
    for (Index i = 0; i < p_.row_blocks; ++i)
      for (Index j = 0; j < p_.column_blocks; ++j) {
        const Block kept = core(i, j);
        const std::vector<std::uint8_t> groups = p_.groups;
        fit_core(i, j);
        const double after = loss(i, j);
        if (after < p_.losses(i, j)) {
          p_.losses(i, j) = after;
        } else {
          p_.core.middleRows(p_.tile(i, j), p_.rows) = kept;
          p_.groups = groups;
        }
      }
  }

 private:
  using Block = Eigen::MatrixXd;
  Block left(Index i) const { return p_.left.middleRows(i * p_.rows, p_.rows); }
  Block right(Index j) const { return p_.right.middleRows(j * p_.columns, p_.columns); }
  Block core(Index i, Index j) const { return p_.core.middleRows(p_.tile(i, j), p_.rows); }
  Block weight(Index i, Index j) const { return p_.weight.middleRows(p_.tile(i, j), p_.rows); }
  Eigen::VectorXd moments(Index j) const {
    return Eigen::Map<const Eigen::VectorXd>(p_.moments_at(j), p_.columns);
  }
  double loss(Index i, Index j) const {
    const Block difference = weight(i, j) - left(i) * core(i, j) * right(j);
    return (difference.cwiseAbs2() * moments(j)).sum();
  }

  /// Takes blocks at a row of A or B if the loss of all does not rise.
  void replace(RowMatrix<double>& of, Index row, const Eigen::MatrixXd& block) {
    const RowMatrix<double> kept = of.middleRows(row, block.rows());
    const RowMatrix<double> losses = p_.losses;
    of.middleRows(row, block.rows()) = block;
    measure();
    if (p_.losses.sum() < losses.sum()) return;
    of.middleRows(row, block.rows()) = kept;
    p_.losses = losses;
  }

  /// R = (A S B - W) H^(1/2) follows each group.
  void fit_core(Index i, Index j) {
    const Block a = left(i);
    const Block b = right(j) * moments(j).cwiseSqrt().asDiagonal();
    Block residual = a * core(i, j) * b - weight(i, j) * moments(j).cwiseSqrt().asDiagonal();
    for (Index t = 0; t < p_.rows; ++t)
      for (Index g = 0; g < p_.columns; g += 4) fit_group(i, j, t, g, a, b, residual);
  }

  void fit_group(Index i, Index j, Index t, Index g, const Block& a, const Block& b,
                 Block& residual) {
    const double size = a.col(t).squaredNorm();
    if (!(size > 0)) return;
    auto entries = p_.core.block(p_.tile(i, j) + t, g, 1, 4);
    const Eigen::Vector4d old = entries.transpose();
    const Eigen::Matrix<double, 4, Eigen::Dynamic> part = b.middleRows(g, 4);
    const Block without = residual - a.col(t) * (old.transpose() * part);
    const Eigen::Vector4d c = part * (without.transpose() * a.col(t));
    const double before = 2 * old.dot(c) + size * (old.transpose() * part).squaredNorm();
    double least = before;
    for (const auto& pair : kernel::group_pairs) {
      Eigen::Matrix2d gram;
      for (int k = 0; k < 2; ++k)
        for (int l = 0; l < 2; ++l) gram(k, l) = part.row(pair[k]).dot(part.row(pair[l]));
      gram.diagonal().array() += 1e-12 * gram.diagonal().maxCoeff();
      const Eigen::Vector2d x =
          -gram.fullPivLu().solve(Eigen::Vector2d(c[pair[0]], c[pair[1]])) / size;
      Eigen::Vector4d found = Eigen::Vector4d::Zero();
      found[pair[0]] = x[0];
      found[pair[1]] = x[1];
      const double cost = 2 * found.dot(c) + size * (found.transpose() * part).squaredNorm();
      if (!(cost < least)) continue;
      least = cost;
      entries = found.transpose();
      p_.group_at(i * p_.rows + t, j * p_.columns + g) =
          static_cast<std::uint8_t>(1u << pair[0] | 1u << pair[1]);
    }
    residual = without + a.col(t) * (entries * part);
  }

  ArmorProblem<double>& p_;
};

PARE_ABI_END
}  // namespace pare::factor::detail
