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
/// cache.append(0, latent, rope);                       // [tokens, 512], [tokens, 64], float or
/// bf16 attention::attend(absorbed_queries, cache, latent_out,  // [1, heads, queries, 576], [..,
/// 512]
///                   {.causal = true, .scale = softmax_scale});
/// cache.evict(0, {.window = 4096, .sinks = 4});        // and attend with the same window and
/// sinks
/// ```
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
#include <pare/core/executor_ref.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/cached_sequences.hpp>
#include <pare/latent/detail/paged_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::latent {

/// Where the rotary key of a token lies.
enum class RopePlace {
  InRow,  ///< behind its latent: keys and values are read where they lie
  Apart,  ///< in pages of its own: latents are contiguous, keys are put together when read
};

/// Whether the rotary keys of a cache are rotated by their positions.
enum class RopeState { Rotated, Unrotated };

/// What a LatentCache holds. The three that have no valid default must be given.
struct LatentCacheOptions {
  Index latent = 0;      ///< d_c, at least 1
  Index rope = 0;        ///< d_r, even; 0: there are no rotary keys
  Index pages = 0;       ///< at least 1
  Index page_size = 64;  ///< tokens of a page, at least 1
  Index sequences = 1;   ///< empty ones to begin with; `add` and `fork` make more
  RopeState rope_state = RopeState::Rotated;
};

/// Rows that a cache of S takes: of S, or of what S is computed in.
template <class X, class S>
concept CacheRows = In<X, 2> && StorageScalar<S> &&
                    (std::is_same_v<scalar_of<X>, S> || std::is_same_v<scalar_of<X>, compute_t<S>>);

PARE_ABI_BEGIN

/// A cache of latents of float, double, bf16 or f16. It can be moved, not copied.
///
/// Memory: pages page_size (d_c + d_r) elements of S, taken once, and the PageTable. `append`,
/// `truncate` and `evict` allocate nothing else, but for the list of pages of a sequence that
/// grows.
template <StorageScalar S, RopePlace Place = RopePlace::InRow>
class LatentCache : public CachedSequences {
 public:
  using scalar = S;
  /// A value is the first part of its key, in the same memory.
  static constexpr bool values_in_keys = Place == RopePlace::InRow;

  /// \throws std::invalid_argument if a size is out of its range or memory cannot be counted
  explicit LatentCache(const LatentCacheOptions& options)
      : CachedSequences(class_name, options.pages, options.page_size, options.sequences),
        latent_(checked_latent(options)),
        rope_(options.rope),
        rope_state_(options.rope_state),
        rows_(class_name, table_, latent_ + (values_in_keys ? rope_ : 0)),
        ropes_(class_name, table_, values_in_keys ? 0 : rope_) {}

  Index latent() const { return latent_; }
  Index rope() const { return rope_; }
  RopeState rope_state() const { return rope_state_; }
  /// (d_c + d_r) times the size of S: nothing else is stored of a token.
  Index bytes_per_token() const { return (latent_ + rope_) * static_cast<Index>(sizeof(S)); }

  /// Appends tokens to a sequence.
  ///
  /// \param backend  left out: pare::simd. Its threads share the pages among them.
  /// \param latent   [tokens, d_c] of S or of what S is computed in, which is then rounded to
  ///                 nearest, ties to even; any strides; apart from the cache
  /// \param rope     [tokens, d_r], likewise
  /// \returns the position of the first new token
  /// \throws std::invalid_argument if a shape does not fit, the sequence does not exist, an input
  ///         lies in the cache, or there are too few free pages. Nothing is written then. No
  ///         tokens: a no-op.
  ///
  /// Cost: the rows are read and written once, which binds; at most one page more is copied, if it
  /// is shared. The same bits for any number of threads and any strides.
  template <Backend B, CacheRows<S> C, CacheRows<S> R>
  Index append(const B& backend, Index sequence, const C& latent, const R& rope) {
    return append_views(on_any_executor(backend), sequence, as_const(to_view(latent)),
                        as_const(to_view(rope)));
  }
  /// \overload
  template <CacheRows<S> C, CacheRows<S> R>
  Index append(Index sequence, const C& latent, const R& rope) {
    return append(simd, sequence, latent, rope);
  }
  /// \overload
  /// Rows [tokens, d_c + d_r], latent first.
  template <Backend B, CacheRows<S> X>
  Index append(const B& backend, Index sequence, const X& rows) {
    auto latent = as_const(to_view(rows));
    check_width("rows", latent, latent_ + rope_);
    auto rope = latent;
    latent.extent[1] = latent_;
    rope.extent[1] = rope_;
    if (rope_ > 0) rope.data += latent_ * rope.stride[1];
    return append_views(on_any_executor(backend), sequence, latent, rope);
  }
  /// \overload
  template <CacheRows<S> X>
  Index append(Index sequence, const X& rows) {
    return append(simd, sequence, rows);
  }

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

