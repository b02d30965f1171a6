// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The header of a .safetensors file: its length, and the strict reader of its JSON text.

#include <pare/core/check.hpp>
#include <pare/io/detail/place.hpp>

#if defined(__has_include)
#if !__has_include(<nlohmann/json.hpp>)
#error \
    "pare/io/safetensors.hpp needs nlohmann-json 3.11.2 or newer (Debian, Ubuntu: \
nlohmann-json3-dev); in CMake link pare::safetensors"
#endif
#endif
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pare::io::detail {
PARE_ABI_BEGIN

/// The largest header that the reference implementation takes.
inline constexpr std::size_t safetensors_longest_header = 100'000'000;

inline constexpr std::string_view safetensors_metadata_key = "__metadata__";

inline constexpr const char* safetensors_file = "a .safetensors file";

/// A tensor as the header has it, not yet checked against the data.
struct SafetensorsEntry {
  std::string name, dtype;
  std::vector<Index> shape;
  std::vector<std::uint64_t> offsets{};
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Takes the JSON of a header event by event and refuses the first one that has no place in it, so
/// that nothing is stored but tensors and metadata. As in the reference implementation a tensor may
/// have further keys, whose values are skipped, and null stands for no metadata.
class SafetensorsHeaderReader final : public nlohmann::json::json_sax_t {
 public:
  explicit SafetensorsHeaderReader(const Place& place) : place_(place) {}

  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override {
    if (at_ != At::Metadata) return skip_or_refuse("null");
    at_ = At::Tensors;
    return true;
  }
  bool boolean(bool value) override { return skip_or_refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override {
    return skip_or_refuse(std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return skip_or_refuse(excerpt(text));
  }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ == At::Extents && value <= std::uint64_t{std::numeric_limits<Index>::max()})
      entries.back().shape.push_back(static_cast<Index>(value));
    else if (at_ == At::OffsetPair && entries.back().offsets.size() < 2)
      entries.back().offsets.push_back(value);
    else
      return skip_or_refuse(std::to_string(value));
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
      return skip_or_refuse("'" + excerpt(text) + "'");
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
    else if (at_ == At::Skipped)
      ++depth_;
    else
      unexpected("an object");
    return true;
  }

  bool key(string_t& text) override {
    if (at_ == At::Tensors)
      take_name(std::move(text));
    else if (at_ == At::MetadataKeys)
      take_metadata_key(std::move(text));
    else if (at_ == At::Fields)
      take_field(text);
    return true;
  }

  bool end_object() override {
    if (at_ == At::Skipped) return end_skipped();
    if (at_ == At::Fields) check_fields();
    at_ = at_ == At::Tensors ? At::End : At::Tensors;
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ == At::Shape)
      at_ = At::Extents;
    else if (at_ == At::Offsets)
      at_ = At::OffsetPair;
    else if (at_ == At::Skipped)
      ++depth_;
    else
      unexpected("an array");
    return true;
  }

  bool end_array() override {
    if (at_ == At::Skipped) return end_skipped();
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
    Skipped,
    End
  };

  /// Takes a number, a text or a constant that stands where anything may stand.
  bool skip_or_refuse(const std::string& got) {
    if (at_ != At::Skipped) unexpected(got);
    if (depth_ == 0) at_ = At::Fields;
    return true;
  }

  bool end_skipped() {
    if (--depth_ == 0) at_ = At::Fields;
    return true;
  }

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
    if (seen == nullptr) {
      at_ = At::Skipped;
      return;
    }
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
  std::size_t depth_ = 0;  ///< objects and arrays open in what is skipped
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

PARE_ABI_END
}  // namespace pare::io::detail
