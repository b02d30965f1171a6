// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A causal draft block (JetSpec's head, DFlash's backbone): a few decoder layers that read states
/// of the target and draft many tokens in one call.
///
///     ctx = RMSNorm(fc [states of the tapped layers])         of the tokens new since last time
///     x   = E[anchor, MASK, MASK, ...]                        brought by the caller as rows
///     for each layer:
///       h = RMSNorm(x)
///       q = turn(RMSNorm(W_q h)),  k, v = turn(RMSNorm(W_k [ctx; h])), W_v [ctx; h]   per head
///       x += W_o softmax(q k^T / sqrt(dim) + mask) v
///       h = RMSNorm(x);  x += W_down (silu(W_gate h) * W_up h)
///     rows = RMSNorm(x)
///
/// ```cpp
/// const transformer::RotaryTable<float> table(transformer::rotary_frequencies(128, 1e6), 8192);
/// const DraftBlock block(config, std::move(weights), table);   // DraftBlock<DenseLinear<bf16>>
/// DraftBlockCache<float> cache(config, {.tokens = 8192});
/// block.append(backend, prompt_states, cache);                 // [tokens, tapped width]
/// // Each round, with the states of the tokens that the last one accepted:
/// block.forward(backend, new_states, embeddings, cache, rows); // [15, d] of [16, d]
/// lists.fill(backend, head, rows, {.ranks = 16});              // CandidateLists<float>
/// build_best_first(backend, anchor, lists.table(), tree, {.budget = 16});
/// ```
///
/// Block row i sees all of the context and block rows up to itself, key index <= cached + new + i,
/// in every layer. turn is the rotation by absolute positions, pair j being numbers j and j + dim /
/// 2. Keys and values of the context stay in the cache, those of the block do not.
///
/// Source: JetSpec, arXiv 2606.18394; the paper's text was not at hand, and what is here follows
/// its released code (jetspec/models/draft_head.py). Ours: blocks shorter than the trained one,
/// whose rows are the same to rounding, and several sequences in a call. Left out: layers with a
/// sliding window, biases, the bidirectional head, and the adapter between widths.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/detail/draft_block_call.hpp>
#include <pare/draft/detail/draft_block_checks.hpp>
#include <pare/draft/draft_block_cache.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/draft/draft_block_weights.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

namespace pare::draft {

/// Options of a DraftBlock's calls.
struct DraftBlockOptions {
  /// [sequences + 1]: tapped states [offsets[s], offsets[s + 1]) are those of sequence s. Left out:
  /// all are those of the only one.
  std::optional<std::span<const Index>> offsets{};
};

namespace detail {
template <class X>
struct IsDraftBlockCache : std::false_type {};
template <class S>
struct IsDraftBlockCache<DraftBlockCache<S>> : std::true_type {};
template <class S>
struct IsDraftBlockCache<DraftBlockCache<S>&> : std::true_type {};
}  // namespace detail

PARE_ABI_BEGIN

/// A block with projections L. It can be moved, not copied; calls do not change it, so that threads
/// may share it, each with a cache of its own.
///
/// Calls take the backend first; left out: pare::simd. Inputs and outputs have any strides, and the
/// cache stores what it likes: DraftBlockCache<bf16> has half the bytes (draft_block_cache.hpp).
/// All sequences of the cache take part in each: embeddings are [sequences x b, d], b from
/// 2 to the config's block, those of a sequence side by side, and outputs [sequences x (b - 1), d]:
/// rows 1 to b - 1 of each block, or 0 to b - 2 with draft_shift. Output j drafts the token at
/// depth j + 1.
///
/// They throw std::invalid_argument if a shape or the cache does not fit, it has no room for the
/// tokens, a position is none of the table's, offsets are not as said, or an output overlaps an
/// input or what dense weights lie in. Cache and outputs are as they were then.
///
/// Cost: of a block of 16 rows, 2 FLOPs a weight and row, where the multiplier binds, or reading
/// the weights once, whichever takes longer; of context rows the same for `context`, and each
/// layer's key and value. Memory: rows of a block and of at most 512 tokens of context, in the
/// backend's workspace; a call allocates nothing once that has grown. The same bits for any number
/// of threads; those of a sequence alone and in a batch if all have at most `transformer::few_rows`
/// rows. A NaN in row i reaches rows behind it, and as in attention::attend may reach earlier ones
/// of its block.
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
class DraftBlock {
 public:
  using scalar = transformer::linear_scalar<L>;  ///< of rows: float, or double
  using Table = transformer::RotaryTable<scalar>;
  template <class S>
  using Cache = DraftBlockCache<S>;
  using Layer = DraftLayerWeights<L>;
  /// Whether rows of R and a cache of S fit the weights.
  template <class R, class S>
  static constexpr bool takes =
      std::is_same_v<R, scalar> && std::is_same_v<typename Cache<S>::scalar, scalar>;

