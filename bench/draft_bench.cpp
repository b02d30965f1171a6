// SPDX-License-Identifier: Apache-2.0

/// \file
/// Draft heads: logits of a vocabulary, and the best of them, from a dense head and from one of low
/// rank. The limit is reading the head's weights once from memory, whatever the number of rows.
///
/// `low_rank` and `dense` store the logits of all tokens; `top8` keeps the 8 best and log-sum-exp
/// of each row and stores none, and says as `overhead` what that costs over the stored ones, and as
/// `vs_store_sort` how much faster it is than std::partial_sort and a scalar log-sum-exp over
/// stored logits, each without the product. `over_one_row` is the time of so many rows over that of
/// one. Heads of 7 MB (v49152, r72) stay in a last-level cache that holds them: their `of_limit`
/// may be above 1.

#include "counters.hpp"
#include "openblas.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/low_rank_head.hpp>
#include <pare/kernel/reduce_logits.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::draft;
using pare::bf16;
using pare::Index;

struct Shape {
  std::string name;
  Index tokens, inputs, rank;
};

/// A head of numbers below 1 that repeat every 1000 tokens.
template <class Head>
Head filled(Index outputs, Index inputs, std::uint64_t seed) {
  Head head(outputs, inputs);
  const Index part = std::min<Index>(1000, outputs);
  const RowMatrix w = uniform_matrix(part, inputs, seed);
  for (Index first = 0; first < outputs; first += part)
    head.set_rows(first, w.topRows(std::min(part, outputs - first)));
  return head;
}

template <class Head>
struct HeadData {
  HeadData(Head made, Index rows)
      : head(std::move(made)),
        hidden(uniform_matrix(rows, head.inputs(), 7)),
        logits(RowMatrix::Zero(rows, head.outputs())) {}

  Head head;
  RowMatrix hidden, logits;
  HeadSummary<float> top;
  pare::Workspace workspace;
};

template <class Head>
void write_logits(HeadData<Head>& d, int threads, Index rows) {
  on_threads(threads, d.workspace, [&](const auto& backend) {
    d.head.logits(backend, d.hidden.topRows(rows), d.logits.topRows(rows));
  });
}

template <class Head>
void find_top(HeadData<Head>& d, int threads) {
  on_threads(threads, d.workspace,
             [&](const auto& backend) { d.head.reduce(backend, d.hidden, {.k = 8}, d.top); });
}

/// The 8 best of a stored row and its log-sum-exp, as a program without a library would.
double sort_and_sum(const float* z, Index tokens, std::vector<std::int32_t>& order) {
  order.resize(static_cast<std::size_t>(tokens));
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(
      order.begin(), order.begin() + 8, order.end(),
      [z](std::int32_t a, std::int32_t b) { return z[a] > z[b] || (z[a] == z[b] && a < b); });
  const float most = z[order[0]];
  double sum = 0;
  for (Index i = 0; i < tokens; ++i) sum += std::exp(z[i] - most);
  return most + std::log(sum);
}

/// The same from stored logits by the kernel that heads run while logits are in cache.
void reduce_stored(const float* z, Index tokens, std::vector<float>& top,
                   std::vector<std::int32_t>& ids) {
  constexpr Index width = pare::kernel::head_panel_outputs<float>;
  pare::kernel::LogitState<float> state;
  alignas(64) float tile[width];
  for (Index first = 0; first < tokens; first += width) {
    pare::kernel::ReduceLogits<float> a;
    a.count = std::min(width, tokens - first);
    std::copy_n(z + first, a.count, tile);
    a.logits = tile;
    a.rows = 1;
    a.first = static_cast<std::int32_t>(first);
    a.states = &state;
    a.top = top.data();
    a.top_ids = ids.data();
    a.k = 8;
    launch(pare::simd, a);
  }
  benchmark::DoNotOptimize(state.sum);
}

