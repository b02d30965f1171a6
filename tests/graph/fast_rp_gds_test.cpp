// SPDX-License-Identifier: Apache-2.0
// Neo4j GDS's variant: counted degrees, self influence, node features.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cmath>

#include <pare/graph/fast_rp.hpp>

#include "graph/explicit_fast_rp.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace graph_fast_rp_gds_test {
namespace {

using pare::Index;
using pare::graph::Degree;
using pare::graph::fast_rp;
using pare::graph::FastRpOptions;
using pare::graph::gds_defaults;
using pare::testing::close_to;
using pare::testing::explicit_fast_rp;
using pare::testing::node_vectors;
using pare::testing::sparse_of;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Graph = Eigen::SparseMatrix<T, Eigen::RowMajor>;

template <class Case>
struct FastRpGdsTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(FastRpGdsTest, pare::testing::BackendsAndScalars);

template <class Backend, class S, class X>
Rows<typename X::Scalar> fast_rp_of(const Backend& backend, const S& graph, const X& features,
                                    const FastRpOptions& o) {
  Rows<typename X::Scalar> out(graph.rows(), o.output_columns());
  fast_rp(backend, graph, features, out, o);
  return out;
}

/// A weighted graph whose last two nodes have no edges.
Eigen::MatrixXd graph_with_isolated_nodes() {
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(42, 42);
  a.topLeftCorner(40, 40) = pare::testing::random_graph(40, 5, true, 9);
  return a;
}

Eigen::VectorXd counted(const Eigen::MatrixXd& a) {
  return (a.array() != 0).rowwise().count().cast<double>();
}

/// Counted degrees: a node without edges starts from its random vector.
Eigen::MatrixXd counted_start(const Eigen::MatrixXd& a, const Eigen::MatrixXd& r, double exponent) {
  Eigen::MatrixXd start = r;
  const Eigen::VectorXd degrees = counted(a);
  for (Index u = 0; u < a.rows(); ++u)
    start.row(u) *= degrees(u) > 0 ? std::pow(degrees(u), exponent) : 1;
  return start;
}

TEST(FastRpGds, DefaultsAreTheirs) {
  const FastRpOptions o = gds_defaults(12);
  EXPECT_EQ(o.dim, 12);
  EXPECT_EQ(o.weights, (std::vector<double>{0, 1, 1}));
  EXPECT_EQ(o.degree_exponent, 0);
  EXPECT_EQ(*o.density, 1.0 / 3);
  EXPECT_EQ(o.degree, Degree::Count);
  EXPECT_EQ(o.self_influence, 0);
  EXPECT_EQ(o.feature_ratio, 0);
  EXPECT_TRUE(o.normalize_rows);
  EXPECT_FALSE(o.standardize);
}

TYPED_TEST(FastRpGdsTest, CountedDegreesDivideWeightedSums) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = graph_with_isolated_nodes();
  for (const double exponent : {0.0, -0.7})
    for (const bool normalize : {false, true}) {
      FastRpOptions o = gds_defaults(19);
      o.degree_exponent = exponent;
      o.normalize_rows = normalize;
      const auto wanted =
          explicit_fast_rp<T>(pare::testing::transition(a, counted(a)),
                              counted_start(a, node_vectors(42, o), exponent), 0, o);
      ASSERT_TRUE(close_to(fast_rp(this->backend(), sparse_of<Graph<T>>(a), o), wanted));
    }
}

TYPED_TEST(FastRpGdsTest, SelfInfluenceAddsTheStartingVector) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = graph_with_isolated_nodes();
  for (const bool normalize : {false, true})
    for (const bool steps : {false, true}) {
      FastRpOptions o = gds_defaults(19);
      o.self_influence = 1.5;
      o.normalize_rows = normalize;
      if (!steps) o.weights = {0};
      o.degree_exponent = -0.7;
      const auto wanted = explicit_fast_rp<T>(pare::testing::transition(a, counted(a)),
                                              counted_start(a, node_vectors(42, o), -0.7), 1.5, o);
      const Rows<T> e = fast_rp(this->backend(), sparse_of<Graph<T>>(a), o);
      ASSERT_TRUE(close_to(e, wanted));
      // The purpose: nodes without edges are told apart.
      EXPECT_GT(e.row(40).norm(), 0);
      EXPECT_GT(e.row(41).norm(), 0);
      EXPECT_NE(e.row(40), e.row(41));
    }
}

