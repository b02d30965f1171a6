// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows of items by embedding bags, with their gradient, and the session encoder.
///
/// Tables of a million rows of 64 numbers, other rows in each of four calls: `of_read_rows` counts
/// a bare read of the same rows, in the same order. Of bags of one as much is written again, which
/// that read does not do; a table of 1000 rows lies in L2. Of the gradient `of_limit` counts the
/// bytes of the table, which is written as a whole (dram_read). Of the encoder it counts the
/// products of layers and attention (fma_f32), of the items alone. `vs_torch` is F.embedding_bag
/// and its backward, and one layer of nn.TransformerEncoder by the faster of a padded batch and one
/// session after the other.

#include "counters.hpp"
#include "peer.hpp"
#include "random_data.hpp"
#include "row_reads.hpp"
#include "workload.hpp"

#include <pare/core/matrix.hpp>
#include <pare/retrieval/items/embedding_bag.hpp>
#include <pare/retrieval/items/session_encoder.hpp>
#include <pare/routing/feed_forward.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;
using pare::retrieval::ItemFields;

constexpr Index width = 64;

/// A field of bags of so many values each.
ItemFields random_field(Index values, Index bags, Index places, std::uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<Index> ids, offsets{0};
  for (Index i = 0; i < bags * places; ++i)
    ids.push_back(static_cast<Index>(random.next() % static_cast<std::uint64_t>(values)));
  for (Index i = 1; i <= bags; ++i) offsets.push_back(i * places);
  ItemFields fields(bags);
  if (places == 1)
    fields.add(values, std::move(ids));
  else
    fields.add(values, std::move(ids), std::move(offsets));
  return fields;
}

/// A table, and four batches of bags of its rows.
template <class S>
struct BagData {
  BagData(Index values, Index count, Index places)
      : tables(workload<std::vector<pare::RowMatrix<S>>>(
            "bags " + std::to_string(sizeof(S)) + ' ' + std::to_string(values),
            [values] {
              SplitMix64 random(1);
              std::vector<pare::RowMatrix<S>> one(1, pare::RowMatrix<S>(values, width));
              for (Index i = 0; i < one[0].size(); ++i)
                one[0].data()[i] = static_cast<S>(static_cast<float>(random.unit()) - .5f);
              return one;
            })),
        rows(count, width) {
    for (std::uint64_t seed = 1; seed <= 4; ++seed)
      batches.push_back(random_field(values, count, places, seed));
  }

  template <class B>
  void run(const B& backend) {
    pare::retrieval::embedding_bag(backend, batches[turn++ % 4], tables, rows);
  }
  bool is_right() {
    RowMatrix wanted(rows.rows(), width);
    pare::retrieval::embedding_bag(pare::reference, batches[0], tables, wanted);
    pare::retrieval::embedding_bag(pare::simd, batches[0], tables, rows);
    return (wanted - rows).cwiseAbs().maxCoeff() < 1e-6f;
  }
  /// Bare reads, cut as a call is.
  double read_seconds(int threads, int calls) {
    std::vector<std::uint64_t> sums(1);
    std::size_t at = 0;
    const double read = usual_seconds([&] {
      for (int i = 0; i < calls; ++i) {
        const auto ids = batches[at++ % 4].ids(0);
        sums.assign(ids.size() / 256 + 1, 0);
        over_ranges(threads, static_cast<Index>(ids.size()), 256, [&](Index begin, Index end) {
          sums[static_cast<std::size_t>(begin / 256)] =
              read_rows(tables[0].data(), width, ids.data() + begin, end - begin);
        });
        benchmark::DoNotOptimize(sums.data());
      }
    });
    return read;
  }

  std::vector<pare::RowMatrix<S>>& tables;
  std::vector<ItemFields> batches;
  RowMatrix rows;
  pare::Workspace workspace;
  std::size_t turn = 0;
};

double torch_bags(const std::string& what, int threads, Index values, Index bags, Index places,
                  const std::string& scalar) {
  return python_peer_seconds(
      "items_torch.py",
      {what, std::to_string(threads), std::to_string(values), std::to_string(width),
       std::to_string(bags), std::to_string(places), scalar});
}

template <class S>
void run_bags(benchmark::State& state, Index values, Index bags, Index places, int threads) {
  BagData<S> data(values, bags, places);
  if (!data.is_right()) return state.SkipWithError("differs from the reference");
  const int calls = static_cast<int>(std::max<Index>(1, (Index{1} << 18) / (bags * places)));
  const double own = time_alone(state, [&] {
    for (int i = 0; i < calls; ++i)
      on_threads(threads, data.workspace, [&](const auto& backend) { data.run(backend); });
  });
  state.counters["of_read_rows"] = data.read_seconds(threads, calls) / own;
  state.counters["GB_a_second"] =
      static_cast<double>(bags * places * width) * sizeof(S) * calls / own * 1e-9;
  set_vs(state, "torch",
         calls * torch_bags("bag", threads, values, bags, places,
                            std::is_same_v<S, float> ? "float32" : "bfloat16"),
         own);
}