/// Whether the summary is that of the stored logits.
template <class Head>
bool agrees(const HeadData<Head>& d) {
  std::vector<std::int32_t> order;
  for (Index r = 0; r < d.hidden.rows(); ++r) {
    const double sum = sort_and_sum(d.logits.row(r).data(), d.logits.cols(), order);
    if (!(std::abs(sum - d.top.log_sum_exp[static_cast<std::size_t>(r)]) <=
          1e-5 * (1 + std::abs(sum))))
      return false;
    for (Index i = 0; i < 8; ++i)
      if (d.top.id(r, i) != order[static_cast<std::size_t>(i)]) return false;
  }
  return true;
}

/// What a program with OpenBLAS alone would do: the dense head in float, rows over the threads.
std::optional<double> openblas_seconds(const Shape& shape, int threads) {
  const OpenBlas* const blas = OpenBlas::installed();
  if (blas == nullptr) return std::nullopt;
  const std::string name = "openblas sgemv " + shape.name + std::to_string(threads);
  static std::vector<std::pair<std::string, double>> known;
  for (const auto& [known_name, seconds] : known)
    if (known_name == name) return seconds;
  const RowMatrix part = uniform_matrix(1000, shape.inputs, 1);
  RowMatrix w(shape.tokens, shape.inputs);
  for (Index first = 0; first < shape.tokens; first += 1000) {
    const Index rows = std::min<Index>(1000, shape.tokens - first);
    w.middleRows(first, rows) = part.topRows(rows);
  }
  const RowMatrix h = uniform_matrix(1, shape.inputs, 7);
  RowMatrix z(1, shape.tokens);
  const Index each = (shape.tokens + threads - 1) / threads;
  std::vector<double> times;
  for (int i = 0; i < 3; ++i)
    times.push_back(seconds([&] {
      on_team(threads, [&](int worker) {
        const Index first = worker * each, rows = std::min(each, shape.tokens - first);
        blas->multiply_vector(static_cast<int>(rows), static_cast<int>(shape.inputs), &w(first, 0),
                              static_cast<int>(shape.inputs), h.data(), &z(0, first));
      });
    }));
  known.emplace_back(name, median(times));
  return known.back().second;
}

template <class Head, class Make>
void run_head(benchmark::State& state, const std::string& kind, const Shape& shape, Index rows,
              int threads, const Make& make) {
  auto& d = workload<HeadData<Head>>(kind + shape.name + std::to_string(rows),
                                     [&] { return HeadData<Head>(make(), rows); });
  const bool top = kind.find("top8") != std::string::npos;
  write_logits(d, threads, rows);
  find_top(d, threads);
  if (!agrees(d)) {
    state.SkipWithError("the best of a row differ from those of its stored logits");
    return;
  }
  const double bytes = static_cast<double>(d.head.bytes());
  const int calls = static_cast<int>(std::max(1.0, 3e8 / bytes));
  const auto times = [&](const auto& work) {
    return [&, work] {
      for (int i = 0; i < calls; ++i) work();
    };
  };
  const auto logits = times([&] { write_logits(d, threads, rows); });
  const auto best = times([&] { find_top(d, threads); });
  LimitProbe probe(threads, {{Limit::dram_read, bytes * calls}});
  const double own =
      top ? time_between_probes(state, probe, best) : time_between_probes(state, probe, logits);
  set_of_limit(state, probe.seconds(), own);
  state.counters["GB_a_second"] = bytes * calls / own * 1e-9;
  state.counters["ms_a_call"] = own / calls * 1e3;
  // What is compared runs in turns: the machine drifts.
  std::vector<double> with, without;
  for (int i = 0; i < 5; ++i) {
    with.push_back(seconds(top ? std::function<void()>(best) : std::function<void()>(logits)));
    without.push_back(
        seconds(top ? std::function<void()>(logits)
                    : std::function<void()>(times([&] { write_logits(d, threads, 1); }))));
  }
  if (!top && rows > 1) state.counters["over_one_row"] = median(with) / median(without);
  if (top) {
    state.counters["overhead"] = median(with) / median(without) - 1;
    std::vector<float> values(8);
    std::vector<std::int32_t> ids(8), order;
    std::vector<double> sorted, reduced;
    const auto z = d.logits.row(0).data();
    for (int i = 0; i < 5; ++i) {
      sorted.push_back(
          seconds([&] { benchmark::DoNotOptimize(sort_and_sum(z, d.logits.cols(), order)); }));
      reduced.push_back(seconds([&] { reduce_stored(z, d.logits.cols(), values, ids); }));
    }
    set_vs(state, "store_sort", median(sorted), median(reduced));
  }
  if (kind.find("dense") == std::string::npos && rows == 1 && !top) {
    const double one = own / calls;
    auto& dense = workload<HeadData<DenseHead<bf16>>>("dense of " + shape.name, [&] {
      return HeadData<DenseHead<bf16>>(filled<DenseHead<bf16>>(shape.tokens, shape.inputs, 1), 1);
    });
    write_logits(dense, threads, 1);
    std::vector<double> full;
    for (int i = 0; i < 5; ++i) full.push_back(seconds([&] { write_logits(dense, threads, 1); }));
    set_vs(state, "dense_bf16", median(full), one);
    if (const auto blas = openblas_seconds(shape, threads))
      set_vs(state, "openblas_f32", *blas, one);
  }
}

