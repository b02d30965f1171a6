// SPDX-License-Identifier: Apache-2.0

/// \file
/// TreeFlash's lists of a block of 15 rows: 16 tokens of a depth are followed, 225 rows are
/// corrected for the token before them, and the head gives the 16 best tokens of each. The limit is
/// the multiply-adds of the products. `vs_eigen` is the same in Eigen alone, with weights in float:
/// one product with [e; n] of each token, stored logits, and a partial sort of each row.

#include "counters.hpp"
#include "linear_data.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>
#include <pare/draft/branch_correction.hpp>
#include <pare/draft/branch_lists.hpp>
#include <pare/draft/dense_head.hpp>
#include <pare/draft/low_rank_head.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::draft;
using pare::bf16;
using pare::Index;
using Linear = pare::transformer::DenseLinear<bf16>;

constexpr Index width = 576, inner = 1536, vocabulary = 49152, depths = 15, followed = 16,
                kept = 16, rows = (depths - 1) * followed + 1;

RowMatrix floats(const Linear& layer) {
  RowMatrix m(layer.outputs(), layer.inputs());
  for (Index o = 0; o < m.rows(); ++o)
    for (Index i = 0; i < m.cols(); ++i) m(o, i) = static_cast<float>(layer.weights()(o, i));
  return m;
}

BranchCorrectionWeights<Linear> random_weights() {
  return {.norm = std::vector<float>(width, 1.0f),
          .previous = random_linear<bf16>(2 * inner, width, 1),
          .state = random_linear<bf16>(2 * inner, width, 2),
          .down = random_linear<bf16>(width, inner, 3)};
}

/// The lists as a program with Eigen alone would make them. Gains are 1. Of rank 0: a dense head.
class EigenLists {
 public:
  EigenLists(const BranchCorrectionWeights<Linear>& w, const Linear& up, const Linear* down)
      : both_(2 * inner, 2 * width), down_(floats(w.down)), up_(floats(up)) {
    both_ << floats(w.previous), floats(w.state);
    if (down != nullptr) head_down_ = floats(*down);
  }

  /// [rows] the log-probability of the best token of each list.
  std::vector<double> run(const RowMatrix& plain, const RowMatrix& embedding) {
    const RowMatrix n = normed(plain);
    const RowMatrix regular = logits(n.topRows(depths - 1));
    RowMatrix e(rows, width), of_depth(rows, width), base(rows, width);
    for (Index r = 0, d = 0, i = 0; r < rows; ++r) {
      if (i == 0 && d > 0) rank(regular.row(d - 1), followed);
      e.row(r) = embedding.row(r == 0 ? 3 : order_[static_cast<std::size_t>(i)]);
      of_depth.row(r) = n.row(d);
      base.row(r) = plain.row(d);
      if (r == 0 || ++i == followed) ++d, i = 0;
    }
    RowMatrix inputs(rows, 2 * width);
    inputs << normed(e), of_depth;
    const RowMatrix z = inputs * both_.transpose();
    const auto g = z.rightCols(inner).array();
    const RowMatrix gated = g / (1 + (-g).exp()) * z.leftCols(inner).array();
    const RowMatrix all = logits(normed(base + gated * down_.transpose()));
    std::vector<double> best;
    for (Index r = 0; r < rows; ++r) {
      rank(all.row(r), kept);
      const float most = all(r, order_[0]);
      best.push_back(-std::log(static_cast<double>((all.row(r).array() - most).exp().sum())));
    }
    return best;
  }

 private:
  static RowMatrix normed(const RowMatrix& x) {
    const auto roots = (x.rowwise().squaredNorm().array() / float(x.cols()) + 1e-6f).sqrt();
    return x.array().colwise() / roots;
  }
  RowMatrix logits(const RowMatrix& h) const {
    if (head_down_.size() == 0) return h * up_.transpose();
    const RowMatrix latent = h * head_down_.transpose();
    return latent * up_.transpose();
  }
  template <class Row>
  void rank(const Row& z, Index count) {
    order_.resize(static_cast<std::size_t>(z.cols()));
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort(order_.begin(), order_.begin() + count, order_.end(),
                      [&](Index a, Index b) { return z(a) > z(b) || (z(a) == z(b) && a < b); });
  }

