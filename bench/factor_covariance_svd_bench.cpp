// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers factored in the metric of their inputs' covariance, at the sizes of layers, and the
/// eigenvectors that this stands on.
///
/// Torch's ways are the exact one in three lines and SVD-LLM's. The limit of eigenvectors is 16/3
/// n^3 FLOPs at the peak of multiply-adds in double: 4/3 n^3 to tridiagonal form, half of which
/// wait for memory, 2 n^3 back from it, and up to 2 n^3 in between.

#include "counters.hpp"
#include "model_layers.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/covariance_svd.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;

/// Random weights, and inputs whose features shrink as i^-1/2.
struct CovarianceWork {
  CovarianceWork(Index out, Index in) : w(uniform_matrix(out, in, 1)), inputs(in) {
    RowMatrix x = uniform_matrix(2 * in, in, 2);
    for (Index i = 0; i < in; ++i) x.col(i) /= std::sqrt(static_cast<float>(i + 1));
    inputs.add(x);
    c = inputs.matrix();
  }

  /// The least tr((W - A B) C (W - A B)^T) of a rank, as a share of tr(W C W^T).
  double least_share(Index rank) const {
    const Eigen::MatrixXd wide = w.cast<double>();
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(wide * c * wide.transpose(),
                                                                Eigen::EigenvaluesOnly);
    const Eigen::VectorXd& values = solver.eigenvalues();
    return values.head(values.size() - rank).sum() / values.sum();
  }

  RowMatrix w;
  pare::factor::Covariance inputs;
  Eigen::MatrixXd c;
};

CovarianceWork& covariance_work(Index out, Index in) {
  return *workload<std::unique_ptr<CovarianceWork>>(
      "covariance svd " + std::to_string(out) + "x" + std::to_string(in),
      [&] { return std::make_unique<CovarianceWork>(out, in); });
}

double torch_seconds(const std::string& way, int threads, Index out, Index in, Index rank) {
  return python_peer_seconds("covariance_svd_torch.py",
                             {way, std::to_string(threads), std::to_string(out), std::to_string(in),
                              std::to_string(rank)});
}

void covariance_svd(benchmark::State& state, Index out, Index in, int threads) {
  const CovarianceWork& work = covariance_work(out, in);
  const Index rank = std::min(out, in) / 4;
  const auto backend = pare::simd.threads(threads);
  const auto factor = [&] {
    return pare::factor::covariance_svd(backend, work.w, work.inputs, {.rank = rank});
  };
  const auto result = factor();
  const Eigen::MatrixXd off =
      work.w.cast<double>() - result.left.cast<double>() * result.right.cast<double>();
  const double lost = (off * work.c).cwiseProduct(off).sum() / result.total_energy;
  const double excess = std::sqrt(lost / work.least_share(rank)) - 1;
  if (!(excess < 1e-6)) return state.SkipWithError("more is lost than must be");
  const double own = time_alone(state, factor);
  state.counters["excess_error"] = excess;
  set_vs(state, "torch_exact", torch_seconds("outputs", threads, out, in, rank), own);
  set_vs(state, "torch_svdllm", torch_seconds("cholesky", threads, out, in, rank), own);
  set_threads(state, threads);
  set_model(state, out, in);
}

void eigenvectors(benchmark::State& state, Index n, int threads) {
  const Eigen::MatrixXd& c = covariance_work(n, n).c;
  const auto backend = pare::simd.threads(threads);
  const auto eigen = pare::linalg::symmetric_eigen(backend, c);
  const double off = (c * eigen.vectors - eigen.vectors * eigen.values.asDiagonal()).norm();
  if (!(off < 1e-12 * c.norm())) return state.SkipWithError("no eigenvectors");
  const auto cubes = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  LimitProbe probe(threads, {{Limit::fma_f64, 16 * cubes / 3}});
  const double own = time_between_probes(
      state, probe, [&] { benchmark::DoNotOptimize(pare::linalg::symmetric_eigen(backend, c)); });
  set_of_limit(state, probe.seconds(), own);
  Eigen::setNbThreads(threads);
  set_vs(state, "eigen",
         peer_seconds("eigenvectors eigen " + std::to_string(n) + " t" + std::to_string(threads),
                      {{"SelfAdjointEigenSolver",
                        [&] {
                          const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(c);
                          benchmark::DoNotOptimize(solver.eigenvalues().data());
                        }}}),
         own);
  set_vs(state, "torch", torch_seconds("eigh", threads, n, n, n), own);
  set_threads(state, threads);
}

template <class Run>
void add(const std::string& name, const Run& run) {
  for (const int threads : {all_threads(), 1})
    benchmark::RegisterBenchmark((threads == 1 ? name + "/t1" : name).c_str(),
                                 [=](benchmark::State& state) { run(state, threads); })
        ->UseManualTime()
        ->Iterations(5)
        ->Unit(benchmark::kMillisecond);
}

const bool registered = [] {
  const Index layers[][2] = {{384, 1536}, {1536, 384}, {1024, 4096}, {4096, 1024}, {2048, 2048}};
  for (const auto& layer : layers) {
    const Index out = layer[0], in = layer[1];
    add("factor/covariance_svd/" + std::to_string(out) + "x" + std::to_string(in),
        [=](benchmark::State& state, int threads) { covariance_svd(state, out, in, threads); });
  }
  for (const Index n : {384, 576, 1024, 1536})
    add("linalg/symmetric_eigen/" + std::to_string(n),
        [=](benchmark::State& state, int threads) { eigenvectors(state, n, threads); });
  return true;
}();

}  // namespace
