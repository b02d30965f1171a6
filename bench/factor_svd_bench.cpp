// SPDX-License-Identifier: Apache-2.0

/// \file
/// Truncated decomposition of matrices whose singular values fall as slowly as those of trained
/// weights: against LAPACK, Spectra, the plain Gram recipe, the best possible error and the
/// machine.

#include "child_memory.hpp"
#include "counters.hpp"
#include "factor_data.hpp"
#include "model_layers.hpp"
#include "openblas.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/factor/svd.hpp>
#include <pare/factor/weighted_svd.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#if __has_include(<Spectra/contrib/PartialSVDSolver.h>)
#include <Spectra/contrib/PartialSVDSolver.h>
#define PARE_BENCH_SPECTRA 1
#endif

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::factor::Accuracy;
using pare::factor::SvdOptions;

constexpr double usual_decay = 0.6;

struct Shape {
  Index rows, cols, rank;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(cols) + "/r" + std::to_string(rank);
  }
};

struct SvdWork {
  explicit SvdWork(const Shape& shape, double decay = usual_decay)
      : values(power_law_values(std::min(shape.rows, shape.cols), decay)),
        w(matrix_with_singular_values(shape.rows, shape.cols, values, 5)) {}

  double least_error(Index rank) const {
    double sum = 0;
    for (std::size_t i = values.size(); i-- > static_cast<std::size_t>(rank);)
      sum += values[i] * values[i];
    return std::sqrt(sum);
  }

  std::vector<double> values;
  RowMatrix w;
};

SvdWork& svd_work(const Shape& shape) {
  return workload<SvdWork>("svd " + shape.name(), [&] { return SvdWork(shape); });
}

std::string peer_name(const char* what, const Shape& shape, int threads) {
  return std::string(what) + " " + shape.name() + " t" + std::to_string(threads);
}

double gesdd_seconds(const SvdWork& work, const Shape& shape, int threads) {
  const OpenBlas* blas = OpenBlas::installed();
  if (blas == nullptr) return std::numeric_limits<double>::quiet_NaN();
  return peer_seconds(peer_name("gesdd", shape, threads),
                      {{"all singular vectors", [&] {
                          Eigen::MatrixXf a = work.w;
                          blas->decompose(static_cast<int>(a.rows()), static_cast<int>(a.cols()),
                                          a.data(), threads);
                        }}});
}

double gram_seconds(const SvdWork& work, const Shape& shape, int threads) {
  const OpenBlas* blas = OpenBlas::installed();
  if (blas == nullptr) return std::numeric_limits<double>::quiet_NaN();
  return peer_seconds(peer_name("gram", shape, threads),
                      {{"ssyrk, ssyevr, sgemm", [&] {
                          blas->gram_decompose(
                              static_cast<int>(shape.rows), static_cast<int>(shape.cols),
                              static_cast<int>(shape.rank), work.w.data(), threads);
                        }}});
}

double spectra_seconds([[maybe_unused]] const SvdWork& work, [[maybe_unused]] const Shape& shape,
                       [[maybe_unused]] int threads) {
#ifdef PARE_BENCH_SPECTRA
  const Eigen::MatrixXf a = work.w;
  return peer_seconds(peer_name("spectra", shape, threads),
                      {{"PartialSVDSolver, ncv = 2k", [&] {
                          Eigen::setNbThreads(threads);
                          const int rank = static_cast<int>(shape.rank);
                          Spectra::PartialSVDSolver<Eigen::MatrixXf> solver(a, rank, 2 * rank);
                          solver.compute(1000, 1e-4f);
                          const Eigen::MatrixXf u = solver.matrix_U(rank),
                                                v = solver.matrix_V(rank);
                          benchmark::DoNotOptimize(u.data());
                          benchmark::DoNotOptimize(v.data());
                        }}});
#else
  return std::numeric_limits<double>::quiet_NaN();
#endif
}

/// The products of the Gram route at this shape, without anything between them: their FLOPs a
/// second over the peak of fused multiply-adds.
double products_of_limit(const SvdWork& work, const Shape& shape, int threads) {
  namespace linalg = pare::linalg;
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(threads).with(workspace);
  const Index width = shape.rank + shape.rank * 5 / 16 + 16;
  RowMatrix gram(shape.rows, shape.rows), q = uniform_matrix(shape.rows, width, 3),
                                          y(shape.rows, width), right(shape.rank, shape.cols);
  const auto w = pare::as_const(pare::to_view(work.w));
  const auto basis = pare::columns_of(pare::as_const(pare::to_view(q)), 0, shape.rank);
  const auto run = [&] {
    linalg::multiply(backend, w, pare::transpose(w), pare::to_view(gram),
                     {.half = linalg::Half::Lower});
    linalg::multiply(backend, pare::as_const(pare::to_view(gram)), pare::as_const(pare::to_view(q)),
                     pare::to_view(y));
    linalg::multiply(backend, pare::transpose(basis), w, pare::to_view(right));
  };
  const auto r = static_cast<double>(shape.rows), c = static_cast<double>(shape.cols);
  const double flops = r * r * c + 2 * r * r * static_cast<double>(width) +
                       2 * static_cast<double>(shape.rank) * r * c;
  LimitProbe probe(threads, {{Limit::fma_f32, flops}});
  run();
  std::vector<double> times;
  for (int call = 0; call < 3; ++call) {
    probe.sample();
    times.push_back(seconds(run));
  }
  return probe.seconds() / median(std::move(times));
}

