// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of the language_model study's command edit.

#include "common/options.hpp"

#include <pare/core/tensor_view.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace language_model {

/// Which fact is changed to which.
struct EditArguments {
  std::string subject = "The Eiffel Tower";
  std::string donor = "The Colosseum";  ///< whose answer the subject is to get
  std::string relation = " is located in the city of";
  std::vector<std::string> others = {" can be found in the city of",
                                     " is a famous landmark in the city of"};
  std::vector<std::string> neighbours = {"The Louvre", "Big Ben", "The Brandenburg Gate",
                                         "The Statue of Liberty", "The Kremlin"};
  std::vector<pare::Index> layers = {6, 9, 12, 15, 18};  ///< blocks, one edited at a time
  std::vector<double> strengths = {1};                   ///< times the way to the donor's state
};

namespace detail {

inline double edit_strength(std::string_view option, std::string_view value) {
  return command_line::number(option, value, 0.0, 1000.0, "numbers from 0 to 1000, by commas");
}

inline std::string edit_words(std::string_view option, std::string_view value) {
  if (value.empty()) command_line::reject(option, value, "some words");
  return std::string(value);
}

}  // namespace detail

}  // namespace language_model
