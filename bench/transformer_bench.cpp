// SPDX-License-Identifier: Apache-2.0

/// \file
/// The rows of a transformer between its products: norms, gates, softmax, rotary embedding. Of one
/// row, as a decode step has them, what counts is the call; of 512 the caches or the exponential
/// bind, of 8192 memory.

#include "counters.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/softmax.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::transformer;
using pare::Index;

/// The inputs of one size; y is where results go, so that no input grows or fades over many calls.
struct RowData {
  RowData(Index rows, Index dim)
      : x(uniform_matrix(rows, dim, 1)),
        up(uniform_matrix(rows, dim, 2)),
        y(RowMatrix::Zero(rows, dim)),
        gain(Eigen::RowVectorXf::Constant(dim, 1.5f)),
        table(rotary_frequencies(64), rows) {}

  /// Heads of 64, as they lie behind a product.
  pare::TensorView<float, 4> heads() {
    return {y.data(), {1, y.cols() / 64, y.rows(), 64}, {y.size(), 64, y.cols(), 1}};
  }

  RowMatrix x, up, y;
  Eigen::RowVectorXf gain;
  RotaryTable<float> table;
};

/// What is measured: the call, the same as Eigen's users would write it, the bytes and the flops of
/// an element that no form can do without, and the largest difference that both may have.
struct Work {
  const char* name;
  std::function<void(RowData&, int)> run;
  std::function<void(RowData&)> eigen;
  double bytes;
  double flops;
};

template <class F>
auto over_data(const F& f) {
  return [f](RowData& d, int threads) {
    on_threads(threads, [&](const auto& backend) { f(backend, d); });
  };
}

const std::vector<Work>& works() {
  static const std::vector<Work> all{
      // Read once from where it lies and written; two flops for the sum, two products.
      {"rms_norm", over_data([](const auto& b, RowData& d) { rms_norm(b, d.x, d.gain, d.y); }),
       [](RowData& d) {
         for (Index i = 0; i < d.x.rows(); ++i)
           d.y.row(i).array() =
               d.x.row(i).array() *
               (1 / std::sqrt(d.x.row(i).squaredNorm() / static_cast<float>(d.x.cols()) + 1e-5f)) *
               d.gain.array();
       },
       8, 4},
      {"layer_norm",
       over_data([](const auto& b, RowData& d) { layer_norm(b, d.x, d.gain, d.gain, d.y); }),
       [](RowData& d) {
         for (Index i = 0; i < d.x.rows(); ++i) {
           const float mean = d.x.row(i).mean();
           const float variance = (d.x.row(i).array() - mean).square().mean();
           d.y.row(i).array() =
               (d.x.row(i).array() - mean) / std::sqrt(variance + 1e-5f) * d.gain.array() +
               d.gain.array();
         }
       },
       8, 8},
      // An exponential of two steps of reduction and six of a polynomial, two scalings, a sum, the
      // two products: 13 multiply-adds, and a division that counts as 8 of them.
      {"silu_gate",
       over_data([](const auto& b, RowData& d) { activate_gated(b, d.x, d.up, d.y, Silu{}); }),
       [](RowData& d) { d.y.array() = d.x.array() / (1 + (-d.x.array()).exp()) * d.up.array(); },
       12, 42},
      // An exponential of seven steps, a difference, a product, a sum, a share.
      {"softmax", over_data([](const auto& b, RowData& d) { softmax(b, d.x, d.y); }),
       [](RowData& d) {
         for (Index i = 0; i < d.x.rows(); ++i) {
           d.y.row(i).array() = (d.x.row(i).array() - d.x.row(i).maxCoeff()).exp();
           d.y.row(i) /= d.y.row(i).sum();
         }
       },
       8, 22},
      {"rotary", over_data([](const auto& b, RowData& d) {
         rotate(b, d.heads(), d.table, {.layout = RotaryLayout::HalfSplit});
       }),
       [](RowData& d) {
         const Index pairs = d.table.pairs();
         for (Index t = 0; t < d.y.rows(); ++t) {
           const Eigen::Map<const Eigen::RowVectorXf> c(d.table.data() + t * 2 * pairs, pairs);
           const Eigen::Map<const Eigen::RowVectorXf> s(c.data() + pairs, pairs);
           for (Index h = 0; h < d.y.cols(); h += 2 * pairs) {
             const Eigen::RowVectorXf low = d.y.row(t).segment(h, pairs);
             auto first = d.y.row(t).segment(h, pairs),
                  second = d.y.row(t).segment(h + pairs, pairs);
             first = (low.array() * c.array() - second.array() * s.array()).matrix();
             second = (second.array() * c.array() + low.array() * s.array()).matrix();
           }
         }
       },
       8, 3},
  };
  return all;
}

