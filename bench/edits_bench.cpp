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
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
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

pare::factor::RankOneEdits<float, pare::factor::SigmoidGate> random_edits(Index concepts, Index in,
                                                                          Index out) {
  return {uniform_matrix(concepts, in, 3),
          uniform_matrix(concepts, out, 4),
          uniform_matrix(concepts, out, 5),
          {},
          {},
          0};
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
  if (!d.edited->is_right(threads)) return state.SkipWithError("differs from the reference");
  const double edits = 4 * static_cast<double>(concepts * (in + 2 * out));
  const int calls = std::max(1, static_cast<int>(1e8 / bytes));
  std::vector<Demand> demands{
      {Limit::fma_f32, static_cast<double>(rows) * (bytes + edits / 2) * calls}};
  if (rows <= most_streamed_rows) demands.push_back({Limit::dram_read, (bytes + edits) * calls});
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
  if (!d.shared->is_right(threads)) return state.SkipWithError("differs from the reference");
  const int calls = std::max(1, static_cast<int>(1e8 / bytes));
  std::vector<Demand> demands{{Limit::fma_f32, static_cast<double>(rows) * bytes * calls}};
  if (rows <= most_streamed_rows) demands.push_back({Limit::dram_read, bytes * calls});
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

/// ||W - A B|| / ||W|| of the weights below each other.
double shared_error(const pare::factor::SharedFactors<float>& f,
                    const std::vector<RowMatrix>& weights) {
  double lost = 0, all = 0;
  const auto b = pare::row_matrix<float>(f.shared());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto a = pare::row_matrix<float>(f.specific(static_cast<Index>(i)));
    lost += static_cast<double>((weights[i] - a * b).squaredNorm());
    all += static_cast<double>(weights[i].squaredNorm());
  }
  return std::sqrt(lost / all);
}

/// The same of the best factors there are, by all eigenvalues of W^T W.
double least_shared_error(const std::vector<RowMatrix>& weights, Index latent) {
  const Index in = weights[0].cols();
  Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(in, in);
  for (const RowMatrix& w : weights) gram += (w.transpose() * w).cast<double>();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(gram, Eigen::EigenvaluesOnly);
  return std::sqrt(eigen.eigenvalues().head(in - latent).sum() / eigen.eigenvalues().sum());
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
  const auto first = fit();
  const double error = shared_error(first, weights);
  if (!(std::abs(error - first.factors.relative_error()) <= 1e-3))
    return state.SkipWithError("the factors have another error");
  if (!(error <= 1.001 * least_shared_error(weights, latent)))
    return state.SkipWithError("other factors have a smaller error");
  state.counters["relative_error"] = error;
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
