// SPDX-License-Identifier: Apache-2.0
// The reference of factorizations that know the covariance of the inputs.
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/LU>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <pare/factor/reference.hpp>

#include "factor/data.hpp"

namespace factor_reference_covariance_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::TensorView;
using pare::to_view;

TensorView<const double, 2> view(const MatrixXd& m) { return as_const(to_view(m)); }
CovarianceView<double> covariance(const MatrixXd& m, double ridge = 0) { return {view(m), ridge}; }

template <class M>
LowRank<double> solve(const MatrixXd& w, const M& metric, const SvdOptions& options) {
  return detail::reference_factorize("factor::factorize", view(w), metric, options);
}
LowRank<double> whitened(const MatrixXd& w, const MatrixXd& c, const SvdOptions& options) {
  return detail::reference_whitened_svd("factor::whitened", view(w), covariance(c), options);
}

/// A weight and the inputs it sees.
struct Layer {
  MatrixXd w, x;

  Layer(Index out, Index in, Index tokens, double exponent = 0.5)
      : w(with_spectrum(out, in, power_spectrum(std::min(out, in), exponent), 1)),
        x(correlated_inputs(tokens, in, 2)) {}

  MatrixXd c() const { return x.transpose() * x; }
  MatrixXd outputs() const { return w * x.transpose(); }
  double best(Index k) const { return tail_energy(outputs(), k); }
  double objective(const LowRank<double>& r) const { return output_objective(w, product(r), x); }
  /// Of squared errors. Where C is singular its root is wrong by sqrt(u) of its norm in directions
  /// without energy, which squared is u again; the energies of W and C are what it is a share of.
  double bound() const {
    const double size = w.norm() * x.norm();
    return 2 * size * decomposition_bound(w.rows() + w.cols(), x.rows(), size);
  }
};

TEST(ReferenceCovarianceSvd, ErrorIsTheTailOfTheOutputs) {
  for (const Layer& layer : {Layer(12, 20, 60), Layer(20, 12, 60), Layer(9, 9, 40)})
    for (const Index k : {1, 4, 8}) {
      const auto r = solve(layer.w, InputCovariance(layer.c()), {.rank = k});
      EXPECT_TRUE(within(layer.objective(r), layer.best(k), layer.bound()));
      EXPECT_TRUE(within(r.total_energy - r.captured_energy, layer.best(k), layer.bound()));
      EXPECT_TRUE(within(r.total_energy, layer.outputs().squaredNorm(), layer.bound()));
      EXPECT_TRUE(
          within((r.left.transpose() * r.left - MatrixXd::Identity(k, k)).norm(), 0, 1e-13));
      const auto plain = solve(layer.w, Uniform{}, {.rank = k});
      EXPECT_LE(layer.objective(r), layer.objective(plain) + layer.bound());
      EXPECT_EQ(r.clamped_directions, 0);
    }
}

TEST(ReferenceCovarianceSvd, ThePapersFormulaCholeskyAndOutputsAgree) {
  const Layer layer(10, 14, 80);
  const MatrixXd c = layer.c();
  const MatrixXd l = c.llt().matrixL();
  for (const Index k : {2, 7}) {
    const MatrixXd basis = solve(layer.w, InputCovariance(c), {.rank = k}).left;
    const Eigen::JacobiSVD<MatrixXd> svd(layer.w * l, Eigen::ComputeThinU | Eigen::ComputeThinV);
    const MatrixXd cholesky = svd.matrixU().leftCols(k) *
                              svd.singularValues().head(k).asDiagonal() *
                              svd.matrixV().leftCols(k).transpose() * l.inverse();
    const MatrixXd outputs = basis * basis.transpose() * layer.w;
    const auto care = whitened(layer.w, c, {.rank = k});
    // C^(-1/2) multiplies the errors by the root of the condition number of C.
    const VectorXd s = jacobi_values(layer.x);
    const double bound = 100 * s(0) / s(s.size() - 1) * decomposition_bound(10, 14, layer.w.norm());
    EXPECT_LT(bound, 1e-8);
    EXPECT_TRUE(within((cholesky - outputs).norm(), 0, bound));
    EXPECT_TRUE(within((product(care) - outputs).norm(), 0, bound));
    EXPECT_EQ(care.clamped_directions, 0);
    EXPECT_TRUE(within((care.singular_values - svd.singularValues().head(k)).norm(), 0,
                       decomposition_bound(10, 14, layer.w.norm() * layer.x.norm())));
  }
}

