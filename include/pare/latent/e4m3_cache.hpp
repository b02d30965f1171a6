// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The paged cache of latent-KV attention in 8 bits: e4m3 codes with scales, about half of bf16.
///
///     value = code * scale of its tile, rounded to bf16;   key = [values | rotary key]
///
/// ```cpp
/// E4m3Cache<DeepSeekV32Layout> cache({.latent = 512, .rope = 64, .pages = 1024});
/// cache.append(0, latent, rope);                          // quantised
/// attention::attend(q, cache, out, {.causal = true, .scale = scale});    // as in cache.hpp, bf16
/// std::vector<std::byte> bytes(static_cast<std::size_t>(100 * cache.bytes_per_token()));
/// cache.export_rows(0, 0, bytes);                         // 100 rows of 656 bytes
/// other.import_rows(0, bytes);                            // the same codes, scales, keys
/// ```
///
/// e4m3_layout.hpp has the layouts. Codes, scales and rotary keys lie apart, so that a row of codes
/// is whole cache lines; rows of the layout's bytes are made and read by export_rows and
/// import_rows. A cache is an attention::KeyValueSource of bf16 whose rows are loaded: a tile of
/// keys is de-quantised once for some hundred rows of queries. The first value_dim() numbers of a
/// key are the value, to the bit.
///
/// Sequences, eviction, rotation and errors are those of LatentCache (cache.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/e4m3.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/e4m3_rows.hpp>
#include <pare/latent/cache_options.hpp>
#include <pare/latent/cached_tokens.hpp>
#include <pare/latent/detail/packed_rows.hpp>
#include <pare/latent/detail/paged_rows.hpp>
#include <pare/latent/e4m3_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::latent {
PARE_ABI_BEGIN

/// A cache of latents in e4m3. It can be moved, not copied.
///
/// cached_sequences.hpp and cached_tokens.hpp have what is done with sequences and tokens, which
/// are quantised by the rule of kernel/e4m3_rows.hpp: some nanoseconds for 16 numbers, which bind,
/// a NaN stays in its place. A row of float for each page that is met is kept in the backend's
/// workspace meanwhile.
///
/// Memory: pages page_size bytes_per_token(), taken once, and the PageTable.
template <E4m3Layout Layout>
class E4m3Cache : public CachedTokens<E4m3Cache<Layout>, bf16> {
  using Tokens = CachedTokens<E4m3Cache, bf16>;
  friend Tokens;
  using Tokens::latent_, Tokens::rope_, Tokens::table_;

 public:
  /// A value is the first part of its key.
  static constexpr bool values_in_keys = true;
  /// Rotary keys can be turned to other positions where they are no codes.
  static constexpr bool turns_keys = Layout::keeps_rope;

  /// \throws std::invalid_argument as LatentCache, or if d_c is no multiple of the tile
  explicit E4m3Cache(const LatentCacheOptions& options)
      : Tokens(class_name, checked(options)),
        codes_(class_name, table_, latent_ + (Layout::keeps_rope ? 0 : rope_)),
        scales_(class_name, table_, Layout::tile == 0 ? 1 : codes_.width() / tile()),
        ropes_(class_name, table_, Layout::keeps_rope ? rope_ : 0) {}

  /// Codes, 4 bytes for each scale, and 2 for each number of a rotary key that is kept.
  Index bytes_per_token() const {
    return codes_.width() + 4 * scales_.width() + 2 * ropes_.width();
  }

  /// Appends tokens from rows of the layout's bytes, bytes_per_token() each: codes, scales as
  /// float, rotary key as bf16, little endian; no gaps.
  /// \returns the position of the first new token
  /// \throws std::invalid_argument if the bytes are no whole rows or lie in the cache, a scale is
  ///         no normal number above 0, the sequence does not exist, or there are too few free
  ///         pages. Nothing is written then.
  Index import_rows(Index sequence, std::span<const std::byte> rows) {
    const Index tokens = detail::count_rows(import_name, rows.size(), bytes_per_token());
    table_.check_append(import_name, sequence, tokens);
    check_apart(import_name, "rows", detail::bytes_view(rows));
    detail::check_scales(import_name, rows, codes_.width(), scales_.width(), bytes_per_token());
    const Index first = add_tokens(import_name, sequence, tokens);
    for (Index t = 0; t < tokens; ++t)
      detail::from_packed(rows.data() + t * bytes_per_token(), table_.row(sequence, first + t),
                          codes_, scales_, ropes_);
    return first;
  }

  /// Writes the tokens from position `first` on as such rows.
  /// \throws std::invalid_argument if the bytes are no whole rows or lie in the cache, or a token
  ///         is none of the sequence or was evicted. Nothing is written then.
  void export_rows(Index sequence, Index first, std::span<std::byte> rows) const {
    const Index tokens = detail::count_rows(export_name, rows.size(), bytes_per_token());
    detail::check_tokens(export_name, table_, sequence, first, tokens);
    check_apart(export_name, "rows", detail::bytes_view(rows));
    for (Index t = 0; t < tokens; ++t)
      detail::to_packed(rows.data() + t * bytes_per_token(), table_.row(sequence, first + t),
                        codes_, scales_, ropes_);
  }

  /// Writes the key of a token that the cache holds, which is not checked.
  void load_key(Index sequence, Index /*head*/, Index position, bf16* out) const {
    const PageRow at = table_.row(sequence, position);
    codes_.fetch_behind(at, rows_ahead);
    ropes_.fetch_behind(at, rows_ahead);
    load_codes(at, codes_.width(), out);
    std::copy_n(ropes_.row(at), ropes_.width(), out + latent_);
  }
  /// Writes its value, likewise.
  void load_value(Index sequence, Index /*head*/, Index position, bf16* out) const {
    load_codes(table_.row(sequence, position), latent_, out);
  }

