// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of attention that stops early (S2O, arXiv 2602.22575).
///
/// The paper's text gives the outline only: queries ranked by a guide vector inside a segment, keys
/// of the history ranked by the mean query of the segment, a dense pass inside the segment, then
/// ranked history block by block until a block adds too little. Block sizes, guide, the aggregate
/// over a tile and the threshold are not given by the paper; each is an option here.

#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace pare::attention::detail {

/// What the queries of a segment are ranked by. Not given by the paper.
enum class ReferenceGuide {
  MeanKey,        ///< mean of all keys of the head
  MeanPrefixKey,  ///< mean of the keys before the segment
  FirstKey
};

/// Options of `reference_early_stop`. Not one default is given by the paper.
struct ReferenceEarlyStop {
  double scale = 1;
  Index segment = 256;
  Index row_tile = 64;  ///< queries that stop together
  Index key_tile = 64;  ///< keys of the history between two looks at the gain
  double threshold = 0;
  bool mean_gain = false;  ///< the tile's gain is the mean of its rows' gains; else the largest
  ReferenceGuide guide = ReferenceGuide::MeanKey;
  bool permute_queries = true;
  bool share_gqa = false;  ///< one ranking of the keys for all heads, by their mean query
};

PARE_ABI_BEGIN

/// What a run of `reference_early_stop` did.
struct ReferenceEarlyStopResult {
  /// Blocks of history that each tile went through, tiles ascending within segments, then heads.
  std::vector<Index> blocks{};
  /// Computed (query, key) pairs over those that causality allows, mean over heads; 1 for none.
  double density = 1;
};

/// The running state of a softmax row: highest score, mass relative to it, weighted values.
struct ReferenceState {
  double highest = reference_hidden;
  double mass = 0;
  std::vector<double> sum{};

  /// Takes in keys with their scores and returns the mass they added, relative to the new highest.
  template <StorageScalar T>
  double update(std::span<const std::uint32_t> keys, const std::vector<double>& scores,
                TensorView<const T, 2> v) {
    double peak = highest, added = 0;
    for (const double s : scores) peak = std::max(peak, s);
    const double decay = highest == reference_hidden ? 0 : std::exp(highest - peak);
    for (double& x : sum) x *= decay;
    for (std::size_t j = 0; j < keys.size(); ++j) {
      if (scores[j] == reference_hidden) continue;
      const double p = std::exp(scores[j] - peak);
      added += p;
      for (std::size_t c = 0; c < sum.size(); ++c)
        sum[c] += p * reference_value(v(Index{keys[j]}, static_cast<Index>(c)));
    }
    mass = decay * mass + added;
    highest = peak;
    return added;
  }

  double log_sum_exp() const { return highest + std::log(mass); }

  /// out = sum / mass; 0 for a row without mass.
  template <StorageScalar U>
  void finish(TensorView<U, 3> out, Index head, Index i) const {
    for (Index c = 0; c < out.extent[2]; ++c)
      out(head, i, c) = reference_cast<U>(mass == 0 ? 0 : sum[static_cast<std::size_t>(c)] / mass);
  }
};

/// The heads of one key/value head, [heads, queries, dim], and its keys and values [keys, dim].
template <StorageScalar T>
struct ReferenceGroup {
  TensorView<const T, 3> q;
  TensorView<const T, 2> k;
  TensorView<const T, 2> v;

  TensorView<const T, 2> head(Index h) const {
    return {q.data + h * q.stride[0], {q.extent[1], q.extent[2]}, {q.stride[1], q.stride[2]}};
  }
  /// The position of query 0.
  Index offset() const { return k.rows() - q.extent[1]; }
};

/// The queries [first, last) of a head, those most like the guide first.
template <StorageScalar T>
std::vector<std::uint32_t> reference_query_order(const ReferenceGroup<T>& x, Index head,
                                                 Index first, Index last,
                                                 const ReferenceEarlyStop& o) {
  const Index start = (first + x.offset()) / o.segment * o.segment;
  const Index guide_end = o.guide == ReferenceGuide::MeanKey         ? x.k.rows()
                          : o.guide == ReferenceGuide::MeanPrefixKey ? start
                                                                     : 1;
  const std::vector<double> guide = reference_mean_rows(x.k, 0, guide_end);
  std::vector<double> scores;
  for (Index i = first; i < last; ++i)
    scores.push_back(o.permute_queries
                         ? reference_dot(reference_row(x.head(head), i), guide.data(), x.k.cols())
                         : 0.0);
  std::vector<std::uint32_t> order = reference_rank(scores);
  for (std::uint32_t& i : order) i += static_cast<std::uint32_t>(first);
  return order;
}

