// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study about heads of attention.

#include "common/options.hpp"

#include <pare/core/tensor_view.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

enum class HeadMode : std::uint8_t {
  Exact,
  Uniform,  ///< attends to all keys up to its position alike
  Zero,     ///< its output is 0
};

/// Heads of a file, and what is made of them.
struct HeadMask {
  HeadMode mode = HeadMode::Exact;
  std::string file;

  std::string name() const { return (mode == HeadMode::Uniform ? "uniform:" : "zero:") + file; }
};

struct HeadArguments {
  std::vector<HeadMask> masks;
  double share = 0.05;  ///< of the heads that are written
  pare::Index prompts = 8;
  std::optional<std::uint64_t> random;  ///< others are written, drawn with this seed

  bool hunt = false;                       ///< --heads hunt
  std::string pool;                        ///< a file with the heads that are hunted among
  std::optional<pare::Index> rounds;       ///< of the hunt
  std::optional<pare::Index> hunt_tokens;  ///< on which it goes

  std::string score_documents;  ///< a file with the heads that are masked; empty: no scores

  pare::Index hunt_rounds() const { return rounds.value_or(4); }
  pare::Index most_hunt_tokens() const { return hunt_tokens.value_or(256); }
  bool any() const { return hunt || !masks.empty() || !score_documents.empty(); }
};

namespace detail {

inline HeadMask head_mask(std::string_view option, std::string_view value) {
  for (const HeadMode mode : {HeadMode::Uniform, HeadMode::Zero}) {
    const std::string prefix = HeadMask{mode, {}}.name();
    if (value.starts_with(prefix) && value.size() > prefix.size())
      return {mode, std::string(value.substr(prefix.size()))};
  }
  command_line::reject(option, value, "uniform:FILE or zero:FILE, by commas, or hunt");
}

/// hunt, or masks.
inline void set_heads(HeadArguments& heads, std::string_view option, std::string_view value) {
  heads.hunt = value == "hunt";
  if (!heads.hunt) heads.masks = command_line::list(option, value, head_mask);
}

inline void check_heads(const HeadArguments& heads, bool has_sample) {
  using command_line::UsageError;
  if (heads.hunt != !heads.pool.empty()) throw UsageError("--heads hunt and --pool go together");
  if (!heads.hunt && (heads.rounds || heads.hunt_tokens))
    throw UsageError("got --rounds or --hunt-tokens without --heads hunt");
  if (heads.hunt && !has_sample) throw UsageError("--heads hunt needs --sample");
  if (!heads.score_documents.empty() && (heads.hunt || !heads.masks.empty()))
    throw UsageError("got both --heads and --score-documents");
}

inline double head_share(std::string_view option, std::string_view value) {
  return command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                              "a share above 0, at most 1");
}

}  // namespace detail

}  // namespace language_model
