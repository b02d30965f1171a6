// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact search: the 100 largest products of queries with a million rows of 128 numbers.
///
/// `of_limit` is of the slower of one read of the table (dram_read) and the products (fma_f32,
/// dot_bf16), both on as many threads as the row has. `vs_faiss` is IndexFlatIP of faiss-cpu, which
/// takes float alone, `vs_torch` a product and topk in the table's scalar.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/matrix.hpp>
#include <pare/retrieval/top_k_dot.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;

constexpr Index dim = 128, k = 100;

template <class S>
pare::RowMatrix<S> random_rows(Index rows, std::uint64_t seed) {
  SplitMix64 random(seed);
  pare::RowMatrix<S> m(rows, dim);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<S>(static_cast<float>(random.unit()) - 0.5f);
  return m;
}

template <class S>
struct TopKData {
  TopKData(Index rows, Index count)
      : table(workload<pare::RowMatrix<S>>(
            "top_k " + std::to_string(sizeof(S)) + ' ' + std::to_string(rows),
            [rows] { return random_rows<S>(rows, 1); })),
        queries(random_rows<S>(count, 2)) {}

  template <class B>
  void run(const B& backend) {
    pare::retrieval::top_k_dot(backend, table, queries, k, hits);
  }
  /// The hits of the last query by the definition, but for scores that are nearly equal.
  bool is_right() {
    run(pare::simd);
    const Index last = queries.rows() - 1;
    const auto wanted =
        pare::retrieval::top_k_dot(pare::reference, table, queries.bottomRows(1), k);
    return (wanted.scores.row(0) - hits.scores.row(last)).cwiseAbs().maxCoeff() < 1e-5f &&
           wanted.ids(0, 0) == hits.ids(last, 0);
  }

  const pare::RowMatrix<S>& table;
  pare::RowMatrix<S> queries;
  pare::retrieval::DotHits<float> hits;
  pare::Workspace workspace;
};

template <class S>
void run_top_k(benchmark::State& state, Index rows, Index queries, int threads) {
  TopKData<S> data(rows, queries);
  if (!data.is_right()) return state.SkipWithError("differs from the definition");
  const double numbers = static_cast<double>(rows * dim);
  const int calls = static_cast<int>(std::max(1.0, 1e6 / static_cast<double>(rows) / 8));
  LimitProbe probe(threads, {{Limit::dram_read, numbers * sizeof(S) * calls},
                             {std::is_same_v<S, bf16> ? Limit::dot_bf16 : Limit::fma_f32,
                              2 * numbers * static_cast<double>(queries) * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  const auto python = [&](const std::string& way) {
    return calls *
           python_peer_seconds("top_k_dot_peers.py",
                               {way, std::to_string(threads), std::to_string(rows),
                                std::to_string(dim), std::to_string(queries), std::to_string(k)});
  };
  if constexpr (std::is_same_v<S, float>) set_vs(state, "faiss", python("faiss"), own);
  set_vs(state, "torch", python(std::is_same_v<S, float> ? "torch" : "torch_bf16"), own);
}

template <class S>
void add(const std::string& name, Index rows, Index queries) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              ("retrieval/top_k_dot/" + name + (threads == 1 ? "/t1" : "")).c_str(),
              [rows, queries, threads](benchmark::State& state) {
                run_top_k<S>(state, rows, queries, threads);
              }),
          3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  for (const Index queries : {1, 5, 64})
    add<float>("1Mx128/k100/f32/n" + std::to_string(queries), 1000000, queries);
  for (const Index queries : {1, 64})
    add<bf16>("1Mx128/k100/bf16/n" + std::to_string(queries), 1000000, queries);
  add<float>("10Kx128/k100/f32/n1", 10000, 1);
  return true;
}();
}  // namespace
