// SPDX-License-Identifier: Apache-2.0
// The reference of the plain truncated singular value decomposition.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pare/factor/reference.hpp>

#include "factor/data.hpp"

namespace factor_reference_svd_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::to_view;

template <class M>
auto svd(const M& w, const SvdOptions& options) {
  return detail::reference_factorize("factor::svd", as_const(to_view(w)), Uniform{}, options);
}

struct Shape {
  Index out, in;
  Index least() const { return std::min(out, in); }
};
const Shape shapes[] = {{1, 1}, {1, 7}, {9, 1}, {5, 5}, {13, 8}, {8, 13}, {40, 21}, {24, 57}};

std::vector<Index> ranks_of(const Shape& s) {
  std::vector<Index> ranks{1, (s.least() + 1) / 2, s.least()};
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

template <class F>
void for_each_case(F f) {
  for (const Shape& shape : shapes)
    for (const Index k : ranks_of(shape)) {
      SCOPED_TRACE(testing::Message() << shape.out << " x " << shape.in << " rank " << k);
      f(shape, k);
    }
}

TEST(ReferenceSvd, FullRankReconstructs) {
  for (const Shape& shape : shapes) {
    const MatrixXd w = normal_matrix(shape.out, shape.in, 1);
    const auto r = svd(w, {.rank = shape.least()});
    EXPECT_TRUE(within((product(r) - w).norm(), 0, 1e-12 * w.norm()));
    EXPECT_TRUE(within(r.error_bound, 0, 1e-12 * w.norm()));
  }
}

TEST(ReferenceSvd, ErrorIsTheTailOfTheSpectrum) {
  for_each_case([](const Shape& shape, Index k) {
    const VectorXd s = power_spectrum(shape.least(), 0.6);
    const MatrixXd w = with_spectrum(shape.out, shape.in, s, 2);
    const auto r = svd(w, {.rank = k});
    const double bound = decomposition_bound(shape.out, shape.in, s.norm());
    const double tail = s.tail(s.size() - k).norm();
    EXPECT_TRUE(within((w - product(r)).norm(), tail, bound));
    EXPECT_TRUE(within(r.error_bound, tail, bound));
    // The root of a difference: the bound of the energies, then at most its root.
    EXPECT_TRUE(within(r.error() * r.error(), tail * tail, 2 * s.norm() * bound));
    EXPECT_TRUE(within(r.total_energy, w.squaredNorm(), 2 * s.norm() * bound));
    EXPECT_TRUE(within(r.captured_energy, s.head(k).squaredNorm(), 2 * s.norm() * bound));
    ASSERT_EQ(r.singular_values.size(), k);
    EXPECT_TRUE(within((r.singular_values - s.head(k)).norm(), 0, bound));
    EXPECT_EQ(r.route, Route::Exact);
    EXPECT_EQ(r.rank(), k);
  });
}

TEST(ReferenceSvd, RightIsOrthonormalAndLeftCarriesTheSingularValues) {
  for_each_case([](const Shape& shape, Index k) {
    const auto r = svd(normal_matrix(shape.out, shape.in, 3), {.rank = k});
    EXPECT_TRUE(
        within((r.right * r.right.transpose() - MatrixXd::Identity(k, k)).norm(), 0, 1e-13));
    const MatrixXd gram = r.left.transpose() * r.left;
    const MatrixXd wanted = r.singular_values.cwiseAbs2().asDiagonal();
    EXPECT_TRUE(within((gram - wanted).norm(), 0,
                       decomposition_bound(shape.out, shape.in, r.total_energy)));
  });
}

TEST(ReferenceSvd, ExactRankLeavesNothing) {
  for (const Index rank : {1, 3, 6}) {
    const MatrixXd w = with_spectrum(19, 26, power_spectrum(rank, 1), 4);
    for (const Index k : {rank, rank + 2}) {
      const auto r = svd(w, {.rank = k});
      EXPECT_TRUE(within((w - product(r)).norm(), 0, decomposition_bound(19, 26, w.norm())));
    }
  }
}

TEST(ReferenceSvd, CapturedEnergyGrowsWithTheRank) {
  const MatrixXd w = normal_matrix(17, 23, 5);
  double before = 0;
  for (Index k = 1; k <= 17; ++k) {
    const auto r = svd(w, {.rank = k});
    EXPECT_GT(r.captured_energy, before);
    before = r.captured_energy;
  }
}

TEST(ReferenceSvd, TransposedInputHasTheTransposedProduct) {
  for_each_case([](const Shape& shape, Index k) {
    const MatrixXd w = with_spectrum(shape.out, shape.in, power_spectrum(shape.least(), 1), 6);
    const MatrixXd t = w.transpose();
    // The projectors move by the error over the gap of the spectrum at the cut.
    const double gap = 1 / std::pow(static_cast<double>(k), 2) / 2;
    EXPECT_TRUE(
        within((product(svd(w, {.rank = k})) - product(svd(t, {.rank = k})).transpose()).norm(), 0,
               decomposition_bound(shape.out, shape.in, 1) / gap * 4));
  });
}

TEST(ReferenceSvd, RotationsAndPermutationsLeaveTheError) {
  const MatrixXd w = with_spectrum(15, 22, power_spectrum(15, 0.5), 7);
  const MatrixXd rotated = orthonormal(15, 15, 8) * w * orthonormal(22, 22, 9);
  MatrixXd permuted(15, 22);
  for (Index i = 0; i < 15; ++i)
    for (Index j = 0; j < 22; ++j) permuted(i, j) = w((i * 4 + 3) % 15, (j * 5 + 1) % 22);
  for (const Index k : {1, 6, 14})
    for (const MatrixXd& other : {rotated, permuted})
      EXPECT_TRUE(within((other - product(svd(other, {.rank = k}))).norm(),
                         (w - product(svd(w, {.rank = k}))).norm(),
                         decomposition_bound(15, 22, w.norm())));
}

TEST(ReferenceSvd, RepeatedSingularValuesAtTheCut) {
  VectorXd s(8);
  s << 4, 2, 2, 2, 2, 1, 0.5, 0;
  const MatrixXd w = with_spectrum(20, 8, s, 10);
  for (Index k = 1; k <= 8; ++k)
    EXPECT_TRUE(within((w - product(svd(w, {.rank = k}))).norm(), s.tail(8 - k).norm(),
                       decomposition_bound(20, 8, s.norm())));
}

// Singular values are known to a roundoff of the largest: what tolerances are measured by.
TEST(ReferenceSvd, SmallSingularValuesAreNotCutOff) {
  VectorXd s(5);
  s << 1, 1e-3, 1e-7, 1e-10, 1e-13;
  for (const auto& [rows, cols] : {std::pair<Index, Index>{12, 9}, {9, 12}, {5, 5}}) {
    const auto svd = pare::factor::detail::reference_svd(with_spectrum(rows, cols, s, 61));
    for (Index k = 0; k < 5; ++k) EXPECT_TRUE(within(svd.s[k], s[k], 4e-15)) << k;
  }
}

// Thousands of rotations leave thousands of roundings: 1.4e-14 of this matrix. The last step leaves
// those of a product of 60 terms.
TEST(ReferenceSvd, VectorsAreOrthonormalToARounding) {
  const auto svd = pare::factor::detail::reference_svd(normal_matrix(60, 60, 3));
  const double bound = 60 * Tolerance<double>::unit_roundoff;
  for (const MatrixXd& m : {svd.u, svd.v})
    EXPECT_LE((m.transpose() * m - MatrixXd::Identity(60, 60)).cwiseAbs().maxCoeff(), bound);
}

// Squares near the least normal number are known to few digits, those beyond the largest to none.
TEST(ReferenceSvd, SquaredNormsOutOfRangeAreRefused) {
  const auto solve = [](double size) {
    svd(MatrixXd(MatrixXd::Constant(1, 1, size)), {.rank = 1});
  };
  for (const double size : {0x1p-485, 0x1p511}) EXPECT_NO_THROW(solve(size));
  for (const double size : {0x1p-486, 0x1p-500, 0x1p512, 0x1p600})
    refusal([&] { solve(size); }, "factor::svd", "w");
}

TEST(ReferenceSvd, ZeroMatrix) {
  for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right}) {
    const auto r = svd(MatrixXd(MatrixXd::Zero(6, 9)), {.rank = 3, .split = split});
    EXPECT_EQ(product(r).norm(), 0);
    EXPECT_TRUE(r.left.allFinite() && r.right.allFinite());
    EXPECT_EQ(r.total_energy, 0);
    EXPECT_EQ(r.error(), 0);
    EXPECT_EQ(r.relative_error(), 0);
  }
  const auto natural = svd(MatrixXd(MatrixXd::Zero(6, 9)), {.rank = 3});
  EXPECT_TRUE(within((natural.right * natural.right.transpose() - MatrixXd::Identity(3, 3)).norm(),
                     0, 1e-13));
}

