// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The header of a .safetensors file: its dtypes, the strict reader of its JSON text, and the check
/// that the tensors account for every byte of the data.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/io/detail/elements.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/shape.hpp>

#if defined(__has_include)
#if !__has_include(<nlohmann/json.hpp>)
#error \
    "pare/io/safetensors.hpp needs nlohmann-json 3.11.2 or newer (Debian, Ubuntu: \
nlohmann-json3-dev); in CMake link pare::safetensors"
#endif
#endif
#include <nlohmann/json.hpp>

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

/// A tensor of a file: what the header says of it, and its bytes, row-major and little endian.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;                 ///< as the format spells it: `F32`, `BF16`, `I64`, `BOOL`
  std::vector<Index> shape;          ///< one extent a dimension; empty for a single element
  std::span<const std::byte> bytes;  ///< in the file's memory
};

/// Scalars with a dtype: float, double, f16, bf16, bool, and integers of 8 to 64 bits. Character
/// types are text and have none.
template <class T>
concept SafetensorsScalar = detail::PlainNumber<T> || std::same_as<T, bf16>;

namespace detail {

/// A checked file: its tensors in the order of their data.
struct SafetensorsContents {
  std::string source;
  std::shared_ptr<const void> owner;
  std::vector<SafetensorsTensor> tensors;
  std::map<std::string, std::size_t, std::less<>> index;
  std::map<std::string, std::string> metadata;
};

PARE_ABI_BEGIN

/// The largest header that the reference implementation takes.
inline constexpr std::size_t safetensors_longest_header = 100'000'000;

inline constexpr std::string_view safetensors_metadata_key = "__metadata__";

inline constexpr const char* safetensors_file = "a .safetensors file";

struct SafetensorsDtype {
  std::string_view name;
  std::size_t size;  ///< bytes
};

inline constexpr std::array<SafetensorsDtype, 13> safetensors_dtypes{{{"F64", 8},
                                                                      {"F32", 4},
                                                                      {"F16", 2},
                                                                      {"BF16", 2},
                                                                      {"I64", 8},
                                                                      {"I32", 4},
                                                                      {"I16", 2},
                                                                      {"I8", 1},
                                                                      {"U64", 8},
                                                                      {"U32", 4},
                                                                      {"U16", 2},
                                                                      {"U8", 1},
                                                                      {"BOOL", 1}}};

/// The dtype of T.
template <SafetensorsScalar T>
constexpr std::string_view safetensors_dtype() {
  if (std::is_same_v<T, bool>) return "BOOL";
  if (std::is_same_v<T, bf16>) return "BF16";
  if (std::is_same_v<T, f16>) return "F16";
  constexpr char kind = std::is_floating_point_v<T> ? 'F' : std::is_signed_v<T> ? 'I' : 'U';
  for (const SafetensorsDtype& d : safetensors_dtypes)
    if (d.name[0] == kind && d.size == sizeof(T)) return d.name;
  return {};
}

/// Bytes of an element; refused if the dtype is none that is read and written here.
inline std::size_t safetensors_item_size(const Place& place, std::string_view dtype) {
  std::string wanted;
  for (const SafetensorsDtype& d : safetensors_dtypes) {
    if (d.name == dtype) return d.size;
    wanted += (wanted.empty() ? "" : ", ") + std::string(d.name);
  }
  place.refuse("dtype '" + excerpt(dtype) + "'", "one of " + wanted);
}

/// A name for an error message.
inline std::string tensor_text(std::string_view name) {
  return "tensor '" + excerpt(name, 120) + "'";
}

/// The bytes that a shape and a dtype stand for.
inline std::size_t safetensors_bytes(const Place& place, std::string_view dtype,
                                     const std::vector<Index>& shape) {
  const auto item = static_cast<Index>(safetensors_item_size(place, dtype));
  return static_cast<std::size_t>(
      checked_product(place.function, place.source.c_str(), element_count(place, shape), item));
}

/// A tensor as the header has it, not yet checked against the data.
struct SafetensorsEntry {
  std::string name, dtype;
  std::vector<Index> shape;
  std::vector<std::uint64_t> offsets{};
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Takes the JSON of a header event by event and refuses the first one that has no place in it, so
/// that nothing is stored but tensors and metadata.
class SafetensorsHeaderReader final : public nlohmann::json::json_sax_t {
 public:
  explicit SafetensorsHeaderReader(const Place& place) : place_(place) {}

  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { unexpected("null"); }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { unexpected(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { unexpected(excerpt(text)); }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ == At::Extents && value <= std::uint64_t{std::numeric_limits<Index>::max()})
      entries.back().shape.push_back(static_cast<Index>(value));
    else if (at_ == At::OffsetPair && entries.back().offsets.size() < 2)
      entries.back().offsets.push_back(value);
    else
      unexpected(std::to_string(value));
    return true;
  }

