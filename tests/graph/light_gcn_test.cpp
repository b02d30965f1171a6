// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <limits>
#include <string>
#include <vector>

#include <pare/graph/light_gcn.hpp>
#include <pare/graph/normalized_adjacency.hpp>

#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace graph_light_gcn_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::graph::AdjacencyNorm;
using pare::graph::bipartite_adjacency;
using pare::graph::light_gcn;
using pare::graph::normalized_adjacency;
using pare::testing::equal_bits;
using pare::testing::random_matrix;
using pare::testing::refusal;

template <class T>
using Graph = Eigen::SparseMatrix<T, Eigen::RowMajor>;

template <class T>
Graph<T> graph_of(const Eigen::MatrixXd& dense) {
  return pare::testing::sparse_of<Graph<T>>(dense);
}

/// sum_k w_k A^k E by dense products.
Eigen::MatrixXd polynomial(const Eigen::MatrixXd& a, const Eigen::MatrixXd& start,
                           const std::vector<double>& weights) {
  Eigen::MatrixXd power = start, sum = weights[0] * start;
  for (std::size_t k = 1; k < weights.size(); ++k) {
    power = (a * power).eval();
    sum += weights[k] * power;
  }
  return sum;
}

template <class Case>
struct LightGcn : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(LightGcn, pare::testing::BackendsAndScalars);

TYPED_TEST(LightGcn, IsThePolynomialOfTheMatrix) {
  using T = typename TypeParam::scalar;
  const Graph<T> a = normalized_adjacency(graph_of<T>(pare::testing::random_graph(131, 6, true, 5)),
                                          {.norm = AdjacencyNorm::Rows});
  const Eigen::MatrixXd dense = Eigen::MatrixXd(a.template cast<double>());
  for (const std::vector<double>& weights : {std::vector<double>{2},
                                             {0.5, 3},
                                             {1, 0, -2},
                                             {0, 0, 0, 1},
                                             {0.25, 0.25, 0.25, 0.25},
                                             {0.1, 0.2, 0.3, 0.4, 0.5},
                                             {1, 2, 0, 0}})
    for (const Index dim : {1, 7, 64, 83}) {
      const auto start = random_matrix<RowMatrix<T>>(131, dim, 3);
      const RowMatrix<T> got = light_gcn(this->backend(), a, start, {.weights = weights});
      const Eigen::MatrixXd wanted = polynomial(dense, start.template cast<double>(), weights);
      // Rows of P add up to 1: entries stay below the sum of weights, of at most 5 roundings a sum.
      double size = 0;
      for (const double w : weights) size += std::abs(w);
      EXPECT_LE((got.template cast<double>() - wanted).cwiseAbs().maxCoeff(),
                size * 64 * static_cast<double>(std::numeric_limits<T>::epsilon()))
          << weights.size() << " weights, dim " << dim;
    }
}

TYPED_TEST(LightGcn, GoldenOfTwoUsersAndTwoItems) {
  using T = typename TypeParam::scalar;
  Eigen::MatrixXd r(2, 2);
  r << 1, 1, 0, 1;
  RowMatrix<T> start(4, 2), wanted(4, 2);
  start << 1, 0, 0, 1, 1, 1, -1, 1;
  wanted << T(.60355339), T(.60355339), T(-.35355339), T(.85355339), T(.85355339), T(.5), T(-.25),
      T(.85355339);
  const Graph<T> a = normalized_adjacency(bipartite_adjacency(graph_of<T>(r)));
  EXPECT_TRUE(
      light_gcn(this->backend(), a, start, {.weights = {.5, .5}}).isApprox(wanted, T(1e-7)));
}

TYPED_TEST(LightGcn, StridedRowsGiveTheSameBits) {
  using T = typename TypeParam::scalar;
  const Graph<T> a = graph_of<T>(pare::testing::random_graph(70, 4, true, 8));
  const auto start = random_matrix<RowMatrix<T>>(70, 23, 3);
  const RowMatrix<T> wanted = light_gcn(this->backend(), a, start);
  RowMatrix<T> wide = RowMatrix<T>::Constant(70, 30, T(-7)), out = wide;
  wide.leftCols(23) = start;
  light_gcn(this->backend(), a, wide.leftCols(23), out.leftCols(23), {});
  EXPECT_TRUE(equal_bits(RowMatrix<T>(out.leftCols(23)), wanted));
  EXPECT_TRUE((out.rightCols(7).array() == T(-7)).all());
}

TEST(LightGcnFast, SameBitsForAnyThreads) {
  const Graph<float> a = graph_of<float>(pare::testing::random_graph(400, 5, true, 8));
  const auto start = random_matrix<RowMatrix<float>>(400, 33, 3);
  pare::testing::same_bits_for_any_threads(
      pare::simd, [&](const auto& backend) { return light_gcn(backend, a, start); });
}

