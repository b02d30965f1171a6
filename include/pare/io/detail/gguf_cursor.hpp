// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The numbers and texts of a binary file, each checked against the bytes that are left of it.

#include <pare/core/check.hpp>
#include <pare/io/detail/place.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace pare::io::detail {
PARE_ABI_BEGIN

/// Reads a file from its first byte on and refuses to pass its last. `what` is what is read, for an
/// error message.
class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t at() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(const Place& place, std::uint64_t size, const char* what) {
    if (size > left())
      place.refuse(std::string(what) + " of " + std::to_string(size) + " bytes at byte " +
                       std::to_string(at_),
                   "at most " + std::to_string(left()) + ", what is left of the file");
    const auto taken = bytes_.subspan(at_, static_cast<std::size_t>(size));
    at_ += taken.size();
    return taken;
  }

  template <class T>
  T number(const Place& place, const char* what) {
    T value;
    std::memcpy(&value, take(place, sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string_view text(const Place& place, const char* what) {
    const auto chars = take(place, number<std::uint64_t>(place, what), what);
    return {reinterpret_cast<const char*>(chars.data()), chars.size()};
  }

  /// A number of things that take at least `least` bytes each.
  Index count(const Place& place, std::size_t least, const char* what) {
    const auto n = number<std::uint64_t>(place, what);
    if (n > left() / least)
      place.refuse(std::to_string(n) + " " + what,
                   "at most " + std::to_string(left() / least) + ", what is left of the file");
    return static_cast<Index>(n);
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

PARE_ABI_END
}  // namespace pare::io::detail
