// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The ways in which the study makes latents of keys and values.

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string_view>

namespace language_model {

/// How keys and values become latents.
enum class Conversion {
  Svd,           ///< of the weights alone, each of half of the width
  SvdJoint,      ///< of both weights stacked
  CareUniform,   ///< by the covariance of the inputs, each of half of the width
  CareJoint,     ///< by the covariance, of both stacked
  Care,          ///< by the covariance, ranks of layers adjusted by their energy
  CarePaper,     ///< the same by the paper's score
  TransMla,      ///< one rotary key of a head's width, and a latent of the rest of the width
  TransMlaFold,  ///< the same with 4 frequencies taken for one
  Mha2Mla,       ///< of each key head a quarter stays rotary; a latent of the rest, by the weights
  Mha2MlaCare    ///< the same by the covariance; ours
};

inline constexpr std::string_view conversion_names[] = {
    "svd",        "svd_joint", "care_uniform",  "care_joint", "care",
    "care_paper", "transmla",  "transmla_fold", "mha2mla",    "mha2mla_care"};
inline std::string_view name_of(Conversion conversion) {
  return conversion_names[static_cast<std::size_t>(conversion)];
}
inline std::optional<Conversion> conversion_of(std::string_view name) {
  const auto* const found = std::ranges::find(conversion_names, name);
  if (found == std::end(conversion_names)) return std::nullopt;
  return static_cast<Conversion>(found - std::begin(conversion_names));
}

inline bool is_transmla(Conversion how) {
  return how == Conversion::TransMla || how == Conversion::TransMlaFold;
}
inline bool is_mha2mla(Conversion how) {
  return how == Conversion::Mha2Mla || how == Conversion::Mha2MlaCare;
}
/// Whether rotary keys are apart from the latent, so that scores can be had from the cache.
inline bool is_mla(Conversion how) { return is_transmla(how) || is_mha2mla(how); }

inline bool reads_inputs(Conversion how) {
  return how != Conversion::Svd && how != Conversion::SvdJoint && how != Conversion::Mha2Mla;
}

}  // namespace language_model
