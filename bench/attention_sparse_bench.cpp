// SPDX-License-Identifier: Apache-2.0

/// \file
/// The block-sparse kernel alone, on random masks: how close skipping blocks comes to saving their
/// share of the time.

#include "attention_data.hpp"
#include "attention_peers.hpp"
#include "counters.hpp"
#include "openblas.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/attention/block_mask.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::attention::BlockMask;

constexpr Index tokens = 16384;
constexpr Index heads = 2;
constexpr Index block = 128;
constexpr Index blocks = tokens / block;
const double largest_value = std::sqrt(3.0);

// For each head the diagonal and, from all blocks under it, as many drawn without replacement as
// make up the density.
BlockMask random_mask(double density, std::uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<std::vector<std::int32_t>> lists;
  const auto wanted =
      static_cast<std::size_t>(density * static_cast<double>(blocks * (blocks + 1) / 2)) - blocks;
  for (Index head = 0; head < heads; ++head) {
    std::vector<std::pair<Index, std::int32_t>> under;
    for (Index m = 0; m < blocks; ++m)
      for (Index n = 0; n < m; ++n) under.emplace_back(m, static_cast<std::int32_t>(n));
    const std::size_t first = lists.size();
    lists.resize(first + blocks);
    for (std::size_t i = 0; i < wanted; ++i) {
      const auto left = static_cast<double>(under.size() - i);
      std::swap(under[i], under[i + static_cast<std::size_t>(random.unit() * left)]);
      lists[first + static_cast<std::size_t>(under[i].first)].push_back(under[i].second);
    }
    for (Index m = 0; m < blocks; ++m) {
      auto& list = lists[first + static_cast<std::size_t>(m)];
      list.push_back(static_cast<std::int32_t>(m));
      std::sort(list.begin(), list.end());
    }
  }
  return BlockMask::from_lists({.heads = heads,
                                .queries = tokens,
                                .keys = tokens,
                                .row_block = block,
                                .column_block = block},
                               lists);
}

bool selects(const BlockMask& mask, Index head, Index row, Index column) {
  const auto columns = mask.row(0, head, row);
  return std::binary_search(columns.begin(), columns.end(), static_cast<std::int32_t>(column));
}

struct SparseWork {
  AttentionData<float> data{AttentionShape::prefill(heads, tokens, 128)};
  pare::Workspace workspace;

  pare::attention::AttendStats run(const BlockMask* mask) {
    return pare::attention::attend(pare::simd.with(workspace), data.q(), data.k(), data.v(),
                                   data.out(), {.causal = true, .mask = mask});
  }

  bool is_right(const BlockMask& mask) {
    run(&mask);
    const double error = worst_error(data.q(), data.k(), data.v(), data.out(),
                                     [&](Index head, Index query, Index key) {
                                       return selects(mask, head, query / block, key / block);
                                     });
    return error <= attention_tolerance<float>(largest_value);
  }
};

// The same blocks through the flash loop over OpenBLAS: what one has without a block-sparse kernel.
double openblas_seconds(const SparseWork& work, const BlockMask& mask) {
  if (OpenBlas::installed() == nullptr) return std::numeric_limits<double>::quiet_NaN();
  std::vector<float> out(static_cast<std::size_t>(heads * tokens * 128));
  return seconds([&] {
    openblas_flash(work.data.dense_heads(heads, out.data()), {.rows = block, .keys = block}, 1,
                   [&](Index head, Index m, Index n) { return selects(mask, head, m, n); });
  });
}

void block_sparse(benchmark::State& state, int percent) {
  SparseWork& work = workload<SparseWork>("attention block sparse", [] { return SparseWork(); });
  const BlockMask mask = random_mask(percent / 100.0, 5);
  if (!work.is_right(mask)) return state.SkipWithError("result differs from the definition");
  const double density = mask.density(true);
  const double before = seconds([&] { work.run(nullptr); });
  LimitProbe probe(1, {{Limit::fma_f32, density * causal_flops(work.data.shape())}});
  const double own = time_between_probes(state, probe, [&] { work.run(&mask); });
  const double dense = 0.5 * (before + seconds([&] { work.run(nullptr); }));
  set_of_limit(state, probe.seconds(), own);
  state.counters["density"] = density;
  state.counters["vs_ideal"] = density * dense / own;
  state.counters["vs_exact"] = dense / own;
  const double openblas = openblas_seconds(work, mask);
  if (!std::isnan(openblas)) set_vs(state, "openblas", openblas, own);
  set_threads(state, 1);
}

const bool registered = [] {
  for (const int percent : {5, 10, 25, 50})
    large(benchmark::RegisterBenchmark(
              ("attention/block_sparse/d128/n16384/density_" + std::to_string(percent)).c_str(),
              block_sparse, percent),
          percent <= 10 ? 5 : 2);
  return true;
}();

}  // namespace
