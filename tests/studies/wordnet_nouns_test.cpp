// SPDX-License-Identifier: Apache-2.0

#include "graph/edge_list.hpp"
#include "graph/labels.hpp"
#include "graph/statistics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

namespace studies_wordnet_nouns_test {
namespace {

/// The figures that the README beside the data states.
TEST(WordNetNouns, HoldWhatTheyAreSaidToHold) {
  const auto folder = std::filesystem::path(PARE_EXAMPLES_DATA) / "wordnet_nouns";
  const graph::Graph graph = graph::read_edge_list((folder / "edges.txt").string());
  const graph::Labels labels = graph::read_labels((folder / "labels.txt").string(), graph.nodes);

  EXPECT_EQ(graph.nodes.size(), 82115u);
  EXPECT_EQ(graph.edges, 106614u);
  EXPECT_EQ(graph.self_loops, 0u);
  EXPECT_EQ(graph.repeats, 0u);
  EXPECT_FALSE(graph.weighted);
  EXPECT_EQ(graph::count_components(graph.adjacency), 1u);
  EXPECT_EQ(std::ranges::max(graph::degrees(graph.adjacency)), 671);

  EXPECT_EQ(labels.classes.size(), 26u);
  EXPECT_EQ(labels.nodes_unknown, 0u);
  EXPECT_EQ(labels.labelled_nodes().size(), 82115u);
  std::vector<std::size_t> nodes_of_class;
  for (int c = 0; c < 26; ++c) nodes_of_class.push_back(labels.count(c));
  EXPECT_NEAR(static_cast<double>(std::ranges::max(nodes_of_class)) / 82115, 0.141, 5e-4);
  EXPECT_NEAR(graph::homophily(graph.adjacency, labels.of_node), 0.943, 5e-4);
}

}  // namespace
}  // namespace studies_wordnet_nouns_test
