// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The sizes of latent attention (MLA) and what its cache takes.
///
/// ```cpp
/// const LatentConfig v3{.width = 7168,
///                       .heads = 128,
///                       .nope = 128,
///                       .rope = 64,
///                       .value = 128,
///                       .latent = 512,
///                       .query_latent = 1536,
///                       .softmax_scale = latent_softmax_scale(128, 64, yarn_magnitude(40, 1))};
/// const LatentSizes sizes = latent_sizes(v3);  // 576 scalars a token and layer, not 40960
/// sizes.cache_bytes(131072, 61, 2);            // tokens, layers, bytes of a scalar
/// ```
///
/// A token x is cached as a latent c = RMSNorm(W_DKV x) of `latent` numbers, from which the keys
/// and values of all heads are made, and a rotary key of `rope` numbers that heads share:
///
///     score of head h = softmax_scale (q_h . W_UK,h c + rotated q'_h . rotated k)
///     value of head h = W_UV,h c
///
/// **The scale is that of the head, not of the cached row.** Queries that have absorbed W_UK are
/// latent + rope numbers wide, which is what a kernel sees; 1 / sqrt(latent + rope), its default,
/// is wrong. `softmax_scale` therefore has no default, and `latent_softmax_scale` computes the
/// usual one, 1 / sqrt(nope + rope). A layer that was converted keeps the scale that it had, 1 /
/// sqrt(head_dim) (`MlaWeights::config`, convert/transmla.hpp). Source: DeepSeek-V2 and DeepSeek-V3
/// (their inference code); of rope = 0 and any other widths, nothing differs.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <cmath>
#include <optional>

namespace pare::latent {

/// Sizes and scalars of a layer, d, H, d_n, d_r, d_v, d_c and d_q in the papers. All but those that
/// say so must be given: 0 is refused.
struct LatentConfig {
  Index width = 0;   ///< d, of hidden states
  Index heads = 0;   ///< H, of queries
  Index nope = 0;    ///< d_n, numbers of a query head that have no position
  Index rope = 0;    ///< d_r, numbers of a query head that are rotated; even, may be 0
  Index value = 0;   ///< d_v, of a head's values
  Index latent = 0;  ///< d_c, of the cached latent

  /// d_q, of the latent of queries. Left out: queries are made of hidden states, by one matrix.
  std::optional<Index> query_latent{};

  /// Factor of q.k, finite and above 0. See `latent_softmax_scale`.
  double softmax_scale = 0;

  /// Of the norms of both latents: finite, at least 0.
  double norm_epsilon = 1e-6;

  /// Numbers of a query or key head, d_n + d_r.
  Index head_dim() const { return nope + rope; }
  /// Numbers of a row of the cache, d_c + d_r, and of a query that has absorbed W_UK.
  Index row_dim() const { return latent + rope; }
  /// What queries are made of: d_q, or d.
  Index query_inputs() const { return query_latent.value_or(width); }

  /// \throws std::invalid_argument if a size, the scale or the epsilon is out of its range, or a
  ///         weight has more elements than `Index` counts; `function` is named.
  void validate(const char* function) const {
    const auto positive = [&](const char* name, Index size) {
      check(size >= 1, function, name, size, "at least 1");
    };
    positive("width", width);
    positive("heads", heads);
    positive("nope", nope);
    check(rope >= 0 && rope % 2 == 0, function, "rope", rope, "an even number of at least 0");
    positive("value", value);
    positive("latent", latent);
    if (query_latent) positive("query_latent", *query_latent);
    check(is_finite(softmax_scale) && softmax_scale > 0, function, "softmax_scale", softmax_scale,
          "a finite number above 0, such as latent_softmax_scale gives");
    check(is_finite(norm_epsilon) && norm_epsilon >= 0, function, "norm_epsilon", norm_epsilon,
          "a finite number of at least 0");
    check_products(function);
  }

