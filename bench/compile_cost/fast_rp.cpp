// SPDX-License-Identifier: Apache-2.0
#include <pare/graph/fast_rp.hpp>

#include <Eigen/SparseCore>

int main() {
  Eigen::SparseMatrix<float, Eigen::RowMajor> adjacency(10, 10);
  adjacency.insert(0, 1) = 1;
  const auto embedding = pare::graph::fast_rp(adjacency, {.dim = 4, .seed = 7});
  return embedding.rows() == 10 ? 0 : 1;
}
