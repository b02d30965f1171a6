// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// GGUF files as bytes, written by the format's description and without the reader's tables; sound
/// ones by `GgufWriter`, others from their parts.

#include <pare/core/check.hpp>
#include <pare/io/detail/gguf_types.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pare::testing {

/// A number's bytes.
template <class T>
std::string gguf_raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

template <class T>
std::string gguf_raw(const std::vector<T>& values) {
  std::string bytes;
  for (const T value : values) bytes += gguf_raw(value);
  return bytes;
}

/// Text behind its length.
inline std::string gguf_string(std::string_view text) {
  return gguf_raw(std::uint64_t{text.size()}) + std::string(text);
}

template <class T>
constexpr std::uint32_t gguf_type_number() {
  if (std::is_convertible_v<T, std::string_view>) return 8;
  if (std::is_same_v<T, bool>) return 7;
  if (std::is_floating_point_v<T>) return sizeof(T) == 4 ? 6 : 12;
  const std::uint32_t is_signed = std::is_signed_v<T> ? 1 : 0;
  return (sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 2 : sizeof(T) == 4 ? 4 : 10) + is_signed;
}

template <class T>
std::string gguf_value(const T& value) {
  if constexpr (std::is_convertible_v<T, std::string_view>)
    return gguf_string(value);
  else
    return gguf_raw(value);
}

/// A key with its type and value.
template <class T>
std::string gguf_pair(std::string_view key, const T& value) {
  return gguf_string(key) + gguf_raw(gguf_type_number<T>()) + gguf_value(value);
}
template <class T>
std::string gguf_pair(std::string_view key, const std::vector<T>& values) {
  std::string bytes = gguf_string(key) + gguf_raw(std::uint32_t{9}) +
                      gguf_raw(gguf_type_number<T>()) + gguf_raw(std::uint64_t{values.size()});
  for (const T& value : values) bytes += gguf_value<T>(value);
  return bytes;
}

/// A line of the directory, extents in the order of the file: the fastest first.
inline std::string gguf_line(std::string_view name, const std::vector<std::uint64_t>& extents,
                             std::uint32_t type, std::uint64_t offset) {
  return gguf_string(name) + gguf_raw(static_cast<std::uint32_t>(extents.size())) +
         gguf_raw(extents) + gguf_raw(type) + gguf_raw(offset);
}

/// The parts of a file.
struct GgufParts {
  std::uint32_t version = 3;
  std::uint64_t tensors = 0, keys = 0;
  std::string metadata{}, directory{}, data{};
  std::size_t alignment = 32;

  std::string file() const {
    std::string bytes =
        "GGUF" + gguf_raw(version) + gguf_raw(tensors) + gguf_raw(keys) + metadata + directory;
    if (!data.empty()) bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
    return bytes + data;
  }
};

/// Writes a sound file: metadata and tensors in the order in which they are added.
class GgufWriter {
 public:
  explicit GgufWriter(std::uint32_t version = 3, std::uint32_t alignment = 32) {
    parts_.version = version;
    parts_.alignment = alignment;
    if (alignment != 32) add("general.alignment", alignment);
  }

  template <class T>
  void add(std::string_view key, const T& value) {
    parts_.metadata += gguf_pair(key, value);
    ++parts_.keys;
  }

  /// A tensor of a row-major shape, from its bytes.
  void tensor(std::string_view name, io::GgufType type, const std::vector<Index>& shape,
              std::string_view bytes) {
    parts_.data.resize((parts_.data.size() + parts_.alignment - 1) / parts_.alignment *
                       parts_.alignment);
    parts_.directory += gguf_line(name, {shape.rbegin(), shape.rend()},
                                  static_cast<std::uint32_t>(type), parts_.data.size());
    parts_.data += bytes;
    ++parts_.tensors;
  }

  const GgufParts& parts() const { return parts_; }
  std::string file() const { return parts_.file(); }

 private:
  GgufParts parts_;
};

}  // namespace pare::testing