/// <G, f(E)> = <f^T(G), E>: the backward pass of a directed graph runs over its transpose.
TEST(LightGcnFast, TransposeIsTheBackwardPass) {
  const pare::testing::RawSparse<double> raw =
      pare::testing::ragged_sparse<double>(90, 90, 4, 0, pare::testing::uniform);
  const Graph<double> a = graph_of<double>(raw.dense()), transposed = a.transpose();
  const auto start = random_matrix<RowMatrix<double>>(90, 12, 3);
  const auto gradient = random_matrix<RowMatrix<double>>(90, 12, 4);
  const double forward = light_gcn(a, start).cwiseProduct(gradient).sum();
  const double backward = light_gcn(transposed, gradient).cwiseProduct(start).sum();
  EXPECT_NEAR(forward, backward, 1e-11 * start.norm() * gradient.norm() * 100);
}

TEST(LightGcnFast, RelabelledNodesAreRelabelledRows) {
  const Eigen::MatrixXd dense = pare::testing::random_graph(60, 5, false, 2);
  Eigen::PermutationMatrix<Eigen::Dynamic> p(60);
  for (int i = 0; i < 60; ++i) p.indices()[i] = (7 * i + 3) % 60;
  const auto start = random_matrix<RowMatrix<double>>(60, 8, 3);
  const RowMatrix<double> moved = p * start;
  const RowMatrix<double> wanted = p * light_gcn(graph_of<double>(dense), start);
  EXPECT_TRUE(
      light_gcn(graph_of<double>(p * dense * p.transpose()), moved).isApprox(wanted, 1e-13));
}

TEST(LightGcnFast, NodesWithoutEdgesKeepTheirOwnShare) {
  Graph<float> a(5, 5);
  const auto start = random_matrix<RowMatrix<float>>(5, 3, 3);
  EXPECT_TRUE(equal_bits(light_gcn(a, start), RowMatrix<float>(start * 0.25f)));
  EXPECT_EQ(light_gcn(Graph<float>(0, 0), RowMatrix<float>(0, 3)).rows(), 0);
}

TEST(LightGcnFast, NotANumberReachesItsNeighboursOnly) {
  Eigen::MatrixXd dense = Eigen::MatrixXd::Zero(4, 4);
  dense(0, 1) = dense(1, 0) = dense(2, 3) = dense(3, 2) = 1;
  RowMatrix<float> start = RowMatrix<float>::Ones(4, 2);
  start(0, 1) = std::numeric_limits<float>::quiet_NaN();
  const auto got = light_gcn(graph_of<float>(dense), start);
  EXPECT_TRUE(got(0, 1) != got(0, 1) && got(1, 1) != got(1, 1));
  EXPECT_TRUE((got.col(0).array() == 1.0f).all() && got(2, 1) == 1.0f && got(3, 1) == 1.0f);
}

TEST(LightGcnFast, AllocatesNothingOnceItsWorkspaceHasGrown) {
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const Graph<float> a = graph_of<float>(pare::testing::random_graph(70, 4, true, 8));
  const auto start = random_matrix<RowMatrix<float>>(70, 23, 3);
  RowMatrix<float> out(70, 23);
  const pare::graph::LightGcnOptions options;
  light_gcn(backend, a, start, out, options);
  const auto before = pare::testing::allocations.load();
  light_gcn(backend, a, start, out, options);
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(LightGcnErrors, BadCallsAreRefusedBeforeAnythingIsWritten) {
  const std::string name = "graph::light_gcn";
  const Graph<float> a = graph_of<float>(pare::testing::random_graph(9, 3, true, 8));
  const auto start = random_matrix<RowMatrix<float>>(9, 4, 3);
  RowMatrix<float> out = random_matrix<RowMatrix<float>>(9, 4, 6);
  const auto expect_bad = [&](const std::string& argument, const auto& call) {
    pare::testing::refuses_and_leaves_alone(call, name, argument, out);
  };
  const auto& b = pare::reference;
  expect_bad("adjacency", [&] { light_gcn(b, Graph<float>(9, 8), start, out, {}); });
  expect_bad("weights", [&] { light_gcn(b, a, start, out, {.weights = {}}); });
  for (const double w :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1e39})
    expect_bad("weights", [&] { light_gcn(b, a, start, out, {.weights = {1, w}}); });
  expect_bad("start", [&] { light_gcn(b, a, start.topRows(8), out, {}); });
  expect_bad("out", [&] { light_gcn(b, a, start.leftCols(3), out, {}); });
  expect_bad("out", [&] { light_gcn(b, a, out, out, {}); });
  Graph<float> bad = a;
  bad.innerIndexPtr()[3] = 9;
  expect_bad("adjacency", [&] { light_gcn(b, bad, start, out, {}); });
  Graph<float> read = a;
  const pare::TensorView<float, 2> over{read.valuePtr(), {9, 1}, {1, 1}};
  refusal([&] { light_gcn(b, read, start.leftCols(1), over, {}); }, name, "out");
  const Eigen::MatrixXf by_columns = start;
  expect_bad("start", [&] { light_gcn(b, a, by_columns, out, {}); });
}

}  // namespace
}  // namespace graph_light_gcn_test
