// SPDX-License-Identifier: Apache-2.0

/// \file
/// The inverted list of BM25; uniformity and sampled softmax with their gradients.
///
/// Of sampled softmax of n rows and m negatives, `of_limit` counts the products: n m of dim for the
/// loss, three times that with the gradients (fma_f32). `vs_torch` is cross_entropy over logits of
/// gathered rows, or logsumexp, whichever is faster.
///
/// Of uniformity, `of_limit` counts the products that must be made: rows^2 / 2 of dim for the loss,
/// and twice 2 rows^2 for the gradient, each row with all others (fma_f32). `vs_torch` is
/// DirectAU's code, or the same by a product of matrices, whichever is faster. Of BM25, `of_limit`
/// is reading the postings of the query's terms, 8 bytes each, from memory (dram_read); `vs_eigen`
/// a sparse product of documents by terms with the query, and a partial sort.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/retrieval/bm25.hpp>
#include <pare/retrieval/objectives/sampled_softmax.hpp>
#include <pare/retrieval/objectives/uniformity.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/SparseCore>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::retrieval;
using pare::Index;

struct PairData {
  RowMatrix x, gradient;
  pare::Workspace workspace;
  bool with_gradient;
  double loss = 0;

  template <class B>
  void run(const B& backend) {
    loss = with_gradient ? uniformity_gradient(backend, x, gradient) : uniformity(backend, x);
  }
};