  /// \throws std::invalid_argument if an output shares memory with the cache
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    check_no_overlap(function, output, out, "cache", codes_.all());
    check_no_overlap(function, output, out, "cache", scales_.all());
    check_no_overlap(function, output, out, "cache", ropes_.all());
  }

 private:
  static constexpr const char* class_name = "latent::E4m3Cache";
  static constexpr const char* append_name = "latent::E4m3Cache::append";
  static constexpr const char* import_name = "latent::E4m3Cache::import_rows";
  static constexpr const char* export_name = "latent::E4m3Cache::export_rows";
  static constexpr const char* discard_name = "latent::E4m3Cache::discard";
  static constexpr const char* keep_name = "latent::E4m3Cache::keep";

  /// A tile's rows are loaded in one go, for which memory would be waited: 5 % of a step of 128
  /// heads on Zen 5, with 8 rows as with 128.
  static constexpr Index rows_ahead = 8;

  static const LatentCacheOptions& checked(const LatentCacheOptions& options) {
    options.validate(class_name);
    if constexpr (Layout::tile > 0) {
      check(options.latent % Layout::tile == 0, class_name, "latent", options.latent,
            Worded{"a multiple of the ", Layout::tile, " of a tile"});
      check(Layout::keeps_rope || options.rope % Layout::tile == 0, class_name, "rope",
            options.rope, Worded{"a multiple of the ", Layout::tile, " of a tile"});
    }
    return options;
  }

  Index tile() const { return Layout::tile == 0 ? codes_.width() : Layout::tile; }

  /// Room for tokens that are checked.
  Index add_tokens(const char* function, Index sequence, Index tokens) {
    const Appended added = table_.append(sequence, tokens, function);
    if (added.copy) copy(*added.copy);
    return added.first;
  }
  void copy(const PageCopy& page) const {
    codes_.copy(page);
    scales_.copy(page);
    ropes_.copy(page);
  }

  /// Copies the row of a position to another; returns where that is.
  PageRow move_row(Index sequence, Index to, Index from) const {
    const PageRow a = table_.row(sequence, to), b = table_.row(sequence, from);
    move_latent(a, b);
    std::copy_n(ropes_.row(b), ropes_.width(), ropes_.row(a));
    return a;
  }
  void move_latent(PageRow to, PageRow from) const {
    std::copy_n(codes_.row(from), codes_.width(), codes_.row(to));
    std::copy_n(scales_.row(from), scales_.width(), scales_.row(to));
  }

  template <class B, class C, class R>
  Index append_views(const B& backend, Index sequence, TensorView<const C, 2> latent,
                     TensorView<const R, 2> rope) {
    this->check_tokens(latent, rope);
    table_.check_append(append_name, sequence, latent.rows());
    const Index size = table_.page_size(), before = table_.length(sequence);
    const auto room = leased<std::vector<float>>(backend);  // a row for each page that is met
    room->resize(static_cast<std::size_t>((ceil_div(before + latent.rows(), size) - before / size) *
                                          codes_.width()));
    const Index first = add_tokens(append_name, sequence, latent.rows());
    detail::for_page_runs(backend, first, latent.rows(), size, [&](detail::PageRun run) {
      float* const x = room->data() + (run.first / size - first / size) * codes_.width();
      for (Index t = run.first; t < run.first + run.count; ++t)
        quantise(backend, latent, rope, t - first, x, table_.row(sequence, t));
    });
    if (Layout::keeps_rope) detail::store_tokens(backend, table_, sequence, first, rope, ropes_, 0);
    return first;
  }

  /// Row t of the inputs, which are put together in x.
  template <class B, class C, class R>
  void quantise(const B& backend, TensorView<const C, 2> latent, TensorView<const R, 2> rope,
                Index t, float* x, PageRow at) const {
    for (Index c = 0; c < latent_; ++c) x[c] = static_cast<float>(latent(t, c));
    for (Index c = latent_; c < codes_.width(); ++c)
      x[c] = static_cast<float>(rope(t, c - latent_));
    const kernel::QuantizeE4m3Rows row{.x = x,
                                       .codes = codes_.row(at),
                                       .scales = scales_.row(at),
                                       .rows = 1,
                                       .columns = codes_.width(),
                                       .tile = tile(),
                                       .power_of_two = Layout::power_of_two};
    if constexpr (KernelBackend<B>)
      launch(backend, row);
    else
      run_kernel(arch::scalar{}, row);
  }

  /// turn(key, moved key, from, to) writes the rotary key of a row that moves.
  template <class Turn>
  void discard_rows(Index sequence, Index first, Index tokens, const Turn& turn) {
    const auto move = [&](Index to, Index from) {
      const PageRow a = table_.row(sequence, to), b = table_.row(sequence, from);
      move_latent(a, b);
      if (ropes_.width() > 0) turn(ropes_.row(b), ropes_.row(a), from, to);  // else among the codes
    };
    this->discard_tokens(
        discard_name, sequence, first, tokens, [&](const PageCopy& page) { copy(page); }, move);
  }

  void load_codes(PageRow at, Index columns, bf16* out) const {
    launch(simd, kernel::WidenE4m3Rows<bf16>{.codes = codes_.row(at),
                                             .scales = scales_.row(at),
                                             .out = out,
                                             .rows = 1,
                                             .columns = columns,
                                             .tile = tile()});
  }

  detail::PagedRows<e4m3> codes_;
  detail::PagedRows<float> scales_;
  detail::PagedRows<bf16> ropes_;  ///< of width 0 where keys are codes
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
