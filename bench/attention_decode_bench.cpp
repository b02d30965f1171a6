// SPDX-License-Identifier: Apache-2.0

/// \file
/// One new token against a long bf16 key/value cache, 32 query heads on 8 key heads: bound by
/// reading the cache once.

#include "attention_data.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;

constexpr Index query_heads = 32;
constexpr Index kv_heads = 8;
constexpr Index group = query_heads / kv_heads;
constexpr Index dim = 128;
const double largest_value = std::sqrt(3.0);

AttentionShape decode_shape(Index keys) { return {query_heads, kv_heads, 1, keys, dim}; }

double cache_bytes(Index keys) {
  return 2.0 * static_cast<double>(kv_heads * keys * dim) * sizeof(bf16);
}

// Two layers' caches are read in turn, as a model does: what one call leaves in the last-level
// cache is not what the next one reads.
struct DecodeWork {
  explicit DecodeWork(Index keys)
      : layers{AttentionData<bf16>(decode_shape(keys), 1),
               AttentionData<bf16>(decode_shape(keys), 11)} {}

  void run(int threads) {
    const AttentionData<bf16>& layer = layers[turn++ % layers.size()];
    pare::attention::attend(pare::simd.threads(threads).with(workspace), layer.q(), layer.k(),
                            layer.v(), layer.out(), {.causal = true});
  }

  bool is_right(int threads) {
    double worst = 0.0;
    for (std::size_t i = 0; i < layers.size(); ++i) run(threads);
    for (const AttentionData<bf16>& layer : layers) {
      const double error = worst_error(layer.q(), layer.k(), layer.v(), layer.out(), every_key);
      if (!(error <= attention_tolerance<bf16>(largest_value))) return false;
      worst = std::max(worst, error);
    }
    return true;
  }

  std::array<AttentionData<bf16>, 2> layers;
  pare::Workspace workspace;
  std::size_t turn = 0;
};

DecodeWork& decode_work(Index keys) {
  return workload<DecodeWork>("attention decode " + std::to_string(keys),
                              [&] { return DecodeWork(keys); });
}

// What a user of Eigen does: the cache is kept in f32, since Eigen multiplies bfloat16 one number
// at a time, and a key head at a time serves its group.
class EigenDecode {
 public:
  explicit EigenDecode(const AttentionData<bf16>& layer)
      : data_(layer), out_(RowMatrix::Zero(query_heads, dim)) {}

  void run(int threads) {
    Eigen::setNbThreads(1);
    over_ranges(threads, kv_heads, 1, [&](Index head, Index) {
      const Rows q(data_.q().data + head * group * dim, group, dim);
      const Rows k(data_.k().data + head * keys() * dim, keys(), dim);
      const Rows v(data_.v().data + head * keys() * dim, keys(), dim);
      RowMatrix weights = (q * (1.0f / std::sqrt(static_cast<float>(dim)))) * k.transpose();
      for (Index i = 0; i < group; ++i) {
        auto row = weights.row(i).array();
        row = (row - row.maxCoeff()).exp();
        row /= row.sum();
      }
      out_.middleRows(head * group, group).noalias() = weights * v;
    });
  }

 private:
  using Rows = Eigen::Map<const RowMatrix>;
  Index keys() const { return data_.shape().keys; }

  AttentionData<float> data_;
  RowMatrix out_;
};

double eigen_seconds(const AttentionData<bf16>& layer, int threads) {
  EigenDecode eigen(layer);
  eigen.run(threads);
  std::vector<double> times;
  for (int call = 0; call < 5; ++call) times.push_back(seconds([&] { eigen.run(threads); }));
  return median(std::move(times));
}

void decode(benchmark::State& state) {
  constexpr Index keys = 32768;
  DecodeWork& work = decode_work(keys);
  const int threads = all_threads();
  if (!work.is_right(threads)) return state.SkipWithError("result differs from the definition");
  const double eigen = eigen_seconds(work.layers[0], threads);
  LimitProbe probe(threads, {{Limit::dram_read, cache_bytes(keys)}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", eigen, own);
  state.counters["GB/s"] = cache_bytes(keys) / own * 1e-9;
  set_threads(state, threads);
}

void decode_growth(benchmark::State& state) {
  DecodeWork& work = decode_work(state.range(0));
  work.run(all_threads());
  time_alone(state, [&] { work.run(all_threads()); });
  state.SetComplexityN(state.range(0));
  set_threads(state, all_threads());
}

const bool registered = [] {
  large(benchmark::RegisterBenchmark("attention/decode/bf16/n32768/gqa_32_8", decode), 20);
  // From caches of 67 MB on, larger than the last-level cache of most machines.
  auto* growth = benchmark::RegisterBenchmark("attention/growth/decode_tokens", decode_growth)
                     ->UseManualTime()
                     ->Iterations(10)
                     ->Repetitions(3)
                     ->Unit(benchmark::kMillisecond)
                     ->Complexity(benchmark::oN);
  for (const std::int64_t keys : {16384, 32768, 65536, 131072}) growth->Arg(keys);
  return true;
}();

}  // namespace
