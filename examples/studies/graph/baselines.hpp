// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What an embedding has to be measured against.

#include "graph/classify.hpp"
#include "graph/edge_list.hpp"

#include <Eigen/SparseCore>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace graph {

/// The most frequent class among the train nodes, for every node.
inline std::vector<int> predict_majority(const std::vector<int>& label, int classes,
                                         const Split& split) {
  std::vector<int> count(static_cast<std::size_t>(classes));
  for (const int u : split.train)
    ++count[static_cast<std::size_t>(label[static_cast<std::size_t>(u)])];
  const auto most = std::max_element(count.begin(), count.end()) - count.begin();
  return std::vector<int>(split.test.size(), static_cast<int>(most));
}

/// Vectors that know nothing of the graph: entries uniform in [-1, 1), the same for the same seed.
inline Vectors random_vectors(Eigen::Index nodes, Eigen::Index dim, std::uint64_t seed) {
  std::mt19937 bits(static_cast<std::mt19937::result_type>(seed));
  Vectors x(nodes, dim);
  for (Eigen::Index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<float>(bits() >> 8) * 0x1p-23f - 1.0f;
  return x;
}

/// Label propagation (Zhu and Ghahramani, 2002): every node takes the weighted mean of its
/// neighbours' class shares, train nodes keep their own class. It sees the train labels in the
/// graph, which an embedding does not. Cost: O(steps * edges * classes).
inline std::vector<int> propagate_labels(const Adjacency& adjacency, const std::vector<int>& label,
                                         int classes, const Split& split, int steps = 20) {
  const Vectors own = Vectors::Identity(classes, classes);
  const Eigen::VectorXf degree = adjacency * Eigen::VectorXf::Ones(adjacency.cols());
  const Eigen::VectorXf inverse = (degree.array() > 0).select(degree.cwiseInverse(), 0.0f);
  Vectors share = Vectors::Zero(adjacency.rows(), classes);
  for (int step = 0; step <= steps; ++step) {
    if (step > 0) share = inverse.asDiagonal() * (adjacency * share).eval();
    for (const int u : split.train) share.row(u) = own.row(label[static_cast<std::size_t>(u)]);
  }
  std::vector<int> predicted = predict_majority(label, classes, split);
  for (std::size_t i = 0; i < split.test.size(); ++i) {
    Eigen::Index best = 0;
    if (share.row(split.test[i]).maxCoeff(&best) > 0) predicted[i] = static_cast<int>(best);
  }
  return predicted;
}

}  // namespace graph