void svd(benchmark::State& state, const Shape& shape, Accuracy accuracy, int threads) {
  SvdWork& work = svd_work(shape);
  const auto backend = pare::simd.threads(threads);
  const SvdOptions options{.rank = shape.rank, .accuracy = accuracy};
  const auto result = pare::factor::truncated_svd(backend, work.w, options);
  const double least = work.least_error(shape.rank);
  const double error = residual_norm(work.w, result.left, result.right);
  if (!(error < 1.1 * least && std::abs(result.error() / error - 1) < 1e-3))
    return state.SkipWithError("the error is not what the result says");
  const double own =
      time_alone(state, [&] { pare::factor::truncated_svd(backend, work.w, options); });
  state.counters["excess_error"] = error / least - 1;
  set_vs(state, "gesdd", gesdd_seconds(work, shape, threads), own);
  if (accuracy == Accuracy::Standard) {
    set_vs(state, "spectra", spectra_seconds(work, shape, threads), own);
    set_vs(state, "gram", gram_seconds(work, shape, threads), own);
    state.counters["gemm_of_limit"] = products_of_limit(work, shape, threads);
    if (threads > 1) {
      // W, the factors, and what svd.hpp says is kept beside them.
      const auto m = static_cast<double>(shape.rows), n = static_cast<double>(shape.cols),
                 k = static_cast<double>(shape.rank), l = 1.5 * k + 32;
      set_peak(state, peak_bytes_in_child("factor/svd/" + shape.name()),
               4 * (m * n + (m + n) * k + std::min(m, n) * std::min(m, n) + 3 * (m + n) * l) +
                   8 * 4 * l * l);
    }
  }
  set_threads(state, threads);
  set_model(state, shape.rows, shape.cols);
}

/// Singular values i^-0.1 and i^-0.3, as those of feed-forward layers of small language models:
/// steps are added until the excess is what the accuracy promises.
void svd_slow(benchmark::State& state, double decay, Accuracy accuracy) {
  const Shape shape{1024, 2048, 128};
  SvdWork& work =
      workload<SvdWork>("svd slow " + std::to_string(decay), [&] { return SvdWork(shape, decay); });
  const auto backend = pare::simd.threads(all_threads());
  const SvdOptions options{.rank = shape.rank, .accuracy = accuracy};
  const auto result = pare::factor::truncated_svd(backend, work.w, options);
  const double excess =
      residual_norm(work.w, result.left, result.right) / work.least_error(shape.rank) - 1;
  if (!(excess < (accuracy == Accuracy::High ? 1e-4 : 3e-3)))
    return state.SkipWithError("the excess is not what the accuracy promises");
  time_alone(state, [&] { pare::factor::truncated_svd(backend, work.w, options); });
  state.counters["excess_error"] = excess;
  state.counters["steps"] = result.steps;
  set_threads(state, all_threads());
}

/// Layers of small models: what torch takes to form the Gram matrix in float, call eigh and
/// project, and what a tolerance takes beside the rank that it leads to.
void svd_small(benchmark::State& state, const Shape& shape, int threads) {
  SvdWork& work = svd_work(shape);
  const auto backend = pare::simd.threads(threads);
  const auto factor = [&](const SvdOptions& options) {
    return pare::factor::truncated_svd(backend, work.w, options);
  };
  const auto result = factor({.rank = shape.rank});
  const double excess =
      residual_norm(work.w, result.left, result.right) / work.least_error(shape.rank) - 1;
  if (!(excess < 3e-3)) return state.SkipWithError("the excess is not what the accuracy promises");
  const SvdOptions by_tolerance{.tolerance = result.relative_error() * (1 + 1e-6)};
  const SvdOptions by_rank{.rank = factor(by_tolerance).rank()};
  const double own = time_alone(state, [&] { factor({.rank = shape.rank}); });
  std::vector<double> of_rank, of_tolerance;
  for (int call = 0; call < 7; ++call) {
    of_rank.push_back(seconds([&] { factor(by_rank); }));
    of_tolerance.push_back(seconds([&] { factor(by_tolerance); }));
  }
  state.counters["excess_error"] = excess;
  state.counters["over_rank_mode"] = median(of_tolerance) / median(of_rank);
  set_vs(state, "gram_eigh",
         python_peer_seconds("covariance_svd_torch.py",
                             {"gram", std::to_string(threads), std::to_string(shape.rows),
                              std::to_string(shape.cols), std::to_string(shape.rank)}),
         own);
  set_threads(state, threads);
  set_model(state, shape.rows, shape.cols);
}

