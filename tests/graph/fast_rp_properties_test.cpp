// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

#include <pare/graph/fast_rp.hpp>

#include "graph/explicit_fast_rp.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace graph_fast_rp_properties_test {
namespace {

using pare::Index;
using pare::graph::fast_rp;
using pare::graph::FastRpOptions;
using pare::testing::close_to;
using pare::testing::degrees_of;
using pare::testing::equal_bits;
using pare::testing::explicit_fast_rp;
using pare::testing::node_vectors;
using pare::testing::random_graph;
using pare::testing::sparse_of;
using pare::testing::start_of;
using pare::testing::Tolerance;
using pare::testing::transition;
using pare::testing::within;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Graph = Eigen::SparseMatrix<T, Eigen::RowMajor>;

template <class Case>
struct FastRpPropertiesTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(FastRpPropertiesTest, pare::testing::BackendsAndScalars);

FastRpOptions raw_options() {
  FastRpOptions o;
  o.dim = 24;
  o.weights = {1, 0.5, 2};
  o.normalize_rows = o.standardize = false;
  o.density = 0.5;
  return o;
}

// R belongs to node numbers. Renumbering the graph is thus the same as renumbering R the other way
// and the rows of the result.
TYPED_TEST(FastRpPropertiesTest, RenumberingNodesRenumbersRows) {
  using T = typename TypeParam::scalar;
  constexpr Index n = 40;
  const Eigen::MatrixXd a = random_graph(n, 5, true, 9);
  Eigen::PermutationMatrix<Eigen::Dynamic> p(n);
  for (int u = 0; u < n; ++u) p.indices()(u) = (u * 7 + 3) % static_cast<int>(n);
  FastRpOptions o = raw_options();
  for (const bool normalize : {false, true}) {
    o.normalize_rows = normalize;
    const Eigen::VectorXd degrees = degrees_of(a);
    const Eigen::MatrixXd r = p.transpose() * node_vectors(n, o);
    auto wanted = explicit_fast_rp<T>(transition(a, degrees), start_of(degrees, r, -0.5), 0, o);
    o.degree_exponent = -0.5;
    wanted.value = (p * wanted.value).eval();
    wanted.bound = (p * wanted.bound).eval();
    const Eigen::MatrixXd renumbered = p * a * p.transpose();
    ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(renumbered), o), wanted));
  }
}

TYPED_TEST(FastRpPropertiesTest, LinearInTheWeightsWithoutNormalisation) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(40, 5, true, 9));
  FastRpOptions o = raw_options();
  const auto with = [&](std::vector<double> weights) {
    o.weights = std::move(weights);
    return fast_rp(this->backend(), a, o).template cast<double>().eval();
  };
  const Eigen::MatrixXd first = with({1, 0, 0}), second = with({0, 1, 0}), third = with({0, 0, 1});
  const Eigen::MatrixXd sum = 0.5 * first - 2 * second + 3 * third;
  const Eigen::MatrixXd magnitude =
      0.5 * first.cwiseAbs() + 2 * second.cwiseAbs() + 3 * third.cwiseAbs();
  const Eigen::MatrixXd got = with({0.5, -2, 3});
  // Steps are the same bits in both; what differs is three products and three sums, and one
  // rounding of each single result.
  for (Index i = 0; i < got.rows(); ++i)
    for (Index j = 0; j < got.cols(); ++j)
      ASSERT_TRUE(within(got(i, j), sum(i, j), Tolerance<T>::gamma(7) * magnitude(i, j)));
}

// On a ring with four neighbours each, deg^beta is one factor for all nodes; powers of two are
// exact.
TYPED_TEST(FastRpPropertiesTest, TheExponentOnlyScalesARegularGraph) {
  using T = typename TypeParam::scalar;
  constexpr Index n = 30;
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n, n);
  for (Index u = 0; u < n; ++u)
    for (const Index step : {1, 2}) a(u, (u + step) % n) = a((u + step) % n, u) = 1;
  FastRpOptions o = raw_options();
  const Rows<T> plain = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  for (const double exponent : {-1.0, -0.5, 0.5, 2.0}) {
    o.degree_exponent = exponent;
    const Rows<T> scaled = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
    EXPECT_EQ(scaled, Rows<T>(static_cast<T>(std::pow(4, exponent)) * plain)) << exponent;
  }
  o.normalize_rows = true;
  o.degree_exponent = 0;
  const Rows<T> unit = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  o.degree_exponent = -3;
  const Rows<T> same = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  EXPECT_EQ(same, unit);
}

