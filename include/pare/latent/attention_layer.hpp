// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A layer of latent attention (MLA): hidden states in, hidden states out, the cache grows.
///
/// ```cpp
/// const transformer::RotaryTable<float> table(transformer::rotary_frequencies(64), 8192);
/// const LatentAttention<bf16> layer(config, std::move(weights), table);
/// layer.forward(backend, prompt, cache, out);                 // [tokens, d], sequence 0
/// layer.forward(backend, token, cache, out);                  // goes on behind the prompt
/// layer.forward(backend, tokens, cache, out, {.offsets = offsets});  // some of each sequence
/// layer.forward(backend, prompt, cache, out, attention::MeanPool{.mass = 0.95f});
/// ```
///
/// Of its new tokens a call makes rows of the cache and queries (weights.hpp, reference.hpp say
/// how), rotates both by the positions of the tokens, appends the rows, and lets each query attend
/// to its sequence: in the absorbed or the expanded form, whichever costs less (choose_form.hpp).
///
/// The absorbed form reads rows of the cache as they lie, all heads of a sequence at once. The
/// expanded form makes keys and values of a run of tokens at a time, `chunk` of them, so that
/// memory is bounded, attends to them, and merges what runs give by their log-sum-exp. The rotary
/// key is not copied for each head. What was cached by earlier calls is expanded like what is new.
///
/// Attention runs in the scalar of the cache: over a bf16 cache queries, and expanded keys and
/// values, are rounded to bf16, sums are float. All else is float (double of weights of double).
///
/// Source: DeepSeek-V2 and V3, their inference code. Ours: sizes of any kind, the choice of form
/// for each sequence of a batch, and chunks of keys.

#include <pare/core/macros_off.hpp>

#include <pare/attention/selector.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/detail/layer_forward.hpp>
#include <pare/latent/forward_options.hpp>
#include <pare/latent/weights.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <limits>
#include <type_traits>
#include <utility>

namespace pare::latent {
namespace detail {

/// A cache that a layer may append to, of whatever scalar.
template <class C>
using IsStore = std::bool_constant<!std::is_const_v<std::remove_reference_t<C>> &&
                                   (LatentStore<std::remove_cvref_t<C>, float> ||
                                    LatentStore<std::remove_cvref_t<C>, double>)>;

}  // namespace detail

PARE_ABI_BEGIN

/// A layer with weights in S, whose projections are layers L. It can be moved, not copied; calls do
/// not change it, so that threads may share it.
template <StorageScalar S, LinearOf<compute_t<S>> L = transformer::DenseLinear<S>>
class LatentAttention {
 public:
  using scalar = compute_t<S>;  ///< of hidden states
  using Table = transformer::RotaryTable<scalar>;

  /// \param table  of d_r / 2 pairs; it must outlive the layer, and serves all layers of a model
  /// \param layout of rotary pairs: Interleaved in DeepSeek's checkpoints
  /// \throws std::invalid_argument if the config is not valid, the scale not normal in `scalar`, a
  ///         weight does not have its shape, or the table other pairs
  LatentAttention(const LatentConfig& config, LatentWeights<S, L> weights, const Table& table,
                  transformer::RotaryLayout layout = transformer::RotaryLayout::Interleaved)
      : config_(config), weights_(std::move(weights)), table_(&table), layout_(layout) {
    check_parts();
    check(2 * table.pairs() == config.rope, class_name, "table", table.pairs(),
          Worded{"", config.rope / 2, " pairs"});
    check_enumerator(class_name, "layout", layout, transformer::RotaryLayout::HalfSplit);
  }
  LatentAttention(const LatentConfig&, LatentWeights<S, L>, const Table&&,
                  transformer::RotaryLayout = {}) = delete;

  /// A layer without rotary numbers.
  /// \throws std::invalid_argument as above, or if d_r is above 0
  LatentAttention(const LatentConfig& config, LatentWeights<S, L> weights)
      : config_(config), weights_(std::move(weights)) {
    check_parts();
    check(config.rope == 0, class_name, "rope", config.rope, "0 where there is no table");
  }

  const LatentConfig& config() const { return config_; }
  const LatentWeights<S, L>& weights() const { return weights_; }
  /// Null if nothing is rotated.
  const Table* table() const { return table_; }
  transformer::RotaryLayout layout() const { return layout_; }

