// SPDX-License-Identifier: Apache-2.0

/// \file
/// Propagation over graphs: LightGCN's steps and batches of personalised PageRank, beside what
/// their products cost alone and beside scipy's and torch's products.

#include "check.hpp"
#include "child_process.hpp"
#include "counters.hpp"
#include "graphs.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/graph/light_gcn.hpp>
#include <pare/graph/normalized_adjacency.hpp>
#include <pare/graph/page_rank.hpp>
#include <pare/linalg/spmm.hpp>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;

constexpr std::uint64_t graph_seed = 11;

/// Nodes and drawn edges of a graph, and columns of what passes over it.
struct GraphShape {
  const char* name;
  int nodes;
  std::int64_t edges;
  Index columns;
};
constexpr GraphShape large_graph{"powerlaw_1M_10M/64", 1'000'000, 10'000'000, 64};
constexpr GraphShape small_graph{"powerlaw_10K_100K/64", 10'000, 100'000, 64};
constexpr GraphShape batch_graph{"powerlaw_1M_10M/batch256", 1'000'000, 10'000'000, 256};
constexpr GraphShape small_batch{"powerlaw_10K_100K/batch16", 10'000, 100'000, 16};

struct GraphWork {
  Graph graph;
  RowMatrix start, out;
  std::shared_ptr<TemporaryFolder> folder = std::make_shared<TemporaryFolder>();
};

/// Divided by rows, as both methods' matrices are: their entries are no longer 1.
GraphWork make_graph_work(const GraphShape& shape) {
  GraphWork work;
  work.graph =
      pare::graph::normalized_adjacency(power_law_graph(shape.nodes, shape.edges, graph_seed),
                                        {.norm = pare::graph::AdjacencyNorm::Rows});
  work.start = uniform_matrix(shape.nodes, shape.columns, 2);
  work.out = RowMatrix::Zero(shape.nodes, shape.columns);
  write_graph(work.folder->file("graph"), work.graph);
  return work;
}

/// Ratios to the peers' bare products: `steps` of them.
void set_vs_products(benchmark::State& state, const GraphWork& work, const GraphShape& shape,
                     int steps, int threads, double own) {
  for (const std::string library : {"scipy", "torch"}) {
    const double peer = python_peer_seconds(
        "spmm_peers.py",
        {library, library == "scipy" ? "1" : std::to_string(threads), work.folder->path(),
         std::to_string(shape.nodes), std::to_string(shape.columns)});
    if (!std::isnan(peer)) set_vs(state, library, steps * peer, own);
  }
}

// ---------------------------------------------------------------- LightGCN

// Rows of the matrix add up to 1 and |start| <= 1, so that each step is rounded once a term of its
// longest row, on either side.
bool light_gcn_is_right(int threads) {
  const GraphWork work = make_graph_work({"", 2'000, 20'000, 33});
  return agree(pare::graph::light_gcn(pare::simd.threads(threads), work.graph, work.start),
               pare::graph::light_gcn(pare::reference, work.graph, work.start), 1e-5);
}

/// `vs_spmm`: three products alone over the time of the method's three steps.
void light_gcn(benchmark::State& state, const GraphShape& shape, int threads) {
  GraphWork& work = workload<GraphWork>(std::string("graph ") + shape.name,
                                        [&] { return make_graph_work(shape); });
  if (!light_gcn_is_right(threads)) return state.SkipWithError("result differs from the reference");
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(threads).with(workspace);
  const pare::graph::LightGcnOptions options;
  const auto steps = static_cast<int>(options.weights.size()) - 1;
  const auto run = [&] {
    pare::graph::light_gcn(backend, work.graph, work.start, work.out, options);
  };
  const double product =
      usual_seconds([&] { pare::linalg::spmm(backend, work.graph, work.start, work.out); });
  run();
  LimitProbe probe(threads, {{Limit::dram_read, steps * gather_bytes(work.graph, shape.columns)}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "spmm", steps * product, own);
  set_vs_products(state, work, shape, steps, threads, own);
  set_threads(state, threads);
}

// ---------------------------------------------------------------- PageRank

bool page_rank_is_right(int threads) {
  const Graph graph = power_law_graph(500, 5'000, graph_seed);
  const pare::graph::PageRankGraph prepared(graph);
  const std::vector<Index> sources{0, 7, 499};
  RowMatrix got(500, 3), wanted(500, 3);
  pare::graph::personalized_page_rank(pare::simd.threads(threads), prepared, sources, got, {});
  pare::graph::personalized_page_rank(pare::reference, prepared, sources, wanted, {});
  return agree(got, wanted, 1e-5);
}

/// Ten steps of a batch, whose time grows with their number alone.
void page_rank(benchmark::State& state, const GraphShape& shape, int threads) {
  GraphWork& work = workload<GraphWork>(std::string("graph ") + shape.name,
                                        [&] { return make_graph_work(shape); });
  if (!page_rank_is_right(threads)) return state.SkipWithError("result differs from the reference");
  constexpr int steps = 10;
  const pare::graph::PageRankOptions options{.restart = .15,
                                             .tolerance = 2 * std::pow(.85, steps) * 1.001};
  const pare::graph::PageRankGraph graph(work.graph);
  std::vector<Index> sources;
  for (Index j = 0; j < shape.columns; ++j) sources.push_back(j * (shape.nodes / shape.columns));
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(threads).with(workspace);
  int taken = 0;
  const auto run = [&] {
    taken = pare::graph::personalized_page_rank(backend, graph, sources, work.out, options).steps;
  };
  run();
  if (taken != steps) return state.SkipWithError("another number of steps");
  LimitProbe probe(threads, {{Limit::dram_read, steps * gather_bytes(work.graph, shape.columns)}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs_products(state, work, shape, steps, threads, own);
  set_threads(state, threads);
}

// ---------------------------------------------------------------- registration

template <class Function>
void add(const std::string& name, Function function, const GraphShape& shape, int calls) {
  const auto with_threads = [function, shape](int threads) {
    return [function, shape, threads](benchmark::State& state) { function(state, shape, threads); };
  };
  const std::string row = "graph/" + name + "/" + shape.name;
  large(benchmark::RegisterBenchmark(row.c_str(), with_threads(all_threads())), calls);
  if (all_threads() > 1)
    large(benchmark::RegisterBenchmark((row + "/t1").c_str(), with_threads(1)), calls);
}

const bool registered = [] {
  add("light_gcn", light_gcn, small_graph, 50);
  add("light_gcn", light_gcn, large_graph, 1);
  add("page_rank", page_rank, small_batch, 50);
  add("page_rank", page_rank, batch_graph, 1);
  return true;
}();

}  // namespace
