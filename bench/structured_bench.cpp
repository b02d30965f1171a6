// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers of structured weights against their own bytes, our dense layer and sparse libraries.
///
/// Up to 16 rows, calls go round among copies of the weight of 128 MiB together, as the layers of a
/// model lie one behind the other, and read from memory. The limit is the slower of reading the
/// weight as it is stored and of the multiply-adds of what is kept; of many rows, of all.

#include "counters.hpp"
#include "linear_data.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/two_four_linear.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::transformer;
using pare::bf16;
using pare::Index;
using pare::factor::TwoFour;
using pare::factor::TwoFourMask;

/// A random two of each four inputs.
TwoFourMask random_mask(Index outputs, Index inputs) {
  constexpr unsigned pairs[] = {3, 5, 6, 9, 10, 12};
  SplitMix64 random(3);
  TwoFourMask mask(outputs, inputs);
  for (Index o = 0; o < outputs; ++o)
    for (Index g = 0; g < inputs / TwoFourMask::group; ++g)
      mask.set_group(o, g, pairs[random.next() % 6]);
  return mask;
}

template <class S>
struct TwoFourData {
  TwoFourData(Index outputs, Index inputs, Index rows)
      : TwoFourData(
            TwoFour<S>::from(uniform_matrix(outputs, inputs, 1), random_mask(outputs, inputs)),
            rows) {}

  double bytes;
  RowMatrix dense;
  Copies<TwoFourLinear<S>> own;
  Copies<DenseLinear<bf16>> of_bf16;

 private:
  TwoFourData(const TwoFour<S>& weight, Index rows)
      : bytes(static_cast<double>(weight.bytes())),
        dense(dense_of(weight)),
        own(rows, bytes, [&] { return TwoFourLinear<S>(weight.copy()); }),
        of_bf16(rows, 2 * static_cast<double>(dense.size()),
                [&] { return DenseLinear<bf16>::copy_of(dense); }) {}

  static RowMatrix dense_of(const TwoFour<S>& weight) {
    RowMatrix dense(weight.outputs(), weight.inputs());
    weight.to_dense(dense);
    return dense;
  }
};

/// Sums of `inputs` products in any two orders, of weights that were rounded once.
bool agree(const RowMatrix& y, const RowMatrix& x, const RowMatrix& w) {
  for (Index r = 0; r < y.rows(); r += 1 + y.rows() / 4) {
    const Eigen::RowVectorXf wanted = x.row(r) * w.transpose();
    const float bound = 2 * static_cast<float>(w.cols()) * 0x1p-24f *
                        (x.row(r).cwiseAbs() * w.cwiseAbs().transpose()).maxCoeff();
    if (!((y.row(r) - wanted).cwiseAbs().maxCoeff() <= bound)) return false;
  }
  return true;
}

/// Seconds of sparse libraries for one vector; NaN of those that do not run.
void set_sparse_peers(benchmark::State& state, const RowMatrix& dense, int threads, double own) {
  const std::string shape[] = {std::to_string(threads), std::to_string(dense.rows()),
                               std::to_string(dense.cols())};
  for (const char* library : {"scipy", "torch"})
    set_vs(state, std::string(library) + "_csr",
           python_peer_seconds("two_four_peers.py", {library, shape[0], shape[1], shape[2]}), own);
  Eigen::SparseMatrix<float, Eigen::RowMajor> sparse = dense.sparseView();
  const Eigen::VectorXf x = Eigen::VectorXf::Ones(dense.cols());
  Eigen::VectorXf y(dense.rows());
  set_vs(state, "eigen_sparse",
         peer_seconds("eigen sparse two_four " + shape[0] + " " + shape[1] + " " + shape[2],
                      {{"row-major", [&] { y.noalias() = sparse * x; }}}),
         own);
}

template <class S>
void run_two_four(benchmark::State& state, Index outputs, Index inputs, Index rows, int threads,
                  bool peers) {
  auto& d = workload<TwoFourData<S>>("two_four " + std::to_string(sizeof(S)) + " " +
                                         std::to_string(outputs) + " " + std::to_string(inputs) +
                                         " " + std::to_string(rows),
                                     [&] { return TwoFourData<S>(outputs, inputs, rows); });
  const auto call = [&](auto& layer) {
    on_threads(threads, layer.workspace, [&](const auto& backend) { layer.run(backend); });
  };
  call(d.of_bf16);
  call(d.own);
  if (!agree(d.own.y, d.own.x, d.dense)) {
    state.SkipWithError("differs from Eigen's product");
    return;
  }
  const double weights = static_cast<double>(outputs * inputs);
  const bool streamed = rows <= most_streamed_rows;
  // About 20 ms on one core, and all copies at least once.
  const int calls = streamed ? static_cast<int>(std::max(8.0, 1e8 / weights)) : 1;
  std::vector<Demand> demands{{std::is_same_v<S, double> ? Limit::fma_f64 : Limit::fma_f32,
                               (streamed ? 1 : 2) * weights * static_cast<double>(rows) * calls}};
  if (streamed) demands.push_back({Limit::dram_read, d.bytes * calls});
  LimitProbe probe(threads, demands);
  std::vector<double> of_dense;
  const auto repeat = [&](auto& layer) {
    for (int i = 0; i < calls; ++i) call(layer);
  };
  const double own = time_between_probes(state, probe, [&] { repeat(d.own); });
  for (int i = 0; i < 3; ++i) of_dense.push_back(seconds([&] { repeat(d.of_bf16); }));
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "dense_bf16", median(of_dense), own);
  state.counters["GB_a_second"] = d.bytes * calls / own * 1e-9;
  state.counters["us_a_call"] = own / calls * 1e6;
  if (peers) set_sparse_peers(state, d.dense, threads, own / calls);
}

struct Shape {
  Index outputs, inputs;
  std::string name() const { return std::to_string(outputs) + "x" + std::to_string(inputs); }
};

template <class S>
void add_two_four(const std::string& work, Shape shape, Index rows, const std::string& scalar,
                  bool peers = false) {
  for (const int threads : {1, all_threads()}) {
    const std::string name = "structured/two_four/" + work + "/" + shape.name() + "/" + scalar +
                             (threads == 1 ? "/t1" : "");
    large(benchmark::RegisterBenchmark(name.c_str(), run_two_four<S>, shape.outputs, shape.inputs,
                                       rows, threads, peers),
          3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  constexpr Shape square{4096, 4096};
  add_two_four<bf16>("gemv", square, 1, "bf16", true);
  add_two_four<float>("gemv", square, 1, "f32");
  add_two_four<std::int8_t>("gemv", square, 1, "int8");
  for (const Shape shape : {Shape{576, 1536}, Shape{1536, 576}, Shape{384, 1536}, Shape{577, 580}})
    add_two_four<bf16>("gemv", shape, 1, "bf16");
  for (const Index rows : {4, 8, 16})
    add_two_four<bf16>("rows" + std::to_string(rows), square, rows, "bf16");
  add_two_four<bf16>("gemm/n256", square, 256, "bf16");
  return true;
}();
}  // namespace
