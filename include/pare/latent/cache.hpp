// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The paged cache of latent-KV attention (MLA): per token one latent, which is its value and most
/// of its key, and one rotary key that all heads share.
///
///     row of a token = [c (d_c) | k_r (d_r)],   key = the row,   value = c
///
/// ```cpp
/// LatentCache<bf16> cache({.latent = 512, .rope = 64, .pages = 1024, .page_size = 64});
/// cache.append(0, latent, rope);          // [tokens, 512] and [tokens, 64], of float or bf16
/// const double scale = latent_softmax_scale(128, 64);  // of the head: 192^(-1/2), not 576^(-1/2)
/// attention::attend(q, cache, out, {.causal = true, .scale = scale});
/// cache.evict(0, {.window = 4096, .sinks = 4});        // then attend with .window and .sinks too
/// ```
///
/// There q is [1, heads, queries, 576], absorbed queries of bf16, and out [1, heads, queries, 512],
/// bf16 or float. The scale is that of the head that was trained (config.hpp), not 1 / sqrt(d_c +
/// d_r): `attend` refuses a call without one.
///
/// A cache is an attention::KeyValueSource with one kv head: its keys are d_c + d_r wide, and the
/// values are the first d_c numbers of the same rows, which are stored once. Sequence i is batch
/// entry i of a call. Rows are where `append` put them, in pages that sequences share after a fork.
///
/// What is stored is the caller's choice, but one for all tokens: the latent as W_UK and W_UV take
/// it (after its norm), and the rotary key either rotated by its position or not, which
/// `rope_state` says to whoever reads. VideoMLA keeps it unrotated, because it rotates by places in
/// the window.
///
/// Sources: DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1 (what is cached); the row is that of
/// FlashMLA, latent first; "VideoMLA", 2026 (unrotated keys). Ours: any width and page size.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/cache_options.hpp>
#include <pare/latent/cached_tokens.hpp>
#include <pare/latent/detail/paged_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::latent {

PARE_ABI_BEGIN

/// A cache of latents of float, double, bf16 or f16. It can be moved, not copied.
///
/// cached_sequences.hpp and cached_tokens.hpp have what is done with sequences and tokens. Numbers
/// of what S is computed in are rounded to S, to nearest, ties to even.
///
/// Memory: pages page_size (d_c + d_r) elements of S, taken once, and the PageTable. `append`,
/// `truncate` and `evict` allocate nothing else, but for the list of pages of a sequence that
/// grows.
template <StorageScalar S, RopePlace Place = RopePlace::InRow>
class LatentCache : public CachedTokens<LatentCache<S, Place>, S> {
  using Tokens = CachedTokens<LatentCache, S>;
  friend Tokens;
  using Tokens::latent_, Tokens::rope_, Tokens::table_;

 public:
  /// A value is the first part of its key, in the same memory.
  static constexpr bool values_in_keys = Place == RopePlace::InRow;
  /// Rotary keys can be turned to other positions.
  static constexpr bool turns_keys = true;

  /// \throws std::invalid_argument if a size is out of its range or memory cannot be counted
  explicit LatentCache(const LatentCacheOptions& options)
      : Tokens(class_name, options),
        rows_(class_name, table_, latent_ + (values_in_keys ? rope_ : 0)),
        ropes_(class_name, table_, values_in_keys ? 0 : rope_) {}

  /// (d_c + d_r) times the size of S: nothing else is stored of a token.
  Index bytes_per_token() const { return (latent_ + rope_) * static_cast<Index>(sizeof(S)); }

  /// Copies the rows of the tokens from position `first` on, [tokens, d_c + d_r].
  /// \throws std::invalid_argument if the width does not fit, out lies in the cache, or a token is
  ///         none of the sequence or was evicted. Nothing is written then.
  template <Out<2> O>
  requires std::is_same_v<scalar_of<O>, S>
  void read(Index sequence, Index first, O&& out) const {
    const auto to = to_view(out);
    check_read(sequence, first, to);
    for (Index t = 0; t < to.rows(); ++t) {
      const PageRow at = table_.row(sequence, first + t);
      for (Index c = 0; c < to.cols(); ++c) to(t, c) = element(at, c);
    }
  }