/// The keys [0, history), those most like the mean of queries [first, last) first.
template <StorageScalar T>
std::vector<std::uint32_t> reference_history_order(const ReferenceGroup<T>& x, Index head,
                                                   Index first, Index last, Index history,
                                                   bool share) {
  std::vector<double> mean(static_cast<std::size_t>(x.k.cols()), 0.0);
  const Index heads = x.q.extent[0];
  for (Index h = 0; h < heads; ++h) {
    if (!share && h != head) continue;
    const std::vector<double> one = reference_mean_rows(x.head(h), first, last);
    for (std::size_t c = 0; c < one.size(); ++c)
      mean[c] += one[c] / static_cast<double>(share ? heads : 1);
  }
  std::vector<double> scores;
  for (Index j = 0; j < history; ++j)
    scores.push_back(reference_dot(mean.data(), reference_row(x.k, j), x.k.cols()));
  return reference_rank(scores);
}

/// Keys with scores scale q.k into the state of one query.
template <StorageScalar T>
double reference_take(const ReferenceGroup<T>& x, const T* q, double scale,
                      std::span<const std::uint32_t> keys, ReferenceState& state) {
  std::vector<double> scores;
  for (const std::uint32_t j : keys)
    scores.push_back(scale * reference_dot(q, reference_row(x.k, Index{j}), x.k.cols()));
  return state.update(keys, scores, x.v);
}

/// One tile: its own segment, then blocks of the ranked history until one adds less than the
/// threshold to the mass; that block is kept. Returns the blocks taken. A row whose gain is NaN
/// does not decide.
template <StorageScalar T>
Index reference_stop_tile(const ReferenceGroup<T>& x, Index head,
                          std::span<const std::uint32_t> rows,
                          std::span<const std::uint32_t> history, const ReferenceEarlyStop& o,
                          std::vector<ReferenceState>& states) {
  const auto start = static_cast<std::uint32_t>(history.size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::vector<std::uint32_t> own(static_cast<std::size_t>(rows[r] + x.offset() + 1 - start));
    std::iota(own.begin(), own.end(), start);
    reference_take(x, reference_row(x.head(head), Index{rows[r]}), o.scale, own, states[r]);
  }
  Index blocks = 0;
  const auto tile = static_cast<std::size_t>(o.key_tile);
  for (std::size_t at = 0; at < history.size(); at += tile) {
    const auto keys = history.subspan(at, std::min(tile, history.size() - at));
    double largest = 0, sum = 0, counted = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const double added =
          reference_take(x, reference_row(x.head(head), Index{rows[r]}), o.scale, keys, states[r]);
      const double gain = added / states[r].mass;
      if (reference_is_nan(gain)) continue;
      largest = std::max(largest, gain);
      sum += gain;
      ++counted;
    }
    ++blocks;
    const double gain = !o.mean_gain ? largest : counted > 0 ? sum / counted : 0;
    if (gain < o.threshold) break;
  }
  return blocks;
}

/// S2O for the heads of one key/value head: out [heads, queries, value dim].
///
/// Segments are those of positions; query i stands at position i + keys - queries. The history of a
/// segment is every key before it. Threshold 0 never stops, and is exact causal attention. lse
/// [heads, queries] takes the log-sum-exp of the keys taken, unless it is empty.
template <StorageScalar T, StorageScalar U>
ReferenceEarlyStopResult reference_early_stop(const ReferenceGroup<T>& x,
                                              const ReferenceEarlyStop& o, TensorView<U, 3> out,
                                              TensorView<compute_t<T>, 2> lse = {}) {
  ReferenceEarlyStopResult result;
  double computed = 0, visible = 0;
  for (Index head = 0; head < x.q.extent[0]; ++head)
    for (Index start = 0; start < x.k.rows(); start += o.segment) {
      const Index first = std::max<Index>(start - x.offset(), 0);
      const Index last = std::min(start + o.segment - x.offset(), x.q.extent[1]);
      if (first >= last) continue;
      const auto queries = reference_query_order(x, head, first, last, o);
      const auto history = reference_history_order(x, head, first, last, start, o.share_gqa);
      const auto tile = static_cast<std::size_t>(o.row_tile);
      for (std::size_t at = 0; at < queries.size(); at += tile) {
        const auto rows = std::span(queries).subspan(at, std::min(tile, queries.size() - at));
        std::vector<ReferenceState> states(
            rows.size(), {.sum = std::vector<double>(static_cast<std::size_t>(x.v.cols()), 0.0)});
        const Index blocks = reference_stop_tile(x, head, rows, history, o, states);
        result.blocks.push_back(blocks);
        for (std::size_t r = 0; r < rows.size(); ++r) {
          states[r].finish(out, head, Index{rows[r]});
          if (lse.data != nullptr)
            lse(head, Index{rows[r]}) = static_cast<compute_t<T>>(states[r].log_sum_exp());
          const Index position = Index{rows[r]} + x.offset();
          computed +=
              static_cast<double>(position + 1 - start + std::min(blocks * o.key_tile, start));
          visible += static_cast<double>(position + 1);
        }
      }
    }
  if (visible > 0) result.density = computed / visible;
  return result;
}

PARE_ABI_END
}  // namespace pare::attention::detail