TEST(ReferenceSvd, SplitsMoveTheSingularValuesAndKeepTheProduct) {
  VectorXd s = power_spectrum(9, 1);
  s.tail(2).setZero();
  const MatrixXd w = with_spectrum(14, 9, s, 11);
  const auto natural = svd(w, {.rank = 8});
  struct Wanted {
    Split split;
    double left;
  };
  for (const Wanted& wanted :
       {Wanted{Split::Left, 1}, Wanted{Split::Both, 0.5}, Wanted{Split::Right, 0}}) {
    const auto r = svd(w, {.rank = 8, .split = wanted.split});
    const double bound = decomposition_bound(14, 9, s.norm());
    EXPECT_TRUE(within((product(r) - product(natural)).norm(), 0, bound));
    for (Index i = 0; i < 7; ++i) {
      EXPECT_TRUE(within(r.left.col(i).norm(), std::pow(s(i), wanted.left), 100 * bound));
      EXPECT_TRUE(within(r.right.row(i).norm(), std::pow(s(i), 1 - wanted.left), 100 * bound));
    }
  }
  EXPECT_TRUE(equal_bits(natural.left, svd(w, {.rank = 8, .split = Split::Left}).left));
}

TEST(ReferenceSvd, ToleranceFindsTheLeastRank) {
  const VectorXd s = power_spectrum(20, 0.8);
  const MatrixXd w = with_spectrum(20, 30, s, 12);
  Index before = 20;
  for (const double tolerance : {0.01, 0.1, 0.3, 0.5, 0.9}) {
    const auto r = svd(w, {.tolerance = tolerance});
    const Index k = r.rank();
    EXPECT_LE(s.tail(20 - k).norm(), tolerance * s.norm());
    if (k > 1) {
      EXPECT_GT(s.tail(21 - k).norm(), tolerance * s.norm());
    }
    EXPECT_LE(r.relative_error(), tolerance);
    EXPECT_LE(k, before);
    before = k;
    EXPECT_EQ(svd(w, {.rank = 3, .tolerance = tolerance}).rank(), std::min<Index>(3, k));
  }
  EXPECT_EQ(before, 1);
  EXPECT_EQ(svd(MatrixXd(MatrixXd::Zero(4, 3)), {.tolerance = 0.5}).rank(), 1);
}