TEST(ReferenceCovarianceSvd, LatentsAreUncorrelated) {
  const Layer layer(10, 14, 80);
  for (const auto& r : {solve(layer.w, InputCovariance(layer.c()), {.rank = 5}),
                        whitened(layer.w, layer.c(), {.rank = 5})}) {
    const MatrixXd moment = r.right * layer.c() * r.right.transpose();
    const MatrixXd wanted = r.singular_values.cwiseAbs2().asDiagonal();
    EXPECT_TRUE(within((moment - wanted).norm(), 0, layer.bound()));
  }
}

TEST(ReferenceCovarianceSvd, SingularCovarianceReachesTheOptimum) {
  for (const Index tokens : {1, 6, 10}) {
    const Layer layer(24, 40, tokens);
    EXPECT_NE(Eigen::LLT<MatrixXd>(layer.c()).info(), Eigen::Success);
    for (const Index k : {1, 5, 12}) {
      const auto r = solve(layer.w, InputCovariance(layer.c()), {.rank = k});
      const auto inverse = whitened(layer.w, layer.c(), {.rank = k});
      ASSERT_TRUE(r.right.allFinite() && inverse.right.allFinite());
      EXPECT_TRUE(within(layer.objective(r), layer.best(std::min(k, tokens)), layer.bound()));
      EXPECT_TRUE(within(layer.objective(inverse), layer.best(std::min(k, tokens)), layer.bound()));
      EXPECT_EQ(inverse.clamped_directions, 40 - tokens);
      EXPECT_EQ(r.clamped_directions, 0);
    }
  }
}

/// Of numbers in float, eigenvalues below float's rounding are no energy: an inverse of them would
/// be what the rounding makes it.
TEST(ReferenceCovarianceSvd, SingularCovarianceOfFloatIsKnownToItsRounding) {
  for (const Index tokens : {6, 20}) {
    const Layer layer(24, 40, tokens);
    const Eigen::MatrixXf c = layer.c().cast<float>();
    const auto solved = [&](double ridge) {
      return detail::reference_whitened_svd(
          "factor::whitened", view(layer.w),
          CovarianceView<float>{pare::as_const(pare::to_view(c)), ridge}, {.rank = 5});
    };
    EXPECT_EQ(solved(0).clamped_directions, 40 - tokens);
    EXPECT_EQ(solved(1e-8 * layer.c().diagonal().mean()).clamped_directions, 0);
    EXPECT_LE(product(solved(0)).norm(), 2 * layer.w.norm());
  }
}

TEST(ReferenceCovarianceSvd, IdentityIsPlainAndDiagonalIsInputWeights) {
  const Layer layer(11, 16, 1);
  const VectorXd d = positive_weights(16, 4);
  const MatrixXd diagonal = d.asDiagonal(), identity = MatrixXd::Identity(16, 16);
  for (const Index k : {1, 5, 11}) {
    const double bound = 1e3 * decomposition_bound(11, 16, layer.w.norm());
    EXPECT_TRUE(within((product(solve(layer.w, InputCovariance(identity), {.rank = k})) -
                        product(solve(layer.w, Uniform{}, {.rank = k})))
                           .norm(),
                       0, bound));
    const MatrixXd weighted = product(solve(layer.w, InputWeights(d), {.rank = k}));
    EXPECT_TRUE(
        within((product(solve(layer.w, InputCovariance(diagonal), {.rank = k})) - weighted).norm(),
               0, bound));
  }
}

TEST(ReferenceCovarianceSvd, ScaleOfTheCovarianceIsIrrelevant) {
  const Layer layer(11, 16, 50);
  const auto r = solve(layer.w, InputCovariance(layer.c()), {.rank = 4});
  const MatrixXd mean = layer.c() / 50;
  const auto s = solve(layer.w, InputCovariance(mean), {.rank = 4});
  EXPECT_TRUE(within((product(r) - product(s)).norm(), 0,
                     1e3 * decomposition_bound(11, 16, layer.w.norm())));
  EXPECT_TRUE(within(50 * s.captured_energy, r.captured_energy, layer.bound()));
}

TEST(ReferenceCovarianceSvd, DampingIsARidgeOnTheDiagonal) {
  const Layer layer(8, 12, 5);
  const MatrixXd c = layer.c();
  const MatrixXd damped = c + 0.3 * c.diagonal().mean() * MatrixXd::Identity(12, 12);
  const auto r = solve(layer.w, InputCovariance(c, 0.3), {.rank = 3});
  const auto wanted = solve(layer.w, InputCovariance(damped), {.rank = 3});
  EXPECT_TRUE(within((product(r) - product(wanted)).norm(), 0,
                     1e3 * decomposition_bound(8, 12, layer.w.norm())));
  EXPECT_TRUE(within(r.total_energy, wanted.total_energy, layer.bound()));
  const double most = solve(layer.w, InputCovariance(c), {.rank = 3}).captured_energy;
  EXPECT_GT(r.captured_energy, most);
}

