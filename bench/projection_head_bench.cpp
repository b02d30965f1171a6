// SPDX-License-Identifier: Apache-2.0

/// \file
/// Projection heads of multi-vector retrieval: 384 inputs through a block of 768 with a residual
/// layer and SiLU to rows of 128 of length 1. Products bind; of one row, reading the weights, 2.75
/// MB, which lie in L2, or in L3 where it is smaller. Eigen runs on one thread.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/retrieval/projection.hpp>
#include <pare/retrieval/projection_head.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using Layer = pare::transformer::DenseLinear<float>;
using Block = pare::retrieval::Projection<Layer, pare::transformer::Silu, Layer>;

constexpr Index inputs = 384, between = 768, outputs = 128;

struct HeadData {
  explicit HeadData(Index rows)
      : x(uniform_matrix(rows, inputs, 1)),
        up(0.1f * uniform_matrix(between, inputs, 2)),
        residual(0.1f * uniform_matrix(between, inputs, 3)),
        down(0.1f * uniform_matrix(outputs, between, 4)),
        y(RowMatrix::Zero(rows, outputs)),
        head(Block(Layer(up), Layer(residual)), Layer(down)) {}

  template <class B>
  void run(const B& backend) {
    head.apply(backend, x, y);
  }
  /// As its users write it, by Eigen in float.
  RowMatrix by_eigen() const {
    RowMatrix wide = x * up.transpose();
    wide = wide.array() / (1 + (-wide.array()).exp());
    wide.noalias() += x * residual.transpose();
    return RowMatrix(wide * down.transpose()).rowwise().normalized();
  }
  double error() {
    run(pare::simd);
    return static_cast<double>((by_eigen() - y).cwiseAbs().maxCoeff());
  }

  RowMatrix x, up, residual, down, y;
  pare::retrieval::ProjectionHead<Block, Layer> head;
  pare::Workspace workspace;
};

void run_head(benchmark::State& state, Index rows, int threads) {
  HeadData data(rows);
  if (!(data.error() < 1e-5)) return state.SkipWithError("differs from Eigen's head");
  const double weights = 2 * static_cast<double>(inputs * between) + outputs * between;
  const int calls = static_cast<int>(std::max<Index>(1, 20000 / (rows + 10)));
  LimitProbe probe(threads, {{Limit::fma_f32, 2 * weights * static_cast<double>(rows) * calls},
                             {Limit::l2_read, 4 * weights * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  Eigen::setNbThreads(1);
  const double eigen = usual_seconds([&] {
    for (int i = 0; i < calls; ++i) benchmark::DoNotOptimize(data.by_eigen().data());
  });
  if (threads == 1) set_vs(state, "eigen", eigen, own);
  set_vs(state, "torch",
         calls * python_peer_seconds("projection_head_torch.py",
                                     {std::to_string(threads), std::to_string(rows)}),
         own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

const bool registered = [] {
  for (const int threads : {1, all_threads()}) {
    for (const Index rows : {1, 32, 180, 4096})
      large(benchmark::RegisterBenchmark(
                ("retrieval/projection_head/384x768x128/n" + std::to_string(rows) +
                 (threads == 1 ? "/t1" : ""))
                    .c_str(),
                [=](benchmark::State& state) { run_head(state, rows, threads); }),
            5);
    if (all_threads() == 1) break;
  }
  return true;
}();
}  // namespace
