// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fitting a layer to 2:4 sparsity: choosing entries by Wanda and NoWag-P, SparseGPT, and a sweep
/// of ARMOR; each against what binds it and against torch.
///
/// Wanda reads W and writes half of it; NoWag-P reads it once more for its norms. `reads_of_w` says
/// how many readings of W a choice takes, at the rate of the probe. SparseGPT is bound by its
/// products, in float, and by those of its decomposition in double, which count twice. A sweep of
/// ARMOR is bound by its products: 28 outputs inputs block. `vs_torch_sweep` compares with the same
/// steps in torch, once; `vs_torch_iteration` with one iteration of the loop of ARMOR's paper, an
/// Adam step and one group for each block, where a sweep fits all of them (bench/peers). And one
/// row through the layer that it leaves, beside its core alone: calls go round among copies of 128
/// MiB together.

#include "counters.hpp"
#include "linear_data.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/structured/armor.hpp>
#include <pare/factor/structured/select_two_four.hpp>
#include <pare/factor/structured/sparse_gpt.hpp>
#include <pare/transformer/structured/two_four_linear.hpp>
#include <pare/transformer/structured/wrapped_linear.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
namespace factor = pare::factor;

/// A weight, mean squares of inputs over two orders of magnitude, and inputs with a common part.
struct FitWork {
  FitWork(Index outputs, Index inputs) : w(uniform_matrix(outputs, inputs, 1)) {
    SplitMix64 random(3);
    for (Index j = 0; j < inputs; ++j) moments.push_back(std::exp(5 * random.unit()));
  }
  RowMatrix w;
  std::vector<double> moments;
};

const FitWork& fit_work(Index n) {
  return workload<FitWork>("fit " + std::to_string(n), [&] { return FitWork(n, n); });
}

double peer(const std::string& method, int threads, Index n, Index block = 0) {
  std::vector<std::string> arguments{method, std::to_string(threads), std::to_string(n),
                                     std::to_string(n)};
  if (block > 0) arguments.push_back(std::to_string(block));
  return python_peer_seconds("structured_fit_torch.py", arguments);
}

template <class Score>
void choose(benchmark::State& state, const char* name, Index n, int threads, double readings) {
  const FitWork& work = fit_work(n);
  const Score score(work.moments);
  const auto backend = pare::simd.threads(threads);
  auto core = factor::two_four(backend, work.w, score);
  if (!(core.mask() ==
        factor::two_four(pare::simd_for<pare::arch::scalar>{}, work.w, score).mask()))
    return state.SkipWithError("the choice is not that of the plain kernel");
  const double bytes = static_cast<double>(work.w.size()) * sizeof(float);
  LimitProbe reading(threads, {{Limit::dram_read, bytes}});
  LimitProbe probe(threads, {{Limit::copy, readings * bytes + static_cast<double>(core.bytes())}});
  reading.sample();
  const double own = time_between_probes(
      state, probe, [&] { core = factor::two_four(backend, work.w, score, std::move(core)); });
  reading.sample();
  set_of_limit(state, probe.seconds(), own);
  state.counters["reads_of_w"] = own / reading.seconds();
  set_vs(state, "torch", peer(name, threads, n), own);
  set_threads(state, threads);
}

/// A weight, and C of inputs that share a quarter of their dimensions.
struct CovarianceWork {
  explicit CovarianceWork(Index n) : w(uniform_matrix(n, n, 1)), covariance(n) {
    const RowMatrix mix = uniform_matrix(n / 4, n, 7), own = uniform_matrix(2 * n, n, 8);
    const RowMatrix shared = uniform_matrix(2 * n, n / 4, 9);
    RowMatrix x = 0.3f * own;
    pare::linalg::multiply(pare::simd.threads(all_threads()), pare::const_view(shared),
                           pare::const_view(mix), pare::to_view(x), {.accumulate = true});
    covariance.add(pare::simd.threads(all_threads()), x);
  }
  RowMatrix w;
  factor::Covariance covariance;
};