TYPED_TEST(FastRpGdsTest, WithoutSelfInfluenceIsolatedNodesAreZero) {
  using T = typename TypeParam::scalar;
  const Rows<T> e =
      fast_rp(this->backend(), sparse_of<Graph<T>>(graph_with_isolated_nodes()), gds_defaults(9));
  EXPECT_TRUE((e.bottomRows(2).array() == T(0)).all());
}

TYPED_TEST(FastRpGdsTest, FeaturesStartTheLastDimensions) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = graph_with_isolated_nodes();
  const Rows<T> features = pare::testing::integer_matrix<Rows<T>>(42, 7, 3);
  const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> by_columns = features;
  for (const double ratio : {0.0, 0.04, 0.3, 0.5, 1.0}) {
    FastRpOptions o = gds_defaults(20);
    o.degree_exponent = -0.7;
    o.feature_ratio = ratio;
    o.normalize_rows = false;
    const Index feature_dim = static_cast<Index>(std::floor(20 * ratio));
    ASSERT_EQ(o.feature_dim(), feature_dim);
    const Index node_dim = 20 - feature_dim;
    const double scale = std::sqrt(3.0) / std::sqrt(20.0);
    const auto signs = [&](Index inputs, Index outputs, std::uint64_t seed) {
      const pare::projection::SparseProjection r{inputs, outputs, 1.0 / 3, seed};
      const Eigen::MatrixXd m =
          pare::projection::materialize<double>(r).toDense() / r.entry_scale();
      return Eigen::MatrixXd(m.array().round());
    };
    Eigen::MatrixXd start = Eigen::MatrixXd::Zero(42, 20);
    if (node_dim > 0)
      start.leftCols(node_dim) =
          counted_start(a, scale * signs(42, node_dim, o.seed).transpose(), -0.7);
    if (feature_dim > 0) {
      const Eigen::MatrixXd b = signs(7, feature_dim, o.seed ^ 0x9E3779B97F4A7C15u);
      start.rightCols(feature_dim) = scale * features.template cast<double>() * b.transpose();
    }
    const auto wanted = explicit_fast_rp<T>(pare::testing::transition(a, counted(a)), start, 0, o);
    ASSERT_TRUE(close_to(fast_rp_of(this->backend(), sparse_of<Graph<T>>(a), features, o), wanted))
        << ratio;
    ASSERT_TRUE(
        close_to(fast_rp_of(this->backend(), sparse_of<Graph<T>>(a), by_columns, o), wanted))
        << ratio << ", column-major features";
  }
}

// More rows than a worker takes at a time, each of which must reach the sum, and starting vectors
// of unit length in it.
TEST(FastRpItems, EveryRowOfManyIsThatOfTheDefinition) {
  using Graph = Eigen::SparseMatrix<double, Eigen::RowMajor>;
  const auto a = pare::testing::sparse_of<Graph>(pare::testing::random_graph(130, 60, true, 3));
  pare::graph::FastRpOptions o;
  o.dim = 12;
  o.density = 0.5;
  o.standardize = false;
  o.degree_exponent = -0.5;
  for (const double self : {0.0, 3.0})
    for (const std::vector<double>& weights : {std::vector<double>{0, 1, 2}, {1, 0.5, 2}}) {
      o.self_influence = self;
      o.weights = weights;
      const Eigen::MatrixXd got = pare::graph::fast_rp(pare::simd, a, o);
      const Eigen::MatrixXd wanted = pare::graph::fast_rp(pare::reference, a, o);
      for (pare::Index u = 0; u < 130; ++u)
        ASSERT_LT((got.row(u) - wanted.row(u)).norm(), 1e-12) << u << ' ' << self;
    }
}

}  // namespace
}  // namespace graph_fast_rp_gds_test
