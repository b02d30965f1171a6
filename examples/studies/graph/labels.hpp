// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Labels of nodes: `node label` a line.

#include "graph/column_reader.hpp"
#include "graph/node_names.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace graph {

/// One label for each node that has exactly one.
struct Labels {
  static constexpr int none = -1;
  static constexpr int several = -2;

  std::vector<int> of_node;       ///< class, or none, or several
  NodeNames classes;              ///< name of each class
  std::size_t nodes_unknown = 0;  ///< lines whose node is not in the graph

  /// The nodes with one label, in order.
  std::vector<int> labelled_nodes() const {
    std::vector<int> nodes;
    for (std::size_t u = 0; u < of_node.size(); ++u)
      if (of_node[u] >= 0) nodes.push_back(static_cast<int>(u));
    return nodes;
  }

  std::size_t count(int label) const {
    std::size_t n = 0;
    for (const int l : of_node) n += l == label ? 1u : 0u;
    return n;
  }
};

/// Reads labels from a file of lines `node label`; a node may have several lines. Lines that name a
/// node outside the graph are counted and passed over. Throws InputError at the first line that is
/// not of this form, or when no node of the graph has exactly one label.
inline Labels read_labels(const std::string& path, const NodeNames& nodes) {
  Labels labels;
  labels.of_node.assign(nodes.size(), Labels::none);
  ColumnReader reader(path);
  while (reader.next()) {
    const auto& columns = reader.columns();
    if (columns.size() != 2)
      reader.fail(std::to_string(columns.size()) + " columns, wanted: node label");
    const auto node = nodes.find(columns[0]);
    if (!node) {
      ++labels.nodes_unknown;
      continue;
    }
    const int label = labels.classes.number(columns[1]);
    int& known = labels.of_node[static_cast<std::size_t>(*node)];
    known = known == Labels::none || known == label ? label : Labels::several;
  }
  if (labels.labelled_nodes().empty())
    throw InputError(path + ": no node of the graph has exactly one label");
  return labels;
}

}  // namespace graph
