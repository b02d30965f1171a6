// SPDX-License-Identifier: Apache-2.0

/// \file
/// What weighs a factorization: squared bf16 gradients summed along both axes, bound by reading
/// them once, and X^T X of bf16 activations, bound by multiplying.

#include "check.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/factor/covariance.hpp>
#include <pare/factor/fisher.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <array>
#include <cstdint>
#include <string>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::factor::Axis;
using pare::factor::Covariance;
using pare::factor::FisherDiagonal;
using BfloatRows = Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr Index rows_at_once = 256;  ///< of a range that a peer's worker takes

BfloatRows bfloat_matrix(Index rows, Index cols, std::uint64_t seed) {
  BfloatRows m(rows, cols);
  SplitMix64 random(seed);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<Eigen::bfloat16>(static_cast<float>(2 * random.unit() - 1));
  return m;
}

// ---------------------------------------------------------------- Fisher information

// Gradients of two layers come in turn, as those of a model do: what one call leaves in the
// last-level cache is not what the next one reads.
struct FisherWork {
  FisherWork(Index rows, Index cols)
      : gradients{bfloat_matrix(rows, cols, 1), bfloat_matrix(rows, cols, 2)},
        layers{FisherDiagonal(rows, cols), FisherDiagonal(rows, cols)} {}

  void run(int threads) {
    const std::size_t at = turn++ % layers.size();
    layers[at].add_gradient(pare::simd.threads(threads), gradients[at]);
  }

  std::array<BfloatRows, 2> gradients;
  std::array<FisherDiagonal, 2> layers;
  std::size_t turn = 0;
};

FisherWork& fisher_work(Index rows, Index cols) {
  return workload<FisherWork>("fisher " + std::to_string(rows) + "x" + std::to_string(cols),
                              [&] { return FisherWork(rows, cols); });
}

// Means over calls of the same gradient are its sums.
bool fisher_is_right(const FisherWork& work) {
  for (std::size_t at = 0; at < work.layers.size(); ++at) {
    const BfloatRows& g = work.gradients[at];
    Eigen::VectorXd outputs = Eigen::VectorXd::Zero(g.rows());
    Eigen::VectorXd inputs = Eigen::VectorXd::Zero(g.cols());
    for (Index i = 0; i < g.rows(); ++i)
      for (Index j = 0; j < g.cols(); ++j) {
        const auto x = static_cast<double>(static_cast<float>(g(i, j)));
        outputs[i] += x * x;
        inputs[j] += x * x;
      }
    const double gamma = gamma_bound<float>(300);
    if (!within(work.layers[at].sums(Axis::Output), outputs, gamma * outputs) ||
        !within(work.layers[at].sums(Axis::Input), inputs, gamma * inputs))
      return false;
  }
  return true;
}

double eigen_fisher_seconds(const FisherWork& work, int threads) {
  const BfloatRows& g = work.gradients[0];
  Eigen::VectorXf outputs = Eigen::VectorXf::Zero(g.rows());
  Eigen::RowVectorXf inputs = Eigen::RowVectorXf::Zero(g.cols());
  Eigen::setNbThreads(1);
  return peer_seconds("eigen fisher t" + std::to_string(threads),
                      {{"rowwise and colwise sums of the whole",
                        [&] {
                          outputs += g.cast<float>().cwiseAbs2().rowwise().sum();
                          inputs += g.cast<float>().cwiseAbs2().colwise().sum();
                        }},
                       {"squares of blocks of rows, shared out", [&] {
                          RowMatrix partial((g.rows() + rows_at_once - 1) / rows_at_once, g.cols());
                          over_ranges(threads, g.rows(), rows_at_once, [&](Index begin, Index end) {
                            const RowMatrix squares =
                                g.middleRows(begin, end - begin).cast<float>().cwiseAbs2();
                            outputs.segment(begin, end - begin) += squares.rowwise().sum();
                            partial.row(begin / rows_at_once) = squares.colwise().sum();
                          });
                          inputs += partial.colwise().sum();
                        }}});
}