/// Both forms from the same start give the same but for some roundings of numbers below 8.
bool agree(RowData& d, const Work& work, int threads) {
  d.y = d.x;
  work.eigen(d);
  const RowMatrix wanted = d.y;
  d.y = d.x;
  work.run(d, threads);
  return (d.y - wanted).cwiseAbs().maxCoeff() < 64 * 0x1p-24f;
}

/// Enough calls that the clock does not count.
int calls_of(Index elements) {
  return static_cast<int>(std::max<Index>(1, (Index{1} << 21) / elements));
}

void run_rows(benchmark::State& state, const Work& work, Index rows, Index dim, int threads) {
  RowData& d = workload<RowData>("rows " + std::to_string(rows) + "x" + std::to_string(dim),
                                 [&] { return RowData(rows, dim); });
  if (!agree(d, work, threads)) {
    state.SkipWithError("differs from Eigen's form");
    return;
  }
  const int calls = calls_of(rows * dim);
  const double elements = static_cast<double>(rows * dim) * calls;
  // One row is in L1, 512 of 576 in L2. 8192 rows are read from memory and written; of a last-level
  // cache that holds their 50 MB the limit is passed.
  const Limit cache = rows == 1 ? Limit::l1_read : rows < 1024 ? Limit::l2_read : Limit::copy;
  LimitProbe probe(threads,
                   {{Limit::fma_f32, elements * work.flops}, {cache, elements * work.bytes}});
  const auto repeated = [&](const auto& f) {
    return [&, f] {
      for (int i = 0; i < calls; ++i) f();
    };
  };
  const double own = time_between_probes(state, probe, repeated([&] { work.run(d, threads); }));
  std::vector<double> peer;
  for (int i = 0; i < 3; ++i) peer.push_back(seconds(repeated([&] { work.eigen(d); })));
  std::vector<double> copied;
  for (int i = 0; i < 3; ++i)
    copied.push_back(seconds(repeated([&] {
      std::copy_n(d.x.data(), d.x.size(), d.y.data());
      benchmark::ClobberMemory();
    })));
  set_of_limit(state, probe.seconds(), own);
  if (threads == 1) set_vs(state, "copy", median(copied), own);
  if (threads == 1) set_vs(state, "eigen", median(peer), own);
  state.counters["ns_a_call"] = own / calls * 1e9;
}

const bool registered = [] {
  struct Size {
    const char* name;
    Index rows, dim;
  };
  for (const Work& work : works())
    for (const Size size :
         {Size{"1x576", 1, 576}, Size{"512x576", 512, 576}, Size{"8192x1536", 8192, 1536}})
      for (const int threads : {1, all_threads()}) {
        // One row is one piece of work.
        if (threads > 1 && size.rows == 1) continue;
        // A gate of a model of 576 is 1536 wide.
        const bool gate = std::string(work.name) == "silu_gate" && size.rows == 1;
        std::string name =
            std::string("transformer/") + work.name + "/" + (gate ? "1x1536" : size.name);
        if (threads == 1) name += "/t1";
        large(benchmark::RegisterBenchmark(name.c_str(), run_rows, work, size.rows,
                                           gate ? Index{1536} : size.dim, threads),
              5);
        if (all_threads() == 1) break;
      }
  return true;
}();
}  // namespace