// P 1 = 1: an operator of density 1 and one dimension whose signs are all the same.
TYPED_TEST(FastRpPropertiesTest, AConstantStartStaysConstant) {
  using T = typename TypeParam::scalar;
  constexpr Index n = 6;
  FastRpOptions o;
  o.dim = 1;
  o.density = 1;
  o.weights = {0, 0, 1};
  o.normalize_rows = o.standardize = false;
  for (o.seed = 0; o.seed < 10000; ++o.seed)
    if (std::abs(node_vectors(n, o).sum()) == n) break;
  const double value = node_vectors(n, o)(0, 0);
  ASSERT_EQ(std::abs(value), 1.0);
  Eigen::MatrixXd a = random_graph(n, 3, true, 2) + Eigen::MatrixXd::Ones(n, n);
  const Rows<T> e = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  for (Index u = 0; u < n; ++u)
    EXPECT_TRUE(within(static_cast<double>(e(u, 0)), value, Tolerance<T>::gamma(3 * (n + 4))));
}

TYPED_TEST(FastRpPropertiesTest, StandardisedColumnsHaveMeanZeroAndDeviationOne) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(60, 5, true, 9));
  FastRpOptions o = raw_options();
  for (const bool normalize : {false, true}) {
    o.normalize_rows = normalize;
    o.standardize = true;
    const Eigen::MatrixXd e = fast_rp(this->backend(), a, o).template cast<double>();
    for (Index c = 0; c < e.cols(); ++c) {
      EXPECT_LT(std::abs(e.col(c).mean()), 1e-6);
      const double deviation = std::sqrt(e.col(c).array().square().mean());
      EXPECT_TRUE(deviation == 0 || within(deviation, 1, 1e-6)) << deviation;
    }
  }
}

// A complete graph with self loops has one row over and over: every column is constant, and becomes
// zero. 0.1 and its like do not add up exactly.
TYPED_TEST(FastRpPropertiesTest, ConstantColumnsBecomeZero) {
  using T = typename TypeParam::scalar;
  for (const Index n : {3, 10, 49, 100}) {
    FastRpOptions o = raw_options();
    o.standardize = true;
    o.weights = {1};
    const Rows<T> e = fast_rp(this->backend(), sparse_of<Graph<T>>(Eigen::MatrixXd::Ones(n, n)), o);
    EXPECT_TRUE((e.array() == T(0)).all()) << n << " nodes: " << e.cwiseAbs().maxCoeff();
  }
}

TYPED_TEST(FastRpPropertiesTest, ComponentsDoNotSeeEachOther) {
  using T = typename TypeParam::scalar;
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(70, 70);
  a.topLeftCorner(30, 30) = random_graph(30, 4, true, 1);
  FastRpOptions o;
  o.dim = 20;
  o.standardize = false;
  o.degree_exponent = -0.5;
  a.bottomRightCorner(40, 40) = random_graph(40, 4, true, 2);
  const Rows<T> one = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  a.bottomRightCorner(40, 40) = random_graph(40, 9, true, 3);
  const Rows<T> other = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  EXPECT_TRUE(equal_bits<Rows<T>>(one.topRows(30), other.topRows(30)));
  EXPECT_FALSE(equal_bits<Rows<T>>(one.bottomRows(40), other.bottomRows(40)));
}

template <class T>
void expect_one_result() {
  // Above 16 blocks of 64 rows, and enough blocks for the standardisation to merge.
  const auto a = sparse_of<Graph<T>>(random_graph(1100, 6, true, 4));
  for (const bool concatenate : {false, true}) {
    FastRpOptions o;
    o.dim = 70;
    o.concatenate = concatenate;
    o.self_influence = concatenate ? 0 : 0.5;
    pare::testing::same_bits_for_any_threads(
        pare::simd, [&](const auto& backend) { return Rows<T>(fast_rp(backend, a, o)); });
  }
}

TEST(FastRpProperties, SameBitsForEveryExecutor) {
  expect_one_result<float>();
  expect_one_result<double>();
}

TEST(FastRpProperties, SeedsDiffer) {
  const auto a = sparse_of<Graph<float>>(random_graph(50, 6, true, 4));
  FastRpOptions o;
  o.dim = 16;
  const Rows<float> one = fast_rp(a, o);
  EXPECT_TRUE(equal_bits(fast_rp(a, o), one));
  o.seed = 43;
  EXPECT_NE(fast_rp(a, o), one);
}

