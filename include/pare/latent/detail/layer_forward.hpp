// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One call of a layer of latent attention, step by step.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/choose_form.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/detail/expanded_keys.hpp>
#include <pare/latent/detail/forward_checks.hpp>
#include <pare/latent/detail/latent_rows.hpp>
#include <pare/latent/forward_options.hpp>
#include <pare/latent/weights.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <vector>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// Attention of absorbed queries [m, H, d_c + d_r] over rows of the cache into u [m, H, d_c]: where
/// a kernel that knows that values lie in keys would stand.
template <class B, class C, class T, class Source>
void attend_absorbed(const B& backend, TensorView<const C, 2> q, Index heads, const Source& source,
                     TensorView<T, 2> u, const attention::AttendOptions& options) {
  attention::attend(backend, of_heads(q, heads, 0, q.cols() / heads), source,
                    of_heads(u, heads, 0, u.cols() / heads), options);
}

/// Memory of a call, kept in the workspace. T: what is computed in, C: the scalar of the cache.
template <class T, class C>
struct ForwardMemory {
  AlignedBuffer<T> rows, query_latents, queries, absorbed, latent_outputs, outputs;
  AlignedBuffer<C> rounded;
  std::vector<Index> offsets, positions, absorbed_offsets;
  ExpansionMemory<T, C> expansion;
  AlignedBuffer<T> more, lse, more_lse;
};

template <class B, class Layer, class Cache>
class LayerForward {
  using T = typename Layer::scalar;
  using C = typename Cache::scalar;

 public:
  LayerForward(const B& backend, const Layer& layer, TensorView<const T, 2> hidden, Cache& cache,
               TensorView<T, 2> out, const LatentForwardOptions& options)
      : backend_(keeping(backend, own_)),
        layer_(layer),
        config_(layer.config()),
        hidden_(hidden),
        cache_(cache),
        out_(out),
        options_(options),
        memory_(leased<ForwardMemory<T, C>>(backend_)) {}

  void run() {
    check_forward(layer_, hidden_, cache_, out_, options_);
    if (hidden_.rows() == 0) return;
    plan();
    const auto rows = matrix_in(memory_->rows, tokens(), config_.row_dim());
    make_rows(backend_, layer_, hidden_, rows);
    if constexpr (!rotates_keys<Cache>)
      rotate_heads(backend_, layer_, rows, 1, config_.latent, memory_->positions);
    for (Index s = 0; s < cache_.sequences(); ++s)
      if (count(s) > 0) cache_.append(backend_, s, as_const(rows_of(rows, begin(s), count(s))));
    queries_ = matrix_in(memory_->queries, tokens(), config_.heads * config_.head_dim());
    make_queries(backend_, layer_, hidden_, memory_->query_latents, queries_);
    rotate_heads(backend_, layer_, queries_, config_.heads, config_.nope, memory_->positions);
    outputs_ = matrix_in(memory_->outputs, tokens(), config_.heads * config_.value);
    run_absorbed();
    for (Index s = 0; s < cache_.sequences(); ++s)
      if (expanded(s)) run_expanded(s);
    layer_.weights().output.apply(backend_, as_const(outputs_), out_);
  }

 private:
  Index tokens() const { return hidden_.rows(); }
  Index begin(Index s) const { return memory_->offsets[static_cast<std::size_t>(s)]; }
  Index count(Index s) const { return begin(s + 1) - begin(s); }
  Index absorbed_begin(Index s) const {
    return memory_->absorbed_offsets[static_cast<std::size_t>(s)];
  }
  bool expanded(Index s) const {
    return count(s) > 0 && absorbed_begin(s + 1) == absorbed_begin(s);
  }

  /// Whose tokens are whose, where they stand, and which form each sequence takes.
  void plan() {
    const Index sequences = cache_.sequences();
    set_offsets(options_, sequences, tokens(), memory_->offsets);
    set_positions(options_, memory_->offsets, cache_, memory_->positions);
    memory_->absorbed_offsets.assign(static_cast<std::size_t>(sequences) + 1, 0);
    for (Index s = 0; s < sequences; ++s) {
      const bool absorbs = form(s) == LatentForm::Absorbed;
      memory_->absorbed_offsets[static_cast<std::size_t>(s) + 1] =
          absorbed_begin(s) + (absorbs ? count(s) : 0);
    }
  }

  LatentForm form(Index s) const {
    if (options_.form) return *options_.form;
    const Index cached = cache_.length(s), first = first_read(options_, cached);
    const Index sinks = std::min(sinks_of(options_), first);
    return choose_form(config_, count(s), cached + count(s) - first + sinks,
                       {.factor = options_.form_factor, .causal = options_.causal});
  }

