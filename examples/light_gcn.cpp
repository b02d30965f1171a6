// SPDX-License-Identifier: Apache-2.0
// LightGCN smooths embeddings over the graph of users and items: users come closer to items that
// similar users chose. Prints the share of users whose own group's unseen items score best: 1.

#include <pare/graph/light_gcn.hpp>
#include <pare/graph/normalized_adjacency.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cstdio>
#include <random>
#include <vector>

int main() {
  constexpr int users = 200, items = 120, groups = 4, dim = 64;  // user u likes items of u % 4
  std::mt19937 bits(7);
  std::vector<Eigen::Triplet<float>> chosen;
  for (int u = 0; u < users; ++u)
    for (int i = 0; i < items; ++i)
      if (u % groups == i % groups && bits() % 5 == 0) chosen.emplace_back(u, i, 1.0f);
  Eigen::SparseMatrix<float, Eigen::RowMajor> likes(users, items);
  likes.setFromTriplets(chosen.begin(), chosen.end());

  // Random embeddings know nothing; the graph alone brings the groups together.
  std::normal_distribution<float> normal;
  pare::RowMatrix<float> start(users + items, dim);
  for (Eigen::Index i = 0; i < start.size(); ++i) start.data()[i] = normal(bits);
  const auto graph = pare::graph::normalized_adjacency(pare::graph::bipartite_adjacency(likes));
  const auto smooth =
      pare::graph::light_gcn(graph, start, {.weights = {0, 0, 0, 0.25, 0.25, 0.25, 0.25}});

  const Eigen::MatrixXf scores = smooth.topRows(users) * smooth.bottomRows(items).transpose();
  int right = 0;
  for (int u = 0; u < users; ++u) {
    Eigen::Vector4f of_group = Eigen::Vector4f::Zero();
    for (int i = 0; i < items; ++i)
      if (likes.coeff(u, i) == 0.0f) of_group(i % groups) += scores(u, i);
    Eigen::Index best = 0;
    of_group.maxCoeff(&best);
    right += best == u % groups ? 1 : 0;
  }
  std::printf("users whose own group's unseen items score best: %.3f\n", double(right) / users);
  return right > 0.97 * users ? 0 : 1;
}
