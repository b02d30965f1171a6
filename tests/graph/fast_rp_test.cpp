// SPDX-License-Identifier: Apache-2.0
// FastRP against its definition as a matrix polynomial.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include <pare/graph/fast_rp.hpp>

#include "graph/explicit_fast_rp.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace graph_fast_rp_test {
namespace {

using pare::Index;
using pare::graph::fast_rp;
using pare::graph::FastRpOptions;
using pare::testing::close_to;
using pare::testing::degrees_of;
using pare::testing::explicit_fast_rp;
using pare::testing::node_vectors;
using pare::testing::random_graph;
using pare::testing::sparse_of;
using pare::testing::start_of;
using pare::testing::transition;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Graph = Eigen::SparseMatrix<T, Eigen::RowMajor>;

template <class Case>
struct FastRpTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(FastRpTest, pare::testing::BackendsAndScalars);

FastRpOptions plain_options() {
  FastRpOptions o;
  o.dim = 33;
  o.weights = {0.5, 1, -2.25};
  o.normalize_rows = false;
  o.standardize = false;
  o.seed = 11;
  return o;
}

template <class T>
pare::testing::ExplicitFastRp polynomial(const Eigen::MatrixXd& a, const FastRpOptions& o) {
  const Eigen::VectorXd degrees = degrees_of(a);
  return explicit_fast_rp<T>(transition(a, degrees),
                             start_of(degrees, node_vectors(a.rows(), o), o.degree_exponent), 0, o);
}

TYPED_TEST(FastRpTest, IsTheExplicitPolynomial) {
  using T = typename TypeParam::scalar;
  for (const Index nodes : {1, 2, 17, 60})
    for (const bool weighted : {false, true}) {
      const Eigen::MatrixXd a = random_graph(nodes, 4, weighted, 5);
      for (const Index dim : {1, 33, 70})
        for (const double exponent : {0.0, -0.5})
          for (const bool concatenate : {false, true}) {
            FastRpOptions o = plain_options();
            o.dim = dim;
            o.degree_exponent = exponent;
            o.concatenate = concatenate;
            const auto wanted = polynomial<T>(a, o);
            ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), wanted))
                << nodes << " nodes, dim " << dim << ", exponent " << exponent;
            const bool zero = wanted.value.isZero(0);
            ASSERT_TRUE((std::is_same_v<T, float>) || zero || worst_relative(wanted) < 1e-6);
          }
    }
}

TYPED_TEST(FastRpTest, NormalisesRowsAndStandardisesColumns) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = random_graph(60, 5, true, 6);
  for (const bool normalize : {false, true})
    for (const bool standardize : {false, true}) {
      FastRpOptions o = plain_options();
      o.degree_exponent = -0.64;
      o.weights = {0, 0, 1, 6.67};
      o.normalize_rows = normalize;
      o.standardize = standardize;
      o.density = 1.0 / 3;
      const auto wanted = polynomial<T>(a, o);
      ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), wanted))
          << normalize << standardize;
      ASSERT_TRUE((std::is_same_v<T, float>) || worst_relative(wanted) < 1e-6);
    }
}

/// The seed of a 3 x 2 operator of density 1/2 (so of entries 0 and +-1) that is the golden one.
std::uint64_t golden_seed() {
  const Eigen::MatrixXd wanted = (Eigen::MatrixXd(3, 2) << 1, 0, 0, 1, -1, 0).finished();
  FastRpOptions o;
  o.dim = 2;
  o.density = 0.5;
  for (o.seed = 0; o.seed < 20000; ++o.seed)
    if (node_vectors(3, o) == wanted) break;
  return o.seed;
}

// The path 0-1-2, computed by hand.
TYPED_TEST(FastRpTest, GoldenPath) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = (Eigen::MatrixXd(3, 3) << 0, 1, 0, 1, 0, 1, 0, 1, 0).finished();
  FastRpOptions o;
  o.dim = 2;
  o.density = 0.5;
  o.seed = golden_seed();
  o.degree_exponent = -0.5;
  o.weights = {1, 2};
  o.normalize_rows = o.standardize = false;
  const double tolerance = std::is_same_v<T, double> ? 1e-8 : 1e-6;  // digits that are given; float
  const auto expect = [&](double x0, double x1, double x2) {
    const Rows<T> e = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
    const double column[] = {x0, x1, x2};
    for (Index u = 0; u < 3; ++u) {
      EXPECT_EQ(e(u, 0), T(0));
      EXPECT_NEAR(static_cast<double>(e(u, 1)), column[u], tolerance);
    }
  };
  expect(.70710678, 1.41421356, .70710678);
  o.normalize_rows = true;
  expect(1, 2, 1);
  o.standardize = true;
  expect(-.70710678, 1.41421356, -.70710678);
}