  /// body(first row, rows, first row among absorbed ones) for runs of absorbed sequences that
  /// follow one another.
  template <class Body>
  void for_absorbed_runs(const Body& body) const {
    const Index sequences = cache_.sequences();
    for (Index s = 0; s < sequences; ++s) {
      const Index first = s;
      while (s < sequences && !expanded(s)) ++s;
      if (begin(s) > begin(first))
        body(begin(first), begin(s) - begin(first), absorbed_begin(first));
    }
  }

  void run_absorbed() {
    const Index rows = memory_->absorbed_offsets.back(), heads = config_.heads;
    if (rows == 0) return;
    const auto q = matrix_in(memory_->absorbed, rows, heads * config_.row_dim());
    const auto u = matrix_in(memory_->latent_outputs, rows, heads * config_.latent);
    for_absorbed_runs([&](Index row, Index n, Index absorbed) {
      absorb_queries(backend_, layer_, rows_of(as_const(queries_), row, n),
                     rows_of(q, absorbed, n));
    });
    auto options = attend_options();
    options.query_offsets = memory_->absorbed_offsets;
    attend_absorbed(backend_, stored_as<C>(backend_, as_const(q), memory_->rounded), heads, cache_,
                    u, options);
    for_absorbed_runs([&](Index row, Index n, Index absorbed) {
      layer_.weights().up.expand_outputs(
          backend_, tokens_of(rows_of(as_const(u), absorbed, n), heads, 0, config_.latent),
          tokens_of(rows_of(outputs_, row, n), heads, 0, config_.value));
    });
  }

  /// The keys that a sequence reads, sinks and then the window, in chunks.
  void run_expanded(Index s) {
    const auto all = rows_of(as_const(queries_), begin(s), count(s));
    const auto q = stored_as<C>(backend_, all, memory_->rounded);
    const Index keys = cache_.length(s), first = first_read(options_, keys - count(s));
    const Index sinks = std::min(sinks_of(options_), first);
    const Index chunk = options_.chunk.value_or(default_chunk());
    const bool whole = sinks == 0 && keys - first <= chunk;
    bool merges = false;
    const auto attend_range = [&](Index from, Index to) {
      for (Index at = from; at < to; at += chunk, merges = true)
        attend_chunk(s, q, at, std::min(at + chunk, to), !whole, merges);
    };
    attend_range(0, sinks);
    attend_range(first, keys);
  }

  Index default_chunk() const {
    return std::max<Index>(256, (Index{1} << 25) / layer_.weights().up.all().rows());
  }

  /// Attends to the keys [from, to) of a sequence, which are expanded here. The first chunk of a
  /// sequence writes its outputs, the others are merged with what is there.
  void attend_chunk(Index s, TensorView<const C, 2> queries, Index from, Index to, bool wants_lse,
                    bool merges) {
    const auto keys =
        expand_keys(backend_, layer_.weights().up, cache_, s, from, to, memory_->expansion);
    const Index heads = config_.heads, position = cache_.length(s) - count(s);
    // Queries before the chunk see nothing of it.
    const Index skipped = merges && options_.causal ? std::max<Index>(0, from - position) : 0;
    const Index n = count(s) - skipped;
    if (n <= 0) return;
    const auto into = rows_of(outputs_, begin(s) + skipped, n);
    const auto to_write = merges ? matrix_in(memory_->more, n, heads * config_.value) : into;
    auto options = attend_options();
    options.sinks = std::max<Index>(0, options.sinks - from);
    options.query_offset = position + skipped - from;
    const TensorView<T, 2> lse = matrix_in(memory_->lse, heads, wants_lse ? count(s) : 0);
    const TensorView<T, 2> part = merges ? matrix_in(memory_->more_lse, heads, n) : lse;
    if (wants_lse) options.lse = TensorView<T, 3>{part.data, {1, heads, n}, {0, part.stride[0], 1}};
    attention::attend(backend_,
                      of_heads(rows_of(queries, skipped, n), heads, 0, config_.head_dim()), keys,
                      of_heads(to_write, heads, 0, config_.value), options);
    if (merges) merge(into, columns_of(lse, skipped, n), as_const(to_write), as_const(part));
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

  attention::AttendOptions attend_options() const {
    attention::AttendOptions options;
    options.causal = options_.causal;
    options.scale = config_.softmax_scale;
    options.window = options_.window;
    options.sinks = options_.sinks;
    return options;
  }

  Workspace own_;
  const B backend_;
  const Layer& layer_;
  const LatentConfig& config_;
  TensorView<const T, 2> hidden_;
  Cache& cache_;
  TensorView<T, 2> out_;
  const LatentForwardOptions& options_;
  const Lease<ForwardMemory<T, C>> memory_;
  TensorView<T, 2> queries_{}, outputs_{};
};

PARE_ABI_END
}  // namespace pare::latent::detail

#include <pare/core/macros_on.hpp>
