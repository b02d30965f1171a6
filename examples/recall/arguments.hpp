// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The command line of the attention example.

#include "recall/text.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace recall {

inline constexpr const char* usage_text =
    R"(usage: attention [--tokens LIST] [options]
       attention --q FILE --k FILE --v FILE [options]

Sets sparse attention beside exact attention: what share of the work each method does, what it
loses, and how much time it saves. Without a model of your own, on a text in which every gloss
comes twice and on hand-built heads over it, some of which foretell the second half.

  --tokens LIST        lengths of the text, even, up to 65536   (4096,16384,65536)
  --q, --k, --v FILE   .npy of your model's heads, 16- or 32-bit floats, after any rotary
                       embedding: [heads, tokens, dim] or [batch, heads, tokens, dim];
                       k and v may have fewer heads
  --methods LIST       some of mean-pool, antidiagonal, pbs, s2o, proxy, own   (all)
  --plot FILE          sweeps the thresholds and draws error against density, as SVG; on the
                       longest text up to 16384 tokens, or the shortest
  --seed N             of the text and the heads                (42)
  --threads N                                                   (all)
  --help

A text of 65536 tokens takes minutes and 2 GB of memory; --tokens 4096 takes seconds.
)";

/// A command line that makes no sense.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the user asked for.
struct Arguments {
  std::vector<Index> tokens = {4096, 16384, 65536};
  std::string q, k, v;               ///< empty: the recall text
  std::vector<std::string> methods;  ///< empty: all
  std::string plot;                  ///< empty: none
  std::uint64_t seed = 42;
  int threads = std::thread::hardware_concurrency() > 0
                    ? static_cast<int>(std::thread::hardware_concurrency())
                    : 1;
  bool help = false;

  bool own_model() const { return !q.empty(); }
};

namespace detail {

[[noreturn]] inline void reject(std::string_view option, std::string_view value,
                                const char* wanted) {
  throw UsageError(std::string(option) + ": got '" + std::string(value) + "', wanted " + wanted);
}

inline const std::string& file_name(std::string_view option, const std::string& value) {
  if (value.empty()) reject(option, value, "the name of a file");
  return value;
}

template <class Integer>
Integer integer(std::string_view option, std::string_view value, Integer lowest, Integer highest,
                const char* wanted) {
  Integer parsed{};
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, parsed);
  if (error != std::errc() || stop != end || parsed < lowest || parsed > highest)
    reject(option, value, wanted);
  return parsed;
}

inline std::vector<std::string> split_at_commas(std::string_view list) {
  std::vector<std::string> items;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    items.emplace_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return items;
}

inline std::vector<Index> token_counts(std::string_view option, std::string_view list) {
  std::vector<Index> counts;
  for (const std::string& item : split_at_commas(list)) {
    constexpr const char* wanted = "even numbers from 4 to 65536";
    counts.push_back(integer<Index>(option, item, 4, 65536, wanted));
    if (counts.back() % 2 != 0) reject(option, item, wanted);
  }
  return counts;
}

using Setter = void (*)(Arguments&, std::string_view option, const std::string& value);

struct Option {
  std::string_view name;
  Setter set;
};

inline constexpr Option options[] = {
    {"--tokens", [](auto& a, auto option, auto& value) { a.tokens = token_counts(option, value); }},
    {"--q", [](auto& a, auto option, auto& value) { a.q = file_name(option, value); }},
    {"--k", [](auto& a, auto option, auto& value) { a.k = file_name(option, value); }},
    {"--v", [](auto& a, auto option, auto& value) { a.v = file_name(option, value); }},
    {"--plot", [](auto& a, auto option, auto& value) { a.plot = file_name(option, value); }},
    {"--methods", [](auto& a, auto, auto& value) { a.methods = split_at_commas(value); }},
    {"--threads",
     [](auto& a, auto option, auto& value) {
       a.threads = integer(option, value, 1, 1024, "a whole number from 1 to 1024");
     }},
    {"--seed",
     [](auto& a, auto option, auto& value) {
       a.seed = integer<std::uint64_t>(option, value, 0, ~std::uint64_t{0},
                                       "a whole number from 0 to 2^64 - 1");
     }},
};

inline Setter find_setter(std::string_view name) {
  for (const Option& option : options)
    if (option.name == name) return option.set;
  throw UsageError("unknown option '" + std::string(name) + "'");
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
    const std::size_t equals = word.find('=');
    const std::string_view option = word.substr(0, equals);
    const detail::Setter set = detail::find_setter(option);
    if (equals != std::string_view::npos)
      set(arguments, option, std::string(word.substr(equals + 1)));
    else if (++i < count)
      set(arguments, option, words[i]);
    else
      throw UsageError(std::string(option) + ": the value is missing");
  }
  if (arguments.q.empty() != arguments.k.empty() || arguments.q.empty() != arguments.v.empty())
    throw UsageError("--q, --k and --v go together");
  return arguments;
}

}  // namespace recall
