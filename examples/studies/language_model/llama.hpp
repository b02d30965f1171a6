// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The forward pass of a Llama-style model: RMS norms, rotary embedding, grouped heads, SwiGLU.
///
/// ```cpp
/// const pare::io::GgufFile file("model.gguf");
/// const Llama model(gguf_source(file, linear_of(file, Weights::Stored)));
/// KvCache cache(model.config().kv_shape(), 2048);
/// std::vector<float> logits(model.config().vocabulary);
/// pare::Workspace workspace;
/// const auto backend = pare::simd.threads(2).with(workspace);
/// model.forward(backend, prompt, cache, logits);              // logits of the last token
/// for (Token next : ...) model.forward(backend, {&next, 1}, cache, logits);
/// ```
///
///     x = E[token]
///     for each block:  h = rms(x);  q, k, v = W h;  turn q and k by their positions
///                      x += W_output attention(q, keys, values)
///                      h = rms(x);  x += W_down (silu(W_gate h) * W_up h)
///     logits = W_head rms(x)
///
/// Source: Touvron et al., "LLaMA", 2023, section 2.2.

#include "language_model/cache_attention.hpp"
#include "language_model/head_views.hpp"
#include "language_model/kv_cache.hpp"
#include "language_model/llama_memory.hpp"
#include "language_model/llama_source.hpp"
#include "language_model/token_cache.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

struct LlamaBlock {
  std::vector<float> attention_norm, feed_forward_norm;
  AnyLinear query, key, value, output, gate, up, down;
  AnyLinear
      routed{};  ///< the whole feed-forward layer, if not empty: gate, up and down are not used
};

class Llama {
 public:
  /// Rows of logits at a time, where those of all tokens are wanted.
  static constexpr Index logit_rows = 64;

  /// \throws std::invalid_argument as the source and LlamaConfig::checked
  explicit Llama(const LlamaSource& source)
      : config_(source.config.checked()),
        table_(config_.rotary, config_.context),
        embedding_(source.embedding),
        final_norm_(source.vector("output_norm.weight", config_.dim)),
        head_(source.linear(source.tied_head ? "token_embd.weight" : "output.weight",
                            config_.vocabulary, config_.dim)) {
    const LlamaConfig& c = config_;
    const Index queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
    for (Index i = 0; i < c.blocks; ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      blocks_.push_back({.attention_norm = source.vector(name + "attn_norm.weight", c.dim),
                         .feed_forward_norm = source.vector(name + "ffn_norm.weight", c.dim),
                         .query = source.linear(name + "attn_q.weight", queries, c.dim),
                         .key = source.linear(name + "attn_k.weight", keys, c.dim),
                         .value = source.linear(name + "attn_v.weight", keys, c.dim),
                         .output = source.linear(name + "attn_output.weight", c.dim, queries),
                         .gate = source.linear(name + "ffn_gate.weight", c.hidden, c.dim),
                         .up = source.linear(name + "ffn_up.weight", c.hidden, c.dim),
                         .down = source.linear(name + "ffn_down.weight", c.dim, c.hidden)});
    }
  }

  const LlamaConfig& config() const { return config_; }
  /// Layers that may be replaced by others of their inputs and outputs.
  std::vector<LlamaBlock>& blocks() { return blocks_; }
  AnyLinear& head() { return head_; }
  const AnyLinear& head() const { return head_; }
  /// Writes the row of the embedding of a token, [dim].
  void embed(Token token, std::span<float> row) const { embedding_(token, row); }

  /// Appends tokens to the cache and writes the logits of the last, [vocabulary].
  ///
  /// \param cache     a KvCache, or an AttendingCache, whose attention it is then
  /// \param attention for calls of several tokens; one alone attends exactly
  ///
  /// Nothing is allocated if the backend has a workspace that saw as many tokens and as long a
  /// cache before.
  /// \throws std::invalid_argument if there is no token or one is not of the vocabulary, the cache
  ///         is of another shape, there are more tokens than it has room for or the context has, or
  ///         `attention` refuses the call. The cache is then as before.
  template <class B, class C>
  requires std::same_as<pare::OnAnyExecutor<B>, ModelBackend>
  void forward(const B& backend, std::span<const Token> tokens, C& cache, std::span<float> logits,
               const AttentionOf<C>& attention = standard_attention<C>()) const {
    pare::check(static_cast<Index>(logits.size()) == config_.vocabulary, forward_name, "logits",
                logits.size(), config_.vocabulary);
    run(backend, tokens, cache, attention, [&](const ModelBackend& on, const auto& h, Memory&) {
      head_.apply(on, rows_of(h, h.rows() - 1, 1), matrix(logits.data(), 1, config_.vocabulary));
    });
  }

