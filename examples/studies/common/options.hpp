// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Reads `--option value` and `--option=value` by a table of options, and what values are made of.

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

namespace command_line {

/// A command line that makes no sense.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void reject(std::string_view option, std::string_view value,
                                const std::string& wanted) {
  throw UsageError(std::string(option) + ": got '" + std::string(value) + "', wanted " + wanted);
}

template <class Number>
Number number(std::string_view option, std::string_view value, Number lowest, Number highest,
              const char* wanted) {
  Number parsed{};
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, parsed);
  if (error != std::errc() || stop != end || !(parsed >= lowest && parsed <= highest))
    reject(option, value, wanted);
  return parsed;
}

inline std::string file_name(std::string_view option, std::string_view value) {
  if (value.empty()) reject(option, value, "the name of a file");
  return std::string(value);
}

inline int threads(std::string_view option, std::string_view value) {
  return number(option, value, 1, 1024, "a whole number from 1 to 1024");
}

inline int all_threads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

inline std::uint64_t seed(std::string_view option, std::string_view value) {
  return number<std::uint64_t>(option, value, 0, ~std::uint64_t{0},
                               "a whole number from 0 to 2^64 - 1");
}

/// The items of a list split at commas, each read by `read(option, item)`.
template <class Read>
auto list(std::string_view option, std::string_view value, const Read& read) {
  std::vector<decltype(read(option, value))> items;
  for (std::size_t begin = 0; begin <= value.size();) {
    const std::size_t end = std::min(value.find(',', begin), value.size());
    items.push_back(read(option, value.substr(begin, end - begin)));
    begin = end + 1;
  }
  return items;
}

/// An option and what it does to the arguments; a switch is given an empty value.
template <class Arguments>
struct Option {
  std::string_view name;
  void (*set)(Arguments&, std::string_view option, std::string_view value);
  bool is_switch = false;
};

namespace detail {

template <class Arguments, std::size_t Count>
const Option<Arguments>& find(const Option<Arguments> (&options)[Count], std::string_view name) {
  for (const Option<Arguments>& option : options)
    if (option.name == name) return option;
  throw UsageError("unknown option '" + std::string(name) + "'");
}

}  // namespace detail

/// The arguments that words[1], ... give. Words that do not begin with a dash go to
/// `take_word(arguments, word)`; after --help or -h, which sets `help`, nothing is read.
/// Throws UsageError.
template <class Arguments, std::size_t Count, class TakeWord>
Arguments parse(int count, const char* const* words, const Option<Arguments> (&options)[Count],
                const TakeWord& take_word) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--help" || word == "-h") {
      arguments.help = true;
      return arguments;
    }
    if (!word.starts_with('-')) {
      take_word(arguments, word);
      continue;
    }
    const std::size_t equals = word.find('=');
    const bool has_value = equals != std::string_view::npos;
    const Option<Arguments>& option = detail::find(options, word.substr(0, equals));
    if (option.is_switch && has_value)
      throw UsageError(std::string(option.name) + ": takes no value");
    if (option.is_switch)
      option.set(arguments, option.name, {});
    else if (has_value)
      option.set(arguments, option.name, word.substr(equals + 1));
    else if (++i < count)
      option.set(arguments, option.name, words[i]);
    else
      throw UsageError(std::string(option.name) + ": the value is missing");
  }
  return arguments;
}

/// The same for a program that takes options only.
template <class Arguments, std::size_t Count>
Arguments parse(int count, const char* const* words, const Option<Arguments> (&options)[Count]) {
  return parse(count, words, options, [](Arguments&, std::string_view word) {
    throw UsageError("unknown option '" + std::string(word) + "'");
  });
}

}  // namespace command_line