  Index kv_heads() const { return 1; }
  Index key_dim() const { return latent_ + rope_; }
  Index value_dim() const { return latent_; }

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

  static Index checked_latent(const LatentCacheOptions& options) {
    check(options.latent >= 1, class_name, "latent", options.latent, "at least 1");
    check(options.rope >= 0 && options.rope % 2 == 0, class_name, "rope", options.rope,
          "an even number of at least 0");
    check_enumerator(class_name, "rope_state", options.rope_state, RopeState::Unrotated);
    checked_sum(class_name, "latent", options.latent, options.rope);
    return options.latent;
  }

  template <class X>
  static void check_width(const char* name, TensorView<X, 2> x, Index width) {
    check_extents<2>(append_name, name, x.extent, {x.rows(), width});
  }

  template <class B, class C, class R>
  Index append_views(const B& backend, Index sequence, TensorView<const C, 2> latent,
                     TensorView<const R, 2> rope) {
    check_view(append_name, "latent", latent);
    check_view(append_name, "rope", rope);
    check_width("latent", latent, latent_);
    check_extents<2>(append_name, "rope", rope.extent, {latent.rows(), rope_});
    table_.check_append(append_name, sequence, latent.rows());
    check_input("latent", latent);
    check_input("rope", rope);
    const Appended added = table_.append(sequence, latent.rows(), append_name);
    if (added.copy) {
      rows_.copy(*added.copy);
      ropes_.copy(*added.copy);
    }
    detail::store_tokens(backend, table_, sequence, added.first, latent, rows_, 0);
    detail::store_tokens(backend, table_, sequence, added.first, rope,
                         values_in_keys ? rows_ : ropes_, values_in_keys ? latent_ : 0);
    return added.first;
  }

  template <class X>
  void check_input(const char* name, TensorView<const X, 2> x) const {
    check_no_overlap(append_name, "cache", rows_.all(), name, x);
    check_no_overlap(append_name, "cache", ropes_.all(), name, x);
  }

  void check_read(Index sequence, Index first, TensorView<S, 2> to) const {
    table_.check_sequence(read_name, sequence);
    check_writable(read_name, "out", to);
    check_extents<2>(read_name, "out", to.extent, {to.rows(), key_dim()});
    check(first >= 0 && first <= length(sequence) && to.rows() <= length(sequence) - first,
          read_name, "first", first, Worded{"tokens of the ", length(sequence), " there are"});
    for (Index t = 0; t < to.rows(); ++t)
      check(table_.holds(sequence, first + t), read_name, "first", first + t,
            "a token that was not evicted");
    check_apart(read_name, "out", to);
  }

  S element(PageRow at, Index c) const {
    if constexpr (!values_in_keys)
      if (c >= latent_) return ropes_.row(at)[c - latent_];
    return rows_.row(at)[c];
  }

  Index latent_, rope_;
  RopeState rope_state_;
  detail::PagedRows<S> rows_;   ///< latents, and rotary keys that are in the row
  detail::PagedRows<S> ropes_;  ///< rotary keys apart; else of width 0
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
