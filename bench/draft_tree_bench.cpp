// SPDX-License-Identifier: Apache-2.0

/// \file
/// Draft trees: building, verifying, attending. Building is light beside a call of the draft head,
/// and verification beside the target's logits, the least times of which on this machine are
/// measured in the same run; attention of a tree beside causal attention of as many tokens.

#include "attention_data.hpp"
#include "counters.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/workspace.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/tree_attention.hpp>
#include <pare/draft/verify.hpp>
#include <pare/draft/verify_sampled.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;
using pare::draft::DraftTree;
using pare::draft::Verified;

constexpr Index nodes = 64, depths = 15, ranks = 16, past = 4096;
// A target of 8 billion parameters and its low-rank draft head.
constexpr Index vocabulary = 128256, hidden = 4096, rank = 512;

/// Lists of 15 depths, each the 16 likeliest of random tokens.
struct Lists {
  Eigen::Matrix<std::int32_t, depths, ranks, Eigen::RowMajor> tokens;
  Eigen::Matrix<float, depths, ranks, Eigen::RowMajor> logs;

  explicit Lists(std::uint64_t seed = 1) {
    SplitMix64 random(seed);
    for (Index d = 0; d < depths; ++d) {
      float left = 1;
      for (Index r = 0; r < ranks; ++r) {
        tokens(d, r) = static_cast<std::int32_t>(ranks * (random.next() % 8000)) +
                       static_cast<std::int32_t>(r);
        const float p = left * (0.5f + 0.2f * static_cast<float>(random.unit()));
        logs(d, r) = std::log(p);
        left -= p;
      }
    }
  }

  DraftTree tree() const {
    DraftTree built;
    build_best_first(1, pare::draft::shared_lists(tokens, logs), built, {.budget = nodes});
    return built;
  }
};

/// Sets how long the work takes beside what it belongs to.
void set_share(benchmark::State& state, const char* name, double own, double whole) {
  state.counters[name] = own / whole;
  state.counters["us"] = own * 1e6;
}

/// A tree of a [15 x 16] table, beside reading the weights of one call of the head.
void build(benchmark::State& state) {
  const Lists lists;
  const auto table = pare::draft::shared_lists(lists.tokens, lists.logs);
  pare::Workspace workspace;
  DraftTree tree, plain;
  const auto run = [&] {
    build_best_first(pare::simd.with(workspace), 1, table, tree, {.budget = nodes});
  };
  run();
  build_best_first(pare::reference, 1, table, plain, {.budget = nodes});
  for (Index i = 0; i < nodes; ++i)
    if (tree.size() != nodes || tree.token(i) != plain.token(i) ||
        tree.parent(i) != plain.parent(i))
      return state.SkipWithError("the tree differs from the definition's");
  const double head_bytes = 2.0 * static_cast<double>(rank * (hidden + vocabulary));
  LimitProbe probe(1, {{Limit::dram_read, head_bytes}});
  const double own = time_between_probes(state, probe, run);
  set_share(state, "of_head", own, probe.seconds());
}

/// Logits of the target for all nodes; those of the likeliest path are its best tokens.
struct TargetRows {
  DraftTree tree = Lists().tree();
  pare::AlignedBuffer<float> logits{static_cast<std::size_t>(nodes * vocabulary)};
  Index accepted = 0;

  TargetRows() {
    SplitMix64 random(3);
    for (Index i = 0; i < nodes * vocabulary; ++i)
      logits.data()[i] = static_cast<float>(4 * random.unit());
    for (Index v = 0; tree.depth(v) < 4 && tree.first_child(v) >= 0; ++accepted) {
      v = tree.first_child(v);
      logits.data()[tree.parent(v) * vocabulary + tree.token(v)] = 30;
    }
  }

  pare::TensorView<const float, 2> view() const {
    return {logits.data(), {nodes, vocabulary}, {vocabulary, 1}};
  }
};

/// A round of verification that accepts four nodes, beside the products of the target's head with
/// 64 rows.
template <class Verify>
void verification(benchmark::State& state, const Verify& verify) {
  auto& target = workload<TargetRows>("draft target rows", [] { return TargetRows(); });
  pare::Workspace workspace;
  Verified round;
  const auto run = [&] { verify(pare::simd.with(workspace), target, round); };
  run();
  if (static_cast<Index>(round.path.size()) != target.accepted + 1)
    return state.SkipWithError("the path is not the one that was planted");
  const double flops = 2.0 * static_cast<double>(nodes * vocabulary) * static_cast<double>(hidden);
  LimitProbe probe(1, {{Limit::fma_f32, flops}});
  const double own = time_between_probes(state, probe, run);
  set_share(state, "of_logits", own, probe.seconds());
}

void greedy(benchmark::State& state) {
  verification(state, [](const auto&, const TargetRows& target, Verified& round) {
    verify_greedy(target.tree, target.view(), round);
  });
}

void sequential(benchmark::State& state) {
  verification(state, [](const auto& backend, const TargetRows& target, Verified& round) {
    verify_sampled(backend, target.tree, pare::draft::SequentialRule{},
                   pare::draft::laws_of(target.view(), {.temperature = 0.8}), {.seed = 1}, 1,
                   round);
  });
}

/// 64 nodes on a cache of 4096 tokens, and the same rows as a causal chunk in turn.
template <class T>
struct TreeWork {
  AttentionData<T> data{AttentionShape{32, 8, nodes, past + nodes, 128}};
  DraftTree tree = Lists().tree();
  pare::Workspace workspace;

  void run_tree(int threads) {
    pare::draft::attend_tree(pare::simd.threads(threads).with(workspace), data.q(), data.k(),
                             data.v(), data.out(), tree);
  }
  void run_causal(int threads) {
    pare::attention::attend(pare::simd.threads(threads).with(workspace), data.q(), data.k(),
                            data.v(), data.out(), {.causal = true});
  }
  bool is_right(int threads) {
    run_tree(threads);
    const double error =
        worst_error(data.q(), data.k(), data.v(), data.out(),
                    [&](Index, Index i, Index j) { return j < past || tree.sees(i, j - past); });
    return error <= attention_tolerance<T>(std::sqrt(3.0));
  }
};

template <class T>
void tree_attention(benchmark::State& state, int threads) {
  auto& work = workload<TreeWork<T>>("draft tree attention " + std::to_string(sizeof(T)),
                                     [] { return TreeWork<T>(); });
  if (!work.is_right(threads)) return state.SkipWithError("result differs from the definition");
  std::vector<double> causal;
  work.run_causal(threads);
  const double own = time_alone(state, [&] { work.run_tree(threads); });
  for (int i = 0; i < 5; ++i) causal.push_back(seconds([&] { work.run_causal(threads); }));
  state.counters["of_causal"] = own / median(std::move(causal));
  set_threads(state, threads);
}

template <class T>
void add_tree_attention(const std::string& name) {
  large(benchmark::RegisterBenchmark(name.c_str(), tree_attention<T>, 1), 5);
  if (all_threads() > 1)
    large(benchmark::RegisterBenchmark((name + "/threads_all").c_str(), tree_attention<T>,
                                       all_threads()),
          5);
}

const bool registered = [] {
  large(benchmark::RegisterBenchmark("draft/tree/64", build), 200);
  large(benchmark::RegisterBenchmark("draft/verify/greedy/64", greedy), 20);
  large(benchmark::RegisterBenchmark("draft/verify/sequential/64", sequential), 5);
  add_tree_attention<float>("draft/tree_attention/64");
  add_tree_attention<bf16>("draft/tree_attention/bf16/64");
  return true;
}();

}  // namespace