  /// \param table of head_dim / 2 pairs; it must outlive the block
  /// \throws std::invalid_argument if the config is not valid, a weight does not have its shape, or
  ///         the table other pairs
  DraftBlock(const DraftBlockConfig& config, DraftBlockWeights<L> weights, const Table& table)
      : config_(config), weights_(std::move(weights)), table_(&table) {
    weights_.validate("draft::DraftBlock", config_);
    check(2 * table.pairs() == config.head_dim, "draft::DraftBlock", "table", table.pairs(),
          Worded{"", config.head_dim / 2, " pairs"});
  }
  DraftBlock(const DraftBlockConfig&, DraftBlockWeights<L>, const Table&&) = delete;

  const DraftBlockConfig& config() const { return config_; }
  const DraftBlockWeights<L>& weights() const { return weights_; }
  const Table& table() const { return *table_; }

  /// `append`, then `draft`.
  /// \param tapped     [tokens, tapped width]; none: only drafts
  /// \param embeddings [sequences x b, d] of the anchor and then MASK
  /// \param out        [sequences x (b - 1), d] of `scalar`, what the target's head takes
  template <Backend B, In<2> C, In<2> X, class S, Out<2> Y>
  requires SameScalar<C, X, Y> && takes<scalar_of<X>, S>
  void forward(const B& backend, const C& tapped, const X& embeddings, Cache<S>& cache, Y&& out,
               const DraftBlockOptions& options = {}) const {
    constexpr const char* function = "draft::DraftBlock::forward";
    const auto c = as_const(to_view(tapped));
    const auto x = as_const(to_view(embeddings));
    const auto y = to_view(out);
    const detail::DraftBlockChecks<DraftBlock> checks{function, *this, options.offsets};
    checks.cache(cache);
    checks.context(c, cache);
    checks.block_rows(x, cache, y, c.rows());
    check_no_overlap(function, "out", y, "tapped", c);
    on_call(backend, cache, [&](auto& call) {
      call.append(c, options.offsets);
      if (x.rows() > 0) call.draft(x, y, detail::DraftRows::Normed);
    });
  }
  /// \overload
  template <In<2> C, In<2> X, class S, Out<2> Y>
  requires SameScalar<C, X, Y> && takes<scalar_of<X>, S>
  void forward(const C& tapped, const X& embeddings, Cache<S>& cache, Y&& out,
               const DraftBlockOptions& options = {}) const {
    forward(simd, tapped, embeddings, cache, out, options);
  }
  PARE_REFUSE_CONST_CALLS(forward, "draft::DraftBlock::forward",
                          "wanted tapped, embeddings and out of float (of double with weights of "
                          "double), a cache that is computed in it too, and DraftBlockOptions",
                          (INPUT, (roles::Reads<2>), "tapped", "[tokens, tapped width]"),
                          (INPUT, (roles::ReadsSame<2>), "embeddings", "[sequences x b, d]"),
                          (PLAIN, (roles::Takes<detail::IsDraftBlockCache>), "cache",
                           "a DraftBlockCache that may be written"),
                          (OUTPUT, (roles::WritesComputed<2>), "out", "[sequences x (b - 1), d]"))

