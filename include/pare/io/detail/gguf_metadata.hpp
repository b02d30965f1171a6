// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Values of a .gguf file's metadata as C++ types.

#include <pare/core/check.hpp>
#include <pare/io/detail/gguf_cursor.hpp>
#include <pare/io/detail/gguf_format.hpp>
#include <pare/io/detail/gguf_types.hpp>
#include <pare/io/detail/place.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::io {

/// Text of metadata: a copy, or a view of the file's memory.
template <class T>
concept GgufText = std::same_as<T, std::string> || std::same_as<T, std::string_view>;

namespace detail {
PARE_ABI_BEGIN

template <class T>
inline constexpr bool is_gguf_array = false;
template <class T>
requires(GgufNumber<T> || GgufText<T>)
inline constexpr bool is_gguf_array<std::vector<T>> = true;

/// What points into the file's memory.
template <class T>
inline constexpr bool is_gguf_view =
    std::same_as<T, std::string_view> || std::same_as<T, std::vector<std::string_view>>;

PARE_ABI_END
}  // namespace detail

/// What metadata is read as: a number, text, or a std::vector of either.
template <class T>
concept GgufReadable = GgufNumber<T> || GgufText<T> || detail::is_gguf_array<T>;

namespace detail {
PARE_ABI_BEGIN

template <class T>
constexpr std::string_view gguf_name_of() {
  if constexpr (GgufText<T>)
    return "string";
  else
    return gguf_value(gguf_value_of<T>()).name;
}

/// Calls `f` with the identity of the C++ type of a number.
template <class F>
void with_gguf_number(GgufValue type, const F& f) {
  const auto is = [&]<class S>(std::type_identity<S> identity) {
    return type == gguf_value_of<S>() && (f(identity), true);
  };
  is(std::type_identity<std::uint32_t>{}) || is(std::type_identity<std::int32_t>{}) ||
      is(std::type_identity<float>{}) || is(std::type_identity<bool>{}) ||
      is(std::type_identity<std::uint8_t>{}) || is(std::type_identity<std::int8_t>{}) ||
      is(std::type_identity<std::uint16_t>{}) || is(std::type_identity<std::int16_t>{}) ||
      is(std::type_identity<std::uint64_t>{}) || is(std::type_identity<std::int64_t>{}) ||
      is(std::type_identity<double>{});
}

/// True if numbers of type S may be read as T: integers as integers, where the value fits; bool as
/// bool; float as float or double.
template <class S, class T>
inline constexpr bool gguf_reads_as = std::is_same_v<S, T> ||
                                      (std::is_integral_v<S> && std::is_integral_v<T> &&
                                       !std::is_same_v<S, bool> && !std::is_same_v<T, bool>) ||
                                      (std::is_same_v<S, float> && std::is_same_v<T, double>);

/// Converts a number of the file, of which no bit is lost.
template <class T, class S>
T gguf_converted(const Place& place, S value) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
    if (!std::in_range<T>(value))
      place.refuse(std::string(gguf_name_of<S>()) + " " + std::to_string(value),
                   "a value of " + std::string(gguf_name_of<T>()));
  return static_cast<T>(value);
}

/// Appends the elements of an entry, whose type has been found to be readable as T.
template <GgufNumber T>
void read_gguf_elements(const Place& place, const GgufEntry& entry, std::vector<T>& values) {
  with_gguf_number(entry.element, [&]<class S>(std::type_identity<S>) {
    if constexpr (gguf_reads_as<S, T>) {
      const std::byte* from = entry.bytes.data();
      for (Index i = 0; i < entry.count; ++i, from += sizeof(S)) {
        // A bool is read as a byte: a file that someone else changes must not make it a third one.
        std::conditional_t<std::is_same_v<S, bool>, std::uint8_t, S> value;
        std::memcpy(&value, from, sizeof(S));
        if constexpr (std::is_same_v<S, bool>)
          values.push_back(value != 0);
        else
          values.push_back(gguf_converted<T>(place, value));
      }
    }
  });
}

template <GgufText T>
void read_gguf_elements(const Place& place, const GgufEntry& entry, std::vector<T>& values) {
  GgufCursor cursor(entry.bytes);
  for (Index i = 0; i < entry.count; ++i) values.emplace_back(cursor.text(place, "a string"));
}

template <class T>
bool is_gguf_readable(GgufValue element) {
  if constexpr (GgufText<T>) {
    return element == GgufValue::String;
  } else {
    bool readable = false;
    with_gguf_number(element,
                     [&]<class S>(std::type_identity<S>) { readable = gguf_reads_as<S, T>; });
    return readable;
  }
}

inline std::string gguf_type_text(const GgufEntry& entry) {
  const std::string element(gguf_value(entry.element).name);
  return entry.type == GgufValue::Array
             ? "an array of " + std::to_string(entry.count) + " " + element
             : element;
}

/// The elements of a value: of an array if `array` is true, else its only one.
template <class T>
std::vector<T> gguf_values_of(const Place& place, const GgufEntry& entry, bool array) {
  if (array != (entry.type == GgufValue::Array) || !is_gguf_readable<T>(entry.element))
    place.refuse(gguf_type_text(entry),
                 (array ? "an array of " : "") + std::string(gguf_name_of<T>()));
  std::vector<T> values;
  values.reserve(static_cast<std::size_t>(entry.count));
  read_gguf_elements(place, entry, values);
  return values;
}

/// The value of an entry as T, refused if it is of another type or does not fit.
template <GgufReadable T>
T gguf_value_as(const char* function, const GgufContents& contents, const GgufEntry& entry) {
  const Place place = Place{function, contents.source}.within(key_text(entry.key));
  if constexpr (is_gguf_array<T>)
    return gguf_values_of<typename T::value_type>(place, entry, true);
  else
    return gguf_values_of<T>(place, entry, false)[0];
}

inline const GgufEntry* find_gguf_entry(const GgufContents& contents, std::string_view key) {
  return find_by_name(contents.entries, contents.entry_order, &GgufEntry::key, key);
}

inline const GgufEntry& gguf_entry_of(const char* function, const GgufContents& contents,
                                      std::string_view key) {
  const GgufEntry* const entry = find_gguf_entry(contents, key);
  if (entry == nullptr)
    Place{function, contents.source}.refuse(
        "no " + key_text(key),
        "one of the file's " + std::to_string(contents.entries.size()) + " keys");
  return *entry;
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