double lost(const RowMatrix& w, const factor::TwoFour<float>& core,
            const pare::RowMatrix<double>& c) {
  RowMatrix dense(w.rows(), w.cols());
  core.to_dense(dense);
  const pare::RowMatrix<double> d = (w - dense).topRows(16).cast<double>();
  return (d * c).cwiseProduct(d).sum();
}

void sparse_gpt(benchmark::State& state, Index n, int threads) {
  const auto& work = workload<CovarianceWork>("fit covariance " + std::to_string(n),
                                              [&] { return CovarianceWork(n); });
  const auto backend = pare::simd.threads(threads);
  const auto matrix = work.covariance.matrix(backend);
  const double wanda = lost(work.w, factor::two_four(work.w, work.covariance), matrix);
  const double ours = lost(work.w, factor::sparse_gpt(backend, work.w, matrix), matrix);
  if (!(ours < 0.8 * wanda)) return state.SkipWithError("it loses more than Wanda");
  const auto size = static_cast<double>(n);
  LimitProbe probe(threads, {{Limit::fma_f32, size * size * size * (1 + 2 / 3.0)}});
  const double own = time_between_probes(state, probe, [&] {
    benchmark::DoNotOptimize(factor::sparse_gpt(backend, work.w, matrix).values().data);
  });
  set_of_limit(state, probe.seconds(), own);
  state.counters["loss_vs_wanda"] = ours / wanda;
  set_vs(state, "torch", peer("sparsegpt", threads, n), own);
  set_threads(state, threads);
}

void armor_sweep(benchmark::State& state, Index n, Index block, int threads) {
  const FitWork& work = fit_work(n);
  const auto backend = pare::simd.threads(threads);
  std::vector<double> history;
  const auto run = [&](int sweeps) {
    history = factor::armor(backend, work.w, work.moments, {.block = block, .sweeps = sweeps})
                  .loss_history;
  };
  const auto size = static_cast<double>(n);
  LimitProbe probe(threads, {{Limit::fma_f32, 28 * size * size * static_cast<double>(block)}});
  std::vector<double> none, one, three;
  for (auto _ : state) {
    probe.sample();
    none.push_back(seconds([&] { run(0); }));
    one.push_back(seconds([&] { run(1); }));
    three.push_back(seconds([&] { run(3); }));
    state.SetIterationTime((three.back() - none.back()) / 3);
  }
  for (std::size_t i = 1; i < history.size(); ++i)
    if (history[i] > history[i - 1]) return state.SkipWithError("the loss rises");
  const double own = (median(three) - median(none)) / 3;
  set_of_limit(state, probe.seconds(), own);
  state.counters["loss_fell_to"] = history.back() / history.front();
  // 1 where sweeps take equally long.
  state.counters["over_first_sweep"] = own / (median(one) - median(none));
  set_vs(state, "torch_sweep", peer("armor_sweep", threads, n, block), own);
  set_vs(state, "torch_iteration", peer("armor_iteration", threads, n, block), own);
  set_threads(state, threads);
}

/// Three matrices of S at random, as ARMOR would leave them: what they hold does not count. Copies
/// of the layer, and of its core alone.
template <class S>
struct ArmorLayerWork {
  using Core = pare::transformer::TwoFourLinear<S>;
  using Layer = pare::transformer::ArmorLinear<S>;

  ArmorLayerWork(Index n, Index block)
      : ArmorLayerWork(factor::TwoFour<S>::from(uniform_matrix(n, n, 1), factor::TwoFourMask(n, n)),
                       block) {}

  double core_bytes, bytes;
  Copies<Core> core;
  Copies<Layer> layer;

