// SPDX-License-Identifier: Apache-2.0
// The reference of Fisher and covariance sums, and of the norms of DoRA.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <pare/factor/reference.hpp>

#include "factor/data.hpp"

namespace factor_reference_statistics_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::TensorView;
using pare::to_view;

TensorView<const double, 2> view(const MatrixXd& m) { return as_const(to_view(m)); }

const MatrixXd delta = normal_matrix(12, 5, 1);  // gradients of the outputs, a token a row
const MatrixXd x = normal_matrix(12, 7, 2);

MatrixXd layer_squares(const std::vector<Index>& offsets) {
  MatrixXd squares = MatrixXd::Zero(5, 7);
  detail::reference_add_layer(view(delta), view(x), offsets, squares);
  return squares;
}

TEST(ReferenceFisher, SingleTokensHaveAClosedForm) {
  std::vector<Index> offsets(13);
  std::iota(offsets.begin(), offsets.end(), Index{0});
  const MatrixXd squares = layer_squares(offsets);
  for (Index i = 0; i < 5; ++i)
    for (Index j = 0; j < 7; ++j) {
      double wanted = 0;
      for (Index t = 0; t < 12; ++t) wanted += delta(t, i) * delta(t, i) * x(t, j) * x(t, j);
      EXPECT_TRUE(within(squares(i, j), wanted, Tolerance<double>::dot(36, wanted)));
    }
  const VectorXd sums = detail::reference_fisher_sums(squares, 12, Axis::Output);
  for (Index i = 0; i < 5; ++i) {
    double wanted = 0;
    for (Index t = 0; t < 12; ++t)
      wanted += delta(t, i) * delta(t, i) * x.row(t).squaredNorm() / 12;
    EXPECT_TRUE(within(sums(i), wanted, Tolerance<double>::dot(100, wanted)));
  }
}

TEST(ReferenceFisher, SequencesAreTheirGradients) {
  const std::vector<Index> offsets{0, 4, 4, 5, 12};  // one of no token
  MatrixXd wanted = MatrixXd::Zero(5, 7);
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    MatrixXd gradient = MatrixXd::Zero(5, 7);
    for (Index t = offsets[e]; t < offsets[e + 1]; ++t)
      gradient += delta.row(t).transpose() * x.row(t);
    detail::reference_add_gradient(view(gradient), wanted);
  }
  EXPECT_TRUE(within((layer_squares(offsets) - wanted).norm(), 0, 1e-13 * wanted.norm()));
  EXPECT_GT((layer_squares({0, 12}) - wanted).norm(), 0.1 * wanted.norm())
      << "the square of a batch is not the sum of squares";
}

TEST(ReferenceFisher, OrderAndGroupingOfExamplesDoNotMatter) {
  std::vector<MatrixXd> gradients;
  for (std::uint64_t e = 0; e < 40; ++e) gradients.push_back(normal_matrix(5, 7, 10 + e));
  MatrixXd forward = MatrixXd::Zero(5, 7), backward = forward,
           parts[3] = {forward, forward, forward};
  for (std::size_t e = 0; e < gradients.size(); ++e) {
    detail::reference_add_gradient(view(gradients[e]), forward);
    detail::reference_add_gradient(view(gradients[gradients.size() - 1 - e]), backward);
    detail::reference_add_gradient(view(gradients[e]), parts[e % 3]);
  }
  EXPECT_TRUE(within((forward - backward).norm(), 0, 1e-12 * forward.norm()));
  EXPECT_TRUE(within((forward - parts[0] - parts[1] - parts[2]).norm(), 0, 1e-12 * forward.norm()));
}

TEST(ReferenceFisher, SumsAreMeansAlongTheNamedAxis) {
  MatrixXd squares(2, 3);
  squares << 1, 2, 3, 4, 5, 6;
  EXPECT_EQ(detail::reference_fisher_sums(squares, 2, Axis::Output), Eigen::Vector2d(3, 7.5));
  EXPECT_EQ(detail::reference_fisher_sums(squares, 2, Axis::Input), Eigen::Vector3d(2.5, 3.5, 4.5));
}

TEST(ReferenceCovariance, IsTheUncentredSecondMoment) {
  MatrixXd sum = MatrixXd::Zero(7, 7), parts = sum;
  detail::reference_add_covariance(view(x), sum);
  const MatrixXd first = x.topRows(5), second = x.bottomRows(7);
  detail::reference_add_covariance(view(first), parts);
  detail::reference_add_covariance(view(second), parts);
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 7; ++j) {
      const double size = x.col(i).norm() * x.col(j).norm();
      EXPECT_TRUE(within(sum(i, j), x.col(i).dot(x.col(j)), Tolerance<double>::dot(24, size)));
      EXPECT_TRUE(within(parts(i, j), sum(i, j), Tolerance<double>::dot(24, size)));
    }
}

VectorXd norms(const MatrixXd& w, const MatrixXd& a, const MatrixXd& b, double scale) {
  return detail::reference_dora_norms(view(w), view(a), view(b), scale);
}

TEST(ReferenceDoraNorms, AreTheRowNormsOfTheAdaptedWeight) {
  const MatrixXd w = normal_matrix(6, 9, 3);
  for (const Index r : {1, 3, 9}) {
    const MatrixXd a = normal_matrix(r, 9, 4), b = normal_matrix(6, r, 5);
    const VectorXd got = norms(w, a, b, 0.7);
    for (Index i = 0; i < 6; ++i) {
      double squares = 0, size = 0;
      for (Index j = 0; j < 9; ++j) {
        double entry = w(i, j);
        for (Index q = 0; q < r; ++q) entry += 0.7 * b(i, q) * a(q, j);
        squares += entry * entry;
        size += std::abs(w(i, j)) + 0.7 * b.row(i).cwiseAbs().dot(a.col(j).cwiseAbs());
      }
      EXPECT_TRUE(within(got(i), std::sqrt(squares),
                         Tolerance<double>::dot(static_cast<double>(r + 12), size)));
    }
    EXPECT_EQ(norms(w, a, b, 0), w.rowwise().norm().eval());
    EXPECT_EQ(norms(w, a, MatrixXd::Zero(6, r), 2), w.rowwise().norm().eval());
  }
}

TEST(ReferenceDoraNorms, ANearlyCancelledRowKeepsItsDigits) {
  const MatrixXd a = normal_matrix(2, 9, 6), b = normal_matrix(4, 2, 7);
  const MatrixXd rest = 1e-6 * normal_matrix(4, 9, 8);
  const MatrixXd w = rest - 3 * b * a;
  const VectorXd got = norms(w, a, b, 3);
  for (Index i = 0; i < 4; ++i)
    EXPECT_TRUE(within(got(i), rest.row(i).norm(), Tolerance<double>::gamma(12) * w.row(i).norm()));
}

TEST(ReferenceDoraNorms, ANanStaysInItsRow) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  MatrixXd w = normal_matrix(4, 5, 9), b = normal_matrix(4, 2, 10);
  const MatrixXd a = normal_matrix(2, 5, 11);
  w(1, 3) = nan;
  b(2, 0) = nan;
  const VectorXd got = norms(w, a, b, 1);
  EXPECT_TRUE(std::isfinite(got(0)) && std::isnan(got(1)) && std::isnan(got(2)) &&
              std::isfinite(got(3)));
  MatrixXd broken = a;
  broken(1, 1) = nan;
  EXPECT_TRUE(
      norms(normal_matrix(4, 5, 9), broken, normal_matrix(4, 2, 10), 1).array().isNaN().all());
}

}  // namespace
}  // namespace factor_reference_statistics_test
