// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of studies that say in which structured form linear layers are put.

#include "common/options.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace models {

/// How the weights of a 2:4 layer are chosen.
enum class TwoFourWay { Magnitude, Wanda, Nowag, SparseGpt, Armor };

inline constexpr std::string_view two_four_names[] = {"magnitude", "wanda", "nowag", "sparsegpt",
                                                      "armor"};
inline std::string_view name_of(TwoFourWay way) {
  return two_four_names[static_cast<std::size_t>(way)];
}

struct StructuredArguments {
  std::vector<TwoFourWay> two_four;
  std::vector<double> dense_sparse;  ///< shares of the bytes of a dense layer in bf16

  bool any() const { return !two_four.empty() || !dense_sparse.empty(); }
};

inline TwoFourWay two_four_way(std::string_view option, std::string_view value) {
  const auto* const found = std::ranges::find(two_four_names, value);
  if (found == std::end(two_four_names))
    command_line::reject(option, value,
                         "names of magnitude, wanda, nowag, sparsegpt and armor, by commas");
  return static_cast<TwoFourWay>(found - std::begin(two_four_names));
}

inline double dense_sparse_share(std::string_view option, std::string_view value) {
  return command_line::number(option, value, std::numeric_limits<double>::min(), 1.0,
                              "shares above 0, at most 1, by commas");
}

/// Refuses options that do not belong together; `sample` is the file of --sample, and `beside` says
/// whether another method is asked for.
inline void check_structured(const StructuredArguments& structured, const std::string& sample,
                             bool beside) {
  using command_line::UsageError;
  if (!structured.any()) return;
  if (beside) throw UsageError("got --two-four or --dense-sparse beside another method");
  if (sample.empty()) throw UsageError("--two-four and --dense-sparse need --sample");
}

}  // namespace models
