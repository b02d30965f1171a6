// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a call of a layer is checked for before it writes anything, and whose tokens are whose.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/choose_form.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/forward_options.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::latent::detail {
PARE_ABI_BEGIN

inline constexpr const char* forward_name = "latent::LatentAttention::forward";

/// Whether a cache rotates the keys that it is given.
template <class Cache>
inline constexpr bool rotates_keys = requires { requires bool(Cache::rotates_keys); };

/// The first key that a token at `position` sees, sinks apart.
inline Index first_read(const LatentForwardOptions& options, Index position) {
  return options.window ? std::max<Index>(0, position - *options.window + 1) : 0;
}
/// Sinks count where there is a window.
inline Index sinks_of(const LatentForwardOptions& options) {
  return options.window ? options.sinks : 0;
}

/// [sequences + 1] offsets of the tokens of each sequence.
inline void set_offsets(const LatentForwardOptions& options, Index sequences, Index tokens,
                        std::vector<Index>& offsets) {
  if (options.offsets) return offsets.assign(options.offsets->begin(), options.offsets->end());
  offsets.assign(static_cast<std::size_t>(sequences) + 1, tokens);
  std::fill_n(offsets.begin(), options.sequence + 1, Index{0});
}

/// The position of each token.
template <class Cache>
void set_positions(const LatentForwardOptions& options, const std::vector<Index>& offsets,
                   const Cache& cache, std::vector<Index>& positions) {
  if (options.positions)
    return positions.assign(options.positions->begin(), options.positions->end());
  positions.resize(static_cast<std::size_t>(offsets.back()));
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
    for (Index t = offsets[s]; t < offsets[s + 1]; ++t)
      positions[static_cast<std::size_t>(t)] = cache.length(static_cast<Index>(s)) + t - offsets[s];
}

inline void check_options(const LatentForwardOptions& o) {
  check(!o.window || *o.window >= 1, forward_name, "window", o.window.value_or(0),
        "at least 1 token; left out for none");
  check(o.sinks >= 0 && o.sinks <= attention::most_tokens, forward_name, "sinks", o.sinks,
        "0 or a number of tokens");
  if (o.form) check_enumerator(forward_name, "form", *o.form, LatentForm::Expanded);
  check(is_finite(o.form_factor) && o.form_factor > 0, forward_name, "form_factor", o.form_factor,
        "a finite number above 0");
  check(!o.chunk || *o.chunk >= 1, forward_name, "chunk", o.chunk.value_or(0), "at least 1 token");
}

/// Which tokens are whose: [sequences + 1] offsets, or one sequence.
template <class Cache>
void check_sequences(const LatentForwardOptions& o, const Cache& cache, Index tokens) {
  const Index sequences = cache.sequences();
  if (!o.offsets) {
    check(tokens == 0 || (o.sequence >= 0 && o.sequence < sequences), forward_name, "sequence",
          o.sequence, Worded{"a sequence below ", sequences});
    return;
  }
  check(o.sequence == 0, forward_name, "sequence", o.sequence, "none beside offsets");
  const auto& offsets = *o.offsets;
  check(static_cast<Index>(offsets.size()) == sequences + 1, forward_name, "offsets",
        offsets.size(), Worded{"", sequences + 1, ", one more than there are sequences"});
  check_offsets(forward_name, "offsets", offsets, tokens);
}

/// The tokens of a sequence that a call brings.
inline Index tokens_of_sequence(const LatentForwardOptions& o, Index sequence, Index tokens) {
  if (!o.offsets) return sequence == o.sequence ? tokens : 0;
  const auto at = static_cast<std::size_t>(sequence);
  return (*o.offsets)[at + 1] - (*o.offsets)[at];
}

/// Whether the cache has rows of the layer, room for the new ones, and those that are read.
template <class Layer, class Cache>
void check_cache(const Layer& layer, const Cache& cache, const LatentForwardOptions& o,
                 Index tokens) {
  const LatentConfig& c = layer.config();
  check_extents<3>(forward_name, "cache", {cache.kv_heads(), cache.key_dim(), cache.value_dim()},
                   {1, c.row_dim(), c.latent});
  if constexpr (rotates_keys<Cache>)
    check(c.rope == 0 || layer.layout() == transformer::RotaryLayout::Interleaved, forward_name,
          "cache", "one that rotates keys in interleaved pairs",
          "one that takes rotated keys, or a layer of RotaryLayout::Interleaved");
  if constexpr (requires { cache.rope_state(); })
    check(c.rope == 0 ||
              cache.rope_state() == std::remove_cvref_t<decltype(cache.rope_state())>::Rotated,
          forward_name, "cache", "a cache of keys that are not rotated", "rotated ones");
  const auto read_of = [&](Index s) -> attention::KeysRead {
    const Index length = cache.length(s);
    if (tokens_of_sequence(o, s, tokens) == 0) return {0, length};
    return {sinks_of(o), first_read(o, length)};
  };
  if constexpr (requires { cache.validate(forward_name, read_of); })
    cache.validate(forward_name, read_of);
  else
    cache.validate(forward_name);
  [[maybe_unused]] Index pages = 0;
  for (Index s = 0; s < cache.sequences(); ++s) {
    const Index n = tokens_of_sequence(o, s, tokens), length = cache.length(s);
    check(n <= attention::most_tokens - length, forward_name, "hidden", n,
          Worded{"at most ", attention::most_tokens - length, " more tokens of a sequence"});
    if constexpr (requires { cache.table().check_append(forward_name, s, n); })
      if (n > 0) {
        cache.table().check_append(forward_name, s, n);
        pages += cache.table().pages_for(s, n);
      }
  }
  if constexpr (requires { cache.table().free_pages(); })
    check(pages <= cache.table().free_pages(), forward_name, "cache",
          Worded{"tokens that take ", pages, " pages"},
          Worded{"at most the ", cache.table().free_pages(), " free pages"});
}

