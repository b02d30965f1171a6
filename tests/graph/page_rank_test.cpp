// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/LU>
#include <Eigen/SparseCore>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <pare/graph/page_rank.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace graph_page_rank_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::graph::Dangling;
using pare::graph::page_rank;
using pare::graph::PageRankGraph;
using pare::graph::PageRankOptions;
using pare::graph::personalized_page_rank;
using pare::testing::random_matrix;

template <class T>
using Graph = Eigen::SparseMatrix<T, Eigen::RowMajor>;

/// Directed, weighted, some nodes without edges out.
Eigen::MatrixXd directed(Index nodes) {
  Eigen::MatrixXd a = pare::testing::ragged_sparse<double>(nodes, nodes, 4, 0, [](auto& random) {
                        return 1 + static_cast<double>(random() % 5);
                      }).dense();
  a.row(nodes / 2).setZero();
  return a;
}

/// p of a restart vector e, by a solver: (I - (1 - c) P^T) p = c e, with dangling rows of P filled
/// in as the rule says.
Eigen::VectorXd solved(const Eigen::MatrixXd& a, const Eigen::VectorXd& e, double c,
                       Dangling rule) {
  const Index n = a.rows();
  Eigen::MatrixXd p = Eigen::MatrixXd::Zero(n, n);
  for (Index u = 0; u < n; ++u) {
    if (a.row(u).sum() > 0)
      p.row(u) = a.row(u) / a.row(u).sum();
    else if (rule == Dangling::Restart)
      p.row(u) = e.transpose();
    else if (rule == Dangling::Stay)
      p(u, u) = 1;
  }
  const Eigen::MatrixXd system = Eigen::MatrixXd::Identity(n, n) - (1 - c) * p.transpose();
  return system.partialPivLu().solve(c * e);
}

template <class Case>
struct PageRank : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(PageRank, pare::testing::BackendsAndScalars);

TYPED_TEST(PageRank, SolvesTheLinearSystem) {
  using T = typename TypeParam::scalar;
  const Eigen::MatrixXd a = directed(97);
  const PageRankGraph graph(pare::testing::sparse_of<Graph<T>>(a));
  EXPECT_EQ(graph.nodes(), 97);
  EXPECT_GE(graph.dangling().size(), 2u);
  std::vector<Index> sources;
  for (Index j = 0; j < 21; ++j) sources.push_back((j * 31) % 97);
  for (const Dangling rule : {Dangling::Restart, Dangling::Stay, Dangling::Leak})
    for (const double c : {0.15, 0.7}) {
      const PageRankOptions options{.restart = c, .tolerance = 1e-7, .dangling = rule};
      RowMatrix<T> scores = random_matrix<RowMatrix<T>>(97, 21, 3);
      const auto report = personalized_page_rank(this->backend(), graph, sources, scores, options);
      EXPECT_LE(report.error_bound, 1e-7);
      for (Index j = 0; j < 21; ++j) {
        const Eigen::VectorXd e = Eigen::VectorXd::Unit(97, sources[static_cast<std::size_t>(j)]);
        const double error =
            (scores.col(j).template cast<double>() - solved(a, e, c, rule)).template lpNorm<1>();
        // Each step rounds p once, and forgets (1 - c) of that: 1 / c roundings of sums of 9.
        EXPECT_LE(error, 1e-7 + 12 / c * static_cast<double>(std::numeric_limits<T>::epsilon()))
            << static_cast<int>(rule) << ' ' << j;
      }
      RowMatrix<T> all(97, 1);
      page_rank(this->backend(), graph, all, options);
      EXPECT_LE((all.col(0).template cast<double>() -
                 solved(a, Eigen::VectorXd::Constant(97, 1.0 / 97), c, rule))
                    .template lpNorm<1>(),
                1e-7 + 12 / c * static_cast<double>(std::numeric_limits<T>::epsilon()));
    }
}

