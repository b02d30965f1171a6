// SPDX-License-Identifier: Apache-2.0

/// \file
/// MaxSim of one query with many documents.
///
/// `of_limit` is of the slower of the products (fma_f32, fma_f64, dot_bf16) and one read of the
/// documents (dram_read), both on as many threads as the row has; `of_read` is of the read alone.
/// `vs_eigen` is one product and column maxima for each document, `vs_torch` a batched product of
/// documents in one tensor, `vs_maxsim_cpu` the library of that name, in float. Of bf16, `vs_f32`
/// is Pare's own row in float.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/matrix.hpp>
#include <pare/retrieval/max_sim.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/Core>

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

struct Shape {
  Index query_tokens, dim, tokens, documents;
};

template <class S>
struct MaxSimData {
  using T = pare::compute_t<S>;

  explicit MaxSimData(const Shape& shape)
      : queries(rows(shape.query_tokens, shape.dim, 1)),
        documents(rows(shape.tokens * shape.documents, shape.dim, 2)),
        scores(static_cast<std::size_t>(shape.documents)) {
    for (Index d = 0; d <= shape.documents; ++d) offsets.push_back(d * shape.tokens);
  }

  template <class B>
  void run(const B& backend) {
    pare::retrieval::max_sim(backend, queries, documents, offsets, scores);
  }
  /// Some documents by the definition; products are off by u a term.
  bool is_right() {
    run(pare::simd);
    const Index step = static_cast<Index>(scores.size()) / 3 + 1, tokens = offsets[1];
    for (Index d = 0; d < static_cast<Index>(scores.size()); d += step) {
      const auto wanted = pare::retrieval::max_sim(pare::reference, queries,
                                                   documents.middleRows(d * tokens, tokens),
                                                   std::vector<Index>{0, tokens});
      const double off = std::abs(static_cast<double>(scores[static_cast<std::size_t>(d)]) -
                                  static_cast<double>(wanted[0]));
      if (!(off <= 1e-5 * static_cast<double>(queries.rows() * queries.cols()))) return false;
    }
    return true;
  }

  static pare::RowMatrix<S> rows(Index count, Index dim, std::uint64_t seed) {
    SplitMix64 random(seed);
    pare::RowMatrix<S> m(count, dim);
    for (Index i = 0; i < m.size(); ++i)
      m.data()[i] = static_cast<S>(static_cast<T>(2 * random.unit() - 1));
    return m;
  }

  pare::RowMatrix<S> queries, documents;
  std::vector<Index> offsets;
  std::vector<T> scores;
  pare::Workspace workspace;
};

template <class S>
MaxSimData<S>& data_of(const Shape& s) {
  const std::string name = "max_sim " + std::to_string(sizeof(S)) + ' ' +
                           std::to_string(s.query_tokens) + ' ' + std::to_string(s.dim) + ' ' +
                           std::to_string(s.documents);
  return workload<MaxSimData<S>>(name, [&] { return MaxSimData<S>(s); });
}

void compare_with_eigen(benchmark::State& state, MaxSimData<float>& data, int calls, double own) {
  const Index tokens = data.offsets[1];
  Eigen::MatrixXf products(tokens, data.queries.rows());
  const double eigen = peer_seconds(
      "eigen", {{"by document", [&] {
                   for (std::size_t d = 0; d < data.scores.size(); ++d) {
                     products.noalias() = data.documents.middleRows(data.offsets[d], tokens) *
                                          data.queries.transpose();
                     data.scores[d] = products.colwise().maxCoeff().sum();
                   }
                 }}});
  set_vs(state, "eigen", calls * eigen, own);
}

template <class S>
void run_max_sim(benchmark::State& state, const Shape& shape, int threads) {
  MaxSimData<S>& data = data_of<S>(shape);
  if (!data.is_right()) return state.SkipWithError("differs from the definition");
  const double tokens = static_cast<double>(shape.tokens * shape.documents);
  const double numbers = tokens * static_cast<double>(shape.dim);
  const int calls = static_cast<int>(std::max(1.0, 2e5 / tokens));
  const Limit products = std::is_same_v<S, double> ? Limit::fma_f64
                         : std::is_same_v<S, bf16> ? Limit::dot_bf16
                                                   : Limit::fma_f32;
  const Demand flops{products, 2 * static_cast<double>(shape.query_tokens) * numbers * calls};
  const Demand bytes{Limit::dram_read, numbers * sizeof(S) * calls};
  // Few documents stay in a cache.
  const bool from_memory = bytes.amount > 40e6 * calls;
  LimitProbe probe(threads, from_memory ? std::vector<Demand>{flops, bytes} : std::vector{flops});
  LimitProbe read(threads, {bytes});
  read.sample();
  const double own = time_calls(state, probe, data, threads, calls);
  read.sample();
  set_of_limit(state, probe.seconds(), own);
  if (from_memory) state.counters["of_read"] = read.seconds() / own;
  const auto python = [&](const std::string& way) {
    return calls *
           python_peer_seconds("max_sim_peers.py",
                               {way, std::to_string(threads), std::to_string(shape.query_tokens),
                                std::to_string(shape.dim), std::to_string(shape.tokens),
                                std::to_string(shape.documents)});
  };
  if constexpr (std::is_same_v<S, float>) {
    if (threads == 1) compare_with_eigen(state, data, calls, own);
    set_vs(state, "torch", python("torch"), own);
    set_vs(state, "maxsim_cpu", python("maxsim_cpu"), own);
  } else if constexpr (std::is_same_v<S, bf16>) {
    set_vs(state, "torch", python("torch_bf16"), own);
    MaxSimData<float> wide(shape);
    const double f32 = usual_seconds([&] {
      for (int i = 0; i < calls; ++i)
        if (threads == 1)
          wide.run(pare::simd.with(wide.workspace));
        else
          wide.run(pare::simd.threads(threads).with(wide.workspace));
    });
    set_vs(state, "f32", f32, own);
  }
}

template <class S>
void add(const std::string& name, const Shape& shape) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              ("retrieval/max_sim/" + name + (threads == 1 ? "/t1" : "")).c_str(),
              [shape, threads](benchmark::State& state) { run_max_sim<S>(state, shape, threads); }),
          5);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  add<float>("q32/d128/f32", {32, 128, 180, 1000});
  add<bf16>("q32/d128/bf16", {32, 128, 180, 1000});
  add<double>("q32/d128/f64", {32, 128, 180, 300});
  add<float>("q32/d128/f32/n20", {32, 128, 180, 20});
  add<float>("q32/d96/f32", {32, 96, 180, 1000});
  add<float>("q32/d127/f32", {32, 127, 180, 1000});
  add<float>("q4/d128/f32", {4, 128, 180, 1000});
  add<bf16>("q4/d128/bf16", {4, 128, 180, 1000});
  return true;
}();
}  // namespace