  /// The row of a token that the cache holds, which is not checked. Rows of a page follow one
  /// another, key_dim() apart.
  PARE_ALWAYS_INLINE const S* key(Index sequence, Index /*head*/, Index position) const
  requires(Place == RopePlace::InRow)
  {
    return rows_.row(table_.row(sequence, position));
  }
  /// The latent of a token, likewise; `value_stride()` apart.
  PARE_ALWAYS_INLINE const S* value(Index sequence, Index /*head*/, Index position) const {
    return rows_.row(table_.row(sequence, position));
  }
  Index value_stride() const { return rows_.width(); }
  /// Writes latent and rotary key of a token side by side.
  void load_key(Index sequence, Index /*head*/, Index position, S* out) const
  requires(Place == RopePlace::Apart)
  {
    const PageRow at = table_.row(sequence, position);
    std::copy_n(rows_.row(at), latent_, out);
    std::copy_n(ropes_.row(at), rope_, out + latent_);
  }

  /// \throws std::invalid_argument if an output shares memory with the cache
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    check_no_overlap(function, output, out, "cache", rows_.all());
    check_no_overlap(function, output, out, "cache", ropes_.all());
  }

 private:
  static constexpr const char* class_name = "latent::LatentCache";
  static constexpr const char* append_name = "latent::LatentCache::append";
  static constexpr const char* read_name = "latent::LatentCache::read";
  static constexpr const char* discard_name = "latent::LatentCache::discard";
  static constexpr const char* keep_name = "latent::LatentCache::keep";

  template <class B, class C, class R>
  Index append_views(const B& backend, Index sequence, TensorView<const C, 2> latent,
                     TensorView<const R, 2> rope) {
    this->check_tokens(latent, rope);
    const Appended added = table_.append(sequence, latent.rows(), append_name);
    if (added.copy) copy(*added.copy);
    detail::store_tokens(backend, table_, sequence, added.first, latent, rows_, 0);
    detail::store_tokens(backend, table_, sequence, added.first, rope,
                         values_in_keys ? rows_ : ropes_, values_in_keys ? latent_ : 0);
    return added.first;
  }

  void check_read(Index sequence, Index first, TensorView<S, 2> to) const {
    check_writable(read_name, "out", to);
    check_extents<2>(read_name, "out", to.extent, {to.rows(), this->key_dim()});
    detail::check_tokens(read_name, table_, sequence, first, to.rows());
    check_apart(read_name, "out", to);
  }

  void copy(const PageCopy& page) const {
    rows_.copy(page);
    ropes_.copy(page);
  }

  /// Copies the row of a position to another; returns where that is.
  PageRow move_row(Index sequence, Index to, Index from) const {
    const PageRow a = table_.row(sequence, to), b = table_.row(sequence, from);
    std::copy_n(rows_.row(b), rows_.width(), rows_.row(a));
    std::copy_n(ropes_.row(b), ropes_.width(), ropes_.row(a));
    return a;
  }

  /// turn(key, moved key, from, to) writes the rotary key of a row that moves.
  template <class Turn>
  void discard_rows(Index sequence, Index first, Index tokens, const Turn& turn) {
    const auto move = [&](Index to, Index from) {
      const PageRow a = table_.row(sequence, to), b = table_.row(sequence, from);
      std::copy_n(rows_.row(b), latent_, rows_.row(a));
      if constexpr (values_in_keys)
        turn(rows_.row(b) + latent_, rows_.row(a) + latent_, from, to);
      else
        turn(ropes_.row(b), ropes_.row(a), from, to);
    };
    this->discard_tokens(
        discard_name, sequence, first, tokens, [&](const PageCopy& page) { copy(page); }, move);
  }

  S element(PageRow at, Index c) const {
    if constexpr (!values_in_keys)
      if (c >= latent_) return ropes_.row(at)[c - latent_];
    return rows_.row(at)[c];
  }

  detail::PagedRows<S> rows_;   ///< latents, and rotary keys that are in the row
  detail::PagedRows<S> ropes_;  ///< rotary keys apart; else of width 0
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
