// SPDX-License-Identifier: Apache-2.0

/// \file
/// Absorbed decoding of latent attention: one new token of many heads against one row of 512 + 64
/// numbers a token, whose first 512 are also the values. With 16 heads reading the rows and
/// multiplying take alike long on most machines; with 128 multiplying binds.

#include "counters.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/latent/e4m3_cache.hpp>
#include <pare/latent/e4m3_layout.hpp>

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

constexpr Index latent = 512, rope = 64, width = latent + rope;
// Of the head before absorption, 128 + 64.
const double scale = 1 / std::sqrt(192.0);

/// Queries of unit variance and rows of variance 1/3, the scores of which spread by about 1.
template <class S>
struct LatentData {
  LatentData(Index head_count, Index token_count)
      : heads(head_count),
        tokens(token_count),
        queries(static_cast<std::size_t>(heads * width)),
        rows(static_cast<std::size_t>(tokens * width)),
        out(static_cast<std::size_t>(heads * latent)) {
    SplitMix64 random(1);
    const auto fill = [&random](auto& buffer, Index n) {
      for (Index i = 0; i < n; ++i)
        buffer.data()[i] = static_cast<S>(static_cast<float>(2 * random.unit() - 1));
    };
    fill(queries, heads * width);
    fill(rows, tokens * width);
    std::fill_n(out.data(), heads * latent, 0.0f);
  }

  pare::TensorView<const S, 4> q() const {
    return {queries.data(), {1, heads, 1, width}, {heads * width, width, width, 1}};
  }
  pare::TensorView<const S, 4> keys(Index columns) const {
    return {rows.data(), {1, 1, tokens, columns}, {tokens * width, tokens * width, width, 1}};
  }

  void run(int threads) {
    pare::attention::attend(
        pare::simd.threads(threads).with(workspace), q(), keys(width), keys(latent),
        pare::TensorView<float, 4>{
            out.data(), {1, heads, 1, latent}, {heads * latent, latent, latent, 1}},
        {.causal = true, .scale = scale});
  }

  float at(const pare::AlignedBuffer<S>& buffer, Index i) const {
    return static_cast<float>(buffer.data()[i]);
  }

  /// The largest error of a few heads against sums in double.
  double worst_error() const {
    double worst = 0;
    for (const Index h : {Index{0}, heads / 2, heads - 1}) {
      std::vector<double> weight(static_cast<std::size_t>(tokens));
      for (Index j = 0; j < tokens; ++j) {
        double sum = 0;
        for (Index c = 0; c < width; ++c)
          sum += static_cast<double>(at(queries, h * width + c)) *
                 static_cast<double>(at(rows, j * width + c));
        weight[static_cast<std::size_t>(j)] = std::exp(scale * sum);
      }
      double total = 0;
      for (const double w : weight) total += w;
      for (Index c = 0; c < latent; ++c) {
        double value = 0;
        for (Index j = 0; j < tokens; ++j)
          value +=
              weight[static_cast<std::size_t>(j)] * static_cast<double>(at(rows, j * width + c));
        const double error =
            std::abs(value / total - static_cast<double>(out.data()[h * latent + c]));
        worst = error <= worst ? worst : error;
      }
    }
    return worst;
  }

  Index heads, tokens;
  pare::AlignedBuffer<S> queries, rows;
  pare::AlignedBuffer<float> out;
  pare::Workspace workspace;
};

