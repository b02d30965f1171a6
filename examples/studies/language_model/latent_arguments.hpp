// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study that say how keys and values are made from latents.

#include "common/options.hpp"

#include <pare/core/check.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// How keys and values become latents.
enum class Conversion {
  Svd,          ///< of the weights alone, each of half of the width
  SvdJoint,     ///< of both weights stacked
  CareUniform,  ///< by the covariance of the inputs, each of half of the width
  CareJoint,    ///< by the covariance, of both stacked
  Care,         ///< by the covariance, ranks of layers adjusted by their energy
  CarePaper,    ///< the same by the paper's score
  TransMla,     ///< one rotary key of a head's width, and a latent of the rest of the width
  TransMlaFold  ///< the same with 4 frequencies taken for one
};

inline constexpr std::string_view conversion_names[] = {
    "svd",  "svd_joint",  "care_uniform", "care_joint",
    "care", "care_paper", "transmla",     "transmla_fold"};
inline std::string_view name_of(Conversion conversion) {
  return conversion_names[static_cast<std::size_t>(conversion)];
}

inline bool is_transmla(Conversion how) {
  return how == Conversion::TransMla || how == Conversion::TransMlaFold;
}

inline bool reads_inputs(Conversion how) {
  return how != Conversion::Svd && how != Conversion::SvdJoint;
}

struct LatentArguments {
  std::vector<pare::Index> widths;  ///< of latents, numbers per token and layer
  std::vector<Conversion> conversions;
};

namespace detail {

inline pare::Index latent_width(std::string_view option, std::string_view value) {
  return command_line::number<pare::Index>(option, value, 2, 1 << 20,
                                           "whole numbers from 2, by commas");
}

inline Conversion conversion(std::string_view option, std::string_view value) {
  const auto* const found = std::ranges::find(conversion_names, value);
  if (found == std::end(conversion_names))
    command_line::reject(option, value,
                         "names of svd, svd_joint, care_uniform, care_joint, care, care_paper, "
                         "transmla and transmla_fold");
  return static_cast<Conversion>(found - std::begin(conversion_names));
}

/// Refuses options that do not belong together; `sample` is the file of --sample. Activation errors
/// of each conversion are of its inputs.
inline void check_latent(const LatentArguments& latent, const std::string& sample) {
  using command_line::UsageError;
  if (latent.widths.empty() != latent.conversions.empty())
    throw UsageError("--latent and --convert go together");
  if (!latent.widths.empty() && sample.empty()) throw UsageError("--latent needs --sample");
}

}  // namespace detail

}  // namespace language_model