// <N_i(u), N_i(v)> averages to (P^i L^2 P^iT)_uv with the exact variance of moments_test.cpp.
TEST(FastRpProperties, InnerProductsArePreservedOnAverage) {
  constexpr Index n = 40, steps = 2, seeds = 1500;
  const Eigen::MatrixXd a = random_graph(n, 5, true, 9);
  const Eigen::VectorXd degrees = degrees_of(a);
  FastRpOptions o = raw_options();
  o.dim = 32;
  o.density = 0.2;
  o.weights = {0, 1};
  o.degree_exponent = -0.5;
  const Eigen::MatrixXd p = transition(a, degrees);
  const Eigen::MatrixXd x = p * p * start_of(degrees, Eigen::MatrixXd::Identity(n, n), -0.5);
  Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(n, n);
  const auto graph = sparse_of<Graph<double>>(a);
  for (o.seed = 0; o.seed < seeds; ++o.seed) {
    const Rows<double> e = fast_rp(graph, o);
    mean += e * e.transpose() / double(seeds);
  }
  const double excess = 1 / *o.density - 3;
  for (Index u = 0; u < n; ++u)
    for (Index v = 0; v <= u; ++v) {
      const Eigen::ArrayXd x2 = x.row(u).array().square(), z2 = x.row(v).array().square();
      const double dot = x.row(u).dot(x.row(v));
      const double variance =
          (x2.sum() * z2.sum() + dot * dot + excess * (x2 * z2).sum()) / double(o.dim);
      ASSERT_NEAR(mean(u, v), dot, 5 * std::sqrt(variance / double(seeds))) << u << ' ' << v;
    }
  static_assert(steps == 2);
}

/// Powers of two that take edge weights of 1/4 to 4 to the ends of the scalar.
template <class T>
std::vector<int> extreme_exponents() {
  if (std::is_same_v<T, float>) return {-147, -130, -70, 70, 125};
  return {-1072, -1020, -600, 600, 1021};
}

/// `a` with row u times 2^exponent(u).
template <class T, class Exponent>
Graph<T> scaled_rows(const Eigen::MatrixXd& a, const Exponent& exponent) {
  auto s = sparse_of<Graph<T>>(a);
  for (Index u = 0; u < s.outerSize(); ++u)
    for (typename Graph<T>::InnerIterator e(s, u); e; ++e)
      e.valueRef() = static_cast<T>(std::ldexp(static_cast<double>(e.value()), exponent(u)));
  return s;
}

// P = D^-1 A does not change when a row of A is scaled.
TYPED_TEST(FastRpPropertiesTest, EdgeWeightsOfAnyScaleAreTheSameGraph) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = random_graph(40, 4, true, 5);
  for (const bool standardize : {false, true})
    for (const auto& weights : {std::vector<double>{0, 1, 2}, {3, 1, 2}}) {
      FastRpOptions o = raw_options();
      o.standardize = o.normalize_rows = standardize;
      o.weights = weights;
      const Rows<T> wanted = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
      const auto exponents = extreme_exponents<T>();
      const auto expect_same = [&](const auto& exponent) {
        const Graph<T> scaled = scaled_rows<T>(a, exponent);
        EXPECT_TRUE(equal_bits(fast_rp(this->backend(), scaled, o), wanted)) << exponent(0);
        const Eigen::SparseMatrix<T, Eigen::ColMajor> columns = scaled;
        EXPECT_TRUE(equal_bits(fast_rp(this->backend(), columns, o), wanted)) << exponent(0);
      };
      for (const int e : exponents) expect_same([=](Index) { return e; });
      expect_same([&](Index u) { return exponents[static_cast<std::size_t>(u % 5)]; });
    }
}

