// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A .gguf file: its metadata and the directory of its tensors, all of it checked.
///
/// Source: docs/gguf.md of ggml.

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/io/detail/gguf_cursor.hpp>
#include <pare/io/detail/gguf_types.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/shape.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pare::io {

PARE_ABI_BEGIN

/// A value of the metadata: where it lies in the file, and what it is.
struct GgufEntry {
  std::string_view key;
  GgufValue type;                    ///< Array for arrays
  GgufValue element;                 ///< the type of an array's elements; else as `type`
  Index count;                       ///< elements of an array; else 1
  std::span<const std::byte> bytes;  ///< of the value or the elements, little endian, unaligned
};

/// A tensor of a file: what the directory says of it, and its bytes.
struct GgufTensor {
  std::string_view name;
  GgufType type;
  std::vector<Index> shape;          ///< row-major: the extents of the file, which are reversed
  std::span<const std::byte> bytes;  ///< in the file's memory; empty if the type is not known

  /// The elements that follow one another in blocks: the last extent.
  Index cols() const { return shape.empty() ? 1 : shape.back(); }
  /// All other extents together; 1 for a tensor of one dimension.
  Index rows() const {
    return shape.empty()
               ? 1
               : std::accumulate(shape.begin(), shape.end() - 1, Index{1}, std::multiplies<>());
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* gguf_file = "a .gguf file";

/// A key for an error message.
inline std::string key_text(std::string_view key) { return "key '" + excerpt(key, 120) + "'"; }

/// A checked file.
struct GgufContents {
  std::string source{};
  std::shared_ptr<const void> owner{};
  std::span<const std::byte> mapping{};  ///< the whole file, where it is mapped
  std::uint32_t version = 0;
  std::size_t alignment = 32;
  std::vector<GgufEntry> entries{};
  std::vector<GgufTensor> tensors{};
  std::vector<std::size_t> entry_order{}, tensor_order{};  ///< by name
};

/// The positions of items in the order of their names, which must differ.
template <class Item, class Name, class Text>
std::vector<std::size_t> order_by_name(const Place& place, const std::vector<Item>& items,
                                       Name Item::* name, const Text& text) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto name_of = [&](std::size_t i) { return items[i].*name; };
  std::ranges::sort(order, {}, name_of);
  const auto twice = std::ranges::adjacent_find(order, {}, name_of);
  if (twice != order.end()) place.refuse(text(name_of(*twice)) + " twice", "every name once");
  return order;
}

/// The item of that name, or null.
template <class Item, class Name>
const Item* find_by_name(const std::vector<Item>& items, const std::vector<std::size_t>& order,
                         Name Item::* name, std::string_view wanted) {
  const auto name_of = [&](std::size_t i) { return items[i].*name; };
  const auto at = std::ranges::lower_bound(order, wanted, {}, name_of);
  return at == order.end() || name_of(*at) != wanted ? nullptr : &items[*at];
}

inline GgufValue gguf_value_type(GgufCursor& cursor, const Place& place) {
  const auto type = cursor.number<std::uint32_t>(place, "a value type");
  if (type >= gguf_values.size())
    place.refuse("value type " + std::to_string(type), "a number from 0 to 12");
  return static_cast<GgufValue>(type);
}

/// Takes so many values of one type.
inline std::span<const std::byte> gguf_elements(GgufCursor& cursor, const Place& place,
                                                GgufValue type, Index count) {
  GgufCursor first = cursor;
  if (type == GgufValue::String) {
    for (Index i = 0; i < count; ++i) cursor.text(place, "a string");
  } else {
    const auto bytes =
        cursor.take(place, static_cast<std::uint64_t>(count) * gguf_value(type).bytes, "a value");
    const auto is_bool = [](std::byte b) { return b <= std::byte{1}; };
    if (type == GgufValue::Bool && !std::ranges::all_of(bytes, is_bool))
      place.refuse("a bool that is neither 0 nor 1", "0 or 1");
  }
  return first.take(place, cursor.at() - first.at(), "a value");
}

inline GgufEntry gguf_entry(GgufCursor& cursor, const Place& file) {
  const std::string_view key = cursor.text(file, "a key");
  const Place place = file.within(key_text(key));
  GgufEntry entry{key, gguf_value_type(cursor, place), {}, 1, {}};
  entry.element = entry.type;
  if (entry.type == GgufValue::Array) {
    entry.element = gguf_value_type(cursor, place);
    if (entry.element == GgufValue::Array)
      place.refuse("an array of arrays", "an array of numbers or of strings");
    const bool text = entry.element == GgufValue::String;
    entry.count = cursor.count(place, text ? 8 : gguf_value(entry.element).bytes, "elements");
  }
  entry.bytes = gguf_elements(cursor, place, entry.element, entry.count);
  return entry;
}

/// Row-major extents. Files have the fastest first.
inline std::vector<Index> gguf_shape(GgufCursor& cursor, const Place& place) {
  const auto dimensions = cursor.number<std::uint32_t>(place, "a number of dimensions");
  if (dimensions > 4) place.refuse(std::to_string(dimensions) + " dimensions", "at most 4");
  std::vector<Index> shape(dimensions);
  for (std::size_t d = dimensions; d-- > 0;) {
    const auto extent = cursor.number<std::uint64_t>(place, "an extent");
    if (extent > std::uint64_t{std::numeric_limits<Index>::max()})
      place.refuse("an extent of " + std::to_string(extent), "at most 2^63 - 1");
    shape[d] = static_cast<Index>(extent);
  }
  return shape;
}

/// A tensor as the directory has it, with its place in the data.
struct GgufPlaced {
  GgufTensor tensor;
  std::uint64_t offset;
};

inline GgufPlaced gguf_placed(GgufCursor& cursor, const Place& file) {
  const std::string_view name = cursor.text(file, "a name");
  const Place place = file.within(tensor_text(name));
  std::vector<Index> shape = gguf_shape(cursor, place);
  const auto type = static_cast<GgufType>(cursor.number<std::uint32_t>(place, "a type"));
  // Before the aggregate is built: g++ 12 destroys the shape twice if an initializer throws.
  const auto offset = cursor.number<std::uint64_t>(place, "an offset");
  return {{name, type, std::move(shape), {}}, offset};
}

/// The bytes that a tensor takes up, 0 if its type is not known.
inline std::size_t gguf_bytes(const Place& place, const GgufTensor& tensor) {
  const Index count = element_count(place, tensor.shape);
  const GgufBlock* const block = gguf_block(tensor.type);
  if (block == nullptr) return 0;
  if (tensor.cols() % block->elements != 0)
    place.refuse("rows of " + std::to_string(tensor.cols()) + " elements",
                 "a multiple of " + std::to_string(block->elements) + ", the block of " +
                     type_text(tensor.type));
  return static_cast<std::size_t>(
      checked_product(place.function, place.source.c_str(), count / block->elements, block->bytes));
}

/// Finds the bytes of a tensor in the data.
inline void place_gguf_tensor(const Place& file, std::span<const std::byte> data,
                              std::size_t alignment, GgufPlaced& placed) {
  const Place place = file.within(tensor_text(placed.tensor.name));
  const std::uint64_t offset = placed.offset;
  if (offset % alignment != 0)
    place.refuse("offset " + std::to_string(offset),
                 "a multiple of " + std::to_string(alignment) + ", the file's alignment");
  const std::size_t size = gguf_bytes(place, placed.tensor);
  if (offset > data.size() || size > data.size() - offset)
    place.refuse(std::to_string(size) + " bytes at offset " + std::to_string(offset),
                 "bytes within the " + std::to_string(data.size()) + " of the file's data");
  placed.tensor.bytes = data.subspan(static_cast<std::size_t>(offset), size);
}

/// The version, once the file has been found to be one.
inline std::uint32_t gguf_version(GgufCursor& cursor, const Place& place) {
  const auto magic = cursor.take(place, std::min<std::size_t>(4, cursor.left()), "a start");
  const std::string_view text(reinterpret_cast<const char*>(magic.data()), magic.size());
  if (text != "GGUF") place.refuse("a file that starts with '" + excerpt(text) + "'", gguf_file);
  const auto version = cursor.number<std::uint32_t>(place, "a version");
  if (version < 2 || version > 3)
    place.refuse("version " + std::to_string(version) +
                     (version != 0 && version << 16 == 0 ? ", perhaps a big-endian file" : ""),
                 "version 2 or 3, little endian");
  return version;
}

/// The alignment of tensors: `general.alignment`, if the file has it.
inline std::size_t gguf_alignment(const Place& file, const GgufContents& contents) {
  constexpr std::string_view key = "general.alignment";
  const GgufEntry* const entry =
      find_by_name(contents.entries, contents.entry_order, &GgufEntry::key, key);
  if (entry == nullptr) return 32;
  const Place place = file.within(key_text(key));
  if (entry->type != GgufValue::Uint32)
    place.refuse(std::string(gguf_value(entry->type).name), "uint32");
  std::uint32_t alignment = 0;
  std::memcpy(&alignment, entry->bytes.data(), sizeof(alignment));
  if (!std::has_single_bit(alignment)) place.refuse(std::to_string(alignment), "a power of two");
  return alignment;
}

/// Reads and checks all but the data.
inline GgufContents parse_gguf(const Place& place, std::span<const std::byte> bytes) {
  GgufCursor cursor(bytes);
  GgufContents contents;
  contents.source = place.source;
  contents.version = gguf_version(cursor, place);
  // The shortest tensor: a name without characters, no dimensions, type and offset. The shortest
  // value: such a key, its type and one byte.
  const Index tensors = cursor.count(place, 24, "tensors");
  const Index entries = cursor.count(place, 13, "keys");
  contents.entries.reserve(static_cast<std::size_t>(entries));
  for (Index i = 0; i < entries; ++i) contents.entries.push_back(gguf_entry(cursor, place));
  contents.entry_order = order_by_name(place, contents.entries, &GgufEntry::key, key_text);
  contents.alignment = gguf_alignment(place, contents);

  std::vector<GgufPlaced> placed;
  placed.reserve(static_cast<std::size_t>(tensors));
  for (Index i = 0; i < tensors; ++i) placed.push_back(gguf_placed(cursor, place));
  const std::uint64_t alignment = contents.alignment;
  const auto start = static_cast<std::size_t>(std::min<std::uint64_t>(
      bytes.size(), ceil_div<std::uint64_t>(cursor.at(), alignment) * alignment));
  contents.tensors.reserve(placed.size());
  for (GgufPlaced& tensor : placed) {
    place_gguf_tensor(place, bytes.subspan(start), contents.alignment, tensor);
    contents.tensors.push_back(std::move(tensor.tensor));
  }
  contents.tensor_order = order_by_name(place, contents.tensors, &GgufTensor::name, tensor_text);
  return contents;
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
