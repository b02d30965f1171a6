// SPDX-License-Identifier: Apache-2.0
// FastRP embeds the nodes of a graph: those of one community come to lie near each other.
// Prints the share of nodes whose nearest centre is that of their own community: 1.

#include <pare/graph/fast_rp.hpp>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cstdio>
#include <random>
#include <vector>

int main() {
  constexpr int nodes = 400, communities = 4;  // node u belongs to community u % 4
  std::mt19937 bits(7);
  std::uniform_real_distribution<double> chance(0, 1);
  std::vector<Eigen::Triplet<float>> edges;
  for (int u = 0; u < nodes; ++u)
    for (int v = 0; v < u; ++v)
      if (chance(bits) < (u % communities == v % communities ? 0.2 : 0.01)) {
        edges.emplace_back(u, v, 1.0f);
        edges.emplace_back(v, u, 1.0f);
      }
  Eigen::SparseMatrix<float, Eigen::RowMajor> adjacency(nodes, nodes);
  adjacency.setFromTriplets(edges.begin(), edges.end());

  const auto embedding =
      pare::graph::fast_rp(adjacency, {.dim = 64, .weights = {0, 0, 1, 2}, .seed = 7});

  Eigen::MatrixXf centres = Eigen::MatrixXf::Zero(communities, 64);
  for (int u = 0; u < nodes; ++u) centres.row(u % communities) += embedding.row(u);
  centres /= float(nodes) / communities;
  int right = 0;
  for (int u = 0; u < nodes; ++u) {
    Eigen::Index nearest = 0;
    (centres.rowwise() - embedding.row(u)).rowwise().squaredNorm().minCoeff(&nearest);
    right += nearest == u % communities ? 1 : 0;
  }
  const double share = double(right) / nodes;
  std::printf("nodes nearest to the centre of their own community: %.3f\n", share);
  return share > 0.97 ? 0 : 1;
}