  bool string(string_t& text) override {
    if (at_ == At::Dtype) {
      entries.back().dtype = std::move(text);
      at_ = At::Fields;
    } else if (at_ == At::MetadataText) {
      text_->second = std::move(text);
      at_ = At::MetadataKeys;
    } else {
      unexpected("'" + excerpt(text) + "'");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (at_ == At::Start)
      at_ = At::Tensors;
    else if (at_ == At::Metadata)
      at_ = At::MetadataKeys;
    else if (at_ == At::Tensor)
      at_ = At::Fields;
    else
      unexpected("an object");
    return true;
  }

  bool key(string_t& text) override {
    if (at_ == At::Tensors)
      take_name(std::move(text));
    else if (at_ == At::MetadataKeys)
      take_metadata_key(std::move(text));
    else
      take_field(text);
    return true;
  }

  bool end_object() override {
    if (at_ == At::Fields) check_fields();
    at_ = at_ == At::Tensors ? At::End : At::Tensors;
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ == At::Shape)
      at_ = At::Extents;
    else if (at_ == At::Offsets)
      at_ = At::OffsetPair;
    else
      unexpected("an array");
    return true;
  }

  bool end_array() override {
    if (at_ == At::OffsetPair && entries.back().offsets.size() != 2) unexpected("`]`");
    at_ = At::Fields;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::json::exception&) override {
    place_.refuse("text that is not JSON at byte " + std::to_string(position) + ", near `" +
                      excerpt(token) + "`",
                  "a JSON object");
  }

 private:
  /// What the next event must be: a value, or a key or the end where the name is a plural.
  enum class At {
    Start,
    Tensors,
    Metadata,
    MetadataKeys,
    MetadataText,
    Tensor,
    Fields,
    Dtype,
    Shape,
    Extents,
    Offsets,
    OffsetPair,
    End
  };

  [[noreturn]] void unexpected(const std::string& got) const {
    switch (at_) {
      case At::Metadata:
        place_.refuse("__metadata__ that is " + got, "an object of strings");
      case At::MetadataText:
        place_.refuse("__metadata__ '" + excerpt(text_->first) + "' that is " + got, "a string");
      case At::Tensor:
        tensor().refuse(got, "an object of dtype, shape and data_offsets");
      case At::Dtype:
        tensor().refuse("dtype " + got, "a string");
      case At::Shape:
        tensor().refuse("shape " + got, "an array");
      case At::Extents:
        tensor().refuse("an extent of " + got, "a whole number from 0 to 2^63 - 1");
      case At::Offsets:
        tensor().refuse("data_offsets " + got, "an array of two");
      case At::OffsetPair:
        tensor().refuse("data_offsets with " + got,
                        "a first and a last whole number, not negative");
      default:
        place_.refuse("a header that is " + got, "a JSON object");
    }
  }

  Place tensor() const { return place_.within(tensor_text(entries.back().name)); }

  void take_name(std::string&& name) {
    if (!names_.insert(name).second)
      place_.refuse("header key '" + excerpt(name, 120) + "' twice", "every name once");
    at_ = name == safetensors_metadata_key ? At::Metadata : At::Tensor;
    if (at_ == At::Tensor) entries.push_back({.name = std::move(name), .dtype = {}, .shape = {}});
  }

  void take_metadata_key(std::string&& name) {
    const auto [at, is_new] = metadata.emplace(std::move(name), std::string());
    if (!is_new)
      place_.refuse("__metadata__ key '" + excerpt(at->first) + "' twice", "every key once");
    text_ = at;
    at_ = At::MetadataText;
  }

  void take_field(const std::string& field) {
    SafetensorsEntry& entry = entries.back();
    bool* const seen = field == "dtype"          ? &entry.has_dtype
                       : field == "shape"        ? &entry.has_shape
                       : field == "data_offsets" ? &entry.has_offsets
                                                 : nullptr;
    if (seen == nullptr)
      tensor().refuse("key '" + excerpt(field) + "'", "dtype, shape or data_offsets");
    if (*seen) tensor().refuse("key '" + field + "' twice", "every key once");
    *seen = true;
    at_ = field == "dtype" ? At::Dtype : field == "shape" ? At::Shape : At::Offsets;
  }

  void check_fields() const {
    const SafetensorsEntry& entry = entries.back();
    if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets)
      tensor().refuse("no " + std::string(!entry.has_dtype   ? "dtype"
                                          : !entry.has_shape ? "shape"
                                                             : "data_offsets"),
                      "dtype, shape and data_offsets");
  }

  const Place& place_;
  At at_ = At::Start;
  std::set<std::string> names_;
  std::map<std::string, std::string>::iterator text_{};
};

/// The text of the header, its length checked against the bytes of the file.
inline std::string_view safetensors_header_text(const Place& place,
                                                std::span<const std::byte> bytes) {
  constexpr std::size_t prefix = 8;
  if (bytes.size() < prefix)
    place.refuse("a file of " + std::to_string(bytes.size()) + " bytes", safetensors_file);
  std::uint64_t length = 0;
  for (std::size_t i = prefix; i-- > 0;)
    length = length << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  const std::size_t most = std::min(bytes.size() - prefix, safetensors_longest_header);
  if (length > most)
    place.refuse("a header of " + std::to_string(length) + " bytes",
                 "at most " + std::to_string(most) + " here");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + prefix,
                              static_cast<std::size_t>(length));
  if (!text.starts_with('{'))
    place.refuse("a header that does not start with `{`", safetensors_file);
  // The JSON parser takes a zero byte for the end of its input.
  if (text.find('\0') != text.npos) place.refuse("a zero byte in the header", "JSON");
  return text;
}

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
