// SPDX-License-Identifier: Apache-2.0

/// \file
/// Global-query attention (LAMA). `of_limit` is of what takes longer: 2 heads multiply-adds an
/// element of h and an addition for the mean, or reading h, once where a sequence stays in L2 and
/// else twice. `of_read` is the latter alone.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/attention/global_query.hpp>
#include <pare/core/aligned_buffer.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;

struct QueryShape {
  const char* name;
  Index batch, tokens, dim, heads;
  Index size() const { return batch * tokens * dim; }
};

template <class S>
struct QueryData {
  explicit QueryData(const QueryShape& s)
      : shape(s),
        h(memory.resize(static_cast<std::size_t>(s.size()))),
        p(uniform_matrix(s.dim, s.heads, 1)),
        q(uniform_matrix(s.dim, s.heads, 2)),
        out(RowMatrix::Zero(s.batch * s.heads, s.dim)) {
    SplitMix64 random(3);
    for (Index k = 0; k < s.size(); ++k)
      h[k] = static_cast<S>(static_cast<float>(random.unit() - 0.4));
  }
  template <class B>
  void run(const B& backend) {
    pare::attention::global_query(
        backend,
        pare::TensorView<const S, 3>{
            h, {shape.batch, shape.tokens, shape.dim}, {shape.tokens * shape.dim, shape.dim, 1}},
        p, q,
        pare::TensorView<float, 3>{out.data(),
                                   {shape.batch, shape.heads, shape.dim},
                                   {shape.heads * shape.dim, shape.dim, 1}});
  }
  /// The last sequence, by Eigen in double.
  bool is_right() {
    run(pare::simd);
    Eigen::MatrixXd rows(shape.tokens, shape.dim);
    const S* const from = h + (shape.batch - 1) * shape.tokens * shape.dim;
    for (Index t = 0; t < shape.tokens; ++t)
      for (Index j = 0; j < shape.dim; ++j)
        rows(t, j) = static_cast<double>(static_cast<float>(from[t * shape.dim + j]));
    const Eigen::RowVectorXd scale = rows.colwise().mean() * p.cast<double>();
    Eigen::MatrixXd f = rows * q.cast<double>();
    for (Index t = 0; t < shape.tokens; ++t) {
      f.row(t) = (f.row(t).array() * scale.array()).tanh().matrix();
      f.row(t) = (f.row(t) / f.row(t).norm()).array().exp().matrix();
    }
    for (Index m = 0; m < shape.heads; ++m) f.col(m) /= f.col(m).sum();
    const Eigen::MatrixXd wanted = f.transpose() * rows;
    return (out.bottomRows(shape.heads).cast<double>() - wanted).cwiseAbs().maxCoeff() < 2e-4;
  }

  QueryShape shape;
  pare::AlignedBuffer<S> memory;
  S* h;
  RowMatrix p, q, out;
  pare::Workspace workspace;
};

template <class S>
void run_query(benchmark::State& state, const QueryShape& shape, int threads) {
  const std::string scalar = std::is_same_v<S, bf16> ? "bf16" : "f32";
  auto& data = workload<QueryData<S>>(std::string("query ") + shape.name + scalar,
                                      [&] { return QueryData<S>(shape); });
  if (!data.is_right()) return state.SkipWithError("result differs from the formula");
  const auto size = static_cast<double>(shape.size());
  const int calls = static_cast<int>(std::max(1.0, 4e6 / size));
  const double bytes = size * sizeof(S);
  const bool twice = static_cast<double>(shape.tokens * shape.dim) * sizeof(S) > (512 << 10);
  const double read = bytes * (twice ? 2 : 1) * calls;
  const Limit memory = bytes > (24 << 20) ? Limit::dram_read : Limit::l2_read;
  LimitProbe probe(threads,
                   {{Limit::fma_f32, size * (4.0 * static_cast<double>(shape.heads) + 2) * calls},
                    {memory, read}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  state.counters["of_read"] = read / cached(memory, threads) / own;
  std::vector<std::string> arguments{"global_query", "all", scalar, std::to_string(threads)};
  for (const Index n : {shape.batch, shape.tokens, shape.dim, shape.heads})
    arguments.push_back(std::to_string(n));
  set_vs(state, "torch", python_peer_seconds("sequence_torch.py", arguments) * calls, own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

template <class S>
void add(const QueryShape& shape, int threads) {
  large(benchmark::RegisterBenchmark(
            (std::string("heads/global_query/") + shape.name + (threads == 1 ? "/t1" : "")).c_str(),
            [shape, threads](benchmark::State& state) { run_query<S>(state, shape, threads); }),
        5);
}

const bool registered = [] {
  for (const int threads : {1, all_threads()}) {
    add<float>({"d256/h8/batch64", 64, 512, 256, 8}, threads);
    add<float>({"d256/h4/batch128", 128, 512, 256, 4}, threads);
    add<float>({"d512/h8/n32768", 1, 32768, 512, 8}, threads);
    add<bf16>({"bf16/d256/h8/batch128", 128, 512, 256, 8}, threads);
    add<float>({"d256/h30/batch64", 64, 512, 256, 30}, threads);
    add<float>({"d256/h8/n40", 1, 40, 256, 8}, threads);
    add<float>({"odd/d203/h5/n77", 3, 77, 203, 5}, threads);
    if (all_threads() == 1) break;
  }
  return true;
}();
}  // namespace
