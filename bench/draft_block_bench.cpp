// SPDX-License-Identifier: Apache-2.0

/// \file
/// A round of a draft block: states of 4 new tokens and a block of 16 rows (or 8) behind 512 tokens
/// of context. The limit is the slower of reading all weights once from memory (`of_read` is the
/// share of that alone) and of the multiply-adds of products and attention; calls go round among
/// copies of the block of 128 MiB. `vs_eigen` is the same round in Eigen alone, with weights in
/// float whatever those here are: products by rows, and loops.

#include "check.hpp"
#include "counters.hpp"
#include "linear_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>
#include <pare/draft/draft_block.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::draft;
using pare::bf16;
using pare::Index;
using pare::transformer::DenseLinear;

constexpr Index cached_tokens = 512, new_tokens = 4;
constexpr double base = 1e6;

struct Shape {
  const char* name;
  DraftBlockConfig config;
};

double weights_of_context(const DraftBlockConfig& c) {
  return static_cast<double>(c.width * (c.tapped_width + c.layers * 2 * c.key_width()));
}
double weights_of_block(const DraftBlockConfig& c) {
  return static_cast<double>(c.layers * c.width *
                             (2 * c.query_width() + 2 * c.key_width() + 3 * c.hidden));
}
double weight_count(const DraftBlockConfig& c) {
  return weights_of_block(c) + static_cast<double>(c.width * c.tapped_width);
}

template <class S>
DraftBlockWeights<DenseLinear<S>> random_weights(const DraftBlockConfig& c) {
  std::uint64_t seed = 0;
  const auto linear = [&](Index outputs, Index inputs) {
    return random_linear<S>(outputs, inputs, ++seed);
  };
  const auto ones = [](Index n) { return std::vector<float>(static_cast<std::size_t>(n), 1.0f); };
  DraftBlockWeights<DenseLinear<S>> w{.context = linear(c.width, c.tapped_width),
                                      .context_norm = ones(c.width),
                                      .final_norm = ones(c.width)};
  for (Index i = 0; i < c.layers; ++i)
    w.layers.push_back({.input_norm = ones(c.width),
                        .query = linear(c.query_width(), c.width),
                        .key = linear(c.key_width(), c.width),
                        .value = linear(c.key_width(), c.width),
                        .query_norm = ones(c.head_dim),
                        .key_norm = ones(c.head_dim),
                        .output = linear(c.width, c.query_width()),
                        .mlp_norm = ones(c.width),
                        .gate = linear(c.hidden, c.width),
                        .up = linear(c.hidden, c.width),
                        .down = linear(c.width, c.hidden)});
  return w;
}

/// The same as a program with Eigen alone would write it. Gains are 1.
class EigenBlock {
 public:
  template <class S>
  EigenBlock(const DraftBlockConfig& c, const DraftBlockWeights<DenseLinear<S>>& w,
             const RowMatrix& context)
      : c_(c) {
    const auto floats = [](const DenseLinear<S>& l) {
      RowMatrix m(l.outputs(), l.inputs());
      for (Index o = 0; o < m.rows(); ++o)
        for (Index i = 0; i < m.cols(); ++i) m(o, i) = static_cast<float>(l.weights()(o, i));
      return m;
    };
    fc_ = floats(w.context);
    for (const auto& l : w.layers)
      layers_.push_back({floats(l.query),
                         floats(l.key),
                         floats(l.value),
                         floats(l.output),
                         floats(l.gate),
                         floats(l.up),
                         floats(l.down),
                         {},
                         {}});
    const Index most = cached_tokens + new_tokens + c_.block;
    for (Layer& l : layers_) l.keys = l.values = RowMatrix::Zero(most, c_.key_width());
    add_context(context, 0);
  }

