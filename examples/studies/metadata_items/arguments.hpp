// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the study of metadata items.

#include "common/options.hpp"

#include <cstddef>
#include <cstdint>
#include <string>

namespace metadata_items {

inline constexpr const char* usage_text =
    R"(usage: metadata_items --data FOLDER [options]

Recommends the next film of a session, by what films are known by (M2TRec) or by an embedding of
each film's id, and tells how many are found: of all films, and of those that came after training.

  --data FOLDER     movies.csv and ratings.csv of MovieLens (ml-latest-small)
  --train FRACTION  of the ratings, the first ones in time            (0.8)
  --session N       the last films that a session has                 (20)
  --width N         of a film's row and of a session's vector         (64)
  --epochs N                                                          (10)
  --rate R          learning rate of Adam                             (0.003)
  --seeds N         runs, of other first weights and orders           (3)
  --threads N                                                         (all)
  --help
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::string data;
  double train = .8;
  std::ptrdiff_t session = 20;
  std::ptrdiff_t width = 64;
  int epochs = 10;
  double rate = 3e-3;
  int seeds = 3;
  int threads = command_line::all_threads();
  bool help = false;
};

namespace detail {

inline constexpr command_line::Option<Arguments> options[] = {
    {"--data",
     [](auto& a, auto option, auto value) { a.data = command_line::file_name(option, value); }},
    {"--train",
     [](auto& a, auto option, auto value) {
       a.train = command_line::number(option, value, .1, .99, "a fraction from 0.1 to 0.99");
     }},
    {"--session",
     [](auto& a, auto option, auto value) {
       a.session = command_line::number<std::ptrdiff_t>(option, value, 1, 1000, "1 to 1000 films");
     }},
    {"--width",
     [](auto& a, auto option, auto value) {
       a.width = command_line::number<std::ptrdiff_t>(option, value, 8, 1024, "8 to 1024");
     }},
    {"--epochs",
     [](auto& a, auto option, auto value) {
       a.epochs = command_line::number(option, value, 0, 1000, "0 to 1000");
     }},
    {"--rate",
     [](auto& a, auto option, auto value) {
       a.rate = command_line::number(option, value, 1e-6, 1., "a rate from 1e-6 to 1");
     }},
    {"--seeds",
     [](auto& a, auto option, auto value) {
       a.seeds = command_line::number(option, value, 1, 100, "1 to 100");
     }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
};

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments = command_line::parse(count, words, detail::options);
  if (!arguments.help && arguments.data.empty())
    throw UsageError("--data: the folder of MovieLens is wanted");
  return arguments;
}

}  // namespace metadata_items