  RowMatrix both_, down_, up_, head_down_;
  std::vector<Index> order_;
};

template <class Head>
struct ListsWork {
  ListsWork(Head made, const Linear& up, const Linear* down)
      : head(std::move(made)), eigen(correct.weights(), up, down) {}

  void run(int threads) {
    lists.fill(pare::simd.threads(threads).with(workspace), correct, head, plain, gain,
               embedding.middleRows(3, 1),
               [&](std::int32_t token, std::span<float> row) {
                 std::copy_n(embedding.row(token).data(), width, row.data());
               },
               {.previous = followed, .ranks = kept});
  }

  bool agrees() {
    const auto wanted = eigen.run(plain, embedding);
    const auto table = lists.table();
    for (Index d = 0, r = 0; d < depths; ++d)
      for (Index m = 0; m < (d == 0 ? 1 : followed); ++m, ++r)
        if (!(std::abs(table.log_probability(d, m, 0) - wanted[static_cast<std::size_t>(r)]) <=
              1e-3))
          return false;
    return true;
  }

  BranchCorrection<Linear> correct{random_weights()};
  Head head;
  RowMatrix plain = uniform_matrix(depths, width, 5),
            embedding = uniform_matrix(vocabulary, width, 6);
  std::vector<float> gain = std::vector<float>(width, 1.0f);
  BranchLists<float> lists;
  EigenLists eigen;
  pare::Workspace workspace;
};

template <class Head, class Make>
void lists_of(benchmark::State& state, const std::string& name, double head_weights, int threads,
              const Make& make) {
  auto& work = *workload<std::unique_ptr<ListsWork<Head>>>(name, make);
  Eigen::setNbThreads(threads);
  work.run(threads);
  if (!work.agrees()) return state.SkipWithError("lists differ from those of Eigen");
  const double flops = 2 * (head_weights * (rows + depths - 1) +
                            static_cast<double>(2 * inner * width) * (rows + depths) +
                            static_cast<double>(inner * width) * rows);
  LimitProbe probe(threads, {{Limit::fma_f32, flops}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  std::vector<double> ours, theirs;  // in turns: the machine drifts
  for (int i = 0; i < 3; ++i) {
    ours.push_back(seconds([&] { work.run(threads); }));
    theirs.push_back(
        seconds([&] { benchmark::DoNotOptimize(work.eigen.run(work.plain, work.embedding)); }));
  }
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "eigen", median(theirs), median(ours));
  state.counters["ms_a_call"] = own * 1e3;
  set_threads(state, threads);
}

void dense(benchmark::State& state, int threads) {
  lists_of<DenseHead<bf16>>(state, "branch lists dense", static_cast<double>(vocabulary * width),
                            threads, [] {
                              const Linear up = random_linear<bf16>(vocabulary, width, 9);
                              return std::make_unique<ListsWork<DenseHead<bf16>>>(
                                  DenseHead<bf16>(up.weights()), up, nullptr);
                            });
}

void low_rank(benchmark::State& state, int threads) {
  constexpr Index rank = width / 8;
  lists_of<LowRankHead<bf16>>(state, "branch lists low rank",
                              static_cast<double>(rank * (vocabulary + width)), threads, [] {
                                const Linear up = random_linear<bf16>(vocabulary, rank, 9),
                                             down = random_linear<bf16>(rank, width, 10);
                                return std::make_unique<ListsWork<LowRankHead<bf16>>>(
                                    LowRankHead<bf16>(down.weights(), up.weights()), up, &down);
                              });
}

const bool registered = [] {
  for (const int threads : {1, all_threads()}) {
    const std::string end = threads == 1 ? "/t1" : "";
    large(benchmark::RegisterBenchmark(("draft/branch_lists/bf16/v49152/d576/m16" + end).c_str(),
                                       [=](benchmark::State& state) { dense(state, threads); }),
          3);
    large(
        benchmark::RegisterBenchmark(("draft/branch_lists/bf16/v49152/d576/r72/m16" + end).c_str(),
                                     [=](benchmark::State& state) { low_rank(state, threads); }),
        3);
    if (all_threads() == 1) break;
  }
  return true;
}();

}  // namespace
