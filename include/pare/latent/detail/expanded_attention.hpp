// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of one sequence in the expanded form: keys and values of all heads are made of a run
/// of cached rows at a time, and what runs give is merged.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/detail/expanded_keys.hpp>
#include <pare/latent/detail/forward_checks.hpp>
#include <pare/latent/detail/latent_rows.hpp>
#include <pare/latent/forward_options.hpp>

#include <algorithm>
#include <type_traits>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// No selector: queries attend to all keys that they see.
struct AllKeys {};

inline attention::AttendOptions attend_options(const LatentConfig& config,
                                               const LatentForwardOptions& given) {
  attention::AttendOptions options;
  options.causal = given.causal;
  options.scale = config.softmax_scale;
  options.window = given.window;
  options.sinks = given.sinks;
  return options;
}

/// Memory of it. T: what is computed in, C: the scalar of the cache.
template <class T, class C>
struct ExpandedMemory {
  ExpansionMemory<T, C> expansion;
  AlignedBuffer<C> queries;
  AlignedBuffer<T> more, lse, more_lse;
};

template <class B, class Layer, class Cache, class P>
class ExpandedAttention {
  using T = typename Layer::scalar;
  using C = typename Cache::scalar;

 public:
  ExpandedAttention(const B& backend, const Layer& layer, const Cache& cache, const P& policy,
                    const LatentForwardOptions& options, ExpandedMemory<T, C>& memory)
      : backend_(backend),
        layer_(layer),
        config_(layer.config()),
        cache_(cache),
        policy_(policy),
        options_(options),
        memory_(memory) {}

  /// out [n, H d_v] of queries [n, H (d_n + d_r)], the last tokens of a sequence, whose rows are
  /// cached.
  void run(Index sequence, TensorView<const T, 2> queries, TensorView<T, 2> out) {
    sequence_ = sequence;
    queries_ = stored_as<C>(backend_, queries, memory_.queries);
    out_ = out;
    if constexpr (std::is_same_v<P, AllKeys>)
      attend_in_chunks();
    else
      attend_selected();
  }

 private:
  Index keys() const { return cache_.length(sequence_); }
  /// Where the first query stands.
  Index position() const { return keys() - out_.rows(); }

  ExpandedKeys<C> expand(Index from, Index to) {
    return expand_keys(backend_, layer_.weights().up, cache_, sequence_, from, to,
                       memory_.expansion);
  }
  /// Queries from `skipped` on, and outputs, as attention wants them.
  TensorView<const C, 4> query_heads(Index skipped) const {
    return of_heads(rows_of(queries_, skipped, out_.rows() - skipped), config_.heads, 0,
                    config_.head_dim());
  }
  TensorView<T, 4> output_heads(TensorView<T, 2> rows) const {
    return of_heads(rows, config_.heads, 0, config_.value);
  }

  /// All keys at once: a selector looks at all of them.
  void attend_selected() {
    using attention::attend;  // and whatever overload the selector's headers have
    attend(backend_, query_heads(0), expand(0, keys()), output_heads(out_), policy_,
           attend_options(config_, options_));
  }

  /// The keys that are read: sinks, and those from the first that a window shows.
  void attend_in_chunks() {
    const Index first = first_read(options_, position());
    const Index sinks = std::min(sinks_of(options_), first);
    const Index chunk = std::min(options_.chunk.value_or(default_chunk()), keys());
    const bool whole = sinks == 0 && keys() - first <= chunk;
    bool merges = false;
    const auto attend_range = [&](Index from, Index to) {
      for (Index at = from; at < to; at += chunk, merges = true)
        attend_chunk(at, std::min(at + chunk, to), !whole, merges);
    };
    attend_range(0, sinks);
    attend_range(first, keys());
  }

  Index default_chunk() const {
    return std::max<Index>(256, (Index{1} << 25) / layer_.weights().up.all().rows());
  }

  /// Attends to the keys [from, to). The first chunk writes outputs, later ones are merged with
  /// them; queries that stand before a chunk see nothing of it, and have been written.
  void attend_chunk(Index from, Index to, bool wants_lse, bool merges) {
    const Index skipped = merges && options_.causal ? std::max<Index>(0, from - position()) : 0;
    const Index n = out_.rows() - skipped, heads = config_.heads;
    const auto into = rows_of(out_, skipped, n);
    const auto part = merges ? matrix_in(memory_.more, n, out_.cols()) : into;
    const auto lse = matrix_in(memory_.lse, heads, wants_lse ? out_.rows() : 0);
    const auto part_lse = merges ? matrix_in(memory_.more_lse, heads, n) : lse;
    auto options = attend_options(config_, options_);
    options.sinks = std::max<Index>(0, options.sinks - from);
    options.query_offset = position() + skipped - from;
    if (wants_lse)
      options.lse = TensorView<T, 3>{part_lse.data, {1, heads, n}, {0, part_lse.stride[0], 1}};
    attention::attend(backend_, query_heads(skipped), expand(from, to), output_heads(part),
                      options);
    if (merges) merge(into, columns_of(lse, skipped, n), as_const(part), as_const(part_lse));
  }

  void merge(TensorView<T, 2> out, TensorView<T, 2> lse, TensorView<const T, 2> more,
             TensorView<const T, 2> more_lse) const {
    const Index dim = config_.value;
    for_row_blocks(backend_, out.rows(), out.cols(), [&](Index from, Index to) {
      for (Index i = from; i < to; ++i)
        for (Index h = 0; h < config_.heads; ++h)
          merge_row(&out(i, h * dim), lse(h, i), &more(i, h * dim), more_lse(h, i), dim);
    });
  }

  const B& backend_;
  const Layer& layer_;
  const LatentConfig& config_;
  const Cache& cache_;
  const P& policy_;
  const LatentForwardOptions& options_;
  ExpandedMemory<T, C>& memory_;
  Index sequence_ = 0;
  TensorView<const C, 2> queries_{};
  TensorView<T, 2> out_{};
};

PARE_ABI_END
}  // namespace pare::latent::detail

#include <pare/core/macros_on.hpp>
