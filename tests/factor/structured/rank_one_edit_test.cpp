// SPDX-License-Identifier: Apache-2.0
// Edits of rank one against the constrained least-squares problem that they solve, in double.
#include <gtest/gtest.h>

#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/rank_one_edit.hpp>

#include <Eigen/Core>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "decompositions.hpp"
#include "factor/data.hpp"
#include "support/properties.hpp"

namespace factor_structured_rank_one_edit_test {
namespace {

using namespace pare::factor;
using pare::Index;
using pare::RowMatrix;
using pare::testing::normal_matrix;
using pare::testing::refusal;
using pare::testing::stored_in;
using pare::testing::values_of;
using Wide = Eigen::MatrixXd;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// C of correlated inputs of unlike sizes.
Wide moment(Index in, std::uint64_t seed = 5) {
  const Wide x = pare::testing::correlated_inputs(4 * in, in, seed);
  return x.transpose() * x / static_cast<double>(x.rows());
}

/// What of min tr((What - W) C (What - W)^T) with What K^T = O^T, by its stationarity conditions
/// [2 C, K^T; K, 0] [D^T; L] = [0; O - K W^T], D = What - W; no inverse of C.
Wide constrained(const Wide& w, const Wide& c, const Wide& keys, const Wide& values) {
  const Index in = w.cols(), n = keys.rows();
  Wide system = Wide::Zero(in + n, in + n), right = Wide::Zero(in + n, w.rows());
  system.topLeftCorner(in, in) = 2 * c;
  system.topRightCorner(in, n) = keys.transpose();
  system.bottomLeftCorner(n, in) = keys;
  right.bottomRows(n) = values - keys * w.transpose();
  const Eigen::ColPivHouseholderQR<Wide> qr(system);
  return w + Wide(qr.solve(right)).topRows(in).transpose();
}

/// What edits make of rows of x, as they are defined.
template <class E>
Wide edited(const Wide& w, const E& edits, const Wide& x) {
  const Wide t = x * values_of(edits.directions).transpose();
  const Wide gates = t.unaryExpr([&](double s) { return edits.gate(s); });
  return x * w.transpose() + gates * values_of(edits.values) - t * values_of(edits.removed);
}

/// A weight, keys and values, with C.
struct Problem {
  Index out = 9, in = 17;
  Wide c = moment(17), w = normal_matrix(9, 17, 1), keys = normal_matrix(3, 17, 2),
       values = normal_matrix(3, 9, 3);
  InverseMoment inverse{c};
};

/// C has a condition number of about 1e5 here: what is computed in double is off by that many
/// roundings, with a margin for the sizes of products.
constexpr double near = 1e-9;

TEST(RankOneEdit, SolvesTheConstrainedLeastSquares) {
  const Problem p;
  for (const Index concepts : {1, 3}) {
    const Wide keys = p.keys.topRows(concepts), values = p.values.topRows(concepts);
    const Wide wanted = constrained(p.w, p.c, keys, values);
    for (const int on : {0, 1}) {
      const Wide got = on == 0 ? Wide(rank_one_edit(pare::reference, p.w, p.inverse, keys, values))
                               : Wide(rank_one_edit(p.w, p.inverse, keys, values));
      EXPECT_LE((got - wanted).norm(), near * wanted.norm()) << concepts << " on " << on;
      EXPECT_LE((keys * got.transpose() - values).norm(), near * values.norm());
    }
    // The same beside W.
    const Wide x = normal_matrix(5, p.in, 8);
    const Wide beside = edited(p.w, rome_edits(p.w, p.inverse, keys, values), x);
    EXPECT_LE((beside - x * wanted.transpose()).norm(), near * beside.norm());
  }
}

TEST(RankOneEdit, OfFloatIsThatOfDoubleRounded) {
  const Problem p;
  const auto w = stored_in<float>(p.w), keys = stored_in<float>(p.keys);
  const RowMatrix<float> got = rank_one_edit(w, p.inverse, keys, p.values);
  const Wide wanted = constrained(values_of(w), p.c, values_of(keys), p.values);
  EXPECT_LE((values_of(got) - wanted).cwiseAbs().maxCoeff(),
            (0x1p-24 + near) * wanted.cwiseAbs().maxCoeff());
  const auto edits = rome_edits(stored_in<pare::bf16>(p.w), p.inverse, keys, p.values);
  static_assert(std::is_same_v<decltype(edits)::scalar, float>);
  EXPECT_EQ(edits.concepts(), 3);
}

TEST(RankOneEdit, IsNoEditWhereTheLayerHasTheValue) {
  const Problem p;
  const Wide same = p.keys * p.w.transpose();
  EXPECT_LE((Wide(rank_one_edit(p.w, p.inverse, p.keys, same)) - p.w).norm(), near * p.w.norm());
}

TEST(RankOneEdit, DoesNotDependOnTheScaleOfKeysAndMoments) {
  const Problem p;
  const Wide once = rank_one_edit(p.w, p.inverse, p.keys, p.values);
  const Wide scaled = rank_one_edit(p.w, p.inverse, Wide(8 * p.keys), Wide(8 * p.values));
  EXPECT_LE((scaled - once).norm(), near * once.norm());
  for (const double size : {0x1p-300, 0x1p300}) {
    const Wide other = rank_one_edit(p.w, InverseMoment(Wide(size * p.c)), p.keys, p.values);
    EXPECT_LE((other - once).norm(), near * once.norm()) << size;
  }
}

TEST(RankOneEdit, OfTheIdentityIsThePlainFormula) {
  const Problem p;
  const InverseMoment identity(Wide(Wide::Identity(p.in, p.in)));
  const Eigen::VectorXd i = p.keys.row(0), o = p.values.row(0);
  const Wide wanted = p.w + (o - p.w * i) * i.transpose() / i.squaredNorm();
  const Wide got = rank_one_edit(p.w, identity, p.keys.topRows(1), p.values.topRows(1));
  EXPECT_LE((got - wanted).norm(), near * wanted.norm());
}

/// Keys 0 and 1 with i_0^T C^-1 i_1 = 0, and inputs that are so to both.
Wide orthogonal_keys(const Problem& p, Index count) {
  // L q_k for orthonormal q_k, L L^T = C: their products by C^-1 are those of the q_k.
  const Eigen::LLT<Wide> llt(p.c);
  const Wide root = llt.matrixL();
  return (root * pare::testing::orthonormal(p.in, count, 4)).transpose();
}

TEST(RankOneEdit, OrthogonalConceptsAreTheSumOfSingleEdits) {
  const Problem p;
  const Wide keys = orthogonal_keys(p, 2), values = p.values.topRows(2);
  const Wide x = normal_matrix(6, p.in, 9), plain = x * p.w.transpose();
  const auto single = [&](const auto& edits_of) {
    Wide sum = plain;
    for (const Index c : {0, 1})
      sum += edited(p.w, edits_of(keys.middleRows(c, 1), values.middleRows(c, 1)), x) - plain;
    return sum;
  };
  const auto rome = [&](const Wide& k, const Wide& v) { return rome_edits(p.w, p.inverse, k, v); };
  const auto gated = [&](const Wide& k, const Wide& v) {
    return perfusion_edits(p.w, p.inverse, k, v, SigmoidGate{.beta = 0.4, .tau = 0.2});
  };
  EXPECT_LE((edited(p.w, rome(keys, values), x) - single(rome)).norm(), near * plain.norm());
  EXPECT_LE((edited(p.w, gated(keys, values), x) - single(gated)).norm(), near * plain.norm());
}

TEST(RankOneEdit, InputsApartFromTheKeysPassAsBefore) {
  const Problem p;
  const Wide all = orthogonal_keys(p, 5), keys = all.topRows(2), x = all.bottomRows(3);
  const Wide plain = x * p.w.transpose();
  const Wide rome = edited(p.w, rome_edits(p.w, p.inverse, keys, p.values.topRows(2)), x);
  EXPECT_LE((rome - plain).norm(), near * plain.norm());
  // Perfusion's gate is not closed at 0: it adds gate(0) of both values.
  const auto gated = perfusion_edits(p.w, p.inverse, keys, p.values.topRows(2));
  const double rest = 1 / (1 + std::exp(0.70 / 0.15));
  EXPECT_NEAR(rest, 9.3e-3, 5e-5);
  const Wide wanted = plain.rowwise() + rest * p.values.topRows(2).colwise().sum();
  EXPECT_LE((edited(p.w, gated, x) - wanted).norm(), near * wanted.norm());
}

// h = W x_orth + sum_c gate(s_c / E_c) o_c with an orthonormal basis of the keys, by Householder QR
// of L^T i as ChenDarYen's implementation has it.
TEST(PerfusionEdits, ProjectInTheInnerProductOfTheInverse) {
  const Problem p;
  const SigmoidGate gate{.beta = 0.6, .tau = 0.1};
  const Wide inverse = Eigen::ColPivHouseholderQR<Wide>(p.c).inverse();
  const Wide l = Eigen::LLT<Wide>(inverse).matrixL();  // C^-1 = L L^T
  for (const Index concepts : {1, 3}) {
    const Wide keys = p.keys.topRows(concepts), values = p.values.topRows(concepts);
    const Wide white = l.transpose() * keys.transpose();
    const Eigen::HouseholderQR<Wide> qr(white);
    const Wide q = qr.householderQ() * Wide::Identity(p.in, concepts);
    const Wide u = Eigen::HouseholderQR<Wide>(Wide(l.transpose())).solve(q);  // [in x concepts]
    const Wide x = normal_matrix(6, p.in, 9);
    Wide wanted = (x - x * inverse * u * u.transpose()) * p.w.transpose();
    for (Index c = 0; c < concepts; ++c) {
      const Eigen::VectorXd key = keys.row(c);
      const double energy = key.dot(inverse * key);
      for (Index r = 0; r < x.rows(); ++r)
        wanted.row(r) += gate(x.row(r).dot(inverse * key) / energy) * values.row(c);
    }
    for (const int on : {0, 1}) {
      const Wide got =
          on == 0
              ? edited(p.w, perfusion_edits(pare::reference, p.w, p.inverse, keys, values, gate), x)
              : edited(p.w, perfusion_edits(p.w, p.inverse, keys, values, gate), x);
      EXPECT_LE((got - wanted).norm(), near * wanted.norm()) << concepts;
    }
  }
}

TEST(PerfusionEdits, GiveAKeyMostOfItsValue) {
  const Problem p;
  const Wide key = p.keys.topRows(1), value = p.values.topRows(1);
  const SigmoidGate training{.beta = 0.75, .tau = 0.1};
  const auto edits = perfusion_edits(p.w, p.inverse, key, value, training);
  EXPECT_LE((edited(p.w, edits, key) - 0.9241418199787566 * value).norm(), near * value.norm());
  // ROME's gate in its place is ROME, for one concept.
  const auto linear = perfusion_edits(p.w, p.inverse, key, value, LinearGate{});
  EXPECT_LE((edited(p.w, linear, key) - value).norm(), near * value.norm());
}

TEST(PerfusionEdits, LockTheKeyOfASuperclass) {
  const Problem p;
  EXPECT_LE((locked_value(stored_in<float>(p.w), p.keys) -
             p.keys * values_of(stored_in<float>(p.w)).transpose())
                .norm(),
            near * p.w.norm());
  KeyAverage mean;
  mean.add(Eigen::VectorXd(p.keys.row(0).transpose()));
  mean.add(Eigen::VectorXf(p.keys.row(1).transpose().cast<float>()));
  const Eigen::VectorXd wanted =
      0.99 * p.keys.row(0) + 0.01 * p.keys.row(1).cast<float>().cast<double>();
  EXPECT_LE((mean.mean() - wanted).norm(), 1e-14);
  refusal([&] { mean.add(Eigen::VectorXd(Eigen::VectorXd::Zero(3))); }, "factor::KeyAverage::add",
          "x");
  refusal([&] { mean.add(Eigen::VectorXd(Eigen::VectorXd::Constant(17, nan))); },
          "factor::KeyAverage::add", "x");
  EXPECT_LE((mean.mean() - wanted).norm(), 1e-14);
  for (const double decay : {-0.1, 1.0, nan})
    refusal([&] { KeyAverage{decay}; }, "factor::KeyAverage", "decay");
}

TEST(InverseMoment, OfASingularMomentRaisesWhatHasNoEnergy) {
  const Index in = 17;
  const Wide x = normal_matrix(12, in, 3);  // 12 inputs span 12 of 17 directions
  pare::factor::Covariance covariance(in);
  covariance.add(x);
  const InverseMoment inverse(covariance);
  EXPECT_EQ(inverse.clamped_directions(), 5);
  const Wide w = normal_matrix(9, in, 1), key = normal_matrix(1, in, 6),
             value = normal_matrix(1, 9, 7);
  const auto edits = rome_edits(w, inverse, key, value);
  EXPECT_EQ(edits.clamped_directions, 5);
  EXPECT_LE((edited(w, edits, key) - value).norm(), 1e-6 * value.norm());
  // Such an edit takes the directions that no input has: all that were seen pass as before.
  const Wide plain = x * w.transpose();
  EXPECT_LE((edited(w, edits, x) - plain).norm(), 1e-5 * plain.norm());
  EXPECT_EQ(InverseMoment(moment(in)).clamped_directions(), 0);
}

// Sums of float tokens are rounded, and no direction of that rounding is one that inputs had: an
// edit by C^-1 of it would be 1e5 times too large.
TEST(InverseMoment, RoundingOfFloatSumsIsNoEnergy) {
  const Index in = 64, tokens = 40;
  const pare::RowMatrix<float> x = normal_matrix(tokens, in, 3).cast<float>();
  pare::factor::Covariance rounded(in), parts(in);
  rounded.add(x);
  parts.merge(rounded);
  pare::factor::Covariance exact(in, pare::factor::CovarianceProducts::Double);
  exact.add(x);
  EXPECT_TRUE(rounded.has_float_sums() && parts.has_float_sums());
  EXPECT_FALSE(exact.has_float_sums());
  const Wide w = normal_matrix(9, in, 1), key = x.topRows(1).cast<double>(),
             value = normal_matrix(1, 9, 7);
  const Wide wanted = rank_one_edit(w, InverseMoment(exact), key, value);
  for (const auto* c : {&rounded, &parts}) {
    const InverseMoment inverse(*c);
    EXPECT_EQ(inverse.clamped_directions(), in - tokens);
    // Let C be off by 2^-24 of its largest eigenvalue. What inputs had is above .01 of that,
    // (1 - r)^2 / (1 + r)^2 for r = sqrt(40 / 64), and turns by 100 2^-24: so much of the key lies
    // outside, where C^-1 is at most 2^21, and takes 12.5 times what the least change does.
    const Wide change = rank_one_edit(w, inverse, key, value) - w, least = wanted - w;
    EXPECT_LE(change.norm(), 16 * least.norm());
    // Outputs of the inputs change least, to (2^-21 + 2^-24) of C and the change's size.
    const double seen = (change * x.cast<double>().transpose()).squaredNorm(),
                 at_least = (least * x.cast<double>().transpose()).squaredNorm();
    const double largest = x.cast<double>().squaredNorm();  // or more
    EXPECT_LE(seen, at_least + 0x1.2p-21 * largest * 257 * least.squaredNorm());
  }
}

/// C of fewer inputs than it has rows, turned, so that what they do not span lies in all rows.
Wide thin_moment(Index tokens, Index in, std::uint64_t seed) {
  const Wide x = normal_matrix(tokens, in, seed) * pare::testing::orthonormal(in, in, seed + 1);
  return x.transpose() * x / static_cast<double>(tokens);
}

TEST(InverseMoment, DirectionsWithoutEnergyCountWhereNoPivotIsSmall) {
  for (const Index in : {9, 40, 130})
    for (const Index missing : {Index{1}, in / 3})
      for (const std::uint64_t seed : {1U, 11U, 21U}) {
        const Wide c = thin_moment(in - missing, in, seed);
        EXPECT_EQ(InverseMoment(c).clamped_directions(), missing) << in << ' ' << seed;
        const Eigen::MatrixXf rounded = c.cast<float>();
        EXPECT_EQ(InverseMoment(rounded).clamped_directions(), missing) << in << ' ' << seed;
      }
  // L of 1 on its diagonal and -1 below: every pivot is 1, the least eigenvalue about 4^-in.
  Wide l = Wide::Identity(40, 40);
  for (Index i = 0; i < 40; ++i) l.row(i).head(i).setConstant(-1);
  EXPECT_EQ(InverseMoment(Wide(l * l.transpose())).clamped_directions(), 1);
}

/// Eigenvalues of 1e-7 of the largest are known in double, and are rounding of numbers in float.
TEST(InverseMoment, OfFloatIsJudgedByItsRounding) {
  const Index in = 24;
  const Wide q = pare::testing::orthonormal(in, in, 3);
  Eigen::VectorXd values = Eigen::VectorXd::Ones(in);
  values.tail(2).setConstant(1e-7);
  const Wide c = q * values.asDiagonal() * q.transpose();
  EXPECT_EQ(InverseMoment(Wide((c + c.transpose()) / 2)).clamped_directions(), 0);
  EXPECT_EQ(InverseMoment(Eigen::MatrixXf(c.cast<float>())).clamped_directions(), 2);
}

/// Of y = C^-1 x as it is computed, a bound of ||C y - x|| over ||x||. By Cholesky y solves (C + E)
/// y = x with |E| <= gamma(3n + 1) |L| |L|^T, whose Frobenius norm is at most tr(C); C y is summed
/// here with gamma(n) |C| |y|. By eigenvectors E is that of the decomposition, and both products
/// with R = lambda^-1/2 V^T are sums of n. ||y|| is at most ||x|| over the least eigenvalue that
/// counts.
double near_of(const Wide& c) {
  const Eigen::VectorXd values = Eigen::SelfAdjointEigenSolver<Wide>(c).eigenvalues();
  const double largest = values[values.size() - 1], n = static_cast<double>(c.rows());
  double least = largest;
  for (const double v : values)
    if (v > 1e-12 * largest) least = std::min(least, v);
  const auto gamma = [](double terms) { return pare::testing::Tolerance<double>::gamma(terms); };
  return (gamma(4 * n + 1) * c.trace() + 2 * std::sqrt(n) * gamma(n) * largest +
          pare::testing::decomposition_bound(c.rows(), c.cols(), c.norm())) /
         least;
}

// On every path: by Cholesky, by eigenvectors of few rows and of many.
TEST(InverseMoment, ItsProductsAreThoseOfTheInverse) {
  for (const Index in : {1, 17, 70})
    for (const bool singular : {false, true}) {
      Wide c = moment(in);
      if (singular && in > 1) c.row(in - 1).setZero(), c.col(in - 1).setZero();
      const InverseMoment inverse(c);
      EXPECT_EQ(inverse.clamped_directions(), singular && in > 1 ? 1 : 0);
      Eigen::VectorXd x = normal_matrix(in, 1, 2);
      if (singular && in > 1) x[in - 1] = 0;
      const Eigen::VectorXd w = inverse.whitened(x), y = inverse.unwhitened(w);
      const double bound = near_of(c);
      EXPECT_LE((c * y - x).norm(), bound * x.norm()) << in << ' ' << singular;
      EXPECT_NEAR(w.squaredNorm(), x.dot(y), bound * w.squaredNorm());
    }
}

TEST(InverseMoment, WhatIsNoMomentIsRefused) {
  constexpr const char* function = "factor::InverseMoment";
  const Wide c = moment(4);
  const auto with = [&](Index i, Index j, double value) {
    Wide changed = c;
    changed(i, j) = value;
    return changed;
  };
  refusal([&] { InverseMoment{Wide(0, 0)}; }, function, "moment");
  refusal([&] { InverseMoment{Wide(c.topRows(3))}; }, function, "moment");
  refusal([&] { InverseMoment{Wide(Wide::Zero(4, 4))}; }, function, "moment");
  refusal([&] { InverseMoment{with(1, 1, nan)}; }, function, "moment");
  refusal([&] { InverseMoment{with(1, 1, -1)}; }, function, "moment");
  refusal([&] { InverseMoment{with(1, 0, c(1, 0) + 1)}; }, function, "moment");
  Wide indefinite = Wide::Identity(4, 4);
  indefinite(0, 1) = indefinite(1, 0) = 2;
  refusal([&] { InverseMoment{indefinite}; }, function, "moment");
  refusal([&] { InverseMoment{pare::factor::Covariance(4)}; }, "factor::Covariance::matrix",
          "count");
  const InverseMoment inverse(c);
  refusal([&] { inverse.whitened(Eigen::VectorXd(3)); }, "factor::InverseMoment::whitened", "x");
  refusal([&] { inverse.unwhitened(Eigen::VectorXd(5)); }, "factor::InverseMoment::unwhitened",
          "w");
}

TEST(RankOneEdit, WhatDoesNotFitIsRefused) {
  const Problem p;
  const auto refused = [&](const Wide& w, const Wide& keys, const Wide& values,
                           const char* argument) {
    refusal([&] { rank_one_edit(w, p.inverse, keys, values); }, "factor::rank_one_edit", argument);
    refusal([&] { rome_edits(w, p.inverse, keys, values); }, "factor::rome_edits", argument);
    refusal([&] { perfusion_edits(pare::reference, w, p.inverse, keys, values); },
            "factor::perfusion_edits", argument);
  };
  const auto with = [](Wide m, double value) {
    m(1, 2) = value;
    return m;
  };
  refused(p.w.leftCols(16), p.keys, p.values, "inverse");
  refused(Wide(0, 17), p.keys, Wide(3, 0), "w");
  refused(p.w, p.keys.leftCols(16), p.values, "keys");
  refused(p.w, Wide(0, 17), Wide(0, 9), "keys");
  refused(p.w, p.keys, p.values.topRows(2), "values");
  refused(p.w, p.keys, p.values.leftCols(8), "values");
  refused(p.w, with(p.keys, nan), p.values, "keys");
  refused(p.w, p.keys, with(p.values, nan), "values");
  Wide keys = p.keys;
  keys.row(2).setZero();
  refused(p.w, keys, p.values, "keys");
  keys.row(2) = 0.5 * keys.row(0) - keys.row(1);
  refused(p.w, keys, p.values, "keys");
  keys.row(2) = 3 * keys.row(0);  // the same concept twice
  refused(p.w, keys, p.values, "keys");
  const auto gate = [&](double beta, double tau, const char* argument) {
    refusal([&] { perfusion_edits(p.w, p.inverse, p.keys, p.values, SigmoidGate{beta, tau}); },
            "factor::perfusion_edits", argument);
  };
  gate(nan, 0.1, "beta");
  gate(0.5, 0, "tau");
  gate(0.5, -1, "tau");
  gate(0.5, nan, "tau");
  // Beyond the layer's scalar.
  refusal([&] { rome_edits(stored_in<float>(p.w), p.inverse, p.keys, Wide(1e300 * p.values)); },
          "factor::rome_edits", "values");
  refusal([&] { rome_edits(stored_in<float>(p.w), p.inverse, Wide(1e-100 * p.keys), p.values); },
          "factor::rome_edits", "keys");
  const auto beyond = refusal(
      [&] { rank_one_edit(stored_in<float>(p.w), p.inverse, p.keys, Wide(1e300 * p.values)); },
      "factor::rank_one_edit", "values");
  EXPECT_NE(beyond.find("got an edited weight whose row 0 is beyond its scalar, wanted edits that"),
            std::string::npos)
      << beyond;
  refusal([&] { locked_value(p.w, p.keys.leftCols(3)); }, "factor::locked_value", "keys");
  refusal([&] { locked_value(p.w, with(p.keys, nan)); }, "factor::locked_value", "keys");
}

TEST(RankOneEdit, NaNStaysInItsOutput) {
  Problem p;
  p.w(4, 3) = nan;
  const Wide got = rank_one_edit(p.w, p.inverse, p.keys, p.values);
  for (Index o = 0; o < p.out; ++o) EXPECT_EQ(std::isnan(got.row(o).sum()), o == 4) << o;
}

TEST(RankOneEdit, ThreadsAndStridesKeepTheBits) {
  const Wide c = moment(40), w = normal_matrix(130, 40, 1), keys = normal_matrix(2, 40, 2),
             values = normal_matrix(2, 130, 3);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return rank_one_edit(backend, w, InverseMoment(backend, c), keys, values);
  });
  const InverseMoment inverse(c);
  pare::testing::any_stride_same_bits(
      w, [&](const auto& view) { return rank_one_edit(view, inverse, keys, values); });
}

}  // namespace
}  // namespace factor_structured_rank_one_edit_test