void fisher(benchmark::State& state) {
  constexpr Index rows = 8192, cols = 4096;
  FisherWork& work = fisher_work(rows, cols);
  const int threads = all_threads();
  for (std::size_t layer = 0; layer < work.layers.size(); ++layer) work.run(threads);
  if (!fisher_is_right(work)) return state.SkipWithError("result differs from the definition");
  const double eigen = eigen_fisher_seconds(work, threads);
  constexpr double bytes = 2.0 * static_cast<double>(rows) * cols;
  LimitProbe probe(threads, {{Limit::dram_read, bytes}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", eigen, own);
  state.counters["GB/s"] = bytes / own * 1e-9;
  set_threads(state, threads);
}

void fisher_growth(benchmark::State& state) {
  FisherWork& work = fisher_work(state.range(0), 4096);
  work.run(all_threads());
  time_alone(state, [&] { work.run(all_threads()); });
  state.SetComplexityN(state.range(0));
  set_threads(state, all_threads());
}

// ---------------------------------------------------------------- covariance

struct CovarianceWork {
  CovarianceWork(Index tokens, Index dim) : x(bfloat_matrix(tokens, dim, 3)), covariance(dim) {}

  void run(int threads) { covariance.add(pare::simd.threads(threads), x); }

  BfloatRows x;
  Covariance covariance;
};

CovarianceWork& covariance_work(Index tokens, Index dim) {
  return workload<CovarianceWork>(
      "covariance " + std::to_string(tokens) + "x" + std::to_string(dim),
      [&] { return CovarianceWork(tokens, dim); });
}

// Whole rows from all over the matrix; a native bf16 product rounds twice a pair.
bool covariance_is_right(const CovarianceWork& work) {
  const Eigen::MatrixXd x = work.x.cast<float>().cast<double>();
  const auto c = work.covariance.matrix();
  const auto n = static_cast<double>(x.rows());
  for (Index row = 0; row < x.cols(); row += x.cols() / 16 - 1) {
    const Eigen::RowVectorXd wanted = x.col(row).transpose() * x / n;
    const Eigen::RowVectorXd size = x.col(row).cwiseAbs().transpose() * x.cwiseAbs() / n;
    if (!within(c.row(row), wanted, gamma_bound<float>(514) * size)) return false;
  }
  return true;
}

double eigen_covariance_seconds(const CovarianceWork& work, int threads) {
  const Index dim = work.x.cols();
  Eigen::MatrixXf c = Eigen::MatrixXf::Zero(dim, dim);
  Eigen::setNbThreads(threads);
  return peer_seconds("eigen covariance t" + std::to_string(threads),
                      {{"C += X.transpose() * X, Eigen's own threads",
                        [&] {
                          const RowMatrix x = work.x.cast<float>();
                          c.noalias() += x.transpose() * x;
                        }},
                       {"selfadjointView().rankUpdate()", [&] {
                          const RowMatrix x = work.x.cast<float>();
                          c.selfadjointView<Eigen::Lower>().rankUpdate(x.transpose());
                        }}});
}

void covariance(benchmark::State& state) {
  constexpr Index tokens = 8192, dim = 4096;
  CovarianceWork& work = covariance_work(tokens, dim);
  const int threads = all_threads();
  work.run(threads);
  if (!covariance_is_right(work)) return state.SkipWithError("result differs from the definition");
  const double eigen = eigen_covariance_seconds(work, threads);
  // Two FLOPs for each of tokens dim (dim + 1) / 2 products.
  constexpr double flops = static_cast<double>(tokens) * dim * (dim + 1);
  LimitProbe probe(threads, {{Limit::dot_bf16, flops}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", eigen, own);
  state.counters["GFLOP/s"] = flops / own * 1e-9;
  set_threads(state, threads);
}

void covariance_growth(benchmark::State& state) {
  CovarianceWork& work = covariance_work(state.range(0), 2048);
  work.run(all_threads());
  time_alone(state, [&] { work.run(all_threads()); });
  state.SetComplexityN(state.range(0));
  set_threads(state, all_threads());
}

const bool registered = [] {
  large(benchmark::RegisterBenchmark("factor/fisher/8192x4096", fisher), 20);
  large(benchmark::RegisterBenchmark("factor/covariance/8192x4096", covariance), 3);
  const auto add_growth = [](const char* name, auto function) {
    return benchmark::RegisterBenchmark(name, function)
        ->UseManualTime()
        ->Iterations(5)
        ->Repetitions(3)
        ->Unit(benchmark::kMillisecond)
        ->Complexity(benchmark::oN);
  };
  // Gradients from 67 MB on, larger than the last-level cache of most machines.
  auto* rows = add_growth("factor/growth/fisher_outputs", fisher_growth);
  for (const std::int64_t n : {8192, 16384, 32768, 65536}) rows->Arg(n);
  auto* tokens = add_growth("factor/growth/covariance_tokens", covariance_growth);
  for (const std::int64_t n : {4096, 8192, 16384, 32768}) tokens->Arg(n);
  return true;
}();

}  // namespace