void run_uniformity(benchmark::State& state, Index rows, Index dim, bool with_gradient,
                    int threads) {
  PairData data{uniform_matrix(rows, dim, 3), RowMatrix(rows, dim), {}, with_gradient};
  const RowMatrix few = data.x.topRows(std::min<Index>(rows, 300));
  if (!(std::abs(uniformity(few) - uniformity(pare::reference, few)) < 1e-5))
    return state.SkipWithError("differs from the reference");
  const auto n = static_cast<double>(rows), d = static_cast<double>(dim);
  const int calls = static_cast<int>(std::clamp<Index>((Index{1} << 24) / (rows * rows), 1, 1000));
  LimitProbe probe(threads, {{Limit::fma_f32, calls * (with_gradient ? 4 : 1) * n * n * d}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  if (rows < 1000) return;
  set_vs(state, "torch",
         calls * python_peer_seconds("objectives_torch.py",
                                     {with_gradient ? "gradient" : "loss", std::to_string(threads),
                                      std::to_string(rows), std::to_string(dim)}),
         own);
}

struct SampledData {
  static constexpr Index table = 20000;
  RowMatrix users, items, by_users, by_items;
  std::vector<Index> positives, negatives;
  bool with_gradient;
  pare::Workspace workspace;
  double loss = 0;

  SampledData(Index rows, Index count, Index dim, bool gradient)
      : users(uniform_matrix(rows, dim, 3)),
        items(uniform_matrix(table, dim, 4)),
        by_users(rows, dim),
        by_items(table, dim),
        with_gradient(gradient) {
    SplitMix64 random(5);
    const auto draw = [&] { return static_cast<Index>(random.next() % table); };
    for (Index i = 0; i < rows; ++i) positives.push_back(draw());
    for (Index j = 0; j < count; ++j) negatives.push_back(draw());
  }

  template <class B>
  void run(const B& backend) {
    const SampledItems sampled{positives, negatives, {}, {}};
    loss = with_gradient
               ? sampled_softmax_gradient(backend, users, items, sampled, by_users, by_items)
               : sampled_softmax(backend, users, items, sampled);
  }
};

void run_sampled_softmax(benchmark::State& state, Index rows, Index count, bool with_gradient,
                         int threads) {
  constexpr Index dim = 64;
  SampledData data(rows, count, dim, with_gradient),
      few(std::min<Index>(rows, 50), count, dim, false);
  few.run(pare::simd);
  const double got = few.loss;
  few.run(pare::reference);
  if (!(std::abs(got - few.loss) < 1e-4)) return state.SkipWithError("differs from the reference");
  const double products = static_cast<double>(rows) * static_cast<double>(count) * dim;
  const int calls = static_cast<int>(std::clamp<Index>((Index{1} << 23) / (rows * count), 1, 1000));
  LimitProbe probe(threads, {{Limit::fma_f32, calls * (with_gradient ? 3 : 1) * products}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch",
         calls * python_peer_seconds("sampled_softmax_torch.py",
                                     {with_gradient ? "gradient" : "loss", std::to_string(threads),
                                      std::to_string(rows), std::to_string(count),
                                      std::to_string(SampledData::table), std::to_string(dim)}),
         own);
}

/// Documents of 20 to 99 words, whose frequencies fall as 1 / rank, about as in English.
struct Documents {
  std::vector<std::int32_t> tokens;
  std::vector<Index> offsets{0};
  std::vector<std::int32_t> queries;
  std::vector<Index> query_offsets{0};

  static constexpr Index terms = 50000;

  std::int32_t draw(SplitMix64& random) {
    return static_cast<std::int32_t>(std::pow(static_cast<double>(terms), random.unit())) - 1;
  }
  explicit Documents(Index documents) {
    SplitMix64 random(4);
    for (Index d = 0; d < documents; ++d) {
      for (std::uint64_t words = 20 + random.next() % 80; words > 0; --words)
        tokens.push_back(draw(random));
      offsets.push_back(static_cast<Index>(tokens.size()));
    }
    for (int q = 0; q < 64; ++q) {
      for (int words = 0; words < 5; ++words) queries.push_back(draw(random));
      query_offsets.push_back(static_cast<Index>(queries.size()));
    }
  }
};

void run_bm25(benchmark::State& state, Index documents, int threads) {
  Documents& d = workload<Documents>("bm25 " + std::to_string(documents),
                                     [&] { return Documents(documents); });
  const Bm25Index index(d.tokens, d.offsets);
  const std::span<const std::int32_t> first(d.queries.data(), 1);
  const auto wanted = reference_bm25(d.tokens, d.offsets, first);
  for (const Hit& hit : index.search(first, 10))
    if (!(std::abs(hit.score - wanted[static_cast<std::size_t>(hit.id)]) < 1e-5 * hit.score))
      return state.SkipWithError("differs from the definition");
  double postings = 0;
  for (const std::int32_t term : d.queries) postings += static_cast<double>(index.frequency(term));
  LimitProbe probe(threads, {{Limit::dram_read, 8 * postings}});
  std::vector<std::vector<Hit>> lists;
  const double own = time_between_probes(state, probe, [&] {
    lists = index.search(pare::simd.threads(threads), d.queries, d.query_offsets, 10);
  });
  set_of_limit(state, probe.seconds(), own);
  state.counters["queries_per_second"] = 64 / own;
  if (threads > 1) return;
  // The same terms of the sums, as a matrix of documents by terms.
  std::vector<Eigen::Triplet<float, int>> entries;
  for (std::int32_t term = 0; term < static_cast<std::int32_t>(Documents::terms); ++term)
    if (std::find(d.queries.begin(), d.queries.end(), term) != d.queries.end())
      for (const Hit& hit : index.search(std::span(&term, 1), documents))
        entries.emplace_back(static_cast<int>(hit.id), term, static_cast<float>(hit.score));
  Eigen::SparseMatrix<float> matrix(documents, Documents::terms);
  matrix.setFromTriplets(entries.begin(), entries.end());
  std::vector<Index> ids(static_cast<std::size_t>(documents));
  const double eigen = usual_seconds([&] {
    for (std::size_t q = 0; q < 64; ++q) {
      Eigen::VectorXf scores = Eigen::VectorXf::Zero(documents);
      for (Index i = d.query_offsets[q]; i < d.query_offsets[q + 1]; ++i)
        scores += matrix.col(d.queries[static_cast<std::size_t>(i)]);
      for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<Index>(i);
      std::partial_sort(ids.begin(), ids.begin() + 10, ids.end(),
                        [&](Index a, Index b) { return scores[a] > scores[b]; });
    }
  });
  set_vs(state, "eigen", eigen, own);
}

template <class Run>
void add(const std::string& name, const Run& run) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              (name + (threads == 1 ? "/t1" : "")).c_str(),
              [run, threads](benchmark::State& state) { run(state, threads); }),
          3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  for (const Index rows : {2, 256, 1021, 8192})
    for (const bool with_gradient : {false, true})
      add("retrieval/uniformity/" + std::to_string(rows) + "x64" +
              (with_gradient ? "/gradient" : ""),
          [=](benchmark::State& state, int threads) {
            run_uniformity(state, rows, 64, with_gradient, threads);
          });
  for (const auto& [rows, count] :
       std::vector<std::array<Index, 2>>{{1, 1000}, {256, 100}, {1021, 1021}, {8192, 8192}})
    for (const bool with_gradient : {false, true})
      add("retrieval/sampled_softmax/" + std::to_string(rows) + "x" + std::to_string(count) +
              "x64" + (with_gradient ? "/gradient" : ""),
          [=](benchmark::State& state, int threads) {
            run_sampled_softmax(state, rows, count, with_gradient, threads);
          });
  for (const Index documents : {1000, 100000})
    add("retrieval/bm25/n" + std::to_string(documents),
        [documents](benchmark::State& state, int threads) { run_bm25(state, documents, threads); });
  return true;
}();
}  // namespace
