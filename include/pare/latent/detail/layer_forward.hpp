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
#include <pare/latent/detail/expanded_attention.hpp>
#include <pare/latent/detail/expanded_keys.hpp>
#include <pare/latent/detail/forward_checks.hpp>
#include <pare/latent/detail/latent_rows.hpp>
#include <pare/latent/forward_options.hpp>
#include <pare/latent/weights.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// Attention of absorbed queries [m, H, d_c + d_r] over rows of the cache into u [m, H, d_c].
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
  ExpandedMemory<T, C> expanded;
};

/// A call of forward. P: AllKeys, or a selector of blocks.
template <class B, class Layer, class Cache, class P>
class LayerForward {
  using T = typename Layer::scalar;
  using C = typename Cache::scalar;

 public:
  LayerForward(const B& backend, const Layer& layer, TensorView<const T, 2> hidden, Cache& cache,
               TensorView<T, 2> out, const P& policy, const LatentForwardOptions& options)
      : backend_(keeping(backend, own_)),
        layer_(layer),
        config_(layer.config()),
        hidden_(hidden),
        cache_(cache),
        out_(out),
        policy_(policy),
        options_(options),
        memory_(leased<ForwardMemory<T, C>>(backend_)) {}

  void run() {
    check_forward(layer_, hidden_, cache_, out_, options_);
    if constexpr (!std::is_same_v<P, AllKeys>)
      check_selector(layer_, cache_, policy_, options_, tokens());
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
    if constexpr (std::is_same_v<P, AllKeys>) run_absorbed();
    run_expanded();
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
    if (!std::is_same_v<P, AllKeys>) return LatentForm::Expanded;
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
    auto options = attend_options(config_, options_);
    options.query_offsets = memory_->absorbed_offsets;
    attend_absorbed(backend_, stored_as<C>(backend_, as_const(q), memory_->rounded), heads, cache_,
                    u, options);
    for_absorbed_runs([&](Index row, Index n, Index absorbed) {
      layer_.weights().up.expand_outputs(
          backend_, tokens_of(rows_of(as_const(u), absorbed, n), heads, 0, config_.latent),
          tokens_of(rows_of(outputs_, row, n), heads, 0, config_.value));
    });
  }

  void run_expanded() {
    ExpandedAttention<B, Layer, Cache, P> attention(backend_, layer_, cache_, policy_, options_,
                                                    memory_->expanded);
    for (Index s = 0; s < cache_.sequences(); ++s)
      if (expanded(s))
        attention.run(s, rows_of(as_const(queries_), begin(s), count(s)),
                      rows_of(outputs_, begin(s), count(s)));
  }

  Workspace own_;
  const B backend_;
  const Layer& layer_;
  const LatentConfig& config_;
  TensorView<const T, 2> hidden_;
  Cache& cache_;
  TensorView<T, 2> out_;
  const P& policy_;
  const LatentForwardOptions& options_;
  const Lease<ForwardMemory<T, C>> memory_;
  TensorView<T, 2> queries_{}, outputs_{};
};

PARE_ABI_END
}  // namespace pare::latent::detail

#include <pare/core/macros_on.hpp>