  RowMatrix run(const RowMatrix& tapped, const RowMatrix& embeddings) {
    add_context(tapped, cached_tokens);
    const Index first = cached_tokens + tapped.rows();
    RowMatrix x = embeddings;
    for (Layer& l : layers_) {
      const RowMatrix h = normed(x);
      RowMatrix q = h * l.query.transpose();
      turn(q, first);
      store(l, h, first);
      x += attended(q, l, first) * l.output.transpose();
      const RowMatrix m = normed(x);
      const RowMatrix gate = m * l.gate.transpose(), up = m * l.up.transpose();
      const RowMatrix gated = gate.array() / (1 + (-gate.array()).exp()) * up.array();
      x += gated * l.down.transpose();
    }
    return normed(x).bottomRows(x.rows() - 1);
  }

 private:
  struct Layer {
    RowMatrix query, key, value, output, gate, up, down, keys, values;
  };

  RowMatrix normed(const RowMatrix& x) const {
    const auto roots =
        (x.rowwise().squaredNorm().array() / float(x.cols()) + float(c_.norm_epsilon)).sqrt();
    return x.array().colwise() / roots;
  }
  void turn(RowMatrix& x, Index first) const {
    const Index dim = c_.head_dim, half = dim / 2;
    for (Index r = 0; r < x.rows(); ++r)
      for (Index from = 0; from < x.cols(); from += dim) {
        auto head = x.block(r, from, 1, dim);
        head /= std::sqrt(head.squaredNorm() / float(dim) + float(c_.norm_epsilon));
        for (Index i = 0; i < half; ++i) {
          const double angle = double(first + r) * std::pow(base, -2.0 * double(i) / double(dim));
          const auto cosine = float(std::cos(angle)), sine = float(std::sin(angle));
          const float a = head(0, i), b = head(0, i + half);
          head(0, i) = a * cosine - b * sine;
          head(0, i + half) = b * cosine + a * sine;
        }
      }
  }
  void store(Layer& l, const RowMatrix& rows, Index first) const {
    RowMatrix k = rows * l.key.transpose();
    turn(k, first);
    l.keys.middleRows(first, rows.rows()) = k;
    l.values.middleRows(first, rows.rows()) = rows * l.value.transpose();
  }
  void add_context(const RowMatrix& tapped, Index first) {
    const RowMatrix context = normed(tapped * fc_.transpose());
    for (Layer& l : layers_) store(l, context, first);
  }
  RowMatrix attended(const RowMatrix& q, const Layer& l, Index first) const {
    const Index dim = c_.head_dim, seen = first + q.rows();
    RowMatrix out(q.rows(), q.cols());
    for (Index h = 0; h < c_.heads; ++h) {
      const Index of = h / (c_.heads / c_.kv_heads) * dim;
      RowMatrix s = q.middleCols(h * dim, dim) * l.keys.block(0, of, seen, dim).transpose() /
                    std::sqrt(float(dim));
      for (Index i = 0; i < s.rows(); ++i) {
        s.row(i).tail(q.rows() - 1 - i).setConstant(-1e30f);
        s.row(i) = (s.row(i).array() - s.row(i).maxCoeff()).exp();
        s.row(i) /= s.row(i).sum();
      }
      out.middleCols(h * dim, dim) = s * l.values.block(0, of, seen, dim);
    }
    return out;
  }

  DraftBlockConfig c_;
  RowMatrix fc_;
  std::vector<Layer> layers_;
};

template <class S>
struct BlockWork {
  BlockWork(const DraftBlockConfig& c, Index rows)
      : config(c),
        table(pare::transformer::rotary_frequencies(c.head_dim, base), 1024),
        context(uniform_matrix(cached_tokens, c.tapped_width, 5)),
        tapped(uniform_matrix(new_tokens, c.tapped_width, 6)),
        embeddings(uniform_matrix(rows, c.width, 7)),
        out(RowMatrix::Zero(rows - 1, c.width)) {
    const double bytes = weight_count(c) * sizeof(S);
    const auto copies = 1 + static_cast<std::size_t>((128 << 20) / bytes);
    blocks.reserve(copies);
    for (std::size_t i = 0; i < copies; ++i) {
      blocks.emplace_back(c, random_weights<S>(c), table);
      caches.emplace_back(c, DraftBlockCacheOptions{.tokens = 600});
      blocks[i].append(pare::simd, context, caches[i]);
    }
    eigen = std::make_unique<EigenBlock>(c, blocks[0].weights(), context);
  }
  BlockWork(const BlockWork&) = delete;
  BlockWork& operator=(const BlockWork&) = delete;

