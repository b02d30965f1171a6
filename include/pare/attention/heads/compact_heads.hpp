// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Pruning of attention heads: the weights of a small layer that computes what the whole layer
/// does with the other heads set to zero.
///
/// ```cpp
/// const std::vector<Index> kept = select_heads(usage.counts(), {.count = 3});  // 0, 1 and 7
/// const auto small = compact_heads(wq, wk, wv, wo, {.heads = 9, .kv_heads = 3}, kept);
/// small.wq;   // [3 dim x inputs]
/// small.wk;   // [2 dim x inputs], wv alike: key/value head 1 has no query head any more
/// small.wo;   // [outputs x 3 value dim]
/// const auto bq = rows_of_heads(bias, small.heads, dim);  // [3 dim x 1] of [9 dim x 1]
/// for (const HeadRun& run : small.runs()) ...             // a call of attend for each
/// ```
///
///     whole: y = sum over all h of W_o,h softmax(scale Q_h K_g^T) V_g,  g = h / (H / H_kv)
///
///     small: the same sum over the heads that are kept
///
/// A key/value head goes when all of its query heads go, and not before. What is left of a group
/// may differ from group to group: `attend` takes equal groups, so runs() names those neighbours
/// that are alike, one run if all are.
///
/// Source: SHRP, arXiv 2512.20635 (the abstract: heads that are not used are removed at
/// deployment). Reconstructed: key/value heads under grouped queries. Nothing is trained here.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::attention {

/// Heads of a layer: a multiple of its key/value heads.
struct HeadCounts {
  Index heads = 0;
  Index kv_heads = 0;
};

/// Neighbouring key/value heads of as many query heads each: heads / kv_heads.
struct HeadRun {
  Index head = 0;  ///< the first
  Index heads = 0;
  Index kv_head = 0;  ///< the first
  Index kv_heads = 0;

  PARE_ALWAYS_INLINE friend bool operator==(const HeadRun&, const HeadRun&) = default;
};

PARE_ABI_BEGIN

/// The weights of the heads that are kept, and which those are.
template <StorageScalar S>
struct CompactHeads {
  RowMatrix<S> wq, wk, wv;      ///< [kept heads x dim, inputs]
  RowMatrix<S> wo;              ///< [outputs, kept query heads x value dim]
  std::vector<Index> heads;     ///< the query heads of the whole layer that are kept, rising
  std::vector<Index> kv_heads;  ///< its key/value heads, rising
  std::vector<Index> kv_of;     ///< [kept query heads] which of the kept key/value heads each reads

  /// Numbers in the four weights.
  Index parameters() const { return wq.size() + wk.size() + wv.size() + wo.size(); }

