// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a graph looks like, in one paragraph.

#include "graph/edge_list.hpp"
#include "graph/labels.hpp"

#include <Eigen/SparseCore>

#include <algorithm>
#include <cstddef>
#include <ostream>
#include <vector>

namespace graph {

/// Neighbours of each node; a self loop counts once.
inline std::vector<int> degrees(const Adjacency& adjacency) {
  std::vector<int> degree(static_cast<std::size_t>(adjacency.rows()));
  for (Eigen::Index u = 0; u < adjacency.rows(); ++u)
    degree[static_cast<std::size_t>(u)] = static_cast<int>(adjacency.row(u).nonZeros());
  return degree;
}

/// Number of connected components. Cost: O(nodes + edges).
inline std::size_t count_components(const Adjacency& adjacency) {
  std::vector<bool> seen(static_cast<std::size_t>(adjacency.rows()));
  std::vector<Eigen::Index> open;
  std::size_t components = 0;
  for (Eigen::Index start = 0; start < adjacency.rows(); ++start) {
    if (seen[static_cast<std::size_t>(start)]) continue;
    ++components;
    seen[static_cast<std::size_t>(start)] = true;
    open.push_back(start);
    while (!open.empty()) {
      const Eigen::Index u = open.back();
      open.pop_back();
      for (Adjacency::InnerIterator entry(adjacency, u); entry; ++entry) {
        if (seen[static_cast<std::size_t>(entry.col())]) continue;
        seen[static_cast<std::size_t>(entry.col())] = true;
        open.push_back(entry.col());
      }
    }
  }
  return components;
}

/// Share of the edges between labelled nodes whose two ends have the same label; 0 if there is
/// none.
inline double homophily(const Adjacency& adjacency, const std::vector<int>& label) {
  double same = 0, all = 0;
  for (Eigen::Index u = 0; u < adjacency.rows(); ++u)
    for (Adjacency::InnerIterator entry(adjacency, u); entry; ++entry) {
      const int a = label[static_cast<std::size_t>(u)];
      const int b = label[static_cast<std::size_t>(entry.col())];
      if (a < 0 || b < 0 || u == entry.col()) continue;
      all += 1;
      same += a == b ? 1 : 0;
    }
  return all > 0 ? same / all : 0;
}

inline void describe(std::ostream& out, const Graph& graph) {
  std::vector<int> degree = degrees(graph.adjacency);
  const auto middle = degree.begin() + static_cast<std::ptrdiff_t>(degree.size() / 2);
  std::nth_element(degree.begin(), middle, degree.end());
  out << "graph       " << graph.nodes.size() << " nodes, " << graph.edges << " undirected "
      << (graph.weighted ? "weighted " : "") << "edges, " << count_components(graph.adjacency)
      << " component(s)\n            degree mean "
      << static_cast<double>(graph.adjacency.nonZeros()) / static_cast<double>(degree.size())
      << ", median " << *middle << ", max " << *std::max_element(middle, degree.end()) << '\n';
  if (graph.self_loops > 0) out << "            " << graph.self_loops << " self loops, kept\n";
  if (graph.repeats > 0)
    out << "            " << graph.repeats << " lines named an edge again, in either direction: "
        << (graph.weighted ? "their weights were added\n" : "counted once\n");
}

inline void describe(std::ostream& out, const Labels& labels, const Adjacency& adjacency) {
  out << "labels      " << labels.classes.size() << " classes on " << labels.labelled_nodes().size()
      << " nodes, edge homophily " << homophily(adjacency, labels.of_node) << '\n';
  if (const std::size_t n = labels.count(Labels::several); n > 0)
    out << "            " << n << " nodes with several labels are left out\n";
  if (labels.nodes_unknown > 0)
    out << "            " << labels.nodes_unknown
        << " lines name nodes that are not in the graph\n";
}

}  // namespace graph
