// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study about feed-forward layers cut into experts.

#include "common/options.hpp"

#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// Who chooses the experts of a token.
enum class Router : std::uint8_t { Oracle, Ridge, Random };

inline constexpr std::string_view router_names[] = {"oracle", "ridge", "random"};

/// So many groups of neurons, and how many of them a token uses.
struct ExpertShare {
  pare::Index groups = 4, used = 2;
};

struct ExpertArguments {
  std::vector<ExpertShare> shares;
  std::optional<std::vector<Router>> routers;
  std::optional<bool> by_activity;  ///< groups of neurons that are active together, not by index
  bool scaled = false;              ///< FactorLLM's factor, groups / used, on what experts make

  std::vector<Router> chosen_routers() const {
    return routers.value_or(std::vector{Router::Oracle, Router::Ridge, Router::Random});
  }
};

namespace detail {

inline ExpertShare expert_share(std::string_view option, std::string_view value) {
  constexpr const char* wanted = "GROUPS:USED, such as 4:2, by commas";
  const std::size_t colon = value.find(':');
  if (colon == std::string_view::npos) command_line::reject(option, value, wanted);
  const auto count = [&](std::string_view text) {
    return command_line::number<pare::Index>(option, text, 1, 1 << 20, wanted);
  };
  const ExpertShare share{count(value.substr(0, colon)), count(value.substr(colon + 1))};
  if (share.used > share.groups) command_line::reject(option, value, wanted);
  return share;
}

inline Router router(std::string_view option, std::string_view value) {
  const auto* const found = std::ranges::find(router_names, value);
  if (found == std::end(router_names))
    command_line::reject(option, value, "names of oracle, ridge and random, by commas");
  return static_cast<Router>(found - std::begin(router_names));
}

inline bool by_activity(std::string_view option, std::string_view value) {
  if (value != "index" && value != "activity")
    command_line::reject(option, value, "index or activity");
  return value == "activity";
}

/// Refuses options that do not belong together; `sample` is the file of --sample, and `beside` says
/// whether another method is asked for.
inline void check_experts(const ExpertArguments& experts, const std::string& sample, bool beside) {
  using command_line::UsageError;
  if (experts.shares.empty()) {
    if (experts.routers || experts.by_activity || experts.scaled)
      throw UsageError("got --router, --groups or --scaled without --experts");
    return;
  }
  if (beside) throw UsageError("got --experts beside another method");
  if (sample.empty()) throw UsageError("--experts needs --sample");
}

}  // namespace detail

}  // namespace language_model
