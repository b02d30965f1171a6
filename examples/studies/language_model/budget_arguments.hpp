// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study about caches whose heads keep part of their tokens.

#include "common/options.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// By which scores tokens are kept.
enum class Evict : std::uint8_t { SnapKv, KeyDiff };

struct BudgetArguments {
  std::vector<double> ratios;  ///< of a prompt's tokens that stay; empty: all do
  std::optional<Evict> evict;

  Evict scores() const { return evict.value_or(Evict::SnapKv); }
};

namespace detail {

inline constexpr std::string_view budget_prefix = "head-budget:";

inline double budget_ratio(std::string_view option, std::string_view value) {
  return command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                              "shares above 0, at most 1, by commas");
}

inline Evict evict_name(std::string_view option, std::string_view value) {
  if (value == "snapkv") return Evict::SnapKv;
  if (value == "keydiff") return Evict::KeyDiff;
  command_line::reject(option, value, "snapkv or keydiff");
}

/// Refuses options that do not belong together; `sample` is the file of --sample.
inline void check_budget(const BudgetArguments& budget, const std::string& sample) {
  if (!budget.ratios.empty() && sample.empty())
    throw command_line::UsageError("--kv head-budget needs --sample");
  if (budget.ratios.empty() && budget.evict)
    throw command_line::UsageError("got --evict without --kv head-budget");
}

}  // namespace detail

}  // namespace language_model
