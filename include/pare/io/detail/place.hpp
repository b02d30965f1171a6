// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What an error about a file has to name, and the first check of a path that is to be read.

#include <pare/core/check.hpp>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace pare::io::detail {
PARE_ABI_BEGIN

/// The function that was called and the file or argument it works on.
struct Place {
  const char* function;
  std::string source;

  [[noreturn]] void refuse(const std::string& got, const std::string& wanted) const {
    pare::detail::refuse(function, source.c_str(), got, wanted);
  }

  /// A part of the same file.
  Place within(const std::string& part) const { return {function, source + ": " + part}; }
};

/// Text from a file, short and printable enough for an error message.
inline std::string excerpt(std::string_view text, std::size_t longest = 40) {
  std::string shown(text.substr(0, longest));
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return text.size() > longest ? shown + "..." : shown;
}

/// The name of a tensor of a file, for an error message.
inline std::string tensor_text(std::string_view name) {
  return "tensor '" + excerpt(name, 120) + "'";
}

/// Refuses what is not there, and what is no file: opening a pipe would block, and its size is
/// unknown.
inline void check_regular_file(const Place& place, const std::filesystem::path& path,
                               const char* wanted) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) place.refuse("no such file", wanted);
  if (!std::filesystem::is_regular_file(status))
    place.refuse("something that is not a regular file", wanted);
}

PARE_ABI_END
}  // namespace pare::io::detail