TEST(ReferenceCovarianceSvd, FullRankIsExact) {
  for (const Layer& layer : {Layer(12, 20, 60), Layer(20, 12, 60)}) {
    const auto r = solve(layer.w, InputCovariance(layer.c()), {.rank = 12});
    EXPECT_TRUE(within(layer.objective(r), 0, layer.bound()));
  }
  const Layer wide(12, 20, 60);
  EXPECT_TRUE(within(
      (product(solve(wide.w, InputCovariance(wide.c()), {.rank = 12})) - wide.w).norm(), 0, 1e-12));
}

TEST(ReferenceCovarianceSvd, SplitsKeepTheProduct) {
  const Layer layer(10, 14, 6);
  const MatrixXd c = layer.c();
  const double best = layer.best(5);
  for (const Split split : {Split::Left, Split::Both, Split::Right}) {
    const auto r = solve(layer.w, InputCovariance(c), {.rank = 5, .split = split});
    const auto w = whitened(layer.w, c, {.rank = 5, .split = split});
    EXPECT_TRUE(within(layer.objective(r), best, layer.bound()));
    EXPECT_TRUE(within(layer.objective(w), best, layer.bound()));
  }
  const auto left = solve(layer.w, InputCovariance(c), {.rank = 5, .split = Split::Left});
  for (Index i = 0; i < 5; ++i)
    EXPECT_TRUE(
        within(left.left.col(i).norm(), left.singular_values(i), 1e-13 * left.singular_values(i)));
}

/// Output weights beside a covariance, which no named metric has.
struct WeightedOutputs : InputCovariance<double> {
  WeightedOutputs(const MatrixXd& c, VectorXd w)
      : InputCovariance<double>(c), weights(std::move(w)) {}
  std::span<const double> output_weights() const {
    return {weights.data(), static_cast<std::size_t>(weights.size())};
  }
  VectorXd weights;
};

TEST(ReferenceCovarianceSvd, OutputWeightsGoWithACovariance) {
  for (const Index tokens : {60, 6}) {
    const Layer layer(12, 20, tokens);
    VectorXd d = positive_weights(12, 5);
    d(2) = d(9) = 0;
    const MatrixXd c = layer.c();
    const MatrixXd root = d.cwiseSqrt().asDiagonal();
    for (const Index k : {1, 4, 9}) {
      const auto r = solve(layer.w, WeightedOutputs(c, d), {.rank = k});
      const double objective = (root * (layer.w - product(r)) * layer.x.transpose()).squaredNorm();
      EXPECT_TRUE(
          within(objective, tail_energy(root * layer.outputs(), k), d.maxCoeff() * layer.bound()));
    }
  }
}

TEST(ReferenceShiftedSvd, SameInputsAreTheCovarianceForm) {
  for (const Index tokens : {70, 8}) {
    const Layer layer(12, 16, tokens);
    const MatrixXd c = layer.c();
    for (const Index k : {1, 5}) {
      const auto r = detail::reference_shifted_svd("factor::shifted", view(layer.w), view(c),
                                                   view(c), covariance(c), {.rank = k});
      EXPECT_TRUE(within(layer.objective(r), layer.best(k), layer.bound()));
      EXPECT_TRUE(within(r.error_bound * r.error_bound, layer.best(k), layer.bound()));
      EXPECT_EQ(r.clamped_directions, std::max<Index>(0, 16 - tokens));
    }
  }
}

TEST(ReferenceShiftedSvd, BestForTheInputsThatTheLayerSees) {
  const Layer layer(10, 12, 90);
  const MatrixXd z = layer.x + 0.4 * normal_matrix(90, 12, 6);
  const MatrixXd clean = layer.c(), cross = layer.x.transpose() * z, shifted = z.transpose() * z;
  const MatrixXd y = layer.outputs();
  const auto loss = [&](const MatrixXd& a) { return (y - a * z.transpose()).squaredNorm(); };
  for (const Index k : {1, 3, 8}) {
    const auto r = detail::reference_shifted_svd("factor::shifted", view(layer.w), view(clean),
                                                 view(cross), covariance(shifted), {.rank = k});
    const double best = loss(product(r));
    EXPECT_TRUE(within(r.total_energy, y.squaredNorm(), layer.bound()));
    EXPECT_TRUE(within(r.total_energy - r.captured_energy, best, layer.bound()));
    EXPECT_TRUE(within(r.error_bound * r.error_bound, best, layer.bound()));
    // Least squares without a rank, cut by the outputs it predicts: reduced-rank regression.
    const MatrixXd full = z.colPivHouseholderQr().solve(y.transpose()).transpose();
    const MatrixXd predicted = full * z.transpose();
    EXPECT_TRUE(within(best, loss(full) + tail_energy(predicted, k), layer.bound()));
    EXPECT_LT(best, loss(product(solve(layer.w, InputCovariance(clean), {.rank = k}))));
    for (std::uint64_t seed = 0; seed < 200; ++seed)
      EXPECT_LE(best, loss((r.left + 1e-3 * normal_matrix(10, k, 10 + seed)) *
                           (r.right + 1e-3 * normal_matrix(k, 12, 500 + seed))));
  }
}