 private:
  /// No weight, and no row of activations, has more elements than can be counted.
  void check_products(const char* function) const {
    const Index queries =
        checked_product(function, "heads", heads, checked_sum(function, "nope", nope, rope));
    const Index expanded =
        checked_product(function, "heads", heads, checked_sum(function, "nope", nope, value));
    checked_product(function, "query_latent", queries, query_inputs());
    checked_product(function, "query_latent", query_inputs(), width);
    checked_product(function, "latent", expanded, latent);
    checked_product(function, "latent", checked_sum(function, "latent", latent, rope), width);
    checked_product(function, "heads", checked_product(function, "heads", heads, value), width);
    checked_sum(function, "heads", queries, checked_product(function, "heads", heads, value));
    checked_product(function, "heads", heads, checked_sum(function, "latent", latent, rope));
  }
};

/// magnitude^2 / sqrt(nope + rope), the factor of q.k of the head that was trained.
///
/// \param nope      numbers of a head without position, at least 0
/// \param rope      numbers of a head that are rotated, at least 0; one of both above 0
/// \param magnitude finite and above 0: 1 where no context is stretched, else
///                  `transformer::yarn_magnitude(factor, mscale)`, or of a checkpoint of Hugging
///                  Face its `mscale_all_dim`. 0.1352338 in DeepSeek-V3, 0.1147214 in V2-Lite.
/// \throws std::invalid_argument if one is out of its range
inline double latent_softmax_scale(Index nope, Index rope, double magnitude = 1) {
  constexpr const char* function = "latent::latent_softmax_scale";
  check(nope >= 0, function, "nope", nope, "at least 0");
  check(rope >= 0, function, "rope", rope, "at least 0");
  const Index dim = checked_sum(function, "rope", nope, rope);
  check(dim >= 1, function, "nope", dim, "a head of at least one number");
  check(is_finite(magnitude) && magnitude > 0, function, "magnitude", magnitude,
        "a finite number above 0");
  return magnitude * magnitude / std::sqrt(static_cast<double>(dim));
}

/// What a layer caches and reads, in scalars.
struct LatentSizes {
  Index row = 0;       ///< of a token: d_c + d_r
  Index expanded = 0;  ///< the same with the keys and values of all heads: H (d_n + d_r + d_v)
  Index up = 0;        ///< of W_UK and W_UV, which each step of decode reads: H (d_n + d_v) d_c

  /// Share of the expanded cache that is saved, in (-inf, 1): 0.927 in VideoMLA.
  double saved() const { return 1 - static_cast<double>(row) / static_cast<double>(expanded); }
  /// How many times smaller the cache is: 71 in DeepSeek-V3.
  double ratio() const { return static_cast<double>(expanded) / static_cast<double>(row); }
  /// Tokens whose cached rows have as many scalars as W_UK and W_UV: below that many, a step of
  /// decode reads more of weights than of the cache. 29127 in DeepSeek-V3.
  Index tokens_of_up() const { return up / row; }

  /// Bytes of the cache of so many tokens, layers, and bytes of a scalar; scales of 8-bit rows
  /// are not counted.
  /// \throws std::invalid_argument if one is negative or the bytes do not fit `Index`
  Index cache_bytes(Index tokens, Index layers, Index scalar_bytes) const {
    return bytes_of(row, tokens, layers, scalar_bytes);
  }
  /// The same of the expanded cache.
  Index expanded_bytes(Index tokens, Index layers, Index scalar_bytes) const {
    return bytes_of(expanded, tokens, layers, scalar_bytes);
  }

 private:
  static Index bytes_of(Index scalars, Index tokens, Index layers, Index scalar_bytes) {
    constexpr const char* function = "latent::LatentSizes";
    const Index of_all = checked_product(function, "tokens", tokens, layers);
    return checked_product(function, "scalar_bytes",
                           checked_product(function, "tokens", of_all, scalars), scalar_bytes);
  }
};

/// The sizes of a layer. \throws std::invalid_argument if the config is not valid.
inline LatentSizes latent_sizes(const LatentConfig& config) {
  config.validate("latent::latent_sizes");
  return {config.row_dim(), config.heads * (config.head_dim() + config.value),
          config.heads * (config.nope + config.value) * config.latent};
}

}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
