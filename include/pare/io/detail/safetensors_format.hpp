// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A .safetensors file: its tensors, and the check that they account for every byte of the data.

#include <pare/core/check.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/safetensors_dtype.hpp>
#include <pare/io/detail/safetensors_header.hpp>
#include <pare/io/detail/shape.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::io {

PARE_ABI_BEGIN

/// A tensor of a file: what the header says of it, and its bytes, row-major and little endian.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;                 ///< as the format spells it: `F32`, `BF16`, `I64`, `BOOL`
  std::vector<Index> shape;          ///< one extent a dimension; empty for a single element
  std::span<const std::byte> bytes;  ///< in the file's memory
};

PARE_ABI_END

namespace detail {

PARE_ABI_BEGIN

/// A checked file: its tensors in the order of their data.
struct SafetensorsContents {
  std::string source;
  std::shared_ptr<const void> owner;
  std::vector<SafetensorsTensor> tensors;
  std::map<std::string, std::size_t, std::less<>> index;
  std::map<std::string, std::string> metadata;
};

/// Checks one entry against the size of the data, and makes a tensor of it.
inline SafetensorsTensor safetensors_tensor(const Place& file, SafetensorsEntry&& entry,
                                            std::span<const std::byte> data) {
  const Place place = file.within(tensor_text(entry.name));
  const std::uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  const auto offsets = [&] {
    return "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "]";
  };
  const std::size_t size = safetensors_bytes(place, entry.dtype, entry.shape);
  if (begin > end) place.refuse(offsets(), "the first not above the last");
  if (end > data.size())
    place.refuse(offsets(), "at most " + std::to_string(data.size()) + ", the bytes of data");
  if (end - begin != size)
    place.refuse(offsets(), std::to_string(size) + " bytes for shape " +
                                excerpt(shape_text(entry.shape), 120) + " of " + entry.dtype);
  return {std::move(entry.name), std::move(entry.dtype), std::move(entry.shape),
          data.subspan(static_cast<std::size_t>(begin), size)};
}

/// Checks that tensors in the order of their data follow one another from the first byte to the
/// last.
inline void check_safetensors_layout(const Place& place,
                                     const std::vector<SafetensorsTensor>& tensors,
                                     std::span<const std::byte> data) {
  const std::byte* at = data.data();
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.bytes.data() != at)
      place.within(tensor_text(tensor.name))
          .refuse(tensor.bytes.data() < at ? "data that overlaps another tensor's"
                                           : "unused bytes before its data",
                  "data that follows the one before it, the first at 0");
    at += tensor.bytes.size();
  }
  const auto left = static_cast<std::size_t>(data.data() + data.size() - at);
  if (left != 0)
    place.refuse(std::to_string(left) + " bytes after the last tensor",
                 "a file that ends with its data");
}

/// Reads the header and checks all of it.
inline SafetensorsContents parse_safetensors(const Place& place, std::span<const std::byte> bytes) {
  const std::string_view text = safetensors_header_text(place, bytes);
  SafetensorsHeaderReader header(place);
  nlohmann::json::sax_parse(text.begin(), text.end(), &header);
  const auto data = bytes.subspan(8 + text.size());
  SafetensorsContents contents{place.source, {}, {}, {}, std::move(header.metadata)};
  contents.tensors.reserve(header.entries.size());
  for (SafetensorsEntry& entry : header.entries)
    contents.tensors.push_back(safetensors_tensor(place, std::move(entry), data));
  // A tensor without bytes stands before the one that starts where it does.
  std::ranges::stable_sort(contents.tensors, {}, [](const SafetensorsTensor& t) {
    return std::pair(t.bytes.data(), t.bytes.size());
  });
  check_safetensors_layout(place, contents.tensors, data);
  for (std::size_t i = 0; i < contents.tensors.size(); ++i)
    contents.index.emplace(contents.tensors[i].name, i);
  return contents;
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