void run_gradient(benchmark::State& state, Index values, Index bags, Index places, int threads) {
  const ItemFields fields = random_field(values, bags, places, 1);
  const RowMatrix by_rows = uniform_matrix(bags, width, 2);
  std::vector<RowMatrix> by(1, RowMatrix(values, width)), wanted = by;
  pare::Workspace workspace;
  pare::retrieval::embedding_bag_gradient(pare::reference, fields, by_rows, wanted);
  const auto call = [&](const auto& backend) {
    pare::retrieval::embedding_bag_gradient(backend, fields, by_rows, by);
  };
  call(pare::simd);
  if (!((wanted[0] - by[0]).cwiseAbs().maxCoeff() < 1e-5f))
    return state.SkipWithError("differs from the reference");
  LimitProbe probe(threads, {{Limit::dram_read, static_cast<double>(values * width) * 4}});
  const double own =
      time_between_probes(state, probe, [&] { on_threads(threads, workspace, call); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "torch", torch_bags("gradient", threads, values, bags, places, "float32"), own);
}

using Layer = pare::transformer::DenseLinear<float>;
using Block =
    pare::retrieval::EncoderBlock<Layer,
                                  pare::routing::FeedForward<Layer, pare::transformer::Relu>>;

/// One block of 64 numbers, 4 heads and 256 hidden ones, as torch's.
struct EncoderData {
  static constexpr Index dim = 64, heads = 4, hidden = 256;

  explicit EncoderData(Index count) : encoder(make()), sessions(count, dim) {
    for (Index i = 0; i < count; ++i)
      offsets.push_back(offsets.back() + (count == 1 ? 20 : 5 + 7 * i % 31));
    rows = uniform_matrix(offsets.back(), dim, 9);
  }
  static pare::retrieval::SessionEncoder<Block> make() {
    const std::vector<float> gain(dim, 1.f), bias(dim, 0.f);
    const auto layer = [](Index outputs, Index inputs, std::uint64_t seed) {
      return Layer::copy_of(RowMatrix(uniform_matrix(outputs, inputs, seed) / 8));
    };
    std::vector<Block> blocks;
    blocks.push_back({layer(dim, dim, 1),
                      layer(dim, dim, 2),
                      layer(dim, dim, 3),
                      layer(dim, dim, 4),
                      {layer(hidden, dim, 5), layer(dim, hidden, 6)},
                      gain,
                      bias,
                      gain,
                      bias});
    return pare::retrieval::SessionEncoder<Block>(dim, std::move(blocks), {.heads = heads});
  }
  template <class B>
  void run(const B& backend) {
    encoder.encode(backend, rows, offsets, sessions);
  }
  double flops() const {
    double sum = 2. * static_cast<double>(rows.rows() * (4 * dim * dim + 2 * dim * hidden));
    for (std::size_t s = 1; s < offsets.size(); ++s) {
      const auto length = static_cast<double>(offsets[s] - offsets[s - 1]);
      sum += 4 * length * length * dim;
    }
    return sum;
  }

  pare::retrieval::SessionEncoder<Block> encoder;
  std::vector<Index> offsets{0};
  RowMatrix rows, sessions;
  pare::Workspace workspace;
};

void run_encoder(benchmark::State& state, Index count, int threads) {
  EncoderData data(count);
  data.run(pare::reference);
  const RowMatrix wanted = data.sessions;
  data.run(pare::simd);
  if (!((wanted - data.sessions).cwiseAbs().maxCoeff() < 1e-4f))
    return state.SkipWithError("differs from the reference");
  const int calls = static_cast<int>(std::max<Index>(1, 512 / count));
  LimitProbe probe(threads, {{Limit::fma_f32, calls * data.flops()}});
  const double own = time_calls(state, probe, data, threads, calls);
  set_of_limit(state, probe.seconds(), own);
  state.counters["microseconds"] = own / calls * 1e6;
  set_vs(state, "torch",
         calls * python_peer_seconds(
                     "items_torch.py",
                     {"encoder", std::to_string(threads), std::to_string(count),
                      std::to_string(EncoderData::dim), std::to_string(EncoderData::heads),
                      std::to_string(EncoderData::hidden)}),
         own);
}

template <class Run>
void add(const std::string& name, const Run& run) {
  for (const int threads : {1, all_threads()}) {
    large(benchmark::RegisterBenchmark(
              ("retrieval/" + name + (threads == 1 ? "/t1" : "")).c_str(),
              [run, threads](benchmark::State& state) { run(state, threads); }),
          3);
    if (all_threads() == 1) break;
  }
}

template <class S>
void add_bags(const std::string& name, Index values, Index bags, Index places) {
  add("embedding_bag/" + name, [=](benchmark::State& state, int threads) {
    run_bags<S>(state, values, bags, places, threads);
  });
}

const bool registered = [] {
  constexpr Index million = 1000000;
  add_bags<float>("1Mx64/f32/bags_of_8/n32768", million, 32768, 8);
  add_bags<float>("1Mx64/f32/bags_of_1/n262144", million, 262144, 1);
  add_bags<float>("1Mx64/f32/bags_of_8/n1", million, 1, 8);
  add_bags<bf16>("1Mx64/bf16/bags_of_8/n32768", million, 32768, 8);
  add_bags<float>("1000x64/f32/bags_of_3/n10000", 1000, 10000, 3);
  add("embedding_bag/gradient/100Kx64/f32/bags_of_8/n8192",
      [](benchmark::State& state, int threads) { run_gradient(state, 100000, 8192, 8, threads); });
  for (const Index count : {1, 64})
    add("session_encoder/d64/n" + std::to_string(count),
        [count](benchmark::State& state, int threads) { run_encoder(state, count, threads); });
  return true;
}();
}  // namespace
