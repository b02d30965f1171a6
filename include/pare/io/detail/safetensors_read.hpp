// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tensors of a checked .safetensors file by name: as views, or copied and widened.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/file_bytes.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/safetensors_format.hpp>
#include <pare/io/detail/shape.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::io::detail {
PARE_ABI_BEGIN

inline constexpr const char* safetensors_reader = "io::SafetensorsFile";

inline SafetensorsContents open_safetensors(const std::filesystem::path& path) {
  const Place place{safetensors_reader, path.string()};
  FileBytes file = file_bytes(place, path, safetensors_file);
  SafetensorsContents contents = parse_safetensors(place, file.bytes);
  contents.owner = std::move(file.owner);
  return contents;
}

inline const SafetensorsTensor* find_tensor(const SafetensorsContents& contents,
                                            std::string_view name) {
  const auto at = contents.index.find(name);
  return at == contents.index.end() ? nullptr : &contents.tensors[at->second];
}

inline const SafetensorsTensor& tensor_of(const char* function, const SafetensorsContents& contents,
                                          std::string_view name) {
  const SafetensorsTensor* const tensor = find_tensor(contents, name);
  if (tensor == nullptr)
    Place{function, contents.source}.refuse(
        "no " + tensor_text(name),
        "one of the file's " + std::to_string(contents.tensors.size()) + " tensors");
  return *tensor;
}

template <class S, std::size_t Rank>
TensorView<const S, Rank> tensor_view(const char* function, const SafetensorsContents& contents,
                                      std::string_view name) {
  const SafetensorsTensor& tensor = tensor_of(function, contents, name);
  const Place place = Place{function, contents.source}.within(tensor_text(name));
  const bool is_bool = std::is_same_v<S, std::uint8_t> && tensor.dtype == "BOOL";
  if (tensor.dtype != safetensors_dtype<S>() && !is_bool)
    place.refuse("dtype '" + tensor.dtype + "'",
                 "'" + std::string(safetensors_dtype<S>()) + "', what it is viewed as");
  const auto off = reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % alignof(S);
  if (off != 0 && !tensor.bytes.empty())
    place.refuse(
        "data " + std::to_string(off) + " bytes past a multiple of " + std::to_string(alignof(S)),
        "aligned data (read_matrix and bytes need none)");
  const S* const data =
      tensor.bytes.empty() ? nullptr : reinterpret_cast<const S*>(tensor.bytes.data());
  return row_major_view<Rank>(place.within("shape"), data, tensor.shape);
}

/// A matrix that can be read as T.
struct ReadableMatrix {
  Index rows, cols;
  const SafetensorsTensor* tensor;
};

template <ComputeScalar T>
ReadableMatrix readable_matrix(const char* function, const SafetensorsContents& contents,
                               std::string_view name) {
  const SafetensorsTensor& tensor = tensor_of(function, contents, name);
  const Place place = Place{function, contents.source}.within(tensor_text(name));
  const bool holds = tensor.dtype == "F16" || tensor.dtype == "BF16" || tensor.dtype == "F32" ||
                     (tensor.dtype == "F64" && std::is_same_v<T, double>);
  if (!holds)
    place.refuse("dtype '" + tensor.dtype + "'",
                 std::is_same_v<T, double> ? "F16, BF16, F32 or F64" : "F16, BF16 or F32");
  const std::vector<Index>& shape = tensor.shape;
  if (shape.empty() || shape.size() > 2)
    place.refuse("shape " + excerpt(shape_text(shape), 120), "1 or 2 dimensions");
  return {shape[0], shape.size() == 2 ? shape[1] : 1, &tensor};
}

/// Copies every element; the bytes need no alignment.
template <class Source, class T>
void widen(std::span<const std::byte> bytes, T* out) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(Source); ++i) {
    Source value;
    std::memcpy(&value, bytes.data() + i * sizeof(Source), sizeof(Source));
    if constexpr (std::is_floating_point_v<Source>)
      out[i] = static_cast<T>(value);
    else
      out[i] = static_cast<T>(static_cast<float>(value));
  }
}

template <ComputeScalar T>
void read_floats(const SafetensorsTensor& tensor, T* out) {
  if (tensor.dtype == "F16")
    widen<f16>(tensor.bytes, out);
  else if (tensor.dtype == "BF16")
    widen<bf16>(tensor.bytes, out);
  else if (tensor.dtype == "F32")
    widen<float>(tensor.bytes, out);
  else
    widen<double>(tensor.bytes, out);
}

PARE_ABI_END
}  // namespace pare::io::detail
