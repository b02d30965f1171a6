// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sparse attention with the choice of blocks in the time: permuted block-sparse attention on heads
/// built over real text, and the selection of a proxy head.
///
/// These run on all threads: exact attention on two heads of 65536 tokens takes over twenty seconds
/// on one. Both times of a ratio are of the same threads and the same repetition.

#include "attention_data.hpp"
#include "child_memory.hpp"
#include "counters.hpp"
#include "workload.hpp"

#include "recall_text/heads.hpp"
#include "recall_text/text.hpp"

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/order_keys.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/sampled_mass.hpp>
#include <pare/attention/select_blocks.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#ifndef PARE_BENCH_DATA
#error "PARE_BENCH_DATA must name the folder of the examples' data"
#endif

namespace {
using namespace pare::bench;
using pare::Index;
using pare::attention::AttendStats;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::attention::Permuted;
using pare::attention::SelectedBlocks;

constexpr std::uint64_t seed = 7;

// The share of block scores that is kept is not the attention mass that comes out, which is higher
// where a block's mean hides a heavy key. `literal` keeps 0.9 of the scores, and these heads then
// little less than everything; `by_head` keeps of each head about what holds 0.9 of its attention.
const Permuted<> literal{.selector = {.mass = 0.9f}};
const Permuted<> by_head{.selector = {.head_masses = {0.5f, 0.8f}}};

// ---------------------------------------------------------------- heads over text

// The heavy-hitter head of the recall workload, and its mixture of heavy hitters, topic and
// neighbourhood.
recall::Heads make_two_heads(Index tokens) {
  std::vector<recall::HeadSpec> specs;
  for (const recall::HeadSpec& spec : recall::standard_heads())
    if (spec.name == "hh" || spec.name == "hh+topic") specs.push_back(spec);
  const auto glosses = recall::read_glosses(PARE_BENCH_DATA "/wordnet_glosses/glosses.txt");
  return recall::make_heads(recall::recall_text(glosses, tokens, seed), specs, seed);
}

// The two steps that Permuted takes before it attends.
struct Choice {
  Choice(const recall::Heads& heads, const Permuted<>& policy, int threads)
      : order(pare::attention::order_keys(pare::simd.threads(threads), heads.q, heads.k,
                                          {.segment = policy.segment, .queries = policy.queries})),
        blocks(pare::attention::select_blocks(
            pare::simd.threads(threads), heads.q, heads.k, order,
            pare::attention::MeanPool{.mass = policy.selector.mass,
                                      .head_masses = policy.selector.head_masses,
                                      .segment = policy.segment},
            {.causal = true})) {}

  KeyOrder order;
  SelectedBlocks blocks;
};

struct Verdict {
  bool right = false;
  double covered = 1.0;  ///< mean attention mass of the chosen blocks, over some rows
};

struct PermutedWork {
  explicit PermutedWork(Index tokens)
      : heads(make_two_heads(tokens)), out(heads.v.dimensions()), exact_out(out) {}

  void run_exact() {
    pare::attention::attend(pare::simd.threads(all_threads()).with(workspace), heads.q, heads.k,
                            heads.v, exact_out, {.causal = true});
  }

  AttendStats run(const Permuted<>& policy) {
    return pare::attention::attend(pare::simd.threads(all_threads()).with(workspace), heads.q,
                                   heads.k, heads.v, out, policy, {.causal = true});
  }

  double bytes() const { return 4.0 * sizeof(float) * static_cast<double>(heads.q.size()); }

  recall::Heads heads;
  recall::Tensor out, exact_out;
  pare::Workspace workspace;
  std::map<const Permuted<>*, Verdict> verdicts;
};

PermutedWork& permuted_work(Index tokens) {
  return workload<PermutedWork>("attention permuted n" + std::to_string(tokens),
                                [&] { return PermutedWork(tokens); });
}

// keep(head, query, key) of an order and a mask over its slots.
class VisibleKeys {
 public:
  explicit VisibleKeys(const Choice& choice) : choice_(choice) {
    const auto shape = choice.order.shape();
    slots_.resize(static_cast<std::size_t>(shape.heads));
    for (Index head = 0; head < shape.heads; ++head) {
      auto& slots = slots_[static_cast<std::size_t>(head)];
      slots.resize(static_cast<std::size_t>(shape.keys));
      std::int32_t slot = 0;
      for (const std::uint32_t position : choice.order.of(0, head)) slots[position] = slot++;
    }
  }

  bool operator()(Index head, Index query, Index key) const {
    const auto& shape = choice_.blocks.shape();
    const auto& slots = slots_[slots_.size() == 1 ? 0 : static_cast<std::size_t>(head)];
    const auto row = choice_.blocks.row(0, head, query / shape.row_block);
    return std::binary_search(
        row.begin(), row.end(),
        static_cast<std::int32_t>(slots[static_cast<std::size_t>(key)] / shape.column_block));
  }

