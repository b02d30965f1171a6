// SPDX-License-Identifier: Apache-2.0

/// \file
/// MaxSim of one query with many documents.
///
/// `of_limit` is of the slower of the products (fma_f32, fma_f64, dot_bf16) and one read of the
/// documents (dram_read), both on as many threads as the row has; `of_read` is of the read alone.
/// `vs_eigen` is one product and column maxima for each document, `vs_torch` a batched product of
/// documents in one tensor, `vs_maxsim_cpu` the library of that name, in float. Of bf16, `vs_f32`
/// is Pare's own row in float. Of bytes (dot_int8), `vs_f32` and `vs_bf16` are Pare's own rows;
/// no peer has that.
///
/// Of residual codecs `vs_f32` is documents per second to those of `max_sim` in float, `overlap`
/// how many of the ten best of float are found, on average of 20 queries, and `overlap_decoded` how
/// many are by float on decoded tokens: the rest is what multiplying bytes loses. `max_sim/int8`
/// has the same data, with tokens rounded to bytes.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/matrix.hpp>
#include <pare/linalg/int8_rows.hpp>
#include <pare/retrieval/max_sim.hpp>
#include <pare/retrieval/residual_codec.hpp>
#include <pare/retrieval/residual_max_sim.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
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

/// The tokens of a document of 180, decoded.
RowMatrix decoded_document(const pare::retrieval::ResidualCodec& codec,
                           const pare::retrieval::ResidualRows& rows, Index document) {
  const auto first = document * 180, bytes = codec.row_bytes();
  pare::retrieval::ResidualRows own;
  own.centroids.assign(rows.centroids.begin() + first, rows.centroids.begin() + first + 180);
  own.scales.assign(rows.scales.begin() + first, rows.scales.begin() + first + 180);
  own.codes.assign(rows.codes.begin() + first * bytes, rows.codes.begin() + (first + 180) * bytes);
  RowMatrix out(180, codec.dim());
  pare::retrieval::decode(codec, own, out);
  return out;
}

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
double usual_seconds_of(const Shape& shape, int threads, int calls) {
  MaxSimData<S> data(shape);
  return usual_seconds([&] {
    for (int i = 0; i < calls; ++i)
      on_threads(threads, data.workspace, [&](const auto& backend) { data.run(backend); });
  });
}

/// The same queries and documents, rounded.
struct Int8Data : MaxSimData<float> {
  explicit Int8Data(const Shape& shape)
      : MaxSimData(shape), bytes(pare::linalg::quantize_rows(documents)) {}

  template <class B>
  void run(const B& backend) {
    pare::retrieval::max_sim(backend, queries, bytes, offsets, scores);
  }
  /// The first document by the definition, but for the last bit of its sum.
  bool is_right() {
    run(pare::simd);
    const pare::linalg::Int8View first{
        {bytes.codes.data(), {offsets[1], bytes.dim()}, {bytes.dim(), 1}},
        {bytes.scales.data(), static_cast<std::size_t>(offsets[1])}};
    const auto wanted = pare::retrieval::max_sim(pare::reference, queries, first,
                                                 std::vector<Index>{0, offsets[1]});
    return std::abs(scores[0] - wanted[0]) <= 1e-6f * std::abs(wanted[0]);
  }

  pare::linalg::Int8Rows bytes;
};

void run_int8(benchmark::State& state, const Shape& shape, int threads) {
  Int8Data data(shape);
  if (!data.is_right()) return state.SkipWithError("differs from the definition");
  const double tokens = static_cast<double>(shape.tokens * shape.documents);
  const double numbers = tokens * static_cast<double>(shape.dim);
  const int calls = static_cast<int>(std::max(1.0, 8e5 / tokens));
  const Demand ops{Limit::dot_int8, 2 * static_cast<double>(shape.query_tokens) * numbers * calls};
  const Demand bytes{Limit::dram_read, numbers * calls};
  const bool from_memory = numbers > 10e6;
  LimitProbe probe(threads, from_memory ? std::vector<Demand>{ops, bytes} : std::vector{ops});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "f32", usual_seconds_of<float>(shape, threads, calls), own);
  set_vs(state, "bf16", usual_seconds_of<bf16>(shape, threads, calls), own);
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
    set_vs(state, "f32", usual_seconds_of<float>(shape, threads, calls), own);
  }
}