TYPED_TEST(PageRank, GoldensOfAPathAndAChain) {
  using T = typename TypeParam::scalar;
  const auto scores_of = [&](const Eigen::MatrixXd& a, const std::vector<Index>& sources,
                             Dangling rule) {
    RowMatrix<T> scores(3, static_cast<Index>(sources.size()));
    personalized_page_rank(this->backend(), PageRankGraph(pare::testing::sparse_of<Graph<T>>(a)),
                           sources, scores, {.tolerance = 1e-12, .dangling = rule});
    return RowMatrix<T>(scores.transpose());
  };
  Eigen::MatrixXd path(3, 3), chain(3, 3);
  path << 0, 1, 0, 1, 0, 1, 0, 1, 0;
  chain << 0, 1, 0, 0, 0, 1, 0, 0, 0;
  RowMatrix<T> wanted(3, 3);
  wanted << T(.34527027), T(.45945946), T(.19527027), T(.22972973), T(.54054054), T(.22972973),
      T(.19527027), T(.45945946), T(.34527027);
  EXPECT_TRUE(scores_of(path, {0, 1, 2}, Dangling::Restart).isApprox(wanted, T(1e-6)));
  RowMatrix<T> kept(1, 3), restarted(2, 3);
  kept << T(.15), T(.1275), T(.7225);
  restarted << T(.38872692), T(.33041788), T(.2808552), T(0), T(.54054054), T(.45945946);
  EXPECT_TRUE(scores_of(chain, {0}, Dangling::Stay).isApprox(kept, T(1e-6)));
  EXPECT_TRUE(scores_of(chain, {0, 1}, Dangling::Restart).isApprox(restarted, T(1e-6)));
  const RowMatrix<T> lost = scores_of(chain, {0, 1, 2}, Dangling::Leak);
  EXPECT_NEAR(static_cast<double>(lost.row(0).sum()), .385875, 1e-6);
  EXPECT_NEAR(static_cast<double>(lost.row(1).sum()), .2775, 1e-6);
  EXPECT_NEAR(static_cast<double>(lost.row(2).sum()), .15, 1e-6);
}

TEST(PageRankFast, ScoresAreChancesThatAddUp) {
  const PageRankGraph graph(pare::testing::sparse_of<Graph<float>>(directed(300)));
  const std::vector<Index> sources{0, 150, 299, 150};
  const auto scores = personalized_page_rank(graph, sources, {.tolerance = 1e-6});
  for (Index j = 0; j < 4; ++j) {
    EXPECT_NEAR(static_cast<double>(scores.col(j).sum()), 1, 1e-5);
    EXPECT_GE(scores.col(j).minCoeff(), 0.0f);
    EXPECT_GE(scores(sources[static_cast<std::size_t>(j)], j), 0.15f * (1 - 1e-6f));
  }
  EXPECT_TRUE(scores.col(1) == scores.col(3));
}

/// d_u p_u(v) = d_v p_v(u) where edges run both ways.
TEST(PageRankFast, UndirectedGraphsAreSymmetricByDegree) {
  const Eigen::MatrixXd a = pare::testing::random_graph(40, 4, true, 3);
  std::vector<Index> all(40);
  for (Index u = 0; u < 40; ++u) all[static_cast<std::size_t>(u)] = u;
  const auto p = personalized_page_rank(PageRankGraph(pare::testing::sparse_of<Graph<double>>(a)),
                                        all, {.tolerance = 1e-12, .dangling = Dangling::Stay});
  const Eigen::VectorXd degree = a.rowwise().sum();
  for (Index u = 0; u < 40; ++u)
    for (Index v = 0; v < 40; ++v) EXPECT_NEAR(degree(u) * p(v, u), degree(v) * p(u, v), 1e-10);
}

TEST(PageRankFast, SameBitsForAnyThreads) {
  Eigen::MatrixXd a = directed(500);
  a.bottomRows(40).setZero();
  const PageRankGraph graph(pare::testing::sparse_of<Graph<float>>(a));
  const std::vector<Index> sources{3, 499, 7};
  for (const Dangling rule : {Dangling::Restart, Dangling::Stay})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      RowMatrix<float> scores(500, 3);
      personalized_page_rank(backend, graph, sources, scores, {.dangling = rule});
      return scores;
    });
}