  void run(int threads) {
    const std::size_t i = next++ % blocks.size();
    blocks[i].forward(pare::simd.threads(threads).with(workspace), tapped, embeddings, caches[i],
                      out);
    caches[i].truncate(0, cached_tokens);
  }

  DraftBlockConfig config;
  pare::transformer::RotaryTable<float> table;
  RowMatrix context, tapped, embeddings, out;
  std::vector<DraftBlock<DenseLinear<S>>> blocks;
  std::vector<DraftBlockCache<float>> caches;
  std::unique_ptr<EigenBlock> eigen;
  pare::Workspace workspace;
  std::size_t next = 0;
};

template <class S>
void round_of(benchmark::State& state, const Shape& shape, Index rows, int threads) {
  const DraftBlockConfig& c = shape.config;
  const std::string name =
      std::string("draft block ") + shape.name + std::to_string(sizeof(S)) + std::to_string(rows);
  auto& work = *workload<std::unique_ptr<BlockWork<S>>>(
      name, [&] { return std::make_unique<BlockWork<S>>(c, rows); });
  Eigen::setNbThreads(threads);
  work.run(threads);
  if (!agree(work.out, work.eigen->run(work.tapped, work.embeddings), 1e-4))
    return state.SkipWithError("rows differ from those of Eigen");
  const auto calls = static_cast<double>(work.blocks.size());
  const double products = 2 * (static_cast<double>(rows) * weights_of_block(c) +
                               static_cast<double>(new_tokens) * weights_of_context(c)) +
                          4 * static_cast<double>(c.layers * c.query_width() * rows *
                                                  (cached_tokens + new_tokens + rows / 2));
  LimitProbe probe(threads, {{Limit::dram_read, weight_count(c) * sizeof(S) * calls},
                             {Limit::fma_f32, products * calls}});
  const double own = time_between_probes(state, probe, [&] {
    for (std::size_t i = 0; i < work.blocks.size(); ++i) work.run(threads);
  });
  std::vector<double> ours, theirs;  // in turns: the machine drifts
  for (int i = 0; i < 3; ++i) {
    ours.push_back(seconds([&] { work.run(threads); }));
    theirs.push_back(seconds(
        [&] { benchmark::DoNotOptimize(work.eigen->run(work.tapped, work.embeddings).data()); }));
  }
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", median(theirs), median(ours));
  state.counters["ms_a_call"] = own / calls * 1e3;
  state.counters["of_read"] =
      weight_count(c) * sizeof(S) * calls / cached(Limit::dram_read, threads) / own;
  set_threads(state, threads);
}

template <class S>
void add(const char* storage, const Shape& shape, Index rows) {
  for (const int threads : {1, all_threads()}) {
    std::string name =
        std::string("draft/block/") + storage + "/" + shape.name + "/rows_" + std::to_string(rows);
    if (threads == 1) name += "/t1";
    large(benchmark::RegisterBenchmark(
              name.c_str(),
              [=](benchmark::State& state) { round_of<S>(state, shape, rows, threads); }),
          3);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  // Five layers of the width of a model of 135 million weights, and one of 4096 whose MLP is small.
  const Shape small{"d576_l5",
                    {.width = 576,
                     .tapped_width = 5 * 576,
                     .layers = 5,
                     .heads = 9,
                     .kv_heads = 3,
                     .head_dim = 64,
                     .hidden = 1536}},
      wide{"d4096_l1",
           {.width = 4096,
            .tapped_width = 4096,
            .layers = 1,
            .heads = 32,
            .kv_heads = 8,
            .head_dim = 128,
            .hidden = 4096}};
  for (const Shape& shape : {small, wide}) {
    for (const Index rows : {16, 8}) add<bf16>("bf16", shape, rows);
    add<float>("f32", shape, 16);
  }
  return true;
}();

}  // namespace
