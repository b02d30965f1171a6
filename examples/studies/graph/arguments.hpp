// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the graph study.

#include "common/options.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graph {

inline constexpr const char* usage_text =
    R"(usage: graph [--edges FILE [--labels FILE]] [options]

Embeds the nodes of an undirected graph with FastRP. With labels, tells how well a ridge
classifier trained on a few of the vectors finds the labels of the others. Without --edges the
graph is that of WordNet's nouns.

  --edges FILE      lines `node node [weight]`; columns split by spaces, tabs or a comma; nodes
                    are any words; lines that begin with # or % are comments
  --labels FILE     lines `node label`
  --dim N           length of a vector                       (512)
  --weights LIST    weight of each step, 0x8 being eight 0s  (0,0,1,6.67; WordNet 0x8,1x24)
  --beta B          exponent of the degree                   (-0.5; WordNet 1)
  --train FRACTION  part of the labelled nodes to train on   (0.1)
  --seed N          of the projection and of the split       (42)
  --threads N                                                (all)
  --output FILE     writes the vectors as .npy, and the node of each row to FILE.nodes
  --help

Sparse, tree-like graphs want more steps and a larger beta than the defaults: try WordNet's.
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::string edges;   ///< empty: WordNet's nouns
  std::string labels;  ///< empty: none
  std::string output;  ///< empty: none
  std::vector<double> weights;
  std::optional<double> beta;
  std::ptrdiff_t dim = 512;
  double train = 0.1;
  std::uint64_t seed = 42;
  int threads = command_line::all_threads();
  bool help = false;
};

namespace detail {

using command_line::file_name;

inline double number(std::string_view option, std::string_view value) {
  constexpr double largest = std::numeric_limits<double>::max();
  return command_line::number(option, value, -largest, largest, "a finite number");
}

/// `0x8,1x24` or `0,0,1,6.67`: numbers, each with an optional repeat count.
inline std::vector<double> weights(std::string_view option, std::string_view value) {
  const auto runs = command_line::list(option, value, [](auto name, auto item) {
    const std::size_t times = item.find('x');
    const int count = times == std::string_view::npos
                          ? 1
                          : command_line::number(name, item.substr(times + 1), 1, 10'000,
                                                 "a repeat count from 1 to 10000");
    return std::vector<double>(static_cast<std::size_t>(count),
                               number(name, item.substr(0, times)));
  });
  std::vector<double> result;
  for (const auto& run : runs) result.insert(result.end(), run.begin(), run.end());
  return result;
}

inline constexpr command_line::Option<Arguments> options[] = {
    {"--edges", [](auto& a, auto option, auto value) { a.edges = file_name(option, value); }},
    {"--labels", [](auto& a, auto option, auto value) { a.labels = file_name(option, value); }},
    {"--output", [](auto& a, auto option, auto value) { a.output = file_name(option, value); }},
    {"--weights", [](auto& a, auto option, auto value) { a.weights = weights(option, value); }},
    {"--beta", [](auto& a, auto option, auto value) { a.beta = number(option, value); }},
    {"--train", [](auto& a, auto option, auto value) { a.train = number(option, value); }},
    {"--dim",
     [](auto& a, auto option, auto value) {
       a.dim = command_line::number<std::ptrdiff_t>(option, value, 1, 1 << 20,
                                                    "a whole number from 1 to 2^20");
     }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
    {"--seed",
     [](auto& a, auto option, auto value) { a.seed = command_line::seed(option, value); }},
};

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments = command_line::parse(count, words, detail::options);
  if (arguments.help) return arguments;
  if (arguments.edges.empty() && !arguments.labels.empty())
    throw UsageError("--labels needs --edges");
  if (!(arguments.train > 0 && arguments.train < 1))
    throw UsageError("--train: wanted a fraction between 0 and 1");
  return arguments;
}

}  // namespace graph
