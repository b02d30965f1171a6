// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study that say how its linear layers are factored.

#include "common/options.hpp"

#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// What errors of a factored layer are weighed with.
enum class SvdMetric {
  Plain,        ///< nothing
  Inputs,       ///< the mean square of each input
  Covariance,   ///< the mean products of the inputs
  Elementwise,  ///< the mean square of each weight's gradient
};

inline constexpr std::string_view metric_names[] = {"plain", "inputs", "covariance", "elementwise"};
inline std::string_view name_of(SvdMetric metric) {
  return metric_names[static_cast<std::size_t>(metric)];
}

struct SvdArguments {
  std::vector<double> shares;  ///< of the layers' parameters that factors keep
  std::vector<SvdMetric> metrics;
  bool bf16 = false;      ///< factors are rounded to it
  std::string gradients;  ///< a folder
  std::optional<pare::Index> sample_tokens{};

  pare::Index most_sample_tokens() const { return sample_tokens.value_or(32768); }

  bool needs_sample() const {
    return std::ranges::any_of(metrics, [](SvdMetric metric) {
      return metric == SvdMetric::Inputs || metric == SvdMetric::Covariance;
    });
  }
  bool needs_gradients() const {
    return std::ranges::find(metrics, SvdMetric::Elementwise) != metrics.end();
  }
};

namespace detail {

inline double svd_share(std::string_view option, std::string_view value) {
  return command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                              "shares above 0, at most 1, by commas");
}

inline SvdMetric svd_metric(std::string_view option, std::string_view value) {
  const auto* const found = std::ranges::find(metric_names, value);
  if (found == std::end(metric_names))
    command_line::reject(option, value, "names of plain, inputs, covariance and elementwise");
  return static_cast<SvdMetric>(found - std::begin(metric_names));
}

inline bool is_bf16(std::string_view option, std::string_view value) {
  if (value != "f32" && value != "bf16") command_line::reject(option, value, "f32 or bf16");
  return value == "bf16";
}

/// Refuses options that do not belong together; `sample` is the file of --sample.
inline void check_svd(const SvdArguments& svd, const std::string& sample) {
  using command_line::UsageError;
  if (svd.shares.empty() != svd.metrics.empty()) throw UsageError("--svd and --metric go together");
  if (svd.needs_gradients() && svd.gradients.empty())
    throw UsageError(
        "--metric elementwise needs the mean squares of each weight's gradient: --gradients "
        "FOLDER");
  if (!svd.needs_gradients() && !svd.gradients.empty())
    throw UsageError("got --gradients without --metric elementwise");
  if (svd.needs_sample() && sample.empty())
    throw UsageError("--metric inputs and covariance need --sample");
  if (svd.bf16 && svd.shares.empty()) throw UsageError("got --factors without --svd");
  if (!svd.shares.empty() && !svd.needs_sample() && !sample.empty())
    throw UsageError("got --sample, wanted none with --metric plain and elementwise");
}

}  // namespace detail

}  // namespace language_model