/// Edges of one direction, a self loop, a node without edges out of it, one without any.
Eigen::MatrixXd directed_graph() {
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(7, 7);
  a(0, 1) = 1;
  a(1, 2) = 2;
  a(2, 0) = 3.5;
  a(2, 2) = 1;
  a(3, 0) = 0.25;
  a(3, 4) = 4;
  a(5, 3) = 1;
  a(5, 5) = 2;
  return a;
}

TYPED_TEST(FastRpTest, DirectedGraphsInAnyStorage) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = directed_graph();
  FastRpOptions o = plain_options();
  o.degree_exponent = -1;
  const auto wanted = polynomial<T>(a, o);
  const auto rows = sparse_of<Graph<T>>(a);
  const auto columns = sparse_of<Eigen::SparseMatrix<T, Eigen::ColMajor>>(a);
  ASSERT_TRUE(close_to(fast_rp(this->backend(), rows, o), wanted));
  ASSERT_TRUE(close_to(fast_rp(this->backend(), columns, o), wanted)) << "column-major";
  ASSERT_TRUE(close_to(
      fast_rp(this->backend(), Eigen::SparseMatrix<T, Eigen::RowMajor, std::int64_t>(rows), o),
      wanted))
      << "64-bit indices";
  auto loose_rows = rows;
  loose_rows.uncompress();
  loose_rows.reserve(Eigen::VectorXi::Constant(7, 2));
  ASSERT_TRUE(close_to(fast_rp(this->backend(), loose_rows, o), wanted)) << "uncompressed";
  auto loose_columns = columns;
  loose_columns.uncompress();
  loose_columns.reserve(Eigen::VectorXi::Constant(7, 2));
  ASSERT_TRUE(close_to(fast_rp(this->backend(), loose_columns, o), wanted))
      << "uncompressed columns";
  const Rows<T> e = fast_rp(this->backend(), rows, o);
  for (const Index without_edges : {4, 6})
    EXPECT_TRUE((e.row(without_edges).array() == T(0)).all()) << without_edges;
}

TYPED_TEST(FastRpTest, DuplicatesAddUp) {
  using T = typename TypeParam::scalar;
  for (const std::ptrdiff_t gap : {0, 2}) {
    const auto a = pare::testing::ragged_sparse<T>(
        40, 40, 3, gap,
        [](pare::testing::Engine& random) { return static_cast<double>(random() % 5) / 2; });
    const FastRpOptions o = plain_options();
    auto wanted = polynomial<T>(a.dense(), o);
    wanted.bound *= 2;  // twice as many terms in a row as the sum of duplicates shows
    ASSERT_TRUE(close_to(fast_rp(this->backend(), a.map(), o), wanted)) << gap;
  }
}

TYPED_TEST(FastRpTest, WritesToCallersRows) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(50, 4, true, 5));
  for (const bool standardize : {false, true})
    for (const auto& weights : {std::vector<double>{1, 2, 3}, {0, 0, 1, 7}, {0, 0, 2}, {1}}) {
      FastRpOptions o = plain_options();
      o.standardize = standardize;
      o.weights = weights;
      const Rows<T> wanted = fast_rp(this->backend(), a, o);
      Rows<T> frame = Rows<T>::Constant(52, 40, T(-77));
      fast_rp(this->backend(), a, frame.block(1, 3, 50, 33), o);
      EXPECT_TRUE(pare::testing::equal_bits<Rows<T>>(frame.block(1, 3, 50, 33), wanted));
      EXPECT_EQ((frame.array() == T(-77)).count(), 52 * 40 - 50 * 33);
    }
}

// The position of the weights chooses how iterates are kept.
TYPED_TEST(FastRpTest, AnyPatternOfWeights) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = random_graph(40, 4, true, 5);
  for (int pattern = 0; pattern < 32; ++pattern)
    for (const bool normalize : {false, true}) {
      FastRpOptions o = plain_options();
      o.dim = 12;
      o.normalize_rows = normalize;
      o.weights.clear();
      for (int i = 0; i < 5; ++i) o.weights.push_back(((pattern >> i) & 1) != 0 ? i - 2.5 : 0);
      ASSERT_TRUE(
          close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), polynomial<T>(a, o)))
          << "weights " << pattern << ", normalised " << normalize;
    }
}

