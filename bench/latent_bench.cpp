// SPDX-License-Identifier: Apache-2.0

/// \file
/// Absorbed decoding of latent attention: one new token of many heads against one row of 512 + 64
/// numbers a token, whose first 512 are also the values. With 16 heads reading the rows and
/// multiplying take alike long on most machines; with 128 multiplying binds. Then the sizes of a
/// small model, the rows of which stay in the second-level cache.

#include "counters.hpp"
#include "latent_data.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;

/// One head at a time, a dot product and an addition of a scaled row for each token: what engines
/// for one processor do.
double per_head_seconds(const LatentData<float>& data) {
  using Row = Eigen::Map<const Eigen::VectorXf>;
  const Index width = data.shape.width(), latent = data.shape.latent;
  const auto scale = static_cast<float>(data.shape.scale());
  std::vector<float> out(static_cast<std::size_t>(data.shape.heads * latent));
  const auto run = [&] {
    for (Index h = 0; h < data.shape.heads; ++h) {
      const Row q(data.queries.data() + h * width, width);
      Eigen::Map<Eigen::VectorXf> o(out.data() + h * latent, latent);
      o.setZero();
      float most = -INFINITY, sum = 0;
      for (Index j = 0; j < data.shape.tokens; ++j) {
        const float* const row = data.rows.data() + j * width;
        const float score = scale * q.dot(Row(row, width));
        if (score > most) {
          const float change = std::exp(most - score);
          o *= change;
          sum *= change;
          most = score;
        }
        const float weight = std::exp(score - most);
        sum += weight;
        o += weight * Row(row, latent);
      }
      o /= sum;
    }
  };
  run();
  return seconds(run);
}

/// The best of torch's ways to do it, the expansion of keys and values left out.
template <class S>
double torch_seconds(const LatentShape& s, int threads) {
  std::vector<std::string> arguments{"decode", scalar_name<S>(), std::to_string(threads)};
  for (const Index size : {s.heads, s.nope, s.rope, s.value, s.latent, s.tokens})
    arguments.push_back(std::to_string(size));
  return python_peer_seconds("latent_torch.py", arguments);
}

/// Rows of up to 1 MiB are read from the second-level cache.
Demand reading(double bytes) {
  return {bytes <= (1 << 20) ? Limit::l2_read : Limit::dram_read, bytes};
}

template <class S>
void decode(benchmark::State& state, const LatentShape& shape, int threads) {
  auto& data = workload<LatentData<S>>("latent " + scalar_name<S>() + " " + shape.name(),
                                       [&] { return LatentData<S>(shape); });
  data.run(threads);
  // Floats as attention's bound; bf16 rows are widened exactly.
  if (!(data.worst_error() <= latent_tolerance<S>))
    return state.SkipWithError("result differs from the definition");
  // A millisecond or more of work.
  const int calls = static_cast<int>(std::max(1.0, 1e8 / shape.flops()));
  const auto run = [&](int team) {
    for (int i = 0; i < calls; ++i) data.run(team);
  };
  const double flops = shape.flops() * calls;
  LimitProbe probe(threads,
                   {{Limit::fma_f32, flops}, reading(shape.row_count() * sizeof(S) * calls)});
  const double alone = threads > 1 ? seconds([&] { run(1); }) : 0;
  const double own = time_between_probes(state, probe, [&] { run(threads); });
  set_of_limit(state, probe.seconds(), own);
  if (threads > 1)
    state.counters["linear"] = 0.5 * (alone + seconds([&] { run(1); })) / (threads * own);
  if constexpr (std::is_same_v<S, float>)
    if (threads == 1) set_vs(state, "per_head", per_head_seconds(data) * calls, own);
  if constexpr (std::is_same_v<S, bf16>)
    state.counters["of_dot"] = flops / cached(Limit::dot_bf16, threads) / own;
  set_vs(state, "torch", torch_seconds<S>(shape, threads) * calls, own);
  state.counters["GFLOP/s"] = flops / own * 1e-9;
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

template <class S>
void add(const LatentShape& shape, int threads) {
  std::string name = "latent/decode/" + scalar_name<S>() + "/" + shape.name();
  if (threads > 1) name += "/threads_all";
  large(benchmark::RegisterBenchmark(name.c_str(), decode<S>, shape, threads), 5);
}

/// Of a small language model, and no multiples of anything.
constexpr LatentShape users{9, 512, 192, 32, 64, 64}, odd{9, 777, 200, 24, 64, 64};

const bool registered = [] {
  for (const Index heads : {1, 16, 128})
    for (const Index tokens : {4096, 16384}) add<float>({heads, tokens}, 1);
  for (const Index heads : {16, 128}) add<bf16>({heads, 4096}, 1);
  add<float>(users, 1);
  add<float>(odd, 1);
  add<bf16>(users, 1);
  if (all_threads() > 1) {
    add<float>({128, 16384}, all_threads());
    add<float>({16, 16384}, all_threads());
    add<bf16>({128, 4096}, all_threads());
    add<float>(users, all_threads());
  }
  return true;
}();

}  // namespace
