// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the recall study.

#include "common/options.hpp"
#include "recall_text/text.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace recall {

inline constexpr const char* usage_text =
    R"(usage: recall [--tokens LIST] [options]
       attention --q FILE --k FILE --v FILE [options]

Sets sparse attention beside exact attention: what share of the work each method does, what it
loses, and how much time it saves. Without a model of your own, on a text in which every gloss
comes twice and on hand-built heads over it, some of which foretell the second half.

  --tokens LIST        lengths of the text, even, up to 65536   (4096,16384,65536)
  --q, --k, --v FILE   .npy of your model's heads, 16- or 32-bit floats, after any rotary
                       embedding: [heads, tokens, dim] or [batch, heads, tokens, dim];
                       k and v may have fewer heads
  --methods LIST       some of mean-pool, antidiagonal, pbs, s2o, proxy, own   (all);
                       lists of keys, if named: spt, top-k
  --plot FILE          sweeps the thresholds and draws error against density, as SVG; on the
                       longest text up to 16384 tokens, or the shortest
  --seed N             of the text and the heads                (42)
  --threads N                                                   (all)
  --help

A text of 65536 tokens takes minutes and 2 GB of memory; --tokens 4096 takes seconds.
)";

using command_line::UsageError;

/// What the user asked for.
struct Arguments {
  std::vector<Index> tokens = {4096, 16384, 65536};
  std::string q, k, v;               ///< empty: the recall text
  std::vector<std::string> methods;  ///< empty: all
  std::string plot;                  ///< empty: none
  std::uint64_t seed = 42;
  int threads = command_line::all_threads();
  bool help = false;

  bool own_model() const { return !q.empty(); }
};

namespace detail {

using command_line::file_name;

inline Index token_count(std::string_view option, std::string_view value) {
  constexpr const char* wanted = "even numbers from 4 to 65536";
  const auto count = command_line::number<Index>(option, value, 4, 65536, wanted);
  if (count % 2 != 0) command_line::reject(option, value, wanted);
  return count;
}

inline std::string word(std::string_view, std::string_view value) { return std::string(value); }

inline constexpr command_line::Option<Arguments> options[] = {
    {"--tokens", [](auto& a, auto option,
                    auto value) { a.tokens = command_line::list(option, value, token_count); }},
    {"--q", [](auto& a, auto option, auto value) { a.q = file_name(option, value); }},
    {"--k", [](auto& a, auto option, auto value) { a.k = file_name(option, value); }},
    {"--v", [](auto& a, auto option, auto value) { a.v = file_name(option, value); }},
    {"--plot", [](auto& a, auto option, auto value) { a.plot = file_name(option, value); }},
    {"--methods",
     [](auto& a, auto option, auto value) { a.methods = command_line::list(option, value, word); }},
    {"--threads",
     [](auto& a, auto option, auto value) { a.threads = command_line::threads(option, value); }},
    {"--seed",
     [](auto& a, auto option, auto value) { a.seed = command_line::seed(option, value); }},
};

}  // namespace detail

/// Reads `--option value` and `--option=value`. Throws UsageError.
inline Arguments parse_arguments(int count, const char* const* words) {
  Arguments arguments = command_line::parse(count, words, detail::options);
  if (arguments.q.empty() != arguments.k.empty() || arguments.q.empty() != arguments.v.empty())
    if (!arguments.help) throw UsageError("--q, --k and --v go together");
  return arguments;
}

}  // namespace recall
