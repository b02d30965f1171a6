// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Writing a .safetensors file: the order of the tensors, and the header that describes them.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/elements.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/safetensors_format.hpp>
#include <pare/io/detail/shape.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pare::io {

namespace detail {

PARE_ABI_BEGIN

/// A tensor that can be written, whatever holds it.
struct SafetensorsOutput {
  std::string name, dtype;
  std::vector<Index> shape;
  int bits = 0;  ///< of an element
  std::size_t size = 0;
  std::function<void(std::ostream&)> write;
};

inline constexpr const char* named_tensor = "io::NamedTensor";

/// Checks a view; its elements are read when the tensor is written.
template <class T, std::size_t Rank>
SafetensorsOutput safetensors_output(std::string name, TensorView<const T, Rank> x) {
  const Place place{named_tensor, tensor_text(name)};
  const std::string dtype(safetensors_dtype<T>());
  const std::vector<Index> shape(x.extent.begin(), x.extent.end());
  const std::size_t size = safetensors_bytes(place, dtype, shape);
  check_view(place.function, place.source.c_str(), x);
  return {
      std::move(name), dtype, shape, 8 * static_cast<int>(sizeof(T)), size, [x](std::ostream& os) {
        write_elements<T>(os, x);
      }};
}

/// What is written for x: an Eigen vector has one dimension.
template <class X>
SafetensorsOutput safetensors_output_of(std::string name, const X& x) {
  if constexpr (pare::detail::DenseMatrix<const X>) {
    if constexpr (X::IsVectorAtCompileTime)
      return safetensors_output(std::move(name), as_const(to_vector_view(x)));
    else
      return safetensors_output(std::move(name), as_const(to_view(x)));
  } else {
    return safetensors_output(std::move(name), as_const(to_view(x)));
  }
}

/// The same for an object that would be gone when the tensor is written: it is kept.
template <class X>
SafetensorsOutput kept_safetensors_output(std::string name, X&& x) {
  auto kept = std::make_shared<const X>(std::forward<X>(x));
  SafetensorsOutput output = safetensors_output_of(std::move(name), *kept);
  output.write = [kept, write = std::move(output.write)](std::ostream& os) { write(os); };
  return output;
}

inline SafetensorsOutput safetensors_output(std::string name, std::string dtype,
                                            std::vector<Index> shape,
                                            std::span<const std::byte> bytes) {
  const Place place{named_tensor, tensor_text(name)};
  const int bits = safetensors_bits(place, dtype);
  const std::size_t size = safetensors_bytes(place, dtype, shape);
  check_view(place.function, place.source.c_str(), to_view(bytes));
  if (bytes.size() != size)
    place.refuse(
        std::to_string(bytes.size()) + " bytes",
        std::to_string(size) + " for shape " + excerpt(shape_text(shape), 120) + " of " + dtype);
  return {
      std::move(name), std::move(dtype), std::move(shape), bits, size, [bytes](std::ostream& os) {
        os.write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
      }};
}

/// A JSON string; refused if the text is not UTF-8, which JSON cannot hold.
inline std::string json_text(const Place& place, const char* what, const std::string& text) {
  using nlohmann::json;
  std::string quoted = json(text).dump(-1, ' ', false, json::error_handler_t::ignore);
  if (json::parse(quoted, nullptr, false) != json(text))
    place.refuse(std::string(what) + " '" + excerpt(text, 120) + "'", "UTF-8");
  return quoted;
}

inline std::string metadata_text(const Place& place,
                                 const std::map<std::string, std::string>& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata)
    text += (text.empty() ? "" : ",") + json_text(place, "metadata key", key) + ":" +
            json_text(place, "metadata", value);
  return "\"" + std::string(safetensors_metadata_key) + "\":{" + text + "}";
}

inline std::string entry_text(const Place& place, const SafetensorsOutput& tensor,
                              std::size_t begin) {
  std::string shape;
  for (const Index extent : tensor.shape) {
    if (!shape.empty()) shape += ',';
    shape += std::to_string(extent);
  }
  return json_text(place, "a name", tensor.name) + ":{\"dtype\":\"" + tensor.dtype +
         "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(begin) + "," +
         std::to_string(begin + tensor.size) + "]}";
}

/// The tensors in the order of their data: the widest elements first, so that each lies at a
/// multiple of its element's size, and otherwise as given.
inline std::vector<const SafetensorsOutput*> safetensors_order(
    const Place& place, const std::vector<const SafetensorsOutput*>& tensors) {
  std::set<std::string_view> names;
  std::size_t total = 0;
  for (const SafetensorsOutput* tensor : tensors) {
    if (tensor->name == safetensors_metadata_key)
      place.refuse("the name '" + tensor->name + "'", "another, the format keeps this one");
    if (!names.insert(tensor->name).second)
      place.refuse("two tensors with the name '" + excerpt(tensor->name, 120) + "'",
                   "every name once");
    if (tensor->size > static_cast<std::size_t>(std::numeric_limits<Index>::max()) - total)
      place.refuse("more bytes than 63 bits count", "fewer");
    total += tensor->size;
  }
  auto order = tensors;
  std::ranges::stable_sort(order, std::ranges::greater{}, &SafetensorsOutput::bits);
  return order;
}

/// Length and JSON text, padded with spaces to a multiple of 8 bytes.
inline std::string safetensors_header(const Place& place,
                                      const std::vector<const SafetensorsOutput*>& order,
                                      const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += metadata_text(place, metadata);
  std::size_t begin = 0;
  for (const SafetensorsOutput* tensor : order) {
    if (text.size() > 1) text += ',';
    text += entry_text(place, *tensor, begin);
    begin += tensor->size;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > safetensors_longest_header)
    place.refuse("a header of " + std::to_string(text.size()) + " bytes",
                 "at most " + std::to_string(safetensors_longest_header));
  std::string length;
  for (std::size_t i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return length + text;
}

/// A checked file that only has to be streamed.
struct SafetensorsPlan {
  std::string header;
  std::vector<const SafetensorsOutput*> order;

  SafetensorsPlan(const std::vector<const SafetensorsOutput*>& tensors,
                  const std::map<std::string, std::string>& metadata) {
    const Place place{"io::write_safetensors", "tensors"};
    order = safetensors_order(place, tensors);
    header = safetensors_header(place, order, metadata);
  }

  void write(std::ostream& os) const {
    os.write(header.data(), static_cast<std::streamsize>(header.size()));
    for (const SafetensorsOutput* tensor : order) tensor->write(os);
  }
};

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
