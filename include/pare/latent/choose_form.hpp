// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which form of latent attention costs less: queries that absorb W_UK and attend to latents, or
/// latents that are expanded to the keys and values of all heads.
///
///     absorbed: pairs (2 d_c + d_r) + queries d_c (d_n + d_v)
///     expanded: pairs (d_n + d_r + d_v) + keys d_c (d_n + d_v)
///
/// ```cpp
/// choose_form(config, 1, 4096);                          // Absorbed: a step of decode
/// choose_form(config, 2048, 4096);                       // Expanded: a prompt
/// choose_form(config, queries, keys, {.factor = 1.3});   // expanded multiplies run slower here
/// least_expanded_queries(config);                        // 171 in DeepSeek-V3, 269 in VideoMLA
/// ```
///
/// These are multiply-adds of a head; pairs are those of a query and a key that it sees. Both forms
/// give the same outputs but for rounding. Few queries make the expansion of all keys dear, many
/// queries the longer rows of the absorbed form.
///
/// What is best on a machine also depends on how fast each runs: the absorbed form reads a row of
/// the cache for all heads at once, the expanded one is two products of matrices. `factor` says so;
/// the bench measures where the forms cross. Source: derived of the two forms' equations; the
/// choice by length is that of ik_llama.cpp and FlashMLA.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/latent/config.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

namespace pare::latent {

/// How queries attend to cached latents.
enum class LatentForm {
  /// W_UK into the query, W_UV onto the output: rows of d_c + d_r, read as cached. "absorb" in
  /// DeepSeek's code, "MQA mode" in FlashMLA's.
  Absorbed,
  /// Keys and values of all heads are made of the latents: "naive", "MHA mode".
  Expanded,
};

/// Options of choose_form.
struct FormOptions {
  /// Time of a multiply-add of the expanded form over that of the absorbed one: finite, above 0.
  double factor = 1;

  /// Whether query i of n sees the keys up to keys - n + i alone.
  bool causal = true;
};

/// Multiply-adds of a layer, all heads.
struct FormCost {
  double absorbed = 0;
  double expanded = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Pairs of a query and a key that it sees.
inline double visible_pairs(double queries, double keys, bool causal) {
  if (!causal) return queries * keys;
  const double seeing = std::min(queries, keys);  // those before the first key see none
  return seeing * keys - seeing * (seeing - 1) / 2;
}

PARE_ABI_END
}  // namespace detail

/// What both forms cost for `queries` new tokens of a sequence of `keys` tokens, the new ones
/// among them.
/// \throws std::invalid_argument if the config is not valid, or a number is negative
inline FormCost form_cost(const LatentConfig& config, Index queries, Index keys,
                          const FormOptions& options = {}) {
  constexpr const char* function = "latent::form_cost";
  config.validate(function);
  check(queries >= 0, function, "queries", queries, "at least 0");
  check(keys >= 0, function, "keys", keys, "at least 0");
  const auto of = [](Index n) { return static_cast<double>(n); };
  const double pairs = detail::visible_pairs(of(queries), of(keys), options.causal);
  const double up = of(config.latent) * of(config.nope + config.value), heads = of(config.heads);
  return {heads * (pairs * (2 * of(config.latent) + of(config.rope)) + of(queries) * up),
          heads * (pairs * of(config.head_dim() + config.value) + of(keys) * up)};
}

/// The form that costs less; Absorbed where they cost the same.
/// \throws std::invalid_argument as form_cost, or if the factor is out of its range
inline LatentForm choose_form(const LatentConfig& config, Index queries, Index keys,
                              const FormOptions& options = {}) {
  check(is_finite(options.factor) && options.factor > 0, "latent::choose_form", "factor",
        options.factor, "a finite number above 0");
  const FormCost cost = form_cost(config, queries, keys, options);
  return cost.expanded * options.factor < cost.absorbed ? LatentForm::Expanded
                                                        : LatentForm::Absorbed;
}

/// The least number of queries from which expanding pays however many keys there are, what queries
/// cost to absorb left aside: d_c (d_n + d_v) / (2 d_c + d_r - (d_n + d_r + d_v)), rounded up. None
/// if the absorbed form is never dearer.
/// \throws std::invalid_argument if the config is not valid
inline std::optional<Index> least_expanded_queries(const LatentConfig& config) {
  config.validate("latent::least_expanded_queries");
  const Index saved = 2 * config.latent - config.nope - config.value;
  if (saved <= 0) return std::nullopt;
  return static_cast<Index>(std::ceil(static_cast<double>(config.latent) *
                                      static_cast<double>(config.nope + config.value) /
                                      static_cast<double>(saved)));
}

}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
