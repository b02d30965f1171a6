// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study that say how keys and values are made from latents.

#include "common/options.hpp"
#include "language_model/conversions.hpp"

#include <pare/core/check.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace language_model {

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
  if (const auto how = conversion_of(value)) return *how;
  command_line::reject(option, value,
                       "names of svd, svd_joint, care_uniform, care_joint, care, care_paper, "
                       "transmla, transmla_fold, mha2mla and mha2mla_care");
}

/// Refuses options that do not belong together; `sample` is the file of --sample. Activation errors
/// of each conversion are of its inputs.
inline void check_latent(const LatentArguments& latent, const std::string& sample) {
  using command_line::UsageError;
  if (latent.widths.empty() != latent.conversions.empty())
    throw UsageError("--latent and --convert go together");
  if (!latent.widths.empty() && sample.empty()) throw UsageError("--latent needs --sample");
}

/// The same where one model runs: of one width and one conversion, and --sample is for it alone.
inline void check_one_latent(const LatentArguments& latent, const std::string& sample,
                             bool has_sample_tokens) {
  using command_line::UsageError;
  check_latent(latent, sample);
  if (latent.widths.size() > 1 || latent.conversions.size() > 1)
    throw UsageError("got several widths or conversions, wanted one --latent and one --convert");
  if (latent.widths.empty() && !sample.empty())
    throw UsageError("--sample: wanted --latent with it");
  if (latent.widths.empty() && has_sample_tokens)
    throw UsageError("--sample-tokens: wanted --latent with it");
}

}  // namespace detail

}  // namespace language_model
