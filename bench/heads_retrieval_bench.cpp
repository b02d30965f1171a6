// SPDX-License-Identifier: Apache-2.0

/// \file
/// The retrieval score of heads: which key each row of attention looks at most, without the map.

#include "attention_data.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/attention/heads/most_attended.hpp>

#include <benchmark/benchmark.h>

#include <string>

namespace {
using namespace pare::bench;
using pare::Index;

struct RetrievalCase {
  const char* name;
  AttentionShape shape;
  int threads;  ///< 0: all
};

// The layer of SmolLM2-135M with an answer of 8 tokens; a layer of 32 heads of 128 that looks back
// from one token, bound by the reading of its keys; a user's small text.
const RetrievalCase cases[] = {
    {"heads/retrieval/h9_kv3/d64/n8192/a8", {9, 3, 8, 8192, 64}, 0},
    {"heads/retrieval/h9_kv3/d64/n8192/a8/t1", {9, 3, 8, 8192, 64}, 1},
    {"heads/retrieval/h32_kv8/d128/n32768/a1", {32, 8, 1, 32768, 128}, 0},
    {"heads/retrieval/h9_kv3/d64/n331/a7", {9, 3, 7, 331, 64}, 1},
};

// Float and double may disagree on keys that are nearly equal: by scores, then.
bool is_right(const AttentionData<float>& data, int threads) {
  const auto q = data.q(), k = data.k();
  const auto got = pare::attention::most_attended(pare::simd.threads(threads), q, k);
  const auto wanted = pare::attention::most_attended(pare::reference, q, k);
  const AttentionShape& s = data.shape();
  const auto score = [&](Index row, Index key) {
    const Index head = row / s.queries;
    double sum = 0.0;
    for (Index c = 0; c < s.dim; ++c)
      sum += static_cast<double>(q(0, head, row % s.queries, c)) *
             static_cast<double>(k(0, head / (s.heads / s.kv_heads), key, c));
    return sum;
  };
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto row = static_cast<Index>(i);
    if (got[i] < 0 || score(row, got[i]) < score(row, wanted[i]) - 1e-3) return false;
  }
  return true;
}

// Each pair of a row and a key takes `dim` multiply-adds, and each key is read.
LimitProbe limit_of(const AttentionShape& s, int threads) {
  const auto keys = static_cast<double>(s.kv_heads * s.keys * s.dim);
  const double flops = 2.0 * keys * static_cast<double>(s.heads / s.kv_heads * s.queries);
  const double bytes = keys * sizeof(float);
  const Limit read = bytes > 32 << 20 ? Limit::dram_read : Limit::l2_read;
  return LimitProbe(threads, {{read, bytes}, {Limit::fma_f32, flops}});
}

void retrieval(benchmark::State& state, const RetrievalCase& of) {
  const AttentionShape& s = of.shape;
  const int threads = of.threads > 0 ? of.threads : all_threads();
  const auto& data =
      workload<AttentionData<float>>(of.name, [&] { return AttentionData<float>(s); });
  if (!is_right(data, threads)) return state.SkipWithError("keys differ from the definition");
  const double torch = python_peer_seconds(
      "retrieval_torch.py",
      {std::to_string(threads), std::to_string(s.heads), std::to_string(s.kv_heads),
       std::to_string(s.queries), std::to_string(s.keys), std::to_string(s.dim)});
  pare::Workspace workspace;
  LimitProbe probe = limit_of(s, threads);
  const double own = time_between_probes(state, probe, [&] {
    benchmark::DoNotOptimize(pare::attention::most_attended(
        pare::simd.threads(threads).with(workspace), data.q(), data.k()));
  });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch", torch, own);
  set_threads(state, threads);
}

const bool registered = [] {
  for (const RetrievalCase& of : cases)
    large(benchmark::RegisterBenchmark(of.name,
                                       [&of](benchmark::State& state) { retrieval(state, of); }),
          of.shape.keys < 1000 ? 200 : 20);
  return true;
}();

}  // namespace