template <class W>
void add_low_rank(const std::string& storage, const Shape& shape, Index rows, bool top) {
  const std::string kind = top ? "low_rank_top8" : "low_rank";
  for (const int threads : {1, all_threads()}) {
    std::string name = "draft/" + kind + "/" + storage + "/" + shape.name + "/r" +
                       std::to_string(shape.rank) + "/rows_" + std::to_string(rows);
    if (threads == 1) name += "/t1";
    large(benchmark::RegisterBenchmark(
              name.c_str(),
              [=](benchmark::State& state) {
                run_head<LowRankHead<W>>(
                    state, kind + storage + std::to_string(shape.rank), shape, rows, threads, [&] {
                      return LowRankHead<W>(filled<PanelHead<W>>(shape.rank, shape.inputs, 2),
                                            filled<PanelHead<W>>(shape.tokens, shape.rank, 3));
                    });
              }),
          3);
    if (all_threads() == 1) break;
  }
}

void add_dense(const Shape& shape, bool top) {
  const std::string kind = top ? "dense_top8" : "dense";
  for (const int threads : {1, all_threads()}) {
    std::string name = "draft/" + kind + "/bf16/" + shape.name + "/rows_1";
    if (threads == 1) name += "/t1";
    large(benchmark::RegisterBenchmark(
              name.c_str(),
              [=](benchmark::State& state) {
                run_head<DenseHead<bf16>>(state, kind, shape, 1, threads, [&] {
                  return filled<DenseHead<bf16>>(shape.tokens, shape.inputs, 1);
                });
              }),
          3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  const Shape llama{"v128256/d4096", 128256, 4096, 512}, small{"v49152/d576", 49152, 576, 72},
      smaller{"v49152/d576", 49152, 576, 144};
  for (const Index rows : {1, 6, 16}) add_low_rank<bf16>("bf16", llama, rows, false);
  for (const Index rows : {1, 6}) add_low_rank<bf16>("bf16", llama, rows, true);
  add_low_rank<std::int8_t>("int8", llama, 1, false);
  add_low_rank<float>("f32", llama, 1, false);
  for (const Shape& shape : {small, smaller})
    for (const bool top : {false, true}) add_low_rank<bf16>("bf16", shape, 1, top);
  for (const Shape& shape : {llama, small}) {
    add_dense(shape, false);
    add_dense(shape, true);
  }
  return true;
}();
}  // namespace
