// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the leap example.

#include "table/rankings.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

namespace table {

inline constexpr const char* usage_text =
    R"(usage: leap [options]
       leap --scale

Ranks the fields of a table by LeAP, by permutation importance and at random, drops the worst 10 to
90 % of each ranking, and says what that costs. Without a table of your own: handwritten digits,
widened by copies of pixels, noise, and fields that are at their default in 99 % of the rows.

  --csv FILE        a table; its header says what columns are:
                    name:number, name:category, name:label (0 or 1); columns of one name are a field
  --buckets N       that categories are hashed to                                      (1024)
  --embedding N     columns of a category                                              (8)
  --splits N        of the rows, with a model each, 2 or more                          (8)
  --epochs N                                                                           (60)
  --batch N         rows                                                               (128)
  --hidden N        width of the hidden layer                                          (32)
  --rate X          learning rate of the model                                         (0.001)
  --alpha X         twice the loss that a field of average divergence must save        (0.001)
  --tolerance X     AUC that dropped fields may cost                                   (0.005)
  --threads N       splits at a time; with --scale, of a step                          (all)
  --scale           time and memory of a step with 12,000 fields and 4,096 rows instead
  --help
)";

/// A command line that makes no sense.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the user asked for.
struct Arguments {
  std::string csv;  ///< empty: the digits beside the example
  int buckets = 1024;
  std::size_t splits = 8;
  double tolerance = 0.005;
  RankOptions rank;
  int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  bool scale = false, help = false;
};

namespace detail {

template <class Number>
void set(Number& target, std::string_view option, std::string_view value, Number lowest,
         Number highest) {
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, target);
  if (error == std::errc() && stop == end && target >= lowest && target <= highest) return;
  std::string wanted = std::to_string(lowest) + " to " + std::to_string(highest);
  throw UsageError(std::string(option) + ": got '" + std::string(value) +
                   "', wanted a number from " + wanted);
}

inline void set_option(Arguments& a, std::string_view option, std::string_view value) {
  ModelOptions& model = a.rank.model;
  TrainOptions& training = a.rank.training;
  if (option == "--csv" && !value.empty())
    a.csv = std::string(value);
  else if (option == "--buckets")
    set(a.buckets, option, value, 1, 1 << 24);
  else if (option == "--embedding")
    set<Index>(model.embedding, option, value, 1, 1024);
  else if (option == "--splits")
    set<std::size_t>(a.splits, option, value, 2, 1000);
  else if (option == "--epochs")
    set<Index>(training.epochs, option, value, 1, 100000);
  else if (option == "--batch")
    set<Index>(training.batch, option, value, 2, 1 << 20);
  else if (option == "--hidden")
    set<Index>(model.hidden.front(), option, value, 1, 65536);
  else if (option == "--rate")
    set(model.learning_rate, option, value, 1e-9, 10.0);
  else if (option == "--alpha")
    set(a.rank.alpha, option, value, 0.0, 1e6);
  else if (option == "--tolerance")
    set(a.tolerance, option, value, 0.0, 1.0);
  else if (option == "--threads")
    set(a.threads, option, value, 1, 1024);
  else
    throw UsageError("unknown option '" + std::string(option) + "', or no value for it");
}

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--help" || word == "-h") {
      arguments.help = true;
      return arguments;
    }
    if (word == "--scale") {
      arguments.scale = true;
      continue;
    }
    const std::size_t equals = word.find('=');
    if (equals != std::string_view::npos)
      detail::set_option(arguments, word.substr(0, equals), word.substr(equals + 1));
    else if (i + 1 < count)
      detail::set_option(arguments, word, words[++i]);
    else
      detail::set_option(arguments, word, "");
  }
  return arguments;
}

}  // namespace table
