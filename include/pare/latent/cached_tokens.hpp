// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The tokens of a cache of latents: how they come in and go, whatever they are stored as.
///
/// ```cpp
/// cache.append(0, latent, rope);                        // [tokens, 512], [tokens, 64]
/// cache.append(pare::simd.threads(4), 0, rows);         // [tokens, 576], latent first
/// cache.discard(0, 4, 1000);                            // a context shift of unrotated keys
/// cache.discard(0, 4, 1000, table);                     // of rotated ones
/// ```
///
/// `LatentCache` and `E4m3Cache` are derived from `CachedTokens`; their pages say how a token is
/// stored.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/cache_options.hpp>
#include <pare/latent/cached_sequences.hpp>
#include <pare/latent/detail/paged_rows.hpp>
#include <pare/latent/detail/turn_keys.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <span>

namespace pare::latent {

/// Rows that a cache of S takes.
template <class X, class S>
concept CacheRows = In<X, 2> && CacheScalar<scalar_of<X>, S>;

PARE_ABI_BEGIN

/// To derive `Cache`, whose rows are read as S, from. It has append_views(backend, sequence,
/// latent, rope), discard_rows(sequence, first, tokens, turn), copy(page), move_row(sequence, to,
/// from), the names of the functions, and turns_keys, whether rotary keys are kept so that they can
/// be turned.
template <class Cache, StorageScalar S>
class CachedTokens : public CachedSequences {
 public:
  using scalar = S;

  Index latent() const { return latent_; }
  Index rope() const { return rope_; }
  RopeState rope_state() const { return rope_state_; }
  Index kv_heads() const { return 1; }
  Index key_dim() const { return latent_ + rope_; }
  Index value_dim() const { return latent_; }

  /// Appends tokens to a sequence.
  ///
  /// \param backend  left out: pare::simd. Its threads share the pages among them.
  /// \param latent   [tokens, d_c] of S or of what S is computed in, which is then stored as the
  ///                 page of the cache says; any strides; apart from the cache
  /// \param rope     [tokens, d_r], likewise
  /// \returns the position of the first new token
  /// \throws std::invalid_argument if a shape does not fit, the sequence does not exist, an input
  ///         lies in the cache, or there are too few free pages. Nothing is written then. No
  ///         tokens: a no-op.
  ///
  /// Cost: the rows are read and written once; at most one page more is copied, if it is shared.
  /// The same bits for any number of threads and any strides.
  template <Backend B, CacheRows<S> C, CacheRows<S> R>
  Index append(const B& backend, Index sequence, const C& latent, const R& rope) {
    return cache().append_views(on_any_executor(backend), sequence, as_const(to_view(latent)),
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
    const auto [latent, rope] =
        detail::token_parts(Cache::append_name, as_const(to_view(rows)), latent_, rope_);
    return cache().append_views(on_any_executor(backend), sequence, latent, rope);
  }
  /// \overload
  template <CacheRows<S> X>
  Index append(Index sequence, const X& rows) {
    return append(simd, sequence, rows);
  }

  PARE_REFUSE_CALLS(
      append, "latent::append",
      "wanted a sequence, and rows of the cache's scalar or of what it is computed in",
      (ANY, (roles::TakesAny), "sequence", "a number"),
      (INPUT, (roles::Reads<2>), "latent", "[tokens, d_c]"),
      (INPUT, (roles::Reads<2>), "rope", "[tokens, d_r]"))
  PARE_REFUSE_CALLS(
      append, "latent::append",
      "wanted a sequence, and rows of the cache's scalar or of what it is computed in",
      (ANY, (roles::TakesAny), "sequence", "a number"),
      (INPUT, (roles::Reads<2>), "rows", "[tokens, d_c + d_r]"))

  /// Takes tokens [first, first + tokens) out of a sequence and moves those behind them there: a
  /// context shift. Their positions become smaller, so that rotary keys must not be rotated yet.
  /// Pages that other sequences share are copied first.
  ///
  /// \throws std::invalid_argument if the keys are rotated, the tokens are none of the sequence,
  ///         one of them or behind them was evicted, or there are too few free pages for the
  ///         copies. Nothing is changed then.
  ///
  /// Cost: the rows behind them are read and written once, on one thread.
  void discard(Index sequence, Index first, Index tokens) {
    check(rope_state_ == RopeState::Unrotated || rope_ == 0, Cache::discard_name, "cache",
          "keys rotated by their positions", "unrotated keys, or the table that rotated them");
    cache().discard_rows(sequence, first, tokens, [this](const S* key, S* moved, Index, Index) {
      std::copy_n(key, rope_, moved);
    });
  }

  /// The same of rotated keys: each is turned by the difference of its angles, R(p') R(p)^T k_r.
  /// That is done in double and rounded to S, once for each call.
  /// \param table  the angles by which keys were rotated, at all positions from `first` on
  /// \param layout the pairs of it
  /// \throws std::invalid_argument as above, if the keys are not rotated, or the table does not fit
  template <class C = Cache>
  requires(C::turns_keys)
  void discard(Index sequence, Index first, Index tokens,
               const transformer::RotaryTable<compute_t<S>>& table,
               transformer::RotaryLayout layout = transformer::RotaryLayout::Interleaved) {
    check(rope_state_ == RopeState::Rotated, Cache::discard_name, "cache", "unrotated keys",
          "keys rotated by their positions, where a table is given");
    table_.check_sequence(Cache::discard_name, sequence);
    detail::check_turn(Cache::discard_name, table, layout, rope_, first, length(sequence));
    cache().discard_rows(sequence, first, tokens,
                         [&](const S* key, S* moved, Index from, Index to) {
                           detail::turn_key(key, moved, table, layout, from, to);
                         });
  }

  /// Of the tokens from position `first` on keeps those at first + kept[0], first + kept[1], ...,
  /// side by side, as they are: rows of a draft tree whose nodes were accepted. Rotary keys are not
  /// turned, since an accepted node already has the angle of its new place. Pages that other
  /// sequences share are copied first.
  ///
  /// \param kept ascending
  /// \throws std::invalid_argument if there is no such sequence or position, kept is not ascending
  ///         or names a token that is not there, a token from the first moved one on was evicted,
  ///         or there are too few free pages for the copies. Nothing is changed then.
  ///
  /// Cost: rows that move are read and written once, on one thread.
  void keep(Index sequence, Index first, std::span<const Index> kept) {
    this->keep_tokens(
        Cache::keep_name, sequence, first, kept, [&](const PageCopy& page) { cache().copy(page); },
        [&](Index to, Index from) { cache().move_row(sequence, to, from); });
  }

 protected:
  /// \throws std::invalid_argument if an option is out of its range; `function` is named
  CachedTokens(const char* function, const LatentCacheOptions& options)
      : CachedSequences(function, options.validate(function).pages, options.page_size,
                        options.sequences),
        latent_(options.latent),
        rope_(options.rope),
        rope_state_(options.rope_state) {}

  /// Throws unless append_views can append these tokens, but for room.
  template <class C, class R>
  void check_tokens(TensorView<const C, 2> latent, TensorView<const R, 2> rope) const {
    detail::check_token_rows(Cache::append_name, latent, rope, latent_, rope_);
    static_cast<const Cache&>(*this).check_apart(Cache::append_name, "latent", latent);
    static_cast<const Cache&>(*this).check_apart(Cache::append_name, "rope", rope);
  }

  Index latent_, rope_;
  RopeState rope_state_;

 private:
  Cache& cache() { return static_cast<Cache&>(*this); }
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