// Few nonzeros a row: the first steps are lists of them, and rows of many are whole.
TYPED_TEST(FastRpTest, StepsThatAreStillSparse) {
  using T = typename TypeParam::scalar;
  Eigen::MatrixXd a = random_graph(60, 2, true, 5);
  for (Index v = 0; v < 60; v += 2) a(17, v) = a(v, 17) = 0.5;  // meets every other node
  for (const double density : {0.002, 0.03})
    for (const auto& weights : {std::vector<double>{1}, {1, 2}, {0, 0, 1, 7}, {0.5, 1, -2}}) {
      FastRpOptions o = plain_options();
      o.dim = 70;
      o.density = density;
      o.weights = weights;
      o.normalize_rows = density > 0.01;
      o.degree_exponent = -0.5;
      const auto wanted = polynomial<T>(a, o);
      ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), wanted))
          << "density " << density << ", " << weights.size() << " steps";
      if constexpr (pare::KernelBackend<decltype(this->backend())>) {
        ASSERT_TRUE(pare::testing::equal_bits<Rows<T>>(
            fast_rp(this->backend().threads(3), sparse_of<Graph<T>>(a), o),
            fast_rp(this->backend(), sparse_of<Graph<T>>(a), o)));
      }
      if (weights.size() != 2) continue;
      o.self_influence = 0.75;
      const Eigen::VectorXd degrees = degrees_of(a);
      const auto with_self = explicit_fast_rp<T>(
          transition(a, degrees), start_of(degrees, node_vectors(60, o), -0.5), 0.75, o);
      ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), with_self));
    }
}

TYPED_TEST(FastRpTest, WhatIsNotAnError) {
  using T = typename TypeParam::scalar;
  FastRpOptions o;
  o.dim = 5;
  Rows<T> none(0, 5);
  fast_rp(this->backend(), Graph<T>(0, 0), none, o);
  EXPECT_EQ(fast_rp(this->backend(), Graph<T>(0, 0), o).rows(), 0);
  // No edges, or no weights: zeros, whatever the memory held.
  Rows<T> out = Rows<T>::Constant(4, 5, std::numeric_limits<T>::quiet_NaN());
  fast_rp(this->backend(), Graph<T>(4, 4), out, o);
  EXPECT_TRUE((out.array() == T(0)).all());
  const auto a = sparse_of<Graph<T>>(random_graph(30, 4, true, 5));
  for (const bool concatenate : {false, true})
    for (const double weight : {0.0, -0.0}) {
      o.weights = {weight, weight, weight};
      o.concatenate = concatenate;
      out = Rows<T>::Constant(30, o.output_columns(), std::numeric_limits<T>::quiet_NaN());
      fast_rp(this->backend(), a, out, o);
      EXPECT_TRUE((out.array() == T(0)).all());
    }
  // Weights that vanish in the scalar are weights of zero.
  o.weights = {1e-60};
  o.concatenate = false;
  o.standardize = false;
  out = Rows<T>::Constant(30, 5, T(7));
  fast_rp(this->backend(), a, out, o);
  EXPECT_LE(static_cast<double>(out.array().abs().maxCoeff()), 2e-60);
  // Entries of weight 0 are edges of weight 0.
  Graph<T> zeros = a;
  for (Index e = 0; e < zeros.nonZeros(); ++e) zeros.valuePtr()[e] = 0;
  o.weights = {1, 2};
  fast_rp(this->backend(), zeros, out, o);
  EXPECT_TRUE((out.array() == T(0)).all());
}

TYPED_TEST(FastRpTest, TrailingZeroWeightsChangeNothing) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(30, 4, true, 5));
  FastRpOptions o = plain_options();
  o.standardize = true;
  const Rows<T> wanted = fast_rp(this->backend(), a, o);
  o.weights.insert(o.weights.end(), {0, 0, 0});
  EXPECT_TRUE(pare::testing::equal_bits(fast_rp(this->backend(), a, o), wanted));
}

TYPED_TEST(FastRpTest, ProgressIsToldOfEachStepOnce) {
  using T = typename TypeParam::scalar;
  const auto a = sparse_of<Graph<T>>(random_graph(30, 4, true, 5));
  FastRpOptions o = plain_options();
  o.weights = {0, 1, 2, 0, 0};
  std::vector<std::pair<int, int>> told;
  const auto caller = std::this_thread::get_id();
  o.progress = [&](int step, int steps) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    told.emplace_back(step, steps);
  };
  fast_rp(this->backend(), a, o);
  EXPECT_EQ(told, (std::vector<std::pair<int, int>>{{1, 3}, {2, 3}, {3, 3}}));
}

}  // namespace
}  // namespace graph_fast_rp_test