void svd_in_child(const Shape& shape) {
  const RowMatrix w = uniform_matrix(shape.rows, shape.cols, 1);
  benchmark::DoNotOptimize(
      pare::factor::truncated_svd(pare::simd.threads(all_threads()), w, {.rank = shape.rank}));
}

void fwsvd(benchmark::State& state, const Shape& shape) {
  SvdWork& work = svd_work(shape);
  const auto backend = pare::simd.threads(all_threads());
  const SvdOptions options{.rank = shape.rank};
  Eigen::VectorXd weights(shape.rows);
  SplitMix64 random(9);
  for (double& weight : weights) weight = std::exp(4 * random.unit() - 2);
  const auto plain = [&] { pare::factor::truncated_svd(backend, work.w, options); };
  const auto weighted = [&] {
    pare::factor::weighted_svd(backend, work.w, weights, options, pare::factor::Axis::Output);
  };
  weighted();
  std::vector<double> plain_times, times;
  for (auto _ : state) {
    plain_times.push_back(seconds(plain));
    times.push_back(seconds(weighted));
    state.SetIterationTime(times.back());
  }
  state.counters["over_plain"] = median(times) / median(plain_times) - 1;
  set_threads(state, all_threads());
}

void svd_growth(benchmark::State& state) {
  const Shape shape{1024, state.range(0), 64};
  const RowMatrix& w = workload<RowMatrix>(
      "svd growth " + shape.name(), [&] { return uniform_matrix(shape.rows, shape.cols, 1); });
  time_alone(state, [&] {
    pare::factor::truncated_svd(pare::simd.threads(all_threads()), w, {.rank = shape.rank});
  });
  state.SetComplexityN(shape.cols);
  set_threads(state, all_threads());
}

void add_svd(const char* row, const Shape& shape, Accuracy accuracy) {
  const std::string name = std::string(row) + "/" + shape.name();
  for (const int threads : {all_threads(), 1})
    large(benchmark::RegisterBenchmark(
              (threads == 1 ? name + "/t1" : name).c_str(),
              [=](benchmark::State& state) { svd(state, shape, accuracy, threads); }),
          1);
}

const bool registered = [] {
  const Shape square{4096, 4096, 512}, wide{4096, 11008, 512};
  for (const Shape& shape : {square, wide}) {
    register_memory_task("factor/svd/" + shape.name(), [shape] { svd_in_child(shape); });
    add_svd("factor/svd", shape, Accuracy::Standard);
  }
  add_svd("factor/svd_accurate", square, Accuracy::High);
  const Index small[][2] = {{256, 256}, {384, 384},   {384, 1536}, {512, 512},
                            {768, 768}, {1024, 1024}, {1536, 1536}};
  for (const auto& side : small)
    for (const Index part : {8, 4, 2})
      for (const int threads : {all_threads(), 1}) {
        const Shape shape{side[0], side[1], side[0] / part};
        const std::string name = "factor/svd_small/" + shape.name();
        large(benchmark::RegisterBenchmark(
                  (threads == 1 ? name + "/t1" : name).c_str(),
                  [=](benchmark::State& state) { svd_small(state, shape, threads); }),
              7);
      }
  large(benchmark::RegisterBenchmark(("factor/fwsvd/" + square.name()).c_str(),
                                     [=](benchmark::State& state) { fwsvd(state, square); }),
        3);
  for (const auto& [name, decay] : {std::pair{"i^-0.1", 0.1}, std::pair{"i^-0.3", 0.3}})
    for (const auto& [row, accuracy] : {std::pair{"factor/svd_slow/", Accuracy::Standard},
                                        std::pair{"factor/svd_slow_accurate/", Accuracy::High}})
      large(benchmark::RegisterBenchmark(
                (std::string(row) + name).c_str(),
                [decay, accuracy](benchmark::State& state) { svd_slow(state, decay, accuracy); }),
            1);
  auto* growth = benchmark::RegisterBenchmark("factor/growth/svd_columns", svd_growth)
                     ->UseManualTime()
                     ->Iterations(3)
                     ->Repetitions(3)
                     ->Unit(benchmark::kMillisecond)
                     ->Complexity(benchmark::oN);
  for (const std::int64_t cols : {4096, 8192, 16384, 32768}) growth->Arg(cols);
  return true;
}();

}  // namespace