// Degrees beyond double's range have powers within it.
TYPED_TEST(FastRpPropertiesTest, DegreesThatOverflowHavePowers) {
  using T = typename TypeParam::scalar;
  const int top = std::is_same_v<T, float> ? 120 : 1020;
  const Eigen::MatrixXd a = random_graph(40, 12, true, 5);
  FastRpOptions o = raw_options();
  for (const double exponent : {-0.5, 0.5}) {
    o.degree_exponent = exponent;
    const Rows<T> plain = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
    const Rows<T> huge = fast_rp(this->backend(), scaled_rows<T>(a, [=](Index) { return top; }), o);
    // A power through logarithms of up to 2^10 is wrong by 2^10 u and more. No element of a step
    // exceeds the largest power, for the scale of R is below 1; step weights add up to 3.5.
    const double largest = degrees_of(a).array().pow(exponent).maxCoeff();
    const double bound =
        3.5 * largest * (Tolerance<double>::gamma(2000) + Tolerance<T>::gamma(100));
    for (Index i = 0; i < plain.size(); ++i)
      ASSERT_TRUE(within(static_cast<double>(huge.data()[i]) * std::exp2(-exponent * top),
                         static_cast<double>(plain.data()[i]), bound));
  }
}

/// A ring about a hub whose edges weigh 64, so that its degree is 39 * 64.
Eigen::MatrixXd wheel() {
  constexpr Index n = 40;
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n, n);
  for (Index u = 1; u < n; ++u) {
    const Index next = u + 1 < n ? u + 1 : 1;
    a(0, u) = a(u, 0) = 64;
    a(u, next) = a(next, u) = 1;
  }
  return a;
}

TYPED_TEST(FastRpPropertiesTest, DegreePowersBeyondTheScalarCancel) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = wheel();
  const Eigen::VectorXd degrees = degrees_of(a);
  FastRpOptions o = raw_options();
  for (const double exponent : {-14.0, 12.0})
    for (const int form : {1, 2, 3}) {
      o.degree_exponent = exponent;
      o.normalize_rows = (form & 1) != 0;
      o.standardize = (form & 2) != 0;
      const auto wanted = explicit_fast_rp<T>(
          transition(a, degrees), start_of(degrees, node_vectors(40, o), exponent), 0, o);
      const auto got = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
      ASSERT_TRUE(close_to(got, wanted)) << exponent << ' ' << form;
    }
  // Small weights bring large powers back into range.
  o.normalize_rows = o.standardize = false;
  o.degree_exponent = 12;
  o.weights = {1e-30, 2e-30};
  const auto wanted =
      explicit_fast_rp<T>(transition(a, degrees), start_of(degrees, node_vectors(40, o), 12), 0, o);
  ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), wanted));
}

// All degrees are 4: 4^beta is a power of two, in range or not.
TYPED_TEST(FastRpPropertiesTest, AnyPowerOfOneDegreeCancels) {
  using T = typename TypeParam::scalar;
  constexpr Index n = 30;
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n, n);
  for (Index u = 0; u < n; ++u)
    for (const Index step : {1, 2}) a(u, (u + step) % n) = a((u + step) % n, u) = 1;
  FastRpOptions o = raw_options();
  for (const int form : {1, 2, 3}) {
    o.normalize_rows = (form & 1) != 0;
    o.standardize = (form & 2) != 0;
    o.degree_exponent = 0;
    const Rows<T> wanted = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
    // Norms of rows whose squares leave double are rounded in another way.
    const double far = o.normalize_rows ? 200 : 400;
    for (const double exponent : {-2000.0, -far, -70.0, 70.0, far, 2000.0}) {
      o.degree_exponent = exponent;
      EXPECT_EQ(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), wanted) << exponent << form;
    }
  }
}

TYPED_TEST(FastRpPropertiesTest, StepWeightsOfAnyScaleCancelInStandardisedColumns) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(40, 4, true, 5));
  FastRpOptions o = raw_options();
  o.standardize = true;
  for (const bool concatenate : {false, true})
    for (const bool normalize : {false, true}) {
      o.concatenate = concatenate;
      o.normalize_rows = normalize;
      o.self_influence = concatenate ? 0 : 2;
      o.weights = {1, -0.5, 3};
      const Rows<T> wanted = fast_rp(this->backend(), a, o);
      for (const int e : {-1060, -600, -140, 126, 600, 1021}) {
        const auto scaled = [=](double w) { return std::ldexp(w, e); };
        o.weights = {scaled(1), scaled(-0.5), scaled(3)};
        o.self_influence = concatenate ? 0 : scaled(2);
        EXPECT_TRUE(equal_bits(fast_rp(this->backend(), a, o), wanted)) << e;
      }
      if (!concatenate) continue;
      o.weights = {std::ldexp(1, -700), -0.5, std::ldexp(3, 700)};
      EXPECT_TRUE(equal_bits(fast_rp(this->backend(), a, o), wanted)) << "each step its own";
    }
}

