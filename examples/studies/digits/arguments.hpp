// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the digits study.

#include "common/digits_data.hpp"
#include "common/options.hpp"
#include "digits/gradients.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace digits {

inline constexpr const char* usage_text =
    R"(usage: digits [options]

Trains small networks on handwritten digits, replaces the weights of their hidden layers by two
factors of low rank, and says what that costs: plain SVD beside methods that know how much each
weight matters, from gradients (Fisher information) or from activations (covariance).

  --seeds N              networks to train, each on a split of its own, 2 or more   (20)
  --ranks LIST           ranks of the factors                                       (4,8,16,32)
  --hidden LIST          widths of the hidden layers                                (256,128)
  --weight-decay LIST    a table each; decayed weights are nearer to low rank       (0,1)
  --fisher LIST          labels the gradients are taken for: true (every class, as likely as the
                         network holds it), sampled (one class drawn so), empirical (those of
                         the data, as in the paper)                                 (true,empirical)
  --fisher-floor X       share of its mean that is added to each element of the information before
                         errors are weighed one by one; with 0, weights that hardly any image
                         uses may grow without end                                  (0.001)
  --epochs N                                                                        (60)
  --images FILE          other digits, in the form of UCI's optdigits.tra and .tes
  --csv FILE             writes the score of every network, method and rank
  --threads N            networks at a time; changes no number                      (all)
  --help
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::size_t seeds = 20;
  int epochs = 60;
  std::vector<Index> ranks = {4, 8, 16, 32};
  std::vector<Index> hidden = {256, 128};
  std::vector<double> weight_decay = {0, 1};
  FisherOptions fisher;
  std::string images;  ///< empty: those beside the example
  std::string csv;     ///< empty: none
  int threads = command_line::all_threads();
  bool help = false;
};

namespace detail {

using command_line::file_name;
using command_line::list;
using command_line::number;

inline Fisher fisher(std::string_view option, std::string_view value) {
  for (const Fisher known : {Fisher::True, Fisher::Sampled, Fisher::Empirical})
    if (value == name(known)) return known;
  command_line::reject(option, value, "true, sampled or empirical");
}

/// A list in which nothing stands twice, since each item names lines of the table.
template <class Read>
auto distinct(std::string_view option, std::string_view value, const Read& read) {
  auto items = list(option, value, read);
  for (auto item = items.begin(); item != items.end(); ++item)
    if (std::find(items.begin(), item, *item) != item)
      throw UsageError(std::string(option) + ": an item of '" + std::string(value) +
                       "' comes twice");
  return items;
}

inline Index width(std::string_view option, std::string_view value) {
  return number<Index>(option, value, 1, 4096, "whole numbers from 1 to 4096");
}

inline constexpr command_line::Option<Arguments> options[] = {
    {"--seeds",
     [](auto& a, auto option, auto value) {
       a.seeds = number<std::size_t>(option, value, 2, 1000, "a whole number from 2 to 1000");
     }},
    {"--epochs",
     [](auto& a, auto option, auto value) {
       a.epochs = number(option, value, 1, 10000, "a whole number from 1 to 10000");
     }},
    {"--ranks", [](auto& a, auto option, auto value) { a.ranks = distinct(option, value, width); }},
    {"--hidden", [](auto& a, auto option, auto value) { a.hidden = list(option, value, width); }},
    {"--fisher",
     [](auto& a, auto option, auto value) { a.fisher.kinds = distinct(option, value, fisher); }},
    {"--fisher-floor",
     [](auto& a, auto option, auto value) {
       a.fisher.floor = number(option, value, 0.0, 1.0, "a number from 0 to 1");
     }},
    {"--weight-decay",
     [](auto& a, auto option, auto value) {
       a.weight_decay = list(option, value, [](auto o, auto v) {
         return number(o, v, 0.0, 100.0, "numbers from 0 to 100");
       });
     }},
    {"--images", [](auto& a, auto option, auto value) { a.images = file_name(option, value); }},
    {"--csv", [](auto& a, auto option, auto value) { a.csv = file_name(option, value); }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
};

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments = command_line::parse(count, words, detail::options);
  if (arguments.help) return arguments;
  const Index rank = *std::ranges::max_element(arguments.ranks);
  const Index width = std::min(pixels, *std::ranges::min_element(arguments.hidden));
  if (rank > width)
    throw UsageError("--ranks: got " + std::to_string(rank) + ", wanted at most " +
                     std::to_string(width) + ", the least width");
  return arguments;
}

}  // namespace digits