  /// The same with the logits of all tokens, in blocks of at most logit_rows: visit(first, logits)
  /// gets those of tokens first, first + 1 ... as [rows, vocabulary], which are gone after the
  /// call.
  template <class B, class C, class Visit>
  requires(std::same_as<pare::OnAnyExecutor<B>, ModelBackend> &&
           std::invocable<const Visit&, Index, TensorView<const float, 2>>)
  void forward(const B& backend, std::span<const Token> tokens, C& cache, const Visit& visit,
               const AttentionOf<C>& attention = standard_attention<C>()) const {
    run(backend, tokens, cache, attention, [&](const ModelBackend& on, const auto& h, Memory& m) {
      const Index block = std::min(logit_rows, h.rows());
      float* const logits = pare::make_room<float>(m.logits, block * config_.vocabulary);
      for (Index first = 0; first < h.rows(); first += block) {
        const auto rows = matrix(logits, std::min(block, h.rows() - first), config_.vocabulary);
        head_.apply(on, rows_of(h, first, rows.rows()), rows);
        visit(first, as_const(rows));
      }
    });
  }

  /// Appends tokens to the cache and calls use(on, states) with what the head is applied to,
  /// [tokens, dim], which is gone after the call.
  ///
  /// \param pass where the tokens stand, and which blocks they go through: no keys and values are
  ///             written for the others
  /// \throws std::invalid_argument as forward, or if the pass does not fit
  template <class B, class Use>
  void states(const B& backend, std::span<const Token> tokens, KvCache& cache, const Pass& pass,
              const Use& use, const Attention& attention = exact_attention) const {
    check_pass(pass, config_, static_cast<Index>(tokens.size()));
    run(
        backend, tokens, cache, attention,
        [&](const ModelBackend& on, const auto& h, Memory&) { use(on, h); }, pass);
  }

 private:
  static constexpr const char* forward_name = "language_model::Llama::forward";
  /// Tokens between two attentions go through a block's layers this many at a time: [rows, hidden]
  /// of a small model stays in cache, and memory does not grow with the prompt.
  static constexpr Index rows_at_once = 512;

  using Memory = LlamaMemory;

  TensorView<float, 4> heads_of(TensorView<float, 2> m) const {
    return language_model::heads_of(m, m.cols() / config_.head_dim);
  }

  /// Calls use(backend, rows, memory) with what the head is applied to.
  template <class B, class C, class Use>
  void run(const B& backend, std::span<const Token> tokens, C& cache,
           const AttentionOf<C>& attention, const Use& use, const Pass& pass = {}) const {
    check_call(tokens, cache);
    const ModelBackend on = on_any_executor(backend);
    const auto memory = pare::leased<Memory>(on);
    use(on, hidden_states(on, tokens, cache, attention, pass, *memory), *memory);
  }

  template <class C>
  void check_call(std::span<const Token> tokens, const C& cache) const {
    const auto n = static_cast<Index>(tokens.size());
    pare::check(n >= 1, forward_name, "tokens", n, "at least 1");
    for (const Token token : tokens)
      pare::check(token >= 0 && token < config_.vocabulary, forward_name, "tokens", token,
                  pare::Worded{"tokens from 0 to below ", config_.vocabulary});
    pare::check(cache.shape() == config_.kv_shape(), forward_name, "cache", cache.shape().extents(),
                config_.kv_shape().extents());
    const Index room = std::min(cache.capacity(), config_.context) - cache.length();
    pare::check(n <= room, forward_name, "tokens", n,
                pare::Worded{"at most ", room, ", what is left of the context and the cache"});
  }

  /// What the head is applied to, [tokens, dim].
  template <class C>
  TensorView<const float, 2> hidden_states(const ModelBackend& backend,
                                           std::span<const Token> tokens, C& cache,
                                           const AttentionOf<C>& attention, const Pass& pass,
                                           Memory& memory) const {
    const auto n = static_cast<Index>(tokens.size());
    const Activations a = activations(config_, n, rows_at_once, memory.activations);
    const TensorView<float, 2> x = matrix(a.x, n, config_.dim);
    std::ranges::copy(pass.given, a.x);
    for (Index t = 0; t < n && pass.first == 0; ++t)
      embedding_(tokens[static_cast<std::size_t>(t)],
                 {&x(t, 0), static_cast<std::size_t>(config_.dim)});
    Appended<C> appended(cache, n);
    for (Index i = pass.first; i < pass.blocks.value_or(config_.blocks); ++i) {
      const LlamaBlock& block = blocks_[static_cast<std::size_t>(i)];
      attend(backend, block, i, x, appended, attention, pass, a);
      for (Index first = 0; first < n; first += rows_at_once)
        feed_forward(backend, block, rows_of(x, first, std::min(rows_at_once, n - first)), first,
                     a);
    }
    appended.kept = true;
    std::copy_n(a.x, pass.made.size(), pass.made.begin());
    pare::transformer::rms_norm(backend, x, final_norm_, x, {.epsilon = config_.epsilon});
    return x;
  }

