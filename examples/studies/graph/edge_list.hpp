// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Edge lists: `node node [weight]` a line, undirected.

#include "graph/column_reader.hpp"
#include "graph/node_names.hpp"

#include <Eigen/SparseCore>

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graph {

using Adjacency = Eigen::SparseMatrix<float, Eigen::RowMajor>;

/// An undirected graph. A self loop stands once on the diagonal and is one edge.
struct Graph {
  Adjacency adjacency;  ///< symmetric, [nodes x nodes]
  NodeNames nodes;      ///< name of each row
  bool weighted = false;
  std::size_t edges = 0;       ///< distinct, self loops included
  std::size_t self_loops = 0;  ///< distinct
  std::size_t repeats = 0;     ///< lines that named an edge again, in either direction
};

namespace detail {

inline float parse_weight(const ColumnReader& reader, std::string_view column) {
  const std::string quoted = "weight '" + std::string(column) + "'";
  char* end = nullptr;
  const double weight = std::strtod(column.data(), &end);
  if (end != column.data() + column.size()) reader.fail(quoted + " is not a number");
  if (!(weight >= 0 && weight <= double{std::numeric_limits<float>::max()}))
    reader.fail(quoted + " is not a finite number of at least 0");
  return static_cast<float>(weight);
}

/// Reads the lines into (row, column, weight), each edge once.
inline std::vector<Eigen::Triplet<float>> read_triplets(ColumnReader& reader, Graph& graph) {
  std::vector<Eigen::Triplet<float>> edges;
  while (reader.next()) {
    const auto& columns = reader.columns();
    if (columns.size() < 2) reader.fail("one column, wanted: node node [weight]");
    if (columns.size() > 3)
      reader.fail(std::to_string(columns.size()) + " columns, wanted: node node [weight]");
    const bool weighted = columns.size() == 3;
    if (edges.empty()) graph.weighted = weighted;
    if (weighted != graph.weighted)
      reader.fail(weighted ? "a weight, and the edges before have none"
                           : "no weight, and the edges before have one");
    if (edges.size() == std::numeric_limits<int>::max() / 2)
      reader.fail("more edges than a 32-bit index can hold");
    const int u = graph.nodes.number(columns[0]);
    const int v = graph.nodes.number(columns[1]);
    edges.emplace_back(u, v, weighted ? parse_weight(reader, columns[2]) : 1.0f);
  }
  if (edges.empty()) throw InputError(reader.path() + ": no edge in the file");
  return edges;
}

}  // namespace detail

/// Reads an undirected graph from a file of lines `node node [weight]`.
///
/// Columns, comments and blank lines are those of ColumnReader. Nodes are any words; rows are in
/// the order of their values if all are whole numbers, else in order of first appearance. An edge
/// named again counts once without weights and adds up with them. Throws InputError at the first
/// line that is not an edge. Cost: O(edges log nodes).
inline Graph read_edge_list(const std::string& path) {
  Graph graph;
  ColumnReader reader(path);
  std::vector<Eigen::Triplet<float>> edges = detail::read_triplets(reader, graph);
  const std::size_t lines = edges.size();
  const std::vector<int> renumbered = graph.nodes.sort_whole_numbers();
  edges.reserve(2 * lines);
  for (std::size_t i = 0; i < lines; ++i) {
    int u = edges[i].row(), v = edges[i].col();
    if (!renumbered.empty()) {
      u = renumbered[static_cast<std::size_t>(u)];
      v = renumbered[static_cast<std::size_t>(v)];
    }
    edges[i] = {u, v, edges[i].value()};
    if (u != v) edges.emplace_back(v, u, edges[i].value());
  }
  const auto nodes = static_cast<Eigen::Index>(graph.nodes.size());
  graph.adjacency.resize(nodes, nodes);
  const bool weighted = graph.weighted;
  graph.adjacency.setFromTriplets(edges.begin(), edges.end(),
                                  [weighted](float a, float b) { return weighted ? a + b : 1.0f; });
  for (Eigen::Index u = 0; u < nodes; ++u)
    for (Adjacency::InnerIterator entry(graph.adjacency, u); entry; ++entry)
      graph.self_loops += entry.col() == u ? 1u : 0u;
  graph.edges = (static_cast<std::size_t>(graph.adjacency.nonZeros()) + graph.self_loops) / 2;
  graph.repeats = lines - graph.edges;
  return graph;
}

}  // namespace graph