  /// The key/value heads in runs of equal groups, in their order.
  std::vector<HeadRun> runs() const {
    std::vector<HeadRun> runs;
    for (std::size_t h = 0; h < kv_of.size();) {
      std::size_t end = h;
      while (end < kv_of.size() && kv_of[end] == kv_of[h]) ++end;
      const auto group = static_cast<Index>(end - h);
      if (!runs.empty() && runs.back().heads == group * runs.back().kv_heads) {
        runs.back().heads += group;
        ++runs.back().kv_heads;
      } else {
        runs.push_back({static_cast<Index>(h), group, kv_of[h], 1});
      }
      h = end;
    }
    return runs;
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// The heads in rising order.
inline std::vector<Index> checked_heads(const char* function, const char* argument,
                                        std::span<const Index> heads, Index all) {
  check(!heads.empty(), function, argument, "no heads", "at least one");
  std::vector<Index> sorted(heads.begin(), heads.end());
  std::ranges::sort(sorted);
  for (const Index head : sorted)
    check(head >= 0 && head < all, function, argument, head, Worded{"0 to below ", all});
  const auto twice = std::ranges::adjacent_find(sorted);
  check(twice == sorted.end(), function, argument,
        Worded{"head ", twice == sorted.end() ? 0 : *twice, " twice"}, "each head once");
  return sorted;
}

/// Rows [head * dim, (head + 1) * dim) of each head, one head behind the other.
template <StorageScalar S>
RowMatrix<S> head_rows(TensorView<const S, 2> w, std::span<const Index> heads, Index dim) {
  RowMatrix<S> kept(static_cast<Index>(heads.size()) * dim, w.cols());
  for (Index i = 0; i < kept.rows(); ++i) {
    const Index from = heads[static_cast<std::size_t>(i / dim)] * dim + i % dim;
    for (Index j = 0; j < w.cols(); ++j) kept(i, j) = w(from, j);
  }
  return kept;
}

template <StorageScalar S>
RowMatrix<S> head_columns(TensorView<const S, 2> w, std::span<const Index> heads, Index dim) {
  RowMatrix<S> kept(w.rows(), static_cast<Index>(heads.size()) * dim);
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < kept.cols(); ++j)
      kept(i, j) = w(i, heads[static_cast<std::size_t>(j / dim)] * dim + j % dim);
  return kept;
}

/// The rows (of the output projection columns) of one head.
inline Index checked_head_dim(const char* function, const char* argument, Index size, Index heads) {
  check(size >= 1 && size % heads == 0, function, argument, size,
        Worded{"a size for ", heads, " heads: a multiple above 0"});
  return size / heads;
}

template <StorageScalar S>
CompactHeads<S> compact_heads(TensorView<const S, 2> wq, TensorView<const S, 2> wk,
                              TensorView<const S, 2> wv, TensorView<const S, 2> wo,
                              const HeadCounts& layer, std::span<const Index> kept) {
  constexpr const char* function = "attention::compact_heads";
  check_view(function, "wq", wq);
  check_view(function, "wk", wk);
  check_view(function, "wv", wv);
  check_view(function, "wo", wo);
  check(layer.kv_heads >= 1, function, "kv_heads", layer.kv_heads, "at least 1");
  check(layer.heads >= 1 && layer.heads % layer.kv_heads == 0, function, "heads", layer.heads,
        Worded{"a multiple of the ", layer.kv_heads, " key/value heads"});
  const Index dim = checked_head_dim(function, "wq", wq.rows(), layer.heads);
  const Index value_dim = checked_head_dim(function, "wv", wv.rows(), layer.kv_heads);
  check_extents<2>(function, "wk", wk.extent, {layer.kv_heads * dim, wq.cols()});
  check_extents<2>(function, "wv", wv.extent, {wv.rows(), wq.cols()});
  check_extents<2>(function, "wo", wo.extent,
                   {wo.rows(), checked_product(function, "wo", layer.heads, value_dim)});
  CompactHeads<S> small;
  small.heads = checked_heads(function, "kept", kept, layer.heads);
  for (const Index head : small.heads) {
    const Index kv = head / (layer.heads / layer.kv_heads);
    if (small.kv_heads.empty() || small.kv_heads.back() != kv) small.kv_heads.push_back(kv);
    small.kv_of.push_back(static_cast<Index>(small.kv_heads.size()) - 1);
  }
  small.wq = head_rows(wq, std::span<const Index>(small.heads), dim);
  small.wk = head_rows(wk, std::span<const Index>(small.kv_heads), dim);
  small.wv = head_rows(wv, std::span<const Index>(small.kv_heads), value_dim);
  small.wo = head_columns(wo, std::span<const Index>(small.heads), value_dim);
  return small;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The rows of some heads, one head behind the other: of a weight, or of a bias as a column.
///
/// \param w        [heads x head_dim, any] any storage scalar and strides
/// \param heads    at least one, in any order: the copy has them rising
/// \param head_dim rows of a head, at least 1
/// \returns [kept heads x head_dim, any], a copy
/// \throws std::invalid_argument if the rows are no whole heads, or a head is none of them or named
///         twice
template <In<2> W>
RowMatrix<scalar_of<W>> rows_of_heads(const W& w, std::span<const Index> heads, Index head_dim) {
  constexpr const char* function = "attention::rows_of_heads";
  const auto view = as_const(to_view(w));
  check_view(function, "w", view);
  check(head_dim >= 1 && view.rows() % head_dim == 0, function, "head_dim", head_dim,
        Worded{"a divisor of the ", view.rows(), " rows"});
  const auto kept = detail::checked_heads(function, "heads", heads, view.rows() / head_dim);
  return detail::head_rows(view, std::span<const Index>(kept), head_dim);
}

/// Removes all heads but some from the weights of an attention layer.
///
/// \param wq    [heads x dim, inputs]: q = x wq^T; any storage scalar and strides
/// \param wk    [kv heads x dim, inputs]
/// \param wv    [kv heads x value dim, inputs]
/// \param wo    [outputs, heads x value dim]: y = o wo^T
/// \param layer how many heads it has; head h reads key/value head h / (heads / kv_heads)
/// \param kept  query heads, at least one, in any order, as select_heads gives them
/// \returns the weights that are left, copied bit by bit: with all heads, those of the layer
/// \throws std::invalid_argument if shapes do not fit the heads, or kept is empty or names a head
///         twice or one that is not there
///
/// Cost: one copy of what is kept. Memory: the result.
template <In<2> Q, In<2> K, In<2> V, In<2> O>
requires SameScalar<Q, K, V, O>
CompactHeads<scalar_of<Q>> compact_heads(const Q& wq, const K& wk, const V& wv, const O& wo,
                                         const HeadCounts& layer, std::span<const Index> kept) {
  return detail::compact_heads(as_const(to_view(wq)), as_const(to_view(wk)), as_const(to_view(wv)),
                               as_const(to_view(wo)), layer, kept);
}

PARE_REFUSE_CALLS(compact_heads, "attention::compact_heads",
                  "after wo: wanted HeadCounts and the heads that are kept",
                  (INPUT, (roles::Reads<2>), "wq", "[heads x dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "wk", "[kv heads x dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "wv", "[kv heads x value dim, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "wo", "[outputs, heads x value dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
