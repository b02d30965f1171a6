// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers of a dense and a sparse factor (DSFormer), and their factorization.
///
/// Up to 16 rows, calls go round among copies of the layer of 128 MiB together. The limit of one
/// row is the slower of reading dictionary and codes from memory, and of looking up as many entries
/// as the codes have; the look-up is timed in the same run with the kernel alone, on codes that
/// stay in L1. Of many rows it is the multiply-adds of both factors. `of_dense` is the time of our
/// dense layer of bf16, `vs_torch_*` those of torch: its dense layers, and the same two products by
/// CSR.

#include "counters.hpp"
#include "linear_data.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/factor/structured/dense_sparse.hpp>
#include <pare/kernel/combine_atoms.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/dense_sparse_linear.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::factor;
using namespace pare::transformer;
using pare::bf16;
using pare::Index;

struct Case {
  const char* name;
  DenseSparseShape shape;
};
constexpr Case cases[] = {{"4096x4096", {4096, 4096, 512, 128, 64}},
                          {"1536x576", {1536, 576, 384, 64, 32}},
                          {"576x1536", {576, 1536, 288, 64, 32}}};

/// Atoms, values and, for each output, places of even distances from its own start.
DenseSparse<bf16> random_weight(const DenseSparseShape& shape) {
  DenseSparse<bf16> w(shape);
  SplitMix64 random(1);
  const auto number = [&] { return static_cast<bf16>(static_cast<float>(random.unit()) - 0.5f); };
  for (Index i = 0; i < w.dictionary().rows() * shape.inputs; ++i)
    w.own_dictionary().data[i] = number();
  const Index step = shape.atoms / shape.nonzeros;
  for (Index o = 0; o < shape.outputs; ++o)
    for (Index k = 0; k < shape.nonzeros; ++k)
      w.set(o, k, k * step + static_cast<Index>(random.next() % static_cast<std::uint64_t>(step)),
            number());
  return w;
}

struct LayerData {
  LayerData(const DenseSparseShape& shape, Index rows)
      : LayerData(random_weight(shape), uniform_matrix(shape.outputs, shape.inputs, 3), rows) {}

  Copies<DenseSparseLinear<bf16>> own;
  Copies<DenseLinear<bf16>> dense;

 private:
  LayerData(const DenseSparse<bf16>& w, const RowMatrix& full, Index rows)
      : own(rows, static_cast<double>(w.bytes()),
            [&] { return DenseSparseLinear<bf16>(w.copy()); }),
        dense(rows, 2 * static_cast<double>(full.size()),
              [&] { return DenseLinear<bf16>::copy_of(full); }) {}
};

/// Seconds for one entry of the look-up, with codes in L1, on one thread.
double entry_seconds(const DenseSparseShape& shape) {
  const DenseSparse<bf16> w = random_weight({32, 1, 32, shape.atoms, shape.nonzeros});
  std::vector<float> table(
      static_cast<std::size_t>(std::max(shape.atoms, pare::kernel::held_atoms)), 0.5f);
  float y[32];
  const int calls = static_cast<int>(200000 / shape.nonzeros);
  std::vector<double> times;
  for (int run = 0; run < 9; ++run)
    times.push_back(seconds([&] {
      for (int call = 0; call < calls; ++call)
        w.visit_block(0, [&](const bf16* values, const auto* places) {
          launch(pare::simd,
                 pare::kernel::CombineAtoms<bf16, std::remove_cvref_t<decltype(*places)>>{
                     values, places, table.data(), shape.atoms, shape.nonzeros, 32, y});
          benchmark::DoNotOptimize(y);
        });
    }));
  return *std::min_element(times.begin(), times.end()) /
         (static_cast<double>(calls) * 32 * static_cast<double>(shape.nonzeros));
}

bool agrees(const LayerData& d) {
  const RowMatrix w = d.own.layers[0].factors().dense();
  const RowMatrix wanted = d.own.x * w.transpose();
  return (d.own.y - wanted).norm() <= 1e-5f * wanted.norm();
}

double torch_seconds(const char* kind, int threads, const DenseSparseShape& s, Index rows) {
  const Index atoms = std::string(kind) == "omp" ? s.atoms : s.outputs / s.block * s.atoms;
  return python_peer_seconds(
      "dense_sparse_torch.py",
      {kind, std::to_string(threads), std::to_string(s.outputs), std::to_string(s.inputs),
       std::to_string(atoms), std::to_string(s.nonzeros), std::to_string(rows)});
}