TEST(ReferenceTwoSidedSvd, IdentityOfOutputsIsTheCovarianceForm) {
  const Layer layer(10, 14, 50);
  const MatrixXd c = layer.c(), one = MatrixXd::Identity(10, 10);
  const auto r = detail::reference_two_sided_svd("factor::two_sided", view(layer.w),
                                                 covariance(one), covariance(c), {.rank = 4});
  const auto wanted = solve(layer.w, InputCovariance(c), {.rank = 4});
  EXPECT_TRUE(within((product(r) - product(wanted)).norm(), 0,
                     1e3 * decomposition_bound(10, 14, layer.w.norm())));
  EXPECT_TRUE(within(layer.objective(r), layer.best(4), layer.bound()));
}

TEST(ReferenceTwoSidedSvd, ErrorIsTheTailInBothMetrics) {
  for (const Index tokens : {50, 7}) {
    const Layer layer(10, 14, tokens);
    const MatrixXd g = correlated_inputs(tokens, 10, 8);  // gradients of outputs
    const MatrixXd y = g.transpose() * g;
    const MatrixXd c = layer.c();
    for (const Index k : {1, 4, 10}) {
      const auto r = detail::reference_two_sided_svd("factor::two_sided", view(layer.w),
                                                     covariance(y), covariance(c), {.rank = k});
      const double objective = (g * (layer.w - product(r)) * layer.x.transpose()).squaredNorm();
      EXPECT_TRUE(within(objective, tail_energy(g * layer.w * layer.x.transpose(), k),
                         g.squaredNorm() * layer.bound()));
      EXPECT_TRUE(
          within(r.total_energy - r.captured_energy, objective, g.squaredNorm() * layer.bound()));
      EXPECT_EQ(r.clamped_directions, std::max<Index>(0, 10 - tokens));
    }
  }
}

TEST(ReferenceCovarianceSvd, RefusesWhatIsNoCovariance) {
  const MatrixXd w = normal_matrix(3, 4, 9);
  const MatrixXd one = MatrixXd::Identity(4, 4), three = MatrixXd::Identity(3, 3);
  const auto refused = [&](const MatrixXd& c) {
    refusal([&] { solve(w, InputCovariance(c), {.rank = 2}); }, "factor::factorize",
            "input_covariance");
    refusal([&] { whitened(w, c, {.rank = 2}); }, "factor::whitened", "input_covariance");
    refusal(
        [&] {
          detail::reference_shifted_svd("factor::shifted", view(w), view(one), view(one),
                                        covariance(c), {.rank = 2});
        },
        "factor::shifted", "shifted");
    refusal(
        [&] {
          detail::reference_two_sided_svd("factor::two_sided", view(w), covariance(three),
                                          covariance(c), {.rank = 2});
        },
        "factor::two_sided", "input_covariance");
  };
  refused(MatrixXd::Identity(5, 5));
  refused(MatrixXd::Zero(4, 4));
  MatrixXd c = one;
  c(2, 1) = std::numeric_limits<double>::quiet_NaN();
  refused(c);
  c = one;
  c(2, 1) = 0.5;
  refused(c);
  c = one;
  c(2, 1) = c(1, 2) = 1.01;  // an eigenvalue of -0.01
  refused(c);
  c(2, 1) = c(1, 2) = 1 + 1e-7;  // rounding
  EXPECT_NO_THROW(solve(w, InputCovariance(c), {.rank = 2}));
  for (const Index rank : {-1, 0, 4})
    refusal([&] { whitened(w, one, {.rank = rank}); }, "factor::whitened", "rank");
  refusal([&] { solve(w, InputCovariance(one, -1), {.rank = 2}); }, "factor::factorize", "damping");
  MatrixXd broken = w;
  broken(1, 1) = std::numeric_limits<double>::infinity();
  refusal([&] { whitened(broken, one, {.rank = 2}); }, "factor::whitened", "w");
}

}  // namespace
}  // namespace factor_reference_covariance_test
