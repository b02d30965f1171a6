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
};

namespace detail {

inline HeadMask head_mask(std::string_view option, std::string_view value) {
  for (const HeadMode mode : {HeadMode::Uniform, HeadMode::Zero}) {
    const std::string prefix = HeadMask{mode, {}}.name();
    if (value.starts_with(prefix) && value.size() > prefix.size())
      return {mode, std::string(value.substr(prefix.size()))};
  }
  command_line::reject(option, value, "uniform:FILE or zero:FILE, by commas");
}

inline double head_share(std::string_view option, std::string_view value) {
  return command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                              "a share above 0, at most 1");
}

}  // namespace detail

}  // namespace language_model