TEST(ReferenceSvd, EveryStorageOrderAndStride) {
  const MatrixXd w = normal_matrix(11, 7, 13);
  const RowMatrix<double> rows = w;
  MatrixXd padded = MatrixXd::Constant(30, 20, 7);
  using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  Eigen::Map<MatrixXd, 0, Strides> strided(padded.data(), 11, 7, Strides(30, 2));
  strided = w;
  const auto wanted = svd(w, {.rank = 4});
  EXPECT_TRUE(equal_bits(svd(rows, {.rank = 4}).left, wanted.left));
  EXPECT_TRUE(equal_bits(svd(strided, {.rank = 4}).left, wanted.left));
  EXPECT_TRUE(equal_bits(svd(w, {.rank = 4}).right, wanted.right)) << "twice the same";
}

template <class S>
struct ReferenceSvdStorage : testing::Test {};
using Storages = testing::Types<float, double, pare::bf16, pare::f16>;
TYPED_TEST_SUITE(ReferenceSvdStorage, Storages);

TYPED_TEST(ReferenceSvdStorage, ComputesInDoubleAndRoundsTheFactors) {
  using T = pare::compute_t<TypeParam>;
  const MatrixXd values = normal_matrix(16, 12, 14);
  std::vector<TypeParam> stored;
  MatrixXd exact(16, 12);
  for (Index i = 0; i < 16; ++i)
    for (Index j = 0; j < 12; ++j) {
      stored.push_back(static_cast<TypeParam>(static_cast<T>(values(i, j))));
      exact(i, j) = static_cast<double>(static_cast<T>(stored.back()));
    }
  const pare::TensorView<const TypeParam, 2> view{stored.data(), {16, 12}, {12, 1}};
  const auto r = svd(view, {.rank = 5});
  static_assert(std::is_same_v<decltype(r), const LowRank<T>>);
  const auto wanted = svd(exact, {.rank = 5});
  EXPECT_TRUE(equal_bits(r.left, RowMatrix<T>(wanted.left.template cast<T>())));
  EXPECT_TRUE(equal_bits(r.right, RowMatrix<T>(wanted.right.template cast<T>())));
  EXPECT_EQ(r.captured_energy, wanted.captured_energy);
  EXPECT_TRUE(within((product(r) - product(wanted)).norm(), 0, rounding_bound(r)));
}

TEST(ReferenceSvd, ExtremeScales) {
  const MatrixXd w = with_spectrum(10, 12, power_spectrum(10, 1), 15);
  for (const double scale : {1e-140, 1e140}) {
    const auto r = svd(MatrixXd(scale * w), {.rank = 4});
    EXPECT_TRUE(within((r.singular_values / scale - power_spectrum(10, 1).head(4)).norm(), 0,
                       decomposition_bound(10, 12, w.norm())));
  }
}

TEST(ReferenceSvd, RefusesWhatIsNoProblem) {
  const MatrixXd w = normal_matrix(6, 4, 16);
  const auto refused = [](const MatrixXd& m, const SvdOptions& o, const char* argument) {
    return refusal([&] { svd(m, o); }, "factor::svd", argument);
  };
  for (const Index rank : {-1, 0, 5, 100}) refused(w, {.rank = rank}, "rank");
  refused(MatrixXd(0, 4), {.rank = 1}, "w");
  refused(MatrixXd(4, 0), {.rank = 1}, "w");
  refused(w, {.tolerance = 1}, "tolerance");
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()})
    for (const Index place : {0, 11, 23}) {
      MatrixXd broken = w;
      broken(place % 6, place / 6) = bad;
      EXPECT_NE(refused(broken, {.rank = 2}, "w").find("finite elements"), std::string::npos);
    }
  const auto overflow = refused(MatrixXd::Constant(6, 4, 1e200), {.rank = 2}, "w");
  EXPECT_NE(overflow.find("squared norm"), std::string::npos) << overflow;
}

}  // namespace
}  // namespace factor_reference_svd_test
