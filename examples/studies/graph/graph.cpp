// SPDX-License-Identifier: Apache-2.0

/// \file
/// Embeds the nodes of a real graph with FastRP and says how good and how fast that was.

#include "common/peak_memory.hpp"
#include "common/progress.hpp"
#include "common/run_program.hpp"
#include "graph/arguments.hpp"
#include "graph/edge_list.hpp"
#include "graph/labels.hpp"
#include "graph/score_table.hpp"
#include "graph/statistics.hpp"

#include <pare/graph/fast_rp.hpp>
#include <pare/io/npy.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

namespace {

using pare::graph::FastRpOptions;

FastRpOptions embedding_options(const graph::Arguments& arguments) {
  FastRpOptions options;
  options.dim = arguments.dim;
  options.seed = arguments.seed;
  options.weights = {0, 0, 1, 6.67};
  options.degree_exponent = -0.5;
  if (arguments.edges.empty()) {
    // WordNet's nouns are nearly a tree, and its hubs carry the class: look far, and at hubs.
    options.weights.assign(32, 1.0);
    std::fill_n(options.weights.begin(), 8, 0.0);
    options.degree_exponent = 1;
  }
  if (!arguments.weights.empty()) options.weights = arguments.weights;
  if (arguments.beta) options.degree_exponent = *arguments.beta;
  return options;
}

graph::Vectors embed(const graph::Graph& graph, FastRpOptions options, int threads) {
  command_line::Progress progress("embedding");
  options.progress = [&](int step, int steps) { progress(double(step) / steps); };
  const auto start = std::chrono::steady_clock::now();
  graph::Vectors vectors =
      pare::graph::fast_rp(pare::simd.threads(threads), graph.adjacency, options);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  progress.erase();

  const pare::Index steps = options.steps();
  const double rate = double(graph.edges) * double(steps) / time.count();
  std::printf("embedding   %td x %td floats, %td steps, %d threads: %.2f s, %.2f M edges/s\n",
              vectors.rows(), vectors.cols(), steps, threads, time.count(), rate * 1e-6);
  std::printf("            peak memory %.0f MiB, %.0f of them the embedding\n",
              command_line::peak_memory_mib(), double(vectors.size()) * sizeof(float) / 0x1p20);
  return vectors;
}

void write(const graph::Graph& graph, const graph::Vectors& vectors, const std::string& path) {
  pare::io::write_npy(path, vectors);
  std::ofstream nodes(path + ".nodes", std::ios::binary);
  for (std::size_t u = 0; u < graph.nodes.size(); ++u)
    nodes << graph.nodes.name(static_cast<int>(u)) << '\n';
  if (!nodes.flush()) throw graph::InputError(path + ".nodes: cannot be written");
  std::printf("            written to %s, the node of each row to %s.nodes\n", path.c_str(),
              path.c_str());
}

void run(const graph::Arguments& arguments) {
  const auto wordnet = std::filesystem::path(PARE_EXAMPLES_DATA) / "wordnet_nouns";
  const bool own = !arguments.edges.empty();
  const std::string label_file = own ? arguments.labels : (wordnet / "labels.txt").string();

  const graph::Graph graph =
      graph::read_edge_list(own ? arguments.edges : (wordnet / "edges.txt").string());
  graph::describe(std::cout, graph);
  graph::Labels labels;
  if (!label_file.empty()) {
    labels = graph::read_labels(label_file, graph.nodes);
    graph::describe(std::cout, labels, graph.adjacency);
  }
  std::cout << std::flush;

  const graph::Vectors vectors = embed(graph, embedding_options(arguments), arguments.threads);
  if (!arguments.output.empty()) write(graph, vectors, arguments.output);
  if (!label_file.empty())
    graph::print_scores(graph, labels, vectors, arguments.train, arguments.seed);
}

}  // namespace

int main(int argc, char** argv) {
  return command_line::run_program(
      {.name = "graph", .usage = graph::usage_text, .less_memory = "a smaller --dim takes less"},
      [&] { return graph::parse_arguments(argc, argv); }, run);
}
