// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the table study.

#include "common/options.hpp"
#include "table/rankings.hpp"

#include <cstddef>
#include <string>

namespace table {

inline constexpr const char* usage_text =
    R"(usage: table [options]
       table --scale

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
  --alpha X         twice the loss that a field of average divergence must save
                    (0.001, or 3 / held-out rows where that is more)
  --tolerance X     AUC that dropped fields may cost                                   (0.005)
  --threads N       splits at a time; with --scale, of a step                          (all)
  --scale           time and memory of a step with 12,000 fields and 4,096 rows instead
  --help
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::string csv;  ///< empty: the digits beside the example
  int buckets = 1024;
  std::size_t splits = 8;
  double tolerance = 0.005;
  RankOptions rank;
  int threads = command_line::all_threads();
  bool scale = false, help = false;
};

namespace detail {

using command_line::number;

inline constexpr command_line::Option<Arguments> options[] = {
    {"--csv",
     [](auto& a, auto option, auto value) { a.csv = command_line::file_name(option, value); }},
    {"--buckets",
     [](auto& a, auto option, auto value) {
       a.buckets = number(option, value, 1, 1 << 24, "a whole number from 1 to 2^24");
     }},
    {"--embedding",
     [](auto& a, auto option, auto value) {
       a.rank.model.embedding =
           number<Index>(option, value, 1, 1024, "a whole number from 1 to 1024");
     }},
    {"--splits",
     [](auto& a, auto option, auto value) {
       a.splits = number<std::size_t>(option, value, 2, 1000, "a whole number from 2 to 1000");
     }},
    {"--epochs",
     [](auto& a, auto option, auto value) {
       a.rank.training.epochs =
           number<Index>(option, value, 1, 100'000, "a whole number from 1 to 100000");
     }},
    {"--batch",
     [](auto& a, auto option, auto value) {
       a.rank.training.batch =
           number<Index>(option, value, 2, 1 << 20, "a whole number from 2 to 2^20");
     }},
    {"--hidden",
     [](auto& a, auto option, auto value) {
       a.rank.model.hidden.front() =
           number<Index>(option, value, 1, 65536, "a whole number from 1 to 65536");
     }},
    {"--rate",
     [](auto& a, auto option, auto value) {
       a.rank.model.learning_rate = number(option, value, 1e-9, 10.0, "a number from 1e-9 to 10");
     }},
    {"--alpha",
     [](auto& a, auto option, auto value) {
       a.rank.alpha = number(option, value, 0.0, 1e6, "a number from 0 to 1e6");
     }},
    {"--tolerance",
     [](auto& a, auto option, auto value) {
       a.tolerance = number(option, value, 0.0, 1.0, "a number from 0 to 1");
     }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
    {"--scale", [](auto& a, auto, auto) { a.scale = true; }, true},
};

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  return command_line::parse(count, words, detail::options);
}

}  // namespace table