/// 1,000 documents of 180 unit tokens in 50 families of 40 subjects each: a document has from none
/// to all of its tokens about those, and the others about any of 2,000 subjects. And queries of 32
/// tokens of a document, blurred.
struct EncodedData {
  static constexpr Index dim = 128, tokens = 180, documents = 1000, query_tokens = 32, queries = 20;

  explicit EncodedData(int bits)
      : all(documents * tokens, dim), asked(queries * query_tokens, dim) {
    SplitMix64 random(7);
    const auto below = [&random](Index n) {
      return static_cast<Index>(random.next() % static_cast<std::uint64_t>(n));
    };
    const auto blurred = [&random](const auto& row, double by) {
      Eigen::RowVectorXf x(dim);
      for (Index c = 0; c < dim; ++c)
        x[c] = row[c] + static_cast<float>(by * random.normal() / std::sqrt(double{dim}));
      return Eigen::RowVectorXf(x.normalized());
    };
    RowMatrix subjects(2000, dim);
    for (Index i = 0; i < subjects.rows(); ++i)
      subjects.row(i) = blurred(Eigen::RowVectorXf::Zero(dim).eval(), 1);
    for (Index d = 0; d < documents; ++d) {
      offsets.push_back(d * tokens);
      const double share = random.unit();
      for (Index t = 0; t < tokens; ++t)
        all.row(d * tokens + t) = blurred(
            subjects.row(random.unit() < share ? d % 50 * 40 + below(40) : below(subjects.rows())),
            .6);
    }
    offsets.push_back(documents * tokens);
    for (Index q = 0; q < queries; ++q) {
      const Index of = below(documents) * tokens;
      for (Index t = 0; t < query_tokens; ++t)
        asked.row(q * query_tokens + t) = blurred(all.row(of + below(tokens)), .4);
    }
    RowMatrix sample(all.rows() / 3, dim);
    for (Index i = 0; i < sample.rows(); ++i) sample.row(i) = all.row(3 * i);
    const auto backend = pare::simd.threads(all_threads());
    codec = pare::retrieval::fit_residual_codec(backend, sample, {.bits = bits});
    rows = pare::retrieval::encode(backend, codec, all);
    bytes = pare::linalg::quantize_rows(backend, all);
    scores.resize(documents);
  }

  template <class B>
  void run(const B& backend) {
    pare::retrieval::residual_max_sim(backend, asked.topRows(query_tokens), codec, rows, offsets,
                                      scores);
  }

  /// Documents of the ten best of float that are among the ten best here, of all queries.
  template <class Score>
  double overlap(const Score& score) const {
    Index both = 0;
    for (Index q = 0; q < queries; ++q) {
      const auto query = asked.middleRows(q * query_tokens, query_tokens);
      const auto exact = best_ten(pare::retrieval::max_sim(query, all, offsets));
      for (const Index d : best_ten(score(query)))
        both += std::count(exact.begin(), exact.end(), d);
    }
    return static_cast<double>(both) / (10 * queries);
  }
  static std::vector<Index> best_ten(const std::vector<float>& scores) {
    std::vector<Index> order(scores.size());
    std::iota(order.begin(), order.end(), Index{0});
    std::partial_sort(order.begin(), order.begin() + 10, order.end(), [&](Index a, Index b) {
      return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
    });
    order.resize(10);
    return order;
  }

  RowMatrix all, asked;
  std::vector<Index> offsets;
  pare::retrieval::ResidualCodec codec;
  pare::retrieval::ResidualRows rows;
  pare::linalg::Int8Rows bytes;
  std::vector<float> scores;
  pare::Workspace workspace;
};