 private:
  ArmorLayerWork(const factor::TwoFour<S>& w, Index block)
      : core_bytes(static_cast<double>(w.bytes())),
        bytes(core_bytes + 2 * static_cast<double>(w.inputs() * block * Index{sizeof(S)})),
        core(1, core_bytes, [&] { return Core(w.copy()); }),
        layer(1, bytes, [&] {
          return Layer(factor::BlockDiagonal<S>::from(uniform_matrix(w.inputs(), block, 2)),
                       Core(w.copy()),
                       factor::BlockDiagonal<S>::from(uniform_matrix(w.inputs(), block, 3)));
        }) {}
};

/// One row, each call of another copy: `over_bytes` is the time over that of the core alone, times
/// the bytes of all over the core's.
template <class S>
void armor_gemv(benchmark::State& state, const std::string& name, Index n, Index block,
                int threads) {
  auto& work = workload<ArmorLayerWork<S>>(name, [&] { return ArmorLayerWork<S>(n, block); });
  if (!work.layer.is_right(threads)) return state.SkipWithError("differs from the reference");
  const int calls = static_cast<int>(work.layer.layers.size());
  LimitProbe probe(threads, {{Limit::dram_read, work.bytes * calls}});
  const auto time = [&](auto& copies) {
    return seconds([&] {
      for (int i = 0; i < calls; ++i)
        copies.run(pare::simd.threads(threads).with(copies.workspace));
    });
  };
  std::vector<double> own, alone;
  probe.sample();
  for (auto _ : state) {
    own.push_back(time(work.layer));
    alone.push_back(time(work.core));
    state.SetIterationTime(own.back());
  }
  probe.sample();
  set_of_limit(state, probe.seconds(), median(own));
  state.counters["over_bytes"] = median(own) / (median(alone) * work.bytes / work.core_bytes);
  state.counters["us_a_call"] = median(own) / calls * 1e6;
  set_threads(state, threads);
}

template <class S>
void register_gemv(const std::string& name, Index n, Index block, int threads) {
  large(benchmark::RegisterBenchmark(
            (name + (threads == 1 ? "/t1" : "")).c_str(),
            [=](benchmark::State& state) { armor_gemv<S>(state, name, n, block, threads); }),
        9);
}

const bool registered = [] {
  const auto name = [](const char* method, Index n, int threads, const char* more = "") {
    return "structured/fit/" + std::string(method) + "/" + std::to_string(n) + "x" +
           std::to_string(n) + more + (threads == 1 ? "/t1" : "");
  };
  for (const int threads : {all_threads(), 1}) {
    for (const Index n : {4096, 576}) {
      const int calls = n > 1000 ? 9 : 99;
      large(benchmark::RegisterBenchmark(name("wanda", n, threads).c_str(),
                                         [=](benchmark::State& state) {
                                           choose<factor::Wanda>(state, "wanda", n, threads, 1);
                                         }),
            calls);
      large(benchmark::RegisterBenchmark(name("nowag", n, threads).c_str(),
                                         [=](benchmark::State& state) {
                                           choose<factor::NowagP>(state, "nowag", n, threads, 2);
                                         }),
            calls);
      large(benchmark::RegisterBenchmark(
                name("sparsegpt", n, threads).c_str(),
                [=](benchmark::State& state) { sparse_gpt(state, n, threads); }),
            1);
    }
    for (const auto& [n, block] : {std::pair<Index, Index>{4096, 128}, {576, 64}}) {
      const std::string with = "/block" + std::to_string(block);
      large(benchmark::RegisterBenchmark(name("armor", n, threads, with.c_str()).c_str(),
                                         [n = n, block = block, threads](benchmark::State& state) {
                                           armor_sweep(state, n, block, threads);
                                         }),
            1);
      const std::string size = std::to_string(n),
                        gemv = "structured/armor/gemv" + with + "/" + size + "x" + size;
      register_gemv<pare::bf16>(gemv + "/bf16", n, block, threads);
      register_gemv<float>(gemv + "/f32", n, block, threads);
    }
    if (all_threads() == 1) break;
  }
  return true;
}();

}  // namespace
