// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers with edits of rank one beside them, layers that share a factor, and how both are found.
///
/// The limit of a few rows is reading the weight, and the edits or factors, from memory: calls go
/// round among copies of 128 MiB together. `vs_base` compares an edited layer with the same without
/// edits, `vs_dense` shared factors with dense layers, both in the same run.

#include "counters.hpp"
#include "linear_data.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/rank_one_edit.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/edited_linear.hpp>
#include <pare/transformer/structured/shared_linear.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::transformer;
using pare::bf16;
using pare::Index;
using Edited = EditedLinear<DenseLinear<bf16>, pare::factor::SigmoidGate>;

/// Copies of a layer that lie behind each other, and rows for it.
template <class L>
struct Copies {
  std::vector<L> layers;
  RowMatrix x, y;
  std::size_t next = 0;
  pare::Workspace workspace;

  template <class Make>
  Copies(Index rows, double bytes, const Make& make) {
    const double together = rows > 16 ? 1 : double{1 << 27};
    do layers.push_back(make());
    while (static_cast<double>(layers.size()) * bytes < together);
    x = uniform_matrix(rows, layers[0].inputs(), 2);
    y = RowMatrix::Zero(rows, layers[0].outputs());
  }
  template <class B>
  void run(const B& backend) {
    layers[next++ % layers.size()].apply(backend, x, y);
  }
};

pare::factor::RankOneEdits<float, pare::factor::SigmoidGate> random_edits(Index concepts, Index in,
                                                                          Index out) {
  return {uniform_matrix(concepts, in, 3),
          uniform_matrix(concepts, out, 4),
          uniform_matrix(concepts, out, 5),
          {},
          {},
          0};
}

/// Seconds of a call of data of which each call reads another copy.
template <class D>
double seconds_per_call(D& data, int threads, int calls) {
  std::vector<double> times;
  for (int run = 0; run < 5; ++run)
    times.push_back(seconds([&] {
      for (int i = 0; i < calls; ++i) data.run(pare::simd.threads(threads).with(data.workspace));
    }));
  return median(std::move(times)) / calls;
}

void edited_layer(benchmark::State& state, Index out, Index in, Index concepts, Index rows,
                  int threads) {
  struct Data {
    std::unique_ptr<Copies<DenseLinear<bf16>>> base;
    std::unique_ptr<Copies<Edited>> edited;
  };
  const double bytes = 2 * static_cast<double>(out * in);
  const std::string name = std::to_string(out) + " " + std::to_string(in) + " " +
                           std::to_string(concepts) + " " + std::to_string(rows);
  Data& d = workload<Data>("edited " + name, [&] {
    const auto dense = [&] { return random_linear<bf16>(out, in, 1); };
    return Data{std::make_unique<Copies<DenseLinear<bf16>>>(rows, bytes, dense),
                std::make_unique<Copies<Edited>>(
                    rows, bytes, [&] { return Edited(dense(), random_edits(concepts, in, out)); })};
  });
  d.edited->run(pare::reference);
  const RowMatrix wanted = d.edited->y;
  d.edited->run(pare::simd.threads(threads).with(d.edited->workspace));
  if (!((d.edited->y - wanted).norm() <= 1e-4f * wanted.norm()))
    return state.SkipWithError("differs from the reference");
  const double edits = 4 * static_cast<double>(concepts * (in + 2 * out));
  const int calls = std::max(1, static_cast<int>(1e8 / bytes));
  std::vector<Demand> demands{
      {Limit::fma_f32, static_cast<double>(rows) * (bytes + edits / 2) * calls}};
  if (rows <= 16) demands.push_back({Limit::dram_read, (bytes + edits) * calls});
  LimitProbe probe(threads, demands);
  const double own = time_calls(state, probe, *d.edited, threads, calls) / calls;
  set_of_limit(state, probe.seconds() / calls, own);
  set_vs(state, "base", seconds_per_call(*d.base, threads, calls), own);
  state.counters["us_a_call"] = own * 1e6;
}