/// How much of float's ten best rows of bytes find, and float on those rows.
void run_int8_overlap(benchmark::State& state) {
  EncodedData& data = workload<EncodedData>("residual 4", [] { return EncodedData(4); });
  const auto query = data.asked.topRows(EncodedData::query_tokens);
  const auto backend = pare::simd.with(data.workspace);
  const double own = time_alone(state, [&] {
    pare::retrieval::max_sim(backend, query, data.bytes, data.offsets, data.scores);
  });
  const double f32 = usual_seconds(
      [&] { pare::retrieval::max_sim(backend, query, data.all, data.offsets, data.scores); });
  set_vs(state, "f32", f32, own);
  state.counters["overlap"] = data.overlap(
      [&](const auto& some) { return pare::retrieval::max_sim(some, data.bytes, data.offsets); });
  RowMatrix decoded(data.all.rows(), data.all.cols());
  pare::linalg::dequantize_rows(data.bytes, decoded);
  state.counters["overlap_decoded"] = data.overlap(
      [&](const auto& some) { return pare::retrieval::max_sim(some, decoded, data.offsets); });
}

void run_residual(benchmark::State& state, int bits, int threads) {
  EncodedData& data =
      workload<EncodedData>("residual " + std::to_string(bits), [&] { return EncodedData(bits); });
  const auto query = data.asked.topRows(EncodedData::query_tokens);
  data.run(pare::simd);
  for (const Index d : {Index{0}, Index{501}}) {
    const auto wanted = pare::retrieval::max_sim(query, decoded_document(data.codec, data.rows, d),
                                                 std::vector<Index>{0, 180});
    if (!(std::abs(wanted[0] - data.scores[static_cast<std::size_t>(d)]) <= .01f * 32))
      return state.SkipWithError("differs from decoded rows");
  }
  LimitProbe none(threads, {});
  const double own = time_calls(state, none, data, threads, 1);
  std::vector<float> exact(data.scores.size());
  const double f32 = usual_seconds([&] {
    if (threads == 1)
      pare::retrieval::max_sim(pare::simd.with(data.workspace), query, data.all, data.offsets,
                               exact);
    else
      pare::retrieval::max_sim(pare::simd.threads(threads).with(data.workspace), query, data.all,
                               data.offsets, exact);
  });
  set_vs(state, "f32", f32, own);
  state.counters["overlap"] = data.overlap([&](const auto& some) {
    return pare::retrieval::residual_max_sim(some, data.codec, data.rows, data.offsets);
  });
  RowMatrix decoded(data.all.rows(), data.all.cols());
  pare::retrieval::decode(data.codec, data.rows, decoded);
  state.counters["overlap_decoded"] = data.overlap(
      [&](const auto& some) { return pare::retrieval::max_sim(some, decoded, data.offsets); });
}

template <class S>
void add(const std::string& name, const Shape& shape) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              ("retrieval/max_sim/" + name + (threads == 1 ? "/t1" : "")).c_str(),
              [shape, threads](benchmark::State& state) {
                if constexpr (std::is_same_v<S, std::int8_t>)
                  run_int8(state, shape, threads);
                else
                  run_max_sim<S>(state, shape, threads);
              }),
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
  add<std::int8_t>("q32/d128/int8", {32, 128, 180, 1000});
  add<std::int8_t>("q32/d127/int8", {32, 127, 180, 1000});
  add<std::int8_t>("q32/d128/int8/n20", {32, 128, 180, 20});
  add<std::int8_t>("q4/d128/int8", {4, 128, 180, 1000});
  large(benchmark::RegisterBenchmark("retrieval/max_sim/int8/t1", run_int8_overlap), 9);
  for (const int bits : {1, 2, 4})
    for (const int threads : {1, all_threads()}) {
      large(benchmark::RegisterBenchmark(
                ("retrieval/max_sim/residual" + std::to_string(bits) + (threads == 1 ? "/t1" : ""))
                    .c_str(),
                [bits, threads](benchmark::State& state) { run_residual(state, bits, threads); }),
            9);
      if (all_threads() == 1) break;
    }
  return true;
}();
}  // namespace