/// More of them than one worker looks at: walks go from node 0 to all others and start again.
TEST(PageRankFast, ManyDanglingNodesGiveTheirWalksBack) {
  constexpr Index nodes = 9001;
  std::vector<Eigen::Triplet<float>> edges;
  for (int v = 1; v < nodes; ++v) edges.emplace_back(0, v, 1.0f);
  Graph<float> star(nodes, nodes);
  star.setFromTriplets(edges.begin(), edges.end());
  const auto scores =
      personalized_page_rank(PageRankGraph(star), std::vector<Index>{0}, {.tolerance = 1e-7});
  // p_0 = c + (1 - c) (1 - p_0), the others share the rest.
  const double first = 1 / 1.85;
  EXPECT_NEAR(static_cast<double>(scores(0, 0)), first, 1e-5);
  EXPECT_NEAR(static_cast<double>(scores(nodes - 1, 0)), (1 - first) / (nodes - 1), 1e-9);
}

TEST(PageRankFast, EmptyBatchesAndGraphsAndLooseTolerances) {
  const PageRankGraph graph(pare::testing::sparse_of<Graph<float>>(directed(20)));
  EXPECT_EQ(personalized_page_rank(graph, {}).cols(), 0);
  EXPECT_EQ(page_rank(PageRankGraph(Graph<float>(0, 0))).rows(), 0);
  const auto start = personalized_page_rank(graph, std::vector<Index>{4}, {.tolerance = 2});
  EXPECT_TRUE(start.col(0) == Eigen::VectorXf::Unit(20, 4));
}

TEST(PageRankFast, WeightsAtTheEndsOfTheRange) {
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(4, 4);
  a(0, 1) = a(0, 2) = 3e38;
  a(1, 0) = 1e-45;
  a(2, 3) = a(3, 0) = 1;
  const auto scores =
      personalized_page_rank(PageRankGraph(pare::testing::sparse_of<Graph<float>>(a)),
                             std::vector<Index>{0}, {.tolerance = 1e-7});
  Eigen::MatrixXd like = (a.array() > 0).cast<double>();
  const Eigen::VectorXd wanted = solved(like, Eigen::VectorXd::Unit(4, 0), .15, Dangling::Restart);
  EXPECT_TRUE(scores.col(0).cast<double>().isApprox(wanted, 1e-5));
}

TEST(PageRankErrors, BadCallsAreRefusedBeforeAnythingIsWritten) {
  const std::string name = "graph::personalized_page_rank";
  Graph<float> a = pare::testing::sparse_of<Graph<float>>(directed(20));
  const PageRankGraph graph(a);
  RowMatrix<float> out = random_matrix<RowMatrix<float>>(20, 2, 6);
  const std::vector<Index> good{0, 19};
  const auto expect_bad = [&](const std::string& argument, const auto& call) {
    pare::testing::refuses_and_leaves_alone(call, name, argument, out);
  };
  const auto& b = pare::reference;
  for (const Index s : {Index{-1}, Index{20}})
    expect_bad("sources",
               [&] { personalized_page_rank(b, graph, std::vector<Index>{0, s}, out, {}); });
  for (const double c : {0.0, 1.0, -.1, std::numeric_limits<double>::quiet_NaN()})
    expect_bad("restart", [&] { personalized_page_rank(b, graph, good, out, {.restart = c}); });
  for (const double t : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()})
    expect_bad("tolerance", [&] { personalized_page_rank(b, graph, good, out, {.tolerance = t}); });
  expect_bad("tolerance", [&] { personalized_page_rank(b, graph, good, out, {.restart = 1e-9}); });
  expect_bad("scores", [&] { personalized_page_rank(b, graph, good, out.leftCols(1), {}); });
  expect_bad("scores", [&] { personalized_page_rank(b, graph, good, out.topRows(19), {}); });
  Eigen::MatrixXf by_columns(20, 2);
  pare::testing::refusal([&] { personalized_page_rank(b, graph, good, by_columns, {}); }, name,
                         "scores");
  pare::testing::refusal([&] { PageRankGraph<float, int>{Graph<float>(3, 4)}; },
                         "graph::PageRankGraph", "adjacency");
  a.valuePtr()[2] = -1;
  pare::testing::refusal([&] { PageRankGraph<float, int>{a}; }, "graph::normalized_adjacency",
                         "adjacency");
}

}  // namespace
}  // namespace graph_page_rank_test