void run_layer(benchmark::State& state, const Case& of, Index rows, int threads) {
  const DenseSparseShape& s = of.shape;
  auto& d = workload<LayerData>("dense_sparse " + std::string(of.name) + std::to_string(rows),
                                [&] { return LayerData(s, rows); });
  d.own.run(pare::simd.with(d.own.workspace));
  if (!agrees(d)) return state.SkipWithError("differs from Eigen's product");
  const auto numbers = static_cast<double>(s.outputs / s.block * s.atoms * s.inputs);
  const auto entries = static_cast<double>(s.outputs * s.nonzeros);
  const auto bytes = static_cast<double>(d.own.layers[0].factors().bytes());
  const int calls = rows > most_streamed_rows ? 2 : static_cast<int>(d.own.layers.size());
  std::vector<Demand> demands{
      {Limit::fma_f32, 2 * (numbers + entries) * static_cast<double>(rows) * calls}};
  if (rows <= most_streamed_rows) demands.push_back({Limit::dram_read, bytes * calls});
  LimitProbe probe(threads, demands);
  const double entry = rows == 1 ? entry_seconds(s) : 0;
  const double own = time_calls(state, probe, d.own, threads, calls);
  set_of_limit(state, std::max(probe.seconds(), entry * entries * calls / threads), own);
  state.counters["us_a_call"] = own / calls * 1e6;
  state.counters["look_up_share"] = entry * entries * calls / threads / own;
  state.counters["bytes_of_dense"] = bytes / static_cast<double>(2 * s.outputs * s.inputs);
  const int dense_calls = rows > most_streamed_rows ? 1 : static_cast<int>(d.dense.layers.size());
  set_vs(state, "dense_bf16", seconds_per_call(d.dense, threads, dense_calls) * calls, own);
  set_vs(state, "torch_dense",
         std::min(torch_seconds("dense_bf16", threads, s, rows),
                  torch_seconds("dense_f32", threads, s, rows)) *
             calls,
         own);
  set_vs(state, "torch_csr", torch_seconds("csr", threads, s, rows) * calls, own);
  set_threads(state, threads);
}

/// A sweep's codes, by torch's pursuit of all outputs at once, beside all that one sweep does.
void run_fit(benchmark::State& state, const DenseSparseShape& s, int threads) {
  const RowMatrix w = uniform_matrix(s.outputs, s.inputs, 5);
  const DenseSparseOptions options{
      .atoms = s.atoms, .nonzeros = s.nonzeros, .sweeps = 1, .tolerance = 0};
  const auto start = dense_sparse(pare::simd.threads(threads), w, options);
  double error = 0;
  LimitProbe probe(
      threads, {{Limit::fma_f64, static_cast<double>(s.outputs) * static_cast<double>(s.atoms) *
                                     static_cast<double>(s.nonzeros * s.nonzeros + 4 * s.inputs)}});
  const double own = time_between_probes(state, probe, [&] {
    const auto fit = dense_sparse(pare::simd.threads(threads), w, start.weight, options);
    error = fit.relative_error();
  });
  if (!(error <= start.relative_error())) return state.SkipWithError("a sweep raised the loss");
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch_omp", torch_seconds("omp", threads, s, 0), own);
  state.counters["error"] = error;
  set_threads(state, threads);
}

const bool registered = [] {
  for (const Case& of : cases)
    for (const Index rows : {1, 4, 16, 256})
      for (const int threads : {1, all_threads()}) {
        const std::string name =
            "structured/dense_sparse/" +
            (rows == 1 ? "gemv/" + std::string(of.name)
                       : "gemm/" + std::string(of.name) + "/rows" + std::to_string(rows)) +
            "/bf16" + (threads == 1 ? "/t1" : "");
        large(benchmark::RegisterBenchmark(
                  name.c_str(),
                  [=](benchmark::State& state) { run_layer(state, of, rows, threads); }),
              3);
        if (all_threads() == 1) break;
      }
  struct Fit {
    const char* name;
    DenseSparseShape shape;
  };
  for (const Fit fit : {Fit{"1536x576/a256/s32", {1536, 576, 1536, 256, 32}},
                        Fit{"4096x4096/a512/s64", {4096, 4096, 4096, 512, 64}}})
    for (const int threads : {1, all_threads()}) {
      const std::string name =
          "structured/dense_sparse/fit/" + std::string(fit.name) + (threads == 1 ? "/t1" : "");
      benchmark::RegisterBenchmark(
          name.c_str(), [=](benchmark::State& state) { run_fit(state, fit.shape, threads); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
      if (all_threads() == 1) break;
    }
  return true;
}();
}  // namespace
