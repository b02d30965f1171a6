// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table that sets an embedding beside its baselines.

#include "graph/baselines.hpp"
#include "graph/classify.hpp"
#include "graph/edge_list.hpp"
#include "graph/labels.hpp"

#include <cstdint>
#include <cstdio>
#include <vector>

namespace graph {

/// Prints micro and macro F1 on the nodes that were not trained on, for the embedding and for what
/// it has to be measured against, all on the same split.
inline void print_scores(const Graph& graph, const Labels& labels, const Vectors& embedding,
                         double train_fraction, std::uint64_t seed) {
  const std::vector<int>& label = labels.of_node;
  const int classes = static_cast<int>(labels.classes.size());
  const Split split = split_nodes(labels.labelled_nodes(), train_fraction, seed);
  const std::vector<int> truth = labels_of(label, split.test);
  const auto print = [](const char* method, F1 f1) {
    std::printf("%-34s %8.3f %8.3f\n", method, f1.micro, f1.macro);
    std::fflush(stdout);
  };

  std::printf("\n%-34s %8s %8s   (%zu nodes to train on, %zu to test)\n", "", "micro F1",
              "macro F1", split.train.size(), split.test.size());
  const F1 embedded = classify(embedding, label, classes, split);
  print("FastRP, ridge", embedded);
  print("random vectors of that size, ridge",
        classify(random_vectors(embedding.rows(), embedding.cols(), seed), label, classes, split));
  print("most frequent class", f1_score(truth, predict_majority(label, classes, split), classes));
  const F1 propagated =
      f1_score(truth, propagate_labels(graph.adjacency, label, classes, split), classes);
  print("label propagation", propagated);
  std::printf(
      "\nLabel propagation sees the train labels in the graph%s.\n"
      "FastRP has seen no label: its vectors can be kept and serve any other task.\n",
      propagated.micro > embedded.micro ? ", and is better here" : "");
}

}  // namespace graph