  /// out = the layer of the new tokens, whose rows the cache gets.
  ///
  /// \param backend left out: pare::simd
  /// \param hidden  [tokens, d] of `scalar`, any strides
  /// \param cache   a LatentStore, such as LatentCache, of rows of d_c + d_r
  /// \param out     [tokens, d], apart from hidden and what dense weights lie in
  /// \throws std::invalid_argument if a shape or an option does not fit, the cache has other rows,
  ///         no room or unrotated keys, a token that is read was evicted, or a position is none of
  ///         the table's. Cache and out are as they were then. No tokens: a no-op.
  ///
  /// Cost: the projections, then that of the form, as choose_form.hpp says. A token or some are
  /// bound by reading the weights, W_UK and W_UV among them, and the cache. Memory, kept in the
  /// backend's workspace, with which a call allocates nothing once it has grown: queries and
  /// outputs of all tokens and heads, absorbed ones H (2 d_c + d_r) a token; expanded keys of a
  /// chunk. The same bits for any number of threads. A NaN in a token reaches those that see it,
  /// and as in attention::attend may reach earlier tokens of its sequence and call.
  template <Backend B, In<2> X, class C, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar> &&
           LatentStore<C, scalar>)
  void forward(const B& backend, const X& hidden, C& cache, Y&& out,
               const LatentForwardOptions& options = {}) const {
    run(backend, as_const(to_view(hidden)), cache, to_view(out), detail::AllKeys{}, options);
  }

  /// \overload
  template <In<2> X, class C, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar> &&
           LatentStore<C, scalar>)
  void forward(const X& hidden, C& cache, Y&& out, const LatentForwardOptions& options = {}) const {
    forward(simd, hidden, cache, out, options);
  }

  /// \overload
  /// Each token attends to the blocks of keys that a selector of attention chooses, such as
  /// MeanPool: include attention/attend_selected.hpp beside it. It looks at the keys of all heads,
  /// which are expanded at once; there is no window, chunk or absorbed form.
  template <Backend B, In<2> X, class C, Out<2> Y, attention::BlockSelector P>
  requires(std::is_same_v<scalar_of<X>, scalar> && std::is_same_v<scalar_of<Y>, scalar> &&
           LatentStore<C, scalar>)
  void forward(const B& backend, const X& hidden, C& cache, Y&& out, const P& selector,
               const LatentForwardOptions& options = {}) const {
    run(backend, as_const(to_view(hidden)), cache, to_view(out), selector, options);
  }

  PARE_REFUSE_CONST_CALLS(
      forward, "latent::LatentAttention::forward",
      "wanted hidden and out of float (of double with weights of double), a cache that is computed "
      "in it too, and behind out LatentForwardOptions, members spelt and ordered as declared, or a "
      "BlockSelector and LatentForwardOptions",
      (INPUT, (roles::Reads<2>), "hidden", "[tokens, d]"),
      (PLAIN, (roles::Takes<detail::IsStore>), "cache",
       "a LatentStore that may be written, such as a LatentCache"),
      (OUTPUT, (roles::Writes<2>), "out", "[tokens, d]"))

 private:
  static constexpr const char* class_name = "latent::LatentAttention";

  template <class B, class C, class P>
  void run(const B& backend, TensorView<const scalar, 2> hidden, C& cache,
           TensorView<scalar, 2> out, const P& policy, const LatentForwardOptions& options) const {
    const auto on = on_any_executor(backend);
    detail::LayerForward<std::remove_cvref_t<decltype(on)>, LatentAttention, C, P>(
        on, *this, hidden, cache, out, policy, options)
        .run();
  }

  void check_parts() const {
    weights_.validate(class_name, config_);
    constexpr double least = std::numeric_limits<scalar>::min();
    constexpr double most = std::numeric_limits<scalar>::max() * 0.69314;
    check(config_.softmax_scale >= least && config_.softmax_scale <= most, class_name,
          "softmax_scale", config_.softmax_scale, "a normal number of what the layer computes in");
  }

  LatentConfig config_;
  LatentWeights<S, L> weights_;
  const Table* table_ = nullptr;
  transformer::RotaryLayout layout_ = transformer::RotaryLayout::Interleaved;
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
