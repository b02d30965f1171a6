// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the recommender study.

#include "common/options.hpp"

#include <cstddef>
#include <string>

namespace recommender {

inline constexpr const char* usage_text =
    R"(usage: recommender FOLDER [options]

Trains matrix factorisations of the ratings in FOLDER (movies.csv and ratings.csv of MovieLens'
ml-latest-small) by DirectAU, BPR and sampled softmax, the first two with rows smoothed over the
graph of training too (LightGCN), beside popularity, and prints how well each
ranks the films that users were not trained on. Options of each method are chosen from a grid of
eight, on a split of its own.

  --stars X      ratings from this on are films that a user likes      (4)
  --core N       users and films with fewer are left out               (5)
  --seeds N      splits that are judged, each with a start of its own  (5)
  --dim N        numbers of a user and of a film                       (64)
  --batch N      pairs of a step                                       (1024)
  --epochs N     at most                                               (120)
  --threads N                                                          (all)
  --help

https://files.grouplens.org/datasets/movielens/ml-latest-small.zip has the files.
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::string folder;
  double stars = 4;
  std::size_t core = 5;
  std::size_t seeds = 5;
  std::size_t dim = 64;
  std::size_t batch = 1024;
  int epochs = 120;
  int threads = command_line::all_threads();
  bool help = false;
};

namespace detail {

template <std::size_t Least, std::size_t Most>
std::size_t count(std::string_view option, std::string_view value) {
  return command_line::number(option, value, Least, Most, "a whole number in its range");
}

inline constexpr command_line::Option<Arguments> options[] = {
    {"--stars",
     [](auto& a, auto option, auto value) {
       a.stars = command_line::number(option, value, 0.5, 5.0, "a number from 0.5 to 5");
     }},
    {"--core", [](auto& a, auto option, auto value) { a.core = count<3, 1000>(option, value); }},
    {"--seeds", [](auto& a, auto option, auto value) { a.seeds = count<1, 1000>(option, value); }},
    {"--dim", [](auto& a, auto option, auto value) { a.dim = count<1, 4096>(option, value); }},
    {"--batch", [](auto& a, auto option, auto value) { a.batch = count<4, 65536>(option, value); }},
    {"--epochs", [](auto& a, auto option,
                    auto value) { a.epochs = static_cast<int>(count<1, 100'000>(option, value)); }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
};

}  // namespace detail

/// Reads the folder, and `--option value` or `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments =
      command_line::parse(count, words, detail::options, [](Arguments& a, std::string_view word) {
        if (!a.folder.empty()) throw UsageError("more than one folder");
        a.folder = word;
      });
  if (!arguments.help && arguments.folder.empty())
    throw UsageError("the folder of movies.csv and ratings.csv is missing");
  return arguments;
}

}  // namespace recommender
