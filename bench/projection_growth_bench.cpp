// SPDX-License-Identifier: Apache-2.0

/// \file
/// How the cost of projection grows: each family of sizes ends in Google Benchmark's fit of c N.

#include "counters.hpp"
#include "graphs.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/graph/fast_rp.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;

// Sizes whose iterates are all larger than the last-level cache of this machine: a fit across that
// edge would show the cache and not the algorithm.
const std::vector<std::int64_t> edge_sizes{1'250'000, 2'500'000, 5'000'000, 10'000'000};
const std::vector<std::int64_t> dim_sizes{64, 128, 256, 512};
const std::vector<std::int64_t> row_sizes{2'000, 4'000, 8'000, 16'000};
// Reading X costs the same for any number of outputs: these are enough for the additions to count.
const std::vector<std::int64_t> output_sizes{1024, 2048, 4096, 8192};
constexpr std::int64_t fixed_edges = 2'500'000;
constexpr int edges_a_node = 10;

Graph make_graph(std::int64_t edges) {
  return power_law_graph(static_cast<int>(edges / edges_a_node), edges, 11);
}

Graph& shared_graph(std::int64_t edges) {
  return workload<Graph>("growth graph " + std::to_string(edges),
                         [&] { return make_graph(edges); });
}

void fast_rp_growth(benchmark::State& state, std::int64_t edges, Index dim) {
  const Graph& graph = shared_graph(edges);
  const pare::graph::FastRpOptions options{.dim = dim, .weights = {0, 0, 1, 7.81f}, .seed = 7};
  RowMatrix embedding;
  time_alone(state, [&] {
    embedding = pare::graph::fast_rp(pare::simd.threads(all_threads()), graph, options);
  });
}

void fast_rp_edges(benchmark::State& state) {
  fast_rp_growth(state, state.range(0), 64);
  state.SetComplexityN(state.range(0));
}

void fast_rp_dim(benchmark::State& state) {
  fast_rp_growth(state, fixed_edges, state.range(0));
  state.SetComplexityN(state.range(0));
}

void dense_growth(benchmark::State& state, Index rows, Index output_dim) {
  constexpr Index input_dim = 10'000;
  const RowMatrix& x = workload<RowMatrix>("growth dense " + std::to_string(rows),
                                           [&] { return uniform_matrix(rows, input_dim, 1); });
  const pare::projection::SparseProjection omega{
      .input_dim = input_dim, .output_dim = output_dim, .density = 0.01, .seed = 7};
  RowMatrix y = RowMatrix::Zero(rows, output_dim);
  time_alone(state,
             [&] { pare::projection::project(pare::simd.threads(all_threads()), x, omega, y); });
}

void dense_rows(benchmark::State& state) {
  dense_growth(state, state.range(0), 1024);
  state.SetComplexityN(state.range(0));
}

void dense_dim(benchmark::State& state) {
  dense_growth(state, 2'000, state.range(0));
  state.SetComplexityN(state.range(0));
}

const bool registered = [] {
  const auto add = [](const std::string& name, auto function, const auto& sizes) {
    auto* family = benchmark::RegisterBenchmark(("projection/growth/" + name).c_str(), function)
                       ->UseManualTime()
                       ->Iterations(3)
                       ->Repetitions(3)
                       ->Unit(benchmark::kMillisecond)
                       ->Complexity(benchmark::oN);
    for (const std::int64_t size : sizes) family->Arg(size);
  };
  add("fast_rp_edges", fast_rp_edges, edge_sizes);
  add("fast_rp_dim", fast_rp_dim, dim_sizes);
  add("dense_rows", dense_rows, row_sizes);
  add("dense_dim", dense_dim, output_sizes);
  return true;
}();

}  // namespace