/// Whether the table has the positions of all tokens.
template <class Layer, class Cache>
void check_positions(const Layer& layer, const Cache& cache, const LatentForwardOptions& o,
                     Index tokens) {
  check(!o.positions || static_cast<Index>(o.positions->size()) == tokens, forward_name,
        "positions", o.positions ? o.positions->size() : 0, Worded{"", tokens, " positions"});
  if (layer.config().rope == 0) return;
  check(o.positions || !rotates_keys<Cache>, forward_name, "positions", "none",
        "those of the cache, which rotates keys itself");
  const auto& table = *layer.table();
  const Worded wanted{"positions of the table, below ", table.first() + table.count()};
  if (o.positions) {
    for (const Index p : *o.positions) check(table.has(p), forward_name, "positions", p, wanted);
    return;
  }
  for (Index s = 0; s < cache.sequences(); ++s) {
    const Index n = tokens_of_sequence(o, s, tokens), first = cache.length(s);
    if (n == 0) continue;
    check(table.has(first), forward_name, "positions", first, wanted);
    check(table.has(first + n - 1), forward_name, "positions", first + n - 1, wanted);
  }
}

/// Whether a selector can choose among the keys of each sequence, once the tokens are cached.
template <class Layer, class Cache, attention::BlockSelector P>
void check_selector(const Layer& layer, const Cache& cache, const P& selector,
                    const LatentForwardOptions& o, Index tokens) {
  check(!o.window, forward_name, "window", o.window.value_or(0), "none with a selector");
  check(!o.chunk, forward_name, "chunk", o.chunk.value_or(0), "none with a selector");
  check(!o.form || *o.form == LatentForm::Expanded, forward_name, "form", "the absorbed form",
        "the expanded one with a selector");
  check(selector.row_block >= 1 && selector.column_block >= 1, forward_name,
        "row_block, column_block", std::array<Index, 2>{selector.row_block, selector.column_block},
        "blocks of at least 1");
  const Index heads = layer.config().heads;
  for (Index s = 0; s < cache.sequences(); ++s) {
    const Index n = tokens_of_sequence(o, s, tokens);
    if (n > 0)
      selector.validate(
          forward_name,
          attention::SelectorCall{1, heads, heads, n, cache.length(s) + n, o.causal, false});
  }
}

template <class Layer, class T>
void check_apart_from_weights(const Layer& layer, const TensorView<T, 2>& out) {
  const auto& w = layer.weights();
  if (w.query_down) transformer::check_apart_from_layer(forward_name, "out", out, *w.query_down);
  transformer::check_apart_from_layer(forward_name, "out", out, w.query);
  transformer::check_apart_from_layer(forward_name, "out", out, w.latent_down);
  transformer::check_apart_from_layer(forward_name, "out", out, w.output);
  check_no_overlap(forward_name, "out", out, "a weight", w.up.all());
}

template <class Layer, class T, class Cache>
void check_forward(const Layer& layer, TensorView<const T, 2> hidden, const Cache& cache,
                   TensorView<T, 2> out, const LatentForwardOptions& options) {
  const LatentConfig& c = layer.config();
  const Index tokens = hidden.rows();
  check_view(forward_name, "hidden", hidden);
  check_extents<2>(forward_name, "hidden", hidden.extent, {tokens, c.width});
  check_writable(forward_name, "out", out);
  check_extents<2>(forward_name, "out", out.extent, hidden.extent);
  check_no_overlap(forward_name, "out", out, "hidden", hidden);
  check_apart_from_weights(layer, out);
  if constexpr (requires { cache.check_apart(forward_name, "out", out); }) {
    cache.check_apart(forward_name, "out", out);
    cache.check_apart(forward_name, "hidden", hidden);
  }
  checked_product(forward_name, "hidden", tokens,
                  c.heads * std::max(c.row_dim(), c.head_dim() + c.value));
  check_options(options);
  check_sequences(options, cache, tokens);
  check_cache(layer, cache, options, tokens);
  check_positions(layer, cache, options, tokens);
}

PARE_ABI_END
}  // namespace pare::latent::detail

#include <pare/core/macros_on.hpp>