 private:
  const Choice& choice_;
  std::vector<std::vector<std::int32_t>> slots_;
};

// Attention mass of the keys for which `keep` is true, mean over rows of the second half of the
// text, a prime apart.
double covered_mass(recall::Heads& heads, const VisibleKeys& keep) {
  const Index tokens = heads.q.dimension(2);
  double sum = 0.0;
  Index rows = 0;
  for (Index head = 0; head < heads.q.dimension(1); ++head) {
    const auto q = recall::detail::head_rows(heads.q, head);
    const auto k = recall::detail::head_rows(heads.k, head);
    for (Index i = tokens / 2; i < tokens; i += 449, ++rows) {
      Eigen::ArrayXd weight = (k.topRows(i + 1) * q.row(i).transpose()).cast<double>().array() /
                              std::sqrt(static_cast<double>(recall::head_dim));
      weight = (weight - weight.maxCoeff()).exp();
      double kept = 0.0;
      for (Index j = 0; j <= i; ++j) kept += keep(head, i, j) ? weight(j) : 0.0;
      sum += kept / weight.sum();
    }
  }
  return sum / static_cast<double>(rows);
}

// Rows against the definition over the keys of the blocks that were chosen; over all keys where the
// call was exact, which its density tells.
Verdict judge(PermutedWork& work, const Permuted<>& policy) {
  const AttendStats stats = work.run(policy);
  const auto q = pare::to_view(std::as_const(work.heads.q)),
             k = pare::to_view(std::as_const(work.heads.k)),
             v = pare::to_view(std::as_const(work.heads.v));
  float largest = 0.0f;
  for (Index i = 0; i < work.heads.v.size(); ++i)
    largest = std::max(largest, std::abs(work.heads.v.data()[i]));
  const double tolerance = attention_tolerance<float>(static_cast<double>(largest));
  if (stats.density == 1.0)
    return {worst_error(q, k, v, pare::to_view(work.out), every_key) <= tolerance, 1.0};
  const Choice choice(work.heads, policy, all_threads());
  const VisibleKeys keep(choice);
  return {choice.blocks.density(true) == stats.density &&
              worst_error(q, k, v, pare::to_view(work.out), keep) <= tolerance,
          covered_mass(work.heads, keep)};
}

// ---------------------------------------------------------------- permuted

// One task for the memory figure; the text and its word vectors, gone before attention starts, need
// less than the output that comes after them.
constexpr Index memory_tokens = 32768;
const std::string memory_task = "attention/pbs";

void permuted_in_child() {
  recall::Heads heads = make_two_heads(memory_tokens);
  recall::Tensor out(heads.v.dimensions());
  pare::attention::attend(pare::simd.threads(all_threads()), heads.q, heads.k, heads.v, out,
                          by_head, {.causal = true});
  benchmark::DoNotOptimize(out.data());
}

// Beyond inputs and outputs: tiles for each thread; for each head an order with its importances (16
// bytes a key), the scores and lists of all blocks (16 bytes a block), the pooled keys.
double memory_bound(const PermutedWork& work) {
  const auto heads = static_cast<double>(work.heads.q.dimension(1));
  const double tokens = memory_tokens,
               blocks = tokens / static_cast<double>(by_head.selector.column_block);
  const double chosen =
      heads * (16.0 * tokens + 16.0 * blocks * blocks + 4.0 * blocks * recall::head_dim);
  return work.bytes() + chosen + static_cast<double>(2 + 2 * all_threads()) * (1 << 20);
}

void permuted(benchmark::State& state, Index tokens, const Permuted<>& policy) {
  const bool shows_memory = tokens == memory_tokens && &policy == &by_head;
  const double peak = shows_memory ? peak_bytes_in_child(memory_task) : 0.0;
  PermutedWork& work = permuted_work(tokens);
  const auto [verdict, is_new] = work.verdicts.try_emplace(&policy);
  if (is_new) verdict->second = judge(work, policy);
  if (!verdict->second.right) return state.SkipWithError("result differs from the definition");
  AttendStats stats;
  std::vector<double> overheads;
  const double before = seconds([&] { work.run_exact(); });
  const double own = time_alone(state, [&] {
    stats = work.run(policy);
    overheads.push_back(stats.select_seconds);
  });
  const double exact = 0.5 * (before + seconds([&] { work.run_exact(); }));
  state.counters["density"] = stats.density;
  state.counters["covered"] = verdict->second.covered;
  state.counters["overhead"] = median(std::move(overheads)) / exact;
  set_vs(state, "exact", exact, own);
  state.counters["vs_exact_times_density"] = stats.density * exact / own;
  if (shows_memory) set_peak(state, peak, memory_bound(work));
  set_threads(state, all_threads());
}

void permuted_selection_growth(benchmark::State& state) {
  PermutedWork& work = permuted_work(state.range(0));
  const auto choose = [&] {
    const Choice choice(work.heads, literal, all_threads());
    benchmark::DoNotOptimize(choice.blocks.selected());
  };
  choose();
  time_alone(state, choose);
  state.SetComplexityN(state.range(0));
  set_threads(state, all_threads());
}

// ------------------------------------------------- selection of all heads

constexpr Index layer_tokens = 16384;
constexpr Index layer_heads = 32;
constexpr Index layer_kv_heads = 8;

AttentionShape layer_shape(Index tokens) {
  return {layer_heads, layer_kv_heads, tokens, tokens, 128};
}

// Float and double may order blocks of nearly equal scores differently: one in two hundred may
// differ.
template <class Selector>
bool selection_is_right(const Selector& small) {
  const AttentionData<float> data(layer_shape(1024));
  const BlockMask wanted =
      pare::attention::select_blocks(pare::reference, data.q(), data.k(), small, {.causal = true});
  const BlockMask got = pare::attention::select_blocks(pare::simd.threads(2), data.q(), data.k(),
                                                       small, {.causal = true});
  Index missing = 0;
  for (Index head = 0; head < layer_heads; ++head)
    for (Index m = 0; m < wanted.row_blocks(); ++m) {
      const auto a = wanted.row(0, head, m), b = got.row(0, head, m);
      for (const std::int32_t n : a) missing += !std::binary_search(b.begin(), b.end(), n);
    }
  return got.selected() == wanted.selected() && 200 * missing <= wanted.selected() &&
         wanted.density(true) < 0.95;
}

// Exact attention of all heads is timed on the four of one key head and counted eight times: it
// would take six seconds.
double dense_seconds(const AttentionData<float>& data, std::vector<float>& out) {
  auto q = data.q(), k = data.k(), v = data.v();
  auto to = data.out();
  constexpr Index group = layer_heads / layer_kv_heads;
  q.extent[1] = to.extent[1] = group;
  k.extent[1] = v.extent[1] = 1;
  to.data = out.data();
  return static_cast<double>(layer_kv_heads) * seconds([&] {
           pare::attention::attend(pare::simd.threads(all_threads()), q, k, v, to,
                                   {.causal = true});
         });
}

struct LayerWork {
  AttentionData<float> data{layer_shape(layer_tokens)};
  std::vector<float> out = std::vector<float>(
      static_cast<std::size_t>(layer_heads / layer_kv_heads * layer_tokens * 128));
};

/// `small` is what is compared with the reference.
template <class Selector>
void layer_selection(benchmark::State& state, const Selector& selector, const Selector& small) {
  static const bool right = selection_is_right(small);
  if (!right) return state.SkipWithError("selection differs from the reference");
  LayerWork& work = workload<LayerWork>("attention layer", [] { return LayerWork(); });
  double density = 0.0;
  const double before = dense_seconds(work.data, work.out);
  const double own = time_alone(state, [&] {
    density = pare::attention::select_blocks(pare::simd.threads(all_threads()), work.data.q(),
                                             work.data.k(), selector, {.causal = true})
                  .density(true);
  });
  const double dense = 0.5 * (before + dense_seconds(work.data, work.out));
  state.counters["of_dense"] = own / dense;
  state.counters["density"] = density;
  set_threads(state, all_threads());
}

const bool registered = [] {
  register_memory_task(memory_task, permuted_in_child);
  const auto add_permuted = [](Index tokens, int calls, int repetitions) {
    const std::string name = "attention/pbs/d128/n" + std::to_string(tokens);
    const auto add = [&](const std::string& full_name, const Permuted<>& policy) {
      large(benchmark::RegisterBenchmark(
                full_name.c_str(),
                [tokens, &policy](benchmark::State& state) { permuted(state, tokens, policy); }),
            calls)
          ->Repetitions(repetitions);
    };
    add(name, literal);
    add(name + "/by_head", by_head);
  };
  add_permuted(4096, 10, 5);
  add_permuted(16384, 3, 5);
  add_permuted(32768, 2, 3);
  add_permuted(65536, 1, 3);
  const auto add_selection = [](const char* name, const auto& selector, const auto& small) {
    large(benchmark::RegisterBenchmark(
              name, [=](benchmark::State& state) { layer_selection(state, selector, small); }),
          3);
  };
  add_selection("attention/proxy/select/h32/n16384",
                pare::attention::ProxyHeads{.groups = 1, .stride_queries = 4},
                pare::attention::ProxyHeads{
                    .mass = 0.5f, .row_block = 32, .column_block = 32, .min_budget = 64});
  add_selection("attention/antidiagonal/select/h32/n16384", pare::attention::Antidiagonal{},
                pare::attention::Antidiagonal{.row_block = 32, .column_block = 32, .mass = 0.5f});
  add_selection("attention/sampled/select/h32/n16384", pare::attention::SampledMass{},
                pare::attention::SampledMass{});
  auto* growth = benchmark::RegisterBenchmark("attention/growth/pbs_selection_tokens",
                                              permuted_selection_growth)
                     ->UseManualTime()
                     ->Iterations(3)
                     ->Repetitions(3)
                     ->Unit(benchmark::kMillisecond)
                     ->Complexity(benchmark::oN);
  for (const std::int64_t tokens : {8192, 16384, 32768, 65536}) growth->Arg(tokens);
  return true;
}();

}  // namespace
