// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cmath>
#include <limits>
#include <string>

#include <pare/graph/normalized_adjacency.hpp>

#include "support/matrices.hpp"

namespace graph_normalized_adjacency_test {
namespace {

using pare::Index;
using pare::graph::AdjacencyNorm;
using pare::graph::bipartite_adjacency;
using pare::graph::normalized_adjacency;
using pare::testing::refusal;
using Graph = Eigen::SparseMatrix<double, Eigen::RowMajor>;

Eigen::MatrixXd inverse_or_zero(const Eigen::VectorXd& degrees, double power) {
  Eigen::VectorXd d = degrees;
  for (Index i = 0; i < d.size(); ++i) d(i) = d(i) > 0 ? std::pow(d(i), power) : 0;
  return d.asDiagonal();
}

Eigen::MatrixXd divided(const Eigen::MatrixXd& a, AdjacencyNorm norm) {
  if (norm == AdjacencyNorm::Rows) return inverse_or_zero(a.rowwise().sum(), -1) * a;
  return inverse_or_zero(a.rowwise().sum(), -.5) * a *
         inverse_or_zero(a.colwise().sum().transpose(), -.5);
}

TEST(NormalizedAdjacency, DividesByDegreesOfBothKinds) {
  const auto raw = pare::testing::ragged_sparse<double>(
      40, 40, 4, 2, [](auto& random) { return static_cast<double>(random() % 5); });
  const Eigen::MatrixXd a = raw.dense(), loops = a + Eigen::MatrixXd::Identity(40, 40);
  for (const AdjacencyNorm norm : {AdjacencyNorm::Symmetric, AdjacencyNorm::Rows}) {
    EXPECT_TRUE(Eigen::MatrixXd(normalized_adjacency(raw.map(), {.norm = norm}))
                    .isApprox(divided(a, norm), 1e-14));
    EXPECT_TRUE(Eigen::MatrixXd(normalized_adjacency(raw.map(), {.norm = norm, .self_loops = true}))
                    .isApprox(divided(loops, norm), 1e-14));
  }
}

TEST(NormalizedAdjacency, OfAMatrixBetweenUsersAndItemsIsTheCornerOfTheWhole) {
  const auto r = pare::testing::ragged_sparse<double>(
      30, 13, 4, 0, [](auto& random) { return 1 + static_cast<double>(random() % 5); });
  const Eigen::MatrixXd whole = normalized_adjacency(bipartite_adjacency(r.map()));
  EXPECT_TRUE(
      whole.topRightCorner(30, 13).isApprox(Eigen::MatrixXd(normalized_adjacency(r.map())), 1e-14));
  EXPECT_TRUE(whole.bottomLeftCorner(13, 30) == whole.topRightCorner(30, 13).transpose());
  EXPECT_EQ(whole.topLeftCorner(30, 30).norm() + whole.bottomRightCorner(13, 13).norm(), 0);
}

TEST(NormalizedAdjacency, DegreesAtTheEndsOfTheRangeGiveFiniteShares) {
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(3, 3);
  a(0, 1) = a(1, 0) = 4e-324;
  a(1, 2) = a(2, 1) = 8e307;
  const Eigen::MatrixXd rows =
      normalized_adjacency(pare::testing::sparse_of<Graph>(a), {.norm = AdjacencyNorm::Rows});
  EXPECT_EQ(rows(0, 1), 1);
  EXPECT_EQ(rows(2, 1), 1);
  EXPECT_TRUE(
      Eigen::MatrixXd(normalized_adjacency(pare::testing::sparse_of<Graph>(a))).allFinite());
}

TEST(NormalizedAdjacency, BadGraphsAreRefused) {
  const std::string name = "graph::normalized_adjacency";
  Graph a = pare::testing::sparse_of<Graph>(pare::testing::random_graph(9, 3, true, 8));
  refusal([&] { normalized_adjacency(Graph(3, 4), {.self_loops = true}); }, name, "adjacency");
  for (const double w :
       {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    Graph bad = a;
    bad.valuePtr()[3] = w;
    refusal([&] { normalized_adjacency(bad); }, name, "adjacency");
    refusal([&] { bipartite_adjacency(bad); }, "graph::bipartite_adjacency", "adjacency");
  }
  Graph large = a;
  large.valuePtr()[0] = large.valuePtr()[1] = 1.7e308;
  refusal([&] { normalized_adjacency(large); }, name, "adjacency");
  a.innerIndexPtr()[0] = -1;
  refusal([&] { normalized_adjacency(a); }, name, "adjacency");
}

}  // namespace
}  // namespace graph_normalized_adjacency_test