  /// Adds keys and values of new context to the cache.
  template <Backend B, In<2> C, class S>
  requires takes<scalar_of<C>, S>
  void append(const B& backend, const C& tapped, Cache<S>& cache,
              const DraftBlockOptions& options = {}) const {
    constexpr const char* function = "draft::DraftBlock::append";
    const auto c = as_const(to_view(tapped));
    const detail::DraftBlockChecks<DraftBlock> checks{function, *this, options.offsets};
    checks.cache(cache);
    checks.context(c, cache);
    on_call(backend, cache, [&](auto& call) { call.append(c, options.offsets); });
  }
  /// \overload
  template <In<2> C, class S>
  requires takes<scalar_of<C>, S>
  void append(const C& tapped, Cache<S>& cache, const DraftBlockOptions& options = {}) const {
    append(simd, tapped, cache, options);
  }
  PARE_REFUSE_CONST_CALLS(append, "draft::DraftBlock::append",
                          "wanted tapped of float (of double with weights of double), a cache that "
                          "is computed in it too, and DraftBlockOptions",
                          (INPUT, (roles::Reads<2>), "tapped", "[tokens, tapped width]"),
                          (PLAIN, (roles::Takes<detail::IsDraftBlockCache>), "cache",
                           "a DraftBlockCache that may be written"))

  /// The rows of a block behind the context that the cache has. The cache's context is not changed:
  /// a second call drafts another block in the same place.
  template <Backend B, In<2> X, class S, Out<2> Y>
  requires SameScalar<X, Y> && takes<scalar_of<X>, S>
  void draft(const B& backend, const X& embeddings, Cache<S>& cache, Y&& out) const {
    draft_rows("draft::DraftBlock::draft", backend, as_const(to_view(embeddings)), cache,
               to_view(out), detail::DraftRows::Normed);
  }
  /// \overload
  template <In<2> X, class S, Out<2> Y>
  requires SameScalar<X, Y> && takes<scalar_of<X>, S>
  void draft(const X& embeddings, Cache<S>& cache, Y&& out) const {
    draft(simd, embeddings, cache, out);
  }
  PARE_REFUSE_CONST_CALLS(draft, "draft::DraftBlock::draft",
                          "wanted embeddings and out of float (of double with weights of double) "
                          "and a cache that is computed in it too",
                          (INPUT, (roles::Reads<2>), "embeddings", "[sequences x b, d]"),
                          (PLAIN, (roles::Takes<detail::IsDraftBlockCache>), "cache",
                           "a DraftBlockCache that may be written"),
                          (OUTPUT, (roles::WritesComputed<2>), "out", "[sequences x (b - 1), d]"))

  /// The same rows before the last norm, which a correction adds to (branch_correction.hpp).
  template <Backend B, In<2> X, class S, Out<2> Y>
  requires SameScalar<X, Y> && takes<scalar_of<X>, S>
  void draft_plain(const B& backend, const X& embeddings, Cache<S>& cache, Y&& out) const {
    draft_rows("draft::DraftBlock::draft_plain", backend, as_const(to_view(embeddings)), cache,
               to_view(out), detail::DraftRows::Plain);
  }
  /// \overload
  template <In<2> X, class S, Out<2> Y>
  requires SameScalar<X, Y> && takes<scalar_of<X>, S>
  void draft_plain(const X& embeddings, Cache<S>& cache, Y&& out) const {
    draft_plain(simd, embeddings, cache, out);
  }
  PARE_REFUSE_CONST_CALLS(draft_plain, "draft::DraftBlock::draft_plain",
                          "wanted embeddings and out of float (of double with weights of double) "
                          "and a cache that is computed in it too",
                          (INPUT, (roles::Reads<2>), "embeddings", "[sequences x b, d]"),
                          (PLAIN, (roles::Takes<detail::IsDraftBlockCache>), "cache",
                           "a DraftBlockCache that may be written"),
                          (OUTPUT, (roles::WritesComputed<2>), "out", "[sequences x (b - 1), d]"))

 private:
  using Rows = TensorView<const scalar, 2>;

  template <class B, class S>
  void draft_rows(const char* function, const B& backend, Rows x, Cache<S>& cache,
                  TensorView<scalar, 2> y, detail::DraftRows wanted) const {
    const detail::DraftBlockChecks<DraftBlock> checks{function, *this, {}};
    checks.cache(cache);
    checks.block_rows(x, cache, y, 0);
    if (x.rows() > 0) on_call(backend, cache, [&](auto& call) { call.draft(x, y, wanted); });
  }

  template <class B, class S, class Use>
  void on_call(const B& backend, Cache<S>& cache, const Use& use) const {
    const auto on = on_any_executor(backend);
    detail::DraftBlockCall<std::remove_cvref_t<decltype(on)>, DraftBlock, S> call(on, *this, cache);
    use(call);
  }

  DraftBlockConfig config_;
  DraftBlockWeights<L> weights_;
  const Table* table_;
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
