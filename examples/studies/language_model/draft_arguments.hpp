// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study about speculative decoding.

#include "common/options.hpp"

#include <pare/core/tensor_view.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// A name and a number, such as early:10.
struct DraftName {
  std::string name;
  pare::Index number = 0;

  std::string text() const { return number > 0 ? name + ":" + std::to_string(number) : name; }
  bool operator==(const DraftName&) const = default;
};

struct DraftArguments {
  std::vector<DraftName> drafters;                         ///< prompt, early:BLOCKS, linear:HEADS
  std::vector<DraftName> heads = {{"dense"}};              ///< dense, rank:R, tokens:N
  std::vector<std::optional<pare::Index>> budgets = {16};  ///< none: chosen round by round
  pare::Index branch = 4, prompts = 8;
  bool chain = false, check = false;
};

/// Nodes of a round, at most.
inline constexpr pare::Index most_budget = 64;

namespace detail {

inline pare::Index draft_count(std::string_view option, std::string_view value) {
  return command_line::number<pare::Index>(option, value, 1, 1 << 20,
                                           "a whole number from 1 to 2^20");
}

inline DraftName draft_name(std::string_view option, std::string_view value) {
  if (value == "prompt" || value == "dense") return {std::string(value)};
  const auto colon = value.find(':');
  if (colon == value.npos) command_line::reject(option, value, "NAME:NUMBER, prompt or dense");
  return {std::string(value.substr(0, colon)), draft_count(option, value.substr(colon + 1))};
}

inline DraftName drafter_name(std::string_view option, std::string_view value) {
  DraftName name = draft_name(option, value);
  const bool is_known =
      name.number > 0 ? name.name == "early" || name.name == "linear" : name.name == "prompt";
  if (!is_known) command_line::reject(option, value, "prompt, early:BLOCKS or linear:HEADS");
  return name;
}

inline DraftName draft_head_name(std::string_view option, std::string_view value) {
  DraftName name = draft_name(option, value);
  const bool is_known =
      name.number > 0 ? name.name == "rank" || name.name == "tokens" : name.name == "dense";
  if (!is_known) command_line::reject(option, value, "dense, rank:R or tokens:N");
  return name;
}

inline std::optional<pare::Index> draft_budget(std::string_view option, std::string_view value) {
  if (value == "auto") return {};
  return command_line::number<pare::Index>(option, value, 2, most_budget,
                                           "whole numbers from 2 to 64, or auto");
}

inline pare::Index draft_branch(std::string_view option, std::string_view value) {
  return command_line::number<pare::Index>(option, value, 1, 64, "a whole number from 1 to 64");
}

/// Refuses options that do not belong together; `sample` is the file of --sample.
inline void check_draft(const DraftArguments& draft, const std::string& sample, bool one) {
  using command_line::UsageError;
  if (one && (draft.drafters.size() > 1 || draft.heads.size() > 1 || draft.budgets.size() > 1))
    throw UsageError("got several of --draft, --head or --budget, wanted one of each");
  bool needs_sample = false;
  for (const DraftName& drafter : draft.drafters) {
    needs_sample = needs_sample || drafter.name == "linear";
    for (const DraftName& head : draft.heads)
      needs_sample = needs_sample || (drafter.name == "early" && head.name != "dense");
  }
  if (needs_sample && sample.empty())
    throw UsageError("--draft linear, and --head rank and tokens, need --sample");
  if (!needs_sample && !sample.empty())
    throw UsageError("--sample: wanted --draft linear, or --head rank or tokens, with it");
}

}  // namespace detail

}  // namespace language_model