void shared_layer(benchmark::State& state, Index count, Index out, Index in, Index latent,
                  Index rows, int threads) {
  using Shared = SharedLinear<bf16>;
  struct Data {
    std::unique_ptr<Copies<Shared>> shared;
    std::unique_ptr<Copies<DenseLinear<bf16>>> dense;
  };
  const double bytes = 2 * static_cast<double>(latent * (in + count * out));
  const double whole = 2 * static_cast<double>(count * out * in);
  const std::string name = std::to_string(out) + " " + std::to_string(rows);
  Data& d = workload<Data>("shared " + name, [&] {
    std::vector<Index> offsets;
    for (Index i = 0; i <= count; ++i) offsets.push_back(i * out);
    return Data{std::make_unique<Copies<Shared>>(rows, bytes,
                                                 [&] {
                                                   return Shared(
                                                       random_linear<bf16>(count * out, latent, 1),
                                                       random_linear<bf16>(latent, in, 2), offsets);
                                                 }),
                std::make_unique<Copies<DenseLinear<bf16>>>(
                    rows, whole, [&] { return random_linear<bf16>(count * out, in, 3); })};
  });
  d.shared->run(pare::reference);
  const RowMatrix wanted = d.shared->y;
  d.shared->run(pare::simd.threads(threads).with(d.shared->workspace));
  if (!((d.shared->y - wanted).norm() <= 1e-4f * wanted.norm()))
    return state.SkipWithError("differs from the reference");
  const int calls = std::max(1, static_cast<int>(1e8 / bytes));
  std::vector<Demand> demands{{Limit::fma_f32, static_cast<double>(rows) * bytes * calls}};
  if (rows <= 16) demands.push_back({Limit::dram_read, bytes * calls});
  LimitProbe probe(threads, demands);
  const double own = time_calls(state, probe, *d.shared, threads, calls) / calls;
  set_of_limit(state, probe.seconds() / calls, own);
  set_vs(state, "dense", seconds_per_call(*d.dense, threads, calls), own);
}

void fit_edit(benchmark::State& state, Index out, Index in, int threads) {
  struct Data {
    RowMatrix w, key, value;
    Eigen::MatrixXd c;
  };
  Data& d = workload<Data>("edit fit " + std::to_string(in), [&] {
    pare::factor::Covariance covariance(in);
    covariance.add(uniform_matrix(in + 64, in, 2));
    return Data{uniform_matrix(out, in, 1), uniform_matrix(1, in, 3), uniform_matrix(1, out, 4),
                covariance.matrix()};
  });
  const auto backend = pare::simd.threads(threads);
  const auto fit = [&] {
    return pare::factor::rank_one_edit(backend, d.w, pare::factor::InverseMoment(backend, d.c),
                                       d.key, d.value);
  };
  if (!((d.key * fit().transpose() - d.value).norm() <= 1e-3f * d.value.norm()))
    return state.SkipWithError("the key has another value");
  const auto n = static_cast<double>(in);
  LimitProbe probe(threads, {{Limit::fma_f64, n * n * n / 3}});
  const double own =
      time_between_probes(state, probe, [&] { benchmark::DoNotOptimize(fit().data()); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch",
         python_peer_seconds("edits_torch.py", {"rome", std::to_string(threads),
                                                std::to_string(out), std::to_string(in)}),
         own);
}

void fit_shared(benchmark::State& state, Index count, Index out, Index in, Index latent,
                int threads) {
  auto& weights = workload<std::vector<RowMatrix>>("shared fit " + std::to_string(in), [&] {
    std::vector<RowMatrix> list;
    for (Index i = 0; i < count; ++i)
      list.push_back(uniform_matrix(out, in, static_cast<std::uint64_t>(i)));
    return list;
  });
  const auto backend = pare::simd.threads(threads);
  const auto fit = [&] {
    return pare::factor::shared_factors(backend, weights, {.latent = latent});
  };
  state.counters["relative_error"] = fit().factors.relative_error();
  const double own =
      time_alone(state, [&] { benchmark::DoNotOptimize(fit().factors.left.data()); });
  set_vs(state, "torch",
         python_peer_seconds("edits_torch.py",
                             {"shared", std::to_string(threads), std::to_string(count),
                              std::to_string(out), std::to_string(in), std::to_string(latent)}),
         own);
}

template <class Run>
void add(const std::string& name, const Run& run, int iterations = 5) {
  for (const int threads : {all_threads(), 1}) {
    large(benchmark::RegisterBenchmark((threads == 1 ? name + "/t1" : name).c_str(),
                                       [=](benchmark::State& state) { run(state, threads); }),
          iterations);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  for (const Index concepts : {1, 8})
    add("structured/edits/layer/4096x4096/bf16/c" + std::to_string(concepts),
        [=](auto& state, int threads) { edited_layer(state, 4096, 4096, concepts, 1, threads); });
  for (const Index rows : {1, 7, 64})
    add("structured/edits/layer/576x1536/bf16/c1/rows" + std::to_string(rows),
        [=](auto& state, int threads) { edited_layer(state, 576, 1536, 1, rows, threads); });
  for (const Index rows : {1, 7})
    add("structured/shared/4x1024x4096/latent512/bf16/rows" + std::to_string(rows),
        [=](auto& state, int threads) { shared_layer(state, 4, 1024, 4096, 512, rows, threads); });
  add(
      "structured/edits/fit/1024x2048",
      [](auto& state, int threads) { fit_edit(state, 1024, 2048, threads); }, 3);
  add(
      "structured/shared/fit/4x512x1024/latent256",
      [](auto& state, int threads) { fit_shared(state, 4, 512, 1024, 256, threads); }, 3);
  return true;
}();
}  // namespace
