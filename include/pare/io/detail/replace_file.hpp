// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A file that appears whole or not at all.

#include <pare/core/check.hpp>
#include <pare/io/detail/place.hpp>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <system_error>

namespace pare::io::detail {
PARE_ABI_BEGIN

/// A name beside the target that nothing else uses; the file is gone when this object is. The
/// target's own name is no part of it: that may be as long as the system allows.
struct TemporarySibling {
  std::filesystem::path path;

  explicit TemporarySibling(const std::filesystem::path& target) {
    std::random_device random;
    path = target.parent_path() /
           ("pare-" + std::to_string(random()) + std::to_string(random()) + ".part");
  }
  TemporarySibling(const TemporarySibling&) = delete;
  TemporarySibling& operator=(const TemporarySibling&) = delete;
  ~TemporarySibling() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
};

/// Calls `write(std::ostream&)` on a temporary file beside `path`, which then takes its name. It
/// has the mode of the file that it replaces before the first byte is in it.
template <class Write>
void replace_file(const char* function, const std::filesystem::path& path, const Write& write) {
  const Place place{function, path.string()};
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  const bool replaces = std::filesystem::exists(status);
  if (replaces && !std::filesystem::is_regular_file(status))
    place.refuse("something that is not a regular file", "a path to write to");
  std::string failure;
  {
    const TemporarySibling temporary(path);
    std::ofstream file(temporary.path, std::ios::binary | std::ios::trunc);
    if (!file) failure = "a folder in which no file can be created";
    if (failure.empty() && replaces)
      std::filesystem::permissions(temporary.path,
                                   status.permissions() & std::filesystem::perms::all, error);
    if (failure.empty() && replaces && error)
      failure = "a file whose mode cannot be kept: " + error.message();
    if (failure.empty()) {
      write(file);
      file.close();
      if (!file) failure = "a write that failed";
    }
    if (failure.empty()) std::filesystem::rename(temporary.path, path, error);
    if (failure.empty() && error) failure = "a rename that failed: " + error.message();
  }
  if (!failure.empty()) place.refuse(failure, "a path to write to, with room for the data");
}

PARE_ABI_END
}  // namespace pare::io::detail
