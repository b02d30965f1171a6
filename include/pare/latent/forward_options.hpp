// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of a call of LatentAttention, and what its cache must be.
///
/// ```cpp
/// layer.forward(hidden, cache, out, {.sequence = 3});
/// layer.forward(hidden, cache, out, {.offsets = offsets});               // a batch
/// layer.forward(hidden, cache, out, {.window = 4096, .sinks = 4});
/// layer.forward(hidden, cache, out, {.form = LatentForm::Expanded, .chunk = 512});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/choose_form.hpp>

#include <optional>
#include <span>
#include <type_traits>

namespace pare::latent {

/// A cache that a layer of T can append to and read: a KeyValueSource of rows [latent | rotary key]
/// with one kv head, whose `append(backend, sequence, rows)` takes [tokens, d_c + d_r] of T. One
/// that says `rope_state()` must hold rotated keys. One whose `rotates_keys` is true is given them
/// before rotation, which it does in interleaved pairs, and the call the positions of its tokens
/// (VideoWindow). `table()`, if there is
/// one, is asked beforehand whether there is room for all sequences of a call (pages.hpp).
template <class C, class T>
concept LatentStore =
    attention::KeyValueSource<C> && std::is_same_v<compute_t<typename C::scalar>, T> &&
    requires(C& cache, Index sequence, TensorView<const T, 2> rows) {
      cache.append(simd, sequence, rows);
    };

/// Options of LatentAttention::forward.
struct LatentForwardOptions {
  /// The sequence that all tokens belong to, where there are no offsets.
  Index sequence = 0;

  /// [cache.sequences() + 1]: tokens [offsets[s], offsets[s + 1]) are the next ones of sequence s.
  std::optional<std::span<const Index>> offsets{};

  /// Of each token, for its rotation, [tokens]. Left out: its place in its sequence, from 0.
  std::optional<std::span<const Index>> positions{};

  /// Whether a token sees those up to itself alone; false: also the new ones behind it.
  bool causal = true;

  /// As in attention::AttendOptions: a token sees the last `window`, itself among them, and the
  /// first `sinks`.
  std::optional<Index> window{};
  Index sinks = 0;

  /// Left out: for each sequence the one that choose_form names, with this factor.
  std::optional<LatentForm> form{};
  double form_factor = 1;

  /// Tokens that are expanded at once, at least 1. Left out: as many as make 2^25 numbers of keys
  /// and values, 1024 in DeepSeek-V3, but at least 256.
  std::optional<Index> chunk{};
};

}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
