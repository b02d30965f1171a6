// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact search: the 100 largest products of queries with a million rows of 128 numbers.
///
/// `of_limit` is of the slower of one read of the table (dram_read) and the products (fma_f32,
/// dot_bf16, dot_int8), both on as many threads as the row has. `vs_faiss` is IndexFlatIP of
/// faiss-cpu for float, and for bytes its IndexScalarQuantizer of 8 bits. `vs_torch` is a product
/// and topk in the table's scalar. Of bytes, `vs_f32` and `vs_bf16` are Pare's own rows, `overlap`
/// is the share of float's ten best that are among the ten best of bytes, of 64 queries, and
/// `overlap_decoded` that of float queries on rows that were rounded to bytes.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/matrix.hpp>
#include <pare/linalg/int8_rows.hpp>
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
double usual_seconds_of(Index rows, Index queries, int threads, int calls) {
  TopKData<S> data(rows, queries);
  return usual_seconds([&] {
    for (int i = 0; i < calls; ++i)
      on_threads(threads, data.workspace, [&](const auto& backend) { data.run(backend); });
  });
}

/// The same table and queries as of float, rounded.
struct Int8Data {
  Int8Data(Index rows, Index count)
      : table(pare::linalg::quantize_rows(random_rows<float>(rows, 1))),
        queries(random_rows<float>(count, 2)) {}

  template <class B>
  void run(const B& backend) {
    pare::retrieval::top_k_dot(backend, table, queries, k, hits);
  }
  /// The hits of the last query by the definition, bit by bit.
  bool is_right() {
    run(pare::simd);
    const auto wanted =
        pare::retrieval::top_k_dot(pare::reference, table, queries.bottomRows(1), k);
    return wanted.scores.row(0) == hits.scores.bottomRows(1) &&
           wanted.ids.row(0) == hits.ids.bottomRows(1);
  }

  pare::linalg::Int8Rows table;
  RowMatrix queries;
  pare::retrieval::DotHits<float> hits;
  pare::Workspace workspace;
};

/// The share of the ten best of `wanted` that are among those of `got`.
double overlap(const pare::retrieval::DotHits<float>& wanted,
               const pare::retrieval::DotHits<float>& got) {
  Index both = 0;
  for (Index i = 0; i < wanted.ids.rows(); ++i)
    for (Index a = 0; a < 10; ++a)
      for (Index b = 0; b < 10; ++b) both += wanted.ids(i, a) == got.ids(i, b) ? 1 : 0;
  return static_cast<double>(both) / static_cast<double>(10 * wanted.ids.rows());
}

void set_overlaps(benchmark::State& state, Int8Data& data) {
  const TopKData<float> exact(data.table.rows(), 64);
  const auto backend = pare::simd.threads(all_threads());
  const auto wanted = pare::retrieval::top_k_dot(backend, exact.table, exact.queries, 10);
  state.counters["overlap"] =
      overlap(wanted, pare::retrieval::top_k_dot(backend, data.table, exact.queries, 10));
  RowMatrix decoded(data.table.rows(), dim);
  pare::linalg::dequantize_rows(data.table, decoded);
  state.counters["overlap_decoded"] =
      overlap(wanted, pare::retrieval::top_k_dot(backend, decoded, exact.queries, 10));
}

void run_int8(benchmark::State& state, Index rows, Index queries, int threads) {
  Int8Data data(rows, queries);
  if (!data.is_right()) return state.SkipWithError("differs from the definition");
  const double numbers = static_cast<double>(rows * dim);
  const int calls = static_cast<int>(std::max(1.0, 4e6 / static_cast<double>(rows) / 8));
  LimitProbe probe(threads,
                   {{Limit::dram_read, numbers * calls},
                    {Limit::dot_int8, 2 * numbers * static_cast<double>(queries) * calls}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "f32", usual_seconds_of<float>(rows, queries, threads, calls), own);
  set_vs(state, "bf16", usual_seconds_of<bf16>(rows, queries, threads, calls), own);
  if (threads == 1 && rows >= 1000000) set_overlaps(state, data);
  set_vs(state, "faiss",
         calls *
             python_peer_seconds("top_k_dot_peers.py",
                                 {"faiss_int8", std::to_string(threads), std::to_string(rows),
                                  std::to_string(dim), std::to_string(queries), std::to_string(k)}),
         own);
}

template <class S>
void add(const std::string& name, Index rows, Index queries) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              ("retrieval/top_k_dot/" + name + (threads == 1 ? "/t1" : "")).c_str(),
              [rows, queries, threads](benchmark::State& state) {
                if constexpr (std::is_same_v<S, std::int8_t>)
                  run_int8(state, rows, queries, threads);
                else
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
  for (const Index queries : {1, 5, 64})
    add<std::int8_t>("1Mx128/k100/int8/n" + std::to_string(queries), 1000000, queries);
  add<float>("10Kx128/k100/f32/n1", 10000, 1);
  add<std::int8_t>("10Kx128/k100/int8/n1", 10000, 1);
  return true;
}();
}  // namespace
