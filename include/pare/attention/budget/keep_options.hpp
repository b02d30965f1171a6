// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of `keep_tokens` (keep_tokens.hpp).
///
/// ```cpp
/// const KeepOptions exact{.ratio = 0.3};               // Tangram's default: groups in a layer
/// const KeepOptions pair{
///     .ratio = 0.3, .scope = BudgetScope::CrossLayer, .count = BudgetCount::Head};
/// adjusted_ratio(exact, 4096);                         // 0.2945
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/budget/head_groups.hpp>
#include <pare/core/check.hpp>

#include <algorithm>
#include <cstdint>

namespace pare::attention {

/// What keep counts are found from; keep_tokens.hpp has the formulas.
enum class BudgetCount : std::uint8_t {
  Head,     ///< scores of heads; a group is as long as its longest head
  Group,    ///< the largest score of a group's heads at each position: the budget is exact
  Uniform,  ///< none: all heads keep equally many
};

PARE_ABI_BEGIN

/// How many tokens stay, and which in any case.
struct KeepOptions {
  double ratio = 0.3;  ///< of the tokens, in (0, 1]; 1 keeps all
  Index sinks = 4;     ///< first tokens that stay, at least 0
  Index window = 32;   ///< last tokens that stay, at least 0
  BudgetScope scope = BudgetScope::PerLayer;
  BudgetCount count = BudgetCount::Group;
  /// Counts are rounded up to a multiple of so many tokens, at least 1, as far as there are any.
  /// Tangram: the page size.
  Index multiple = 1;

  /// These options. \throws std::invalid_argument if a member is out of its range
  const KeepOptions& validate(const char* function) const {
    check(ratio > 0 && ratio <= 1, function, "ratio", ratio, "a share above 0, at most 1");
    check(sinks >= 0, function, "sinks", sinks, "at least 0");
    check(window >= 0, function, "window", window, "at least 0");
    check(multiple >= 1, function, "multiple", multiple, "at least 1");
    check_enumerator(function, "scope", scope, BudgetScope::CrossLayer);
    check_enumerator(function, "count", count, BudgetCount::Uniform);
    return *this;
  }
};

/// The share of the tokens between sinks and window that may stay, so that with both the ratio is
/// kept to.
/// \throws std::invalid_argument if an option is out of its range, or tokens are negative
inline double adjusted_ratio(const KeepOptions& options, Index tokens) {
  constexpr const char* function = "attention::adjusted_ratio";
  options.validate(function);
  check(tokens >= 0, function, "tokens", tokens, "at least 0");
  const auto prompt = static_cast<double>(tokens - std::min(options.sinks, tokens));
  const auto window = static_cast<double>(options.window);
  if (options.ratio >= 1 || prompt <= window) return 1;
  return std::clamp((options.ratio * prompt - window) / (prompt - window), 0.0, 1.0);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