  /// Attention of all rows of x to a.attended.
  void attend(const ModelBackend& backend, const LlamaBlock& block, Index layer,
              TensorView<float, 2> x, const Appended<KvCache>& appended, const Attention& attention,
              const Pass& pass, const Activations& a) const {
    const Index n = x.rows(), width = config_.heads * config_.head_dim;
    for (Index first = 0; first < n; first += rows_at_once)
      project(backend, block, layer, rows_of(x, first, std::min(rows_at_once, n - first)), first,
              appended, pass, a);
    const AttentionCall call{layer, heads_of(matrix(a.q, n, width)), appended.cache,
                             heads_of(matrix(a.attended, n, width))};
    n > 1 ? attention(backend, call) : exact_attention(backend, call);
  }

  /// The same by the cache, rows_at_once of them after the other.
  template <AttendingCache C>
  void attend(const ModelBackend& backend, const LlamaBlock& block, Index layer,
              TensorView<float, 2> x, const Appended<C>& appended, const AttentionOf<C>&,
              const Pass&, const Activations& a) const {
    const Index width = config_.heads * config_.head_dim;
    for (Index first = 0; first < x.rows(); first += rows_at_once) {
      const auto rows = rows_of(x, first, std::min(rows_at_once, x.rows() - first));
      const auto h = matrix(a.h, rows.rows(), config_.dim);
      pare::transformer::rms_norm(backend, rows, block.attention_norm, h,
                                  {.epsilon = config_.epsilon});
      appended.cache.attend(backend, layer, as_const(h),
                            matrix(a.attended + first * width, rows.rows(), width));
    }
  }

  /// Queries of rows of x to a.q, their keys and values to the cache.
  void project(const ModelBackend& backend, const LlamaBlock& block, Index layer,
               TensorView<float, 2> x, Index first, const Appended<KvCache>& appended,
               const Pass& pass, const Activations& a) const {
    const Index rows = x.rows(), width = config_.heads * config_.head_dim;
    const auto h = matrix(a.h, rows, config_.dim);
    const auto q = matrix(a.q + first * width, rows, width);
    const auto k = matrix(a.k, rows, config_.kv_heads * config_.head_dim);
    const auto v = matrix(a.v, rows, k.cols());
    pare::transformer::rms_norm(backend, x, block.attention_norm, h, {.epsilon = config_.epsilon});
    block.query.apply(backend, h, q);
    block.key.apply(backend, h, k);
    block.value.apply(backend, h, v);
    const Index position = appended.before + first;
    pare::transformer::RotaryOptions turn{.layout = config_.layout, .first_position = position};
    if (!pass.positions.empty()) {
      turn.first_position = 0;
      turn.positions =
          pass.positions.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    }
    for (const auto& turned : {q, k})
      pare::transformer::rotate(backend, heads_of(turned), table_, turn);
    appended.cache.write(backend, layer, position, k, v);
  }

  /// x += W_output attended, then x += W_down (silu(W_gate h) * W_up h), h the norm of x.
  void feed_forward(const ModelBackend& backend, const LlamaBlock& block, TensorView<float, 2> x,
                    Index first, const Activations& a) const {
    const Index rows = x.rows(), width = config_.heads * config_.head_dim;
    const auto h = matrix(a.h, rows, config_.dim), delta = matrix(a.delta, rows, config_.dim);
    block.output.apply(backend, matrix(a.attended + first * width, rows, width), delta);
    pare::transformer::add_rms_norm(backend, x, delta, block.feed_forward_norm, h,
                                    {.epsilon = config_.epsilon});
    if (block.routed.inputs() > 0)
      block.routed.apply(backend, h, delta);
    else
      apply_gated(backend, block, h, delta, a);
    pare::parallel_for(backend.executor, rows, [&](Index r, int) {
      for (Index c = 0; c < config_.dim; ++c) x(r, c) += delta(r, c);
    });
  }

  static void apply_gated(const ModelBackend& backend, const LlamaBlock& block,
                          TensorView<const float, 2> h, TensorView<float, 2> y,
                          const Activations& a) {
    const auto gate = matrix(a.gate, h.rows(), block.gate.outputs());
    const auto up = matrix(a.up, h.rows(), block.up.outputs());
    block.gate.apply(backend, h, gate);
    block.up.apply(backend, h, up);
    pare::transformer::activate_gated(backend, gate, up, gate, pare::transformer::Silu{});
    block.down.apply(backend, gate, y);
  }

  LlamaConfig config_;
  pare::transformer::RotaryTable<float> table_;
  std::function<void(Token, std::span<float>)> embedding_;
  std::vector<float> final_norm_;
  std::vector<LlamaBlock> blocks_;
  AnyLinear head_;
};

}  // namespace language_model
