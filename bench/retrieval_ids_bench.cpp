// SPDX-License-Identifier: Apache-2.0

/// \file
/// Semantic ids: a sweep of balanced k-means, and a step of a beam search over a trie.
///
/// Of k-means, `of_limit` counts the products of each cluster with the rows that are left for it
/// and their means: rows (clusters + 1) dim FLOPs (fma_f32), and one read of the rows for each
/// block of 32 clusters and for the means (dram_read), whichever takes longer. `vs_faiss` is a
/// sweep of faiss-cpu's Kmeans, which makes all products and lets clusters have any size. Of beams,
/// `vs_loop` is the step by its words: all children in one list, sorted.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/matrix.hpp>
#include <pare/retrieval/semantic/balanced_kmeans.hpp>
#include <pare/retrieval/semantic/constrained_beam.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::retrieval;
using pare::Index;

/// Sweeps of one run: the first starts from rows, the others from means.
constexpr int few_sweeps = 2, many_sweeps = 12;

struct ClusterData {
  RowMatrix x;
  Index clusters;
  int sweeps = 1;
  pare::Workspace workspace{};
  BalancedClusters<float> got{};

  template <class B>
  void run(const B& backend) {
    got = balanced_kmeans(backend, x, {.clusters = clusters, .sweeps = sweeps});
  }

  /// Equal sizes, and the pass of the reference but for distances that are nearly equal.
  bool is_right() {
    run(pare::simd);
    std::vector<Index> sizes(static_cast<std::size_t>(clusters));
    for (const std::uint32_t k : got.assigned) ++sizes[k];
    const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
    const RowMatrix few = x.topRows(std::min<Index>(x.rows(), 500)), start = few.topRows(20);
    const auto ours = assign_balanced(few, start);
    const auto wanted = assign_balanced(pare::reference, few, start);
    Index other = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) other += ours[i] != wanted[i] ? 1 : 0;
    return *most - *least <= 1 && *least == x.rows() / clusters && 50 * other <= few.rows();
  }
};

/// Seconds of a sweep: many of them less few, so that checks and the first centroids do not count.
void run_kmeans(benchmark::State& state, Index rows, Index dim, Index clusters, int threads) {
  ClusterData data{uniform_matrix(rows, dim, 3) / 2, clusters};
  if (!data.is_right()) return state.SkipWithError("differs from the reference");
  const double n = static_cast<double>(rows), d = static_cast<double>(dim);
  const double blocks = std::ceil(static_cast<double>(clusters) / 32);
  const double flops = n * static_cast<double>(clusters + 1) * d;
  LimitProbe probe(
      threads, {{Limit::fma_f32, flops}, {Limit::dram_read, 4 * n * d * ((blocks + 1) / 2 + 1)}});
  std::vector<double> sweeps;
  probe.sample();
  for (auto _ : state) {
    const auto timed = [&](int count) {
      data.sweeps = count;
      return seconds([&] {
        on_threads(threads, data.workspace, [&](const auto& backend) { data.run(backend); });
      });
    };
    const double few = timed(few_sweeps), many = timed(many_sweeps);
    if (data.got.sweeps != many_sweeps) return state.SkipWithError("settled too soon");
    sweeps.push_back((many - few) / (many_sweeps - few_sweeps));
    state.SetIterationTime(sweeps.back());
  }
  probe.sample();
  const double own = median(sweeps);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "faiss",
         python_peer_seconds("kmeans_faiss.py", {std::to_string(threads), std::to_string(rows),
                                                 std::to_string(dim), std::to_string(clusters)}),
         own);
}

/// Beams at the last level of 100,000 items of 3 tokens below 64.
struct BeamData {
  std::vector<std::int32_t> tokens;
  IdTrie trie;
  std::vector<Beam> beams;
  RowMatrix logits;

  explicit BeamData(Index width)
      : tokens(random_tokens()), trie(tokens, 3, 64), logits(uniform_matrix(width, 64, 2)) {
    for (Index b = 0; b < width; ++b)
      beams.push_back({-0.01 * static_cast<double>(b),
                       *trie.find(std::span(tokens).subspan(static_cast<std::size_t>(3 * b), 2))});
  }

  static std::vector<std::int32_t> random_tokens() {
    SplitMix64 random(1);
    std::vector<std::int32_t> tokens(300000);
    for (auto& t : tokens) t = static_cast<std::int32_t>(random.next() % 64);
    return tokens;
  }

  std::vector<BeamStep> by_words() const {
    std::vector<BeamStep> all;
    for (std::size_t p = 0; p < beams.size(); ++p) {
      const auto row = static_cast<Index>(p);
      double sum = 0;
      for (const std::int32_t t : trie.tokens(beams[p].node))
        sum += std::exp(static_cast<double>(logits(row, t)));
      for (const std::int32_t t : trie.tokens(beams[p].node))
        all.push_back({beams[p].score + static_cast<double>(logits(row, t)) - std::log(sum),
                       *trie.child(beams[p].node, t), row, t});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const BeamStep& a, const BeamStep& b) { return a.score > b.score; });
    all.resize(std::min(all.size(), beams.size()));
    return all;
  }
};

void run_beam(benchmark::State& state, Index width) {
  const BeamData data(width);
  constexpr int calls = 200;
  std::vector<BeamStep> steps = beam_step(data.trie, data.beams, data.logits, width);
  const auto wanted = data.by_words();
  bool right = steps.size() == wanted.size();
  for (std::size_t i = 0; right && i < steps.size(); ++i)
    right = steps[i].node == wanted[i].node && std::abs(steps[i].score - wanted[i].score) < 1e-12;
  if (!right) return state.SkipWithError("differs from the words");
  const double own = time_alone(state, [&] {
    for (int i = 0; i < calls; ++i) steps = beam_step(data.trie, data.beams, data.logits, width);
  });
  set_vs(state, "loop", usual_seconds([&] {
           for (int i = 0; i < calls; ++i) steps = data.by_words();
         }),
         own);
}

const bool registered = [] {
  const auto add = [](const std::string& name, Index rows, Index dim, Index clusters) {
    for (const int threads : {1, all_threads()}) {
      large(benchmark::RegisterBenchmark(
                ("retrieval/balanced_kmeans/" + name + (threads == 1 ? "/t1" : "")).c_str(),
                [=](benchmark::State& state) { run_kmeans(state, rows, dim, clusters, threads); }),
            2);
      if (all_threads() == 1) break;
    }
  };
  add("1e5x64/k256", 100000, 64, 256);
  add("9743x67/k100", 9743, 67, 100);
  for (const Index width : {8, 128})
    large(benchmark::RegisterBenchmark(("retrieval/beam/w" + std::to_string(width) + "/t1").c_str(),
                                       [=](benchmark::State& state) { run_beam(state, width); }),
          5);
  return true;
}();
}  // namespace
