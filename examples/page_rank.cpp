// SPDX-License-Identifier: Apache-2.0
// Personalised PageRank of two nodes of a path. Prints a score that can be checked by hand: on a
// path of three nodes, a walk from the first that ends with chance .15 at each node ends where it
// started with chance .34527.

#include <pare/graph/page_rank.hpp>

#include <Eigen/SparseCore>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  Eigen::SparseMatrix<float, Eigen::RowMajor> path(3, 3);
  path.insert(0, 1) = path.insert(1, 0) = path.insert(1, 2) = path.insert(2, 1) = 1.0f;

  const pare::graph::PageRankGraph graph(path);  // once; then any number of batches
  const std::vector<pare::Index> sources{0, 1};
  const auto scores = pare::graph::personalized_page_rank(graph, sources, {.restart = 0.15});
  const auto all = pare::graph::page_rank(graph);

  for (pare::Index v = 0; v < 3; ++v)
    std::printf("node %d: %.5f from 0, %.5f from 1, %.5f from anywhere\n", static_cast<int>(v),
                double(scores(v, 0)), double(scores(v, 1)), double(all(v, 0)));
  return std::abs(double(scores(0, 0)) - 0.34527027) < 1e-5 ? 0 : 1;
}