TYPED_TEST(FastRpPropertiesTest, ADensityWithoutEntriesGivesZeros) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(40, 4, true, 5));
  FastRpOptions o = raw_options();
  o.feature_ratio = 0.5;
  const Rows<T> features = Rows<T>::Ones(40, 3);
  for (const double density : {1e-30, 1e-200})
    for (const bool finish : {false, true}) {
      o.density = density;
      o.standardize = o.normalize_rows = finish;
      Rows<T> out = Rows<T>::Constant(40, 24, T(7));
      fast_rp(this->backend(), a, features, out, o);
      EXPECT_TRUE((out.array() == T(0)).all()) << density;
    }
}

// Neo4j's count of edges leaves the weights in P: they cancel in unit rows.
TYPED_TEST(FastRpPropertiesTest, EdgeWeightsUnderCountedDegrees) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = random_graph(40, 4, true, 5);
  const int e = std::is_same_v<T, float> ? 110 : 900;
  const auto scaled = [&](int exponent) {
    return scaled_rows<T>(a, [=](Index) { return exponent; });
  };
  FastRpOptions o = pare::graph::gds_defaults(24);
  o.weights = {1, 0, 2};
  const Rows<T> wanted = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  for (const int exponent : {-e, e})
    EXPECT_TRUE(equal_bits(fast_rp(this->backend(), scaled(exponent), o), wanted)) << exponent;
  o.normalize_rows = false;
  const Rows<T> raw = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
  const int third = std::is_same_v<T, float> ? 110 : 340;
  o.weights = {std::ldexp(1, -third), 0, std::ldexp(2, -3 * third)};
  EXPECT_TRUE(equal_bits(fast_rp(this->backend(), scaled(third), o), raw));
}

// Degree powers may leave float's range of squares; rows are unit length all the same.
TYPED_TEST(FastRpPropertiesTest, RowsAreNormalisedAtAnyScale) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = Eigen::MatrixXd::Ones(30, 30) + random_graph(30, 4, true, 5);
  FastRpOptions o = raw_options();
  o.weights = {1};
  o.normalize_rows = true;
  for (const double exponent : {-18.0, 18.0}) {
    o.degree_exponent = exponent;
    const Eigen::MatrixXd e =
        fast_rp(this->backend(), sparse_of<Graph<T>>(a), o).template cast<double>();
    for (Index u = 0; u < 30; ++u)
      ASSERT_TRUE(within(e.row(u).norm(), 1, Tolerance<T>::gamma(60))) << e.row(u).norm();
  }
}

// After some steps all rows of a positive matrix point one way, which in one dimension is one
// number: the rounding of the rows is no embedding.
TYPED_TEST(FastRpPropertiesTest, RowsThatAgreeUpToRoundingStandardiseToZero) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = Eigen::MatrixXd::Ones(30, 30) + random_graph(30, 4, true, 5) / 7;
  FastRpOptions o = raw_options();
  o.dim = 1;
  o.density = 1;
  o.weights = {0, 0, 0, 0, 0, 1.7};
  o.normalize_rows = o.standardize = true;
  o.degree = pare::graph::Degree::Count;
  for (const double scale : {1.0, 1e-30})
    for (const double exponent : {0.0, -12.0}) {
      o.degree_exponent = exponent;
      const Rows<T> e = fast_rp(this->backend(), sparse_of<Graph<T>>(scale * a), o);
      EXPECT_TRUE((e.array() == T(0)).all()) << e.transpose();
    }
}

// Rows in which large terms cancel are as precise as the scalar holds beside them, whatever the
// scale of the weights.
TYPED_TEST(FastRpPropertiesTest, TinyCountedWeightsLeaveUnitRowsAsTheyAre) {
  using T = typename TypeParam::scalar;
  FastRpOptions o = raw_options();
  o.normalize_rows = true;
  o.degree = pare::graph::Degree::Count;
  o.degree_exponent = -12;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const Eigen::MatrixXd a = random_graph(40, 5, true, seed);
    const Eigen::MatrixXd tiny = 1e-30 * a;
    const Rows<T> here = fast_rp(this->backend(), sparse_of<Graph<T>>(tiny), o);
    const Rows<T> there = fast_rp(pare::reference, sparse_of<Graph<T>>(a), o);
    EXPECT_LT((here - there).norm(), T(2e-3) * there.norm());
  }
}

}  // namespace
}  // namespace graph_fast_rp_properties_test
