// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear layers of a language model of 135 million weights, by what they are stored in: one row
/// is a decode step, some are several streams or a draft that is verified, 512 a prompt.
///
/// Up to 16 rows, calls go round among copies of the weight of 128 MiB together, as the layers of a
/// model lie one behind the other, and read from memory; a last-level cache that holds more than
/// that may give an `of_limit` above 1. The limit is the slower of reading the weight and of the
/// multiply-adds. What blocks cost to de-quantise is no part of it: of one row of 4 bits it binds.

#include "counters.hpp"
#include "linear_data.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::transformer;
using pare::bf16;
using pare::Index;
using pare::kernel::Q4_1;
using pare::kernel::Q8_0;

/// Numbers below 1 in W, whatever it is.
template <class W>
void fill(SplitMix64& random, W& w, float* values) {
  if constexpr (pare::kernel::WeightBlock<W>) {
    for (auto& q : w.q) q = static_cast<std::remove_reference_t<decltype(q)>>(random.next());
    const bool bytes = std::is_same_v<W, Q8_0>;
    w.d = {static_cast<std::uint8_t>(random.next()),
           static_cast<std::uint8_t>(bytes ? 0x1c : 0x2c)};
    if constexpr (requires { w.m; }) w.m = {0, 0xb8};  // -1/2
    dequantize(w, values);
  } else {
    w = static_cast<W>(static_cast<float>(random.unit()) - 0.5f);
    *values = static_cast<float>(w);
  }
}

/// With `Rounds`, many rows are rounded to bf16.
template <class W, bool Rounds>
struct LinearData {
  LinearData(Index outputs, Index inputs, Index rows)
      : dense(outputs, inputs),
        x(uniform_matrix(rows, inputs, 2)),
        y(RowMatrix::Zero(rows, outputs)) {
    constexpr Index in_element = pare::kernel::weight_inputs<W>;
    size = static_cast<std::size_t>(outputs * inputs / in_element);
    const std::size_t together = rows > most_streamed_rows ? 1 : std::size_t{128} << 20;
    copies = 1 + (together - 1) / (size * sizeof(W));
    stored.resize(size * copies);
    SplitMix64 random(1);
    for (std::size_t i = 0; i < size; ++i)
      fill(random, stored[i], dense.data() + static_cast<Index>(i) * in_element);
    for (std::size_t copy = 1; copy < copies; ++copy)
      std::memcpy(stored.data() + copy * size, stored.data(), size * sizeof(W));
  }

  auto layer(std::size_t copy) const {
    const W* const first = stored.data() + copy * size;
    if constexpr (pare::kernel::WeightBlock<W>)
      return QuantizedLinear<W>(std::span<const W>(first, size), dense.rows(), dense.cols());
    else
      return DenseLinear<W>(
          pare::TensorView<const W, 2>{first, {dense.rows(), dense.cols()}, {dense.cols(), 1}},
          {.round_inputs = Rounds});
  }

  template <class B>
  void apply(const B& backend) {
    layer(next++ % copies)
        .apply(backend.with(workspace), as_const(pare::to_view(x)), pare::to_view(y));
  }

  std::vector<W> stored;
  std::size_t size = 0, copies = 1, next = 0;
  RowMatrix dense, x, y;
  pare::Workspace workspace;
};

/// Sums of `inputs` products in any two orders, each term off by up to `rounding` of itself.
bool agree(const RowMatrix& y, const RowMatrix& x, const RowMatrix& w, float rounding) {
  for (Index r = 0; r < y.rows(); r += 1 + y.rows() / 4) {
    const Eigen::RowVectorXf wanted = x.row(r) * w.transpose();
    const float bound = (2 * static_cast<float>(w.cols()) * 0x1p-24f + rounding) *
                        (x.row(r).cwiseAbs() * w.cwiseAbs().transpose()).maxCoeff();
    if (!((y.row(r) - wanted).cwiseAbs().maxCoeff() <= bound)) return false;
  }
  return true;
}

/// As its users would write it, with the weight in float.
void multiply_by_eigen(const RowMatrix& x, const RowMatrix& w, RowMatrix& y) {
  if (x.rows() == 1)
    y.row(0).transpose().noalias() = w * x.row(0).transpose();
  else
    y.noalias() = x * w.transpose();
}

template <class W, bool Rounds>
void run_linear(benchmark::State& state, const std::string& name, Index outputs, Index inputs,
                Index rows, int threads) {
  auto& d = workload<LinearData<W, Rounds>>(
      "linear " + name + std::to_string(outputs) + " " + std::to_string(rows),
      [&] { return LinearData<W, Rounds>(outputs, inputs, rows); });
  const auto call = [&] { on_threads(threads, [&](const auto& backend) { d.apply(backend); }); };
  call();
  if (!agree(d.y, d.x, d.dense, Rounds ? 0x1p-9f : 0)) {
    state.SkipWithError("differs from Eigen's product");
    return;
  }
  const double weights = static_cast<double>(outputs * inputs);
  // About 20 ms on one core, and all copies at least once.
  const int calls = rows > most_streamed_rows ? 1 : static_cast<int>(std::max(1.0, 6e7 / weights));
  const double bytes = static_cast<double>(d.size * sizeof(W));
  std::vector<Demand> demands{
      {Rounds ? Limit::dot_bf16 : Limit::fma_f32, 2 * weights * static_cast<double>(rows) * calls}};
  if (rows <= most_streamed_rows) demands.push_back({Limit::dram_read, bytes * calls});
  LimitProbe probe(threads, demands);
  const double own = time_between_probes(state, probe, [&] {
    for (int i = 0; i < calls; ++i) call();
  });
  set_of_limit(state, probe.seconds(), own);
  state.counters["GB_a_second"] = bytes * calls / own * 1e-9;
  state.counters["us_a_call"] = own / calls * 1e6;
  // One copy of a small weight would be read from cache.
  if (threads > 1 || (rows <= most_streamed_rows && outputs < 49152)) return;
  Eigen::setNbThreads(1);
  std::vector<double> peer;
  for (int i = 0; i < 3; ++i)
    peer.push_back(seconds([&] { multiply_by_eigen(d.x, d.dense, d.y); }));
  set_vs(state, "eigen_f32", median(peer) * calls, own);
}

template <class W, bool Rounds = false>
void add_rows(const std::string& name) {
  struct Shape {
    const char* name;
    Index outputs, inputs;
  };
  for (const Shape shape :
       {Shape{"576x576", 576, 576}, Shape{"1536x576", 1536, 576}, Shape{"49152x576", 49152, 576}})
    for (const Index rows : {1, 4, 16, 512})
      for (const int threads : {1, all_threads()}) {
        if (Rounds && rows <= most_streamed_rows) continue;
        std::string full = "linear/" + name + "/" + shape.name + "/rows" + std::to_string(rows);
        if (threads == 1) full += "/t1";
        large(benchmark::RegisterBenchmark(full.c_str(), run_linear<W, Rounds>, name, shape.outputs,
                                           shape.inputs, rows, threads),
              3);
        if (all_threads() == 1) break;
      }
}

const bool registered = [] {
  add_rows<float>("f32");
  add_rows<bf16>("bf16");
  add_rows<bf16, true>("bf16_rounded");
  add_rows<Q8_0>("q8_0");
  add_rows<Q4_1>("q4_1");
  return true;
}();
}  // namespace