/// One head at a time, a dot product and an addition of a scaled row for each token: what engines
/// for one processor do.
double per_head_seconds(const LatentData<float>& data) {
  using Row = Eigen::Map<const Eigen::VectorXf>;
  std::vector<float> out(static_cast<std::size_t>(data.heads * latent));
  const auto run = [&] {
    for (Index h = 0; h < data.heads; ++h) {
      const Row q(data.queries.data() + h * width, width);
      Eigen::Map<Eigen::VectorXf> o(out.data() + h * latent, latent);
      o.setZero();
      float most = -INFINITY, sum = 0;
      for (Index j = 0; j < data.tokens; ++j) {
        const float* const row = data.rows.data() + j * width;
        const float score = static_cast<float>(scale) * q.dot(Row(row, width));
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

template <class S>
void decode(benchmark::State& state, Index heads, Index tokens, int threads) {
  auto& data = workload<LatentData<S>>("latent " + std::to_string(sizeof(S)) + " " +
                                           std::to_string(heads) + " " + std::to_string(tokens),
                                       [&] { return LatentData<S>(heads, tokens); });
  data.run(threads);
  // Floats as attention's bound; bf16 rows are widened exactly.
  if (!(data.worst_error() <= 1e-5))
    return state.SkipWithError("result differs from the definition");
  const double flops = 2.0 * static_cast<double>(heads * tokens) * (width + latent);
  LimitProbe probe(threads, {{Limit::fma_f32, flops},
                             {Limit::dram_read, static_cast<double>(tokens * width) * sizeof(S)}});
  const double own = time_between_probes(state, probe, [&] { data.run(threads); });
  set_of_limit(state, probe.seconds(), own);
  if constexpr (std::is_same_v<S, float>)
    if (threads == 1) set_vs(state, "per_head", per_head_seconds(data), own);
  if constexpr (std::is_same_v<S, bf16>)
    state.counters["of_dot"] = flops / cached(Limit::dot_bf16, threads) / own;
  state.counters["GFLOP/s"] = flops / own * 1e-9;
  set_threads(state, threads);
}

/// The same of a cache in the 8 bits of DeepSeek-V3.2, beside rows of bf16.
void decode_e4m3(benchmark::State& state, Index heads, Index tokens, int threads) {
  auto& data = workload<LatentData<bf16>>(
      "latent e4m3 " + std::to_string(heads) + " " + std::to_string(tokens),
      [&] { return LatentData<bf16>(heads, tokens); });
  using Cache = pare::latent::E4m3Cache<pare::latent::DeepSeekV32Layout>;
  Cache cache({.latent = latent, .rope = rope, .pages = (tokens + 63) / 64});
  const pare::TensorView<const bf16, 2> rows{data.rows.data(), {tokens, width}, {width, 1}};
  cache.append(0, rows);
  const auto run = [&] {
    pare::attention::attend(
        pare::simd.threads(threads).with(data.workspace), data.q(), cache,
        pare::TensorView<float, 4>{
            data.out.data(), {1, heads, 1, latent}, {heads * latent, latent, latent, 1}},
        {.causal = true, .scale = scale});
  };
  run();
  // A code is off by up to 2^-4 of its number, and means over thousands of tokens by far less.
  if (!(data.worst_error() <= 0x1p-5)) return state.SkipWithError("result differs by too much");
  std::vector<double> wide;
  for (int i = 0; i < 5; ++i) wide.push_back(seconds([&] { data.run(threads); }));
  const double own = time_alone(state, run);
  set_vs(state, "bf16", median(std::move(wide)), own);
  state.counters["bytes_per_token"] = static_cast<double>(cache.bytes_per_token());
  set_threads(state, threads);
}

template <class S>
void add(const std::string& scalar, Index heads, Index tokens, int threads) {
  std::string name =
      "latent/decode/" + scalar + "/h" + std::to_string(heads) + "/t" + std::to_string(tokens);
  if (threads > 1) name += "/threads_all";
  large(benchmark::RegisterBenchmark(name.c_str(), decode<S>, heads, tokens, threads), 5);
}

const bool registered = [] {
  for (const Index heads : {1, 16, 128})
    for (const Index tokens : {4096, 16384}) add<float>("f32", heads, tokens, 1);
  for (const Index heads : {16, 128}) add<bf16>("bf16", heads, 4096, 1);
  for (const Index heads : {16, 128})
    large(benchmark::RegisterBenchmark(
              ("latent/decode/e4m3/h" + std::to_string(heads) + "/t4096").c_str(), decode_e4m3,
              heads, 4096, 1),
          5);
  if (all_threads() > 1) {
    add<float>("f32", 128, 16384, all_threads());
    add<float>("f32", 16, 16384, all_threads());
    add<bf16>("bf16", 128, 4096, all_threads());
  }
  return true;
}();

}  // namespace
