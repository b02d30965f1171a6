// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tensors of a checked .safetensors file by name: as views, or copied and widened.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/file_bytes.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/safetensors_dtype.hpp>
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

/// The bytes of a file in the caller's memory.
inline SafetensorsContents view_safetensors(std::span<const std::byte> bytes) {
  const Place place{safetensors_reader, "bytes"};
  check_view(place.function, "bytes", to_view(bytes));
  return parse_safetensors(place, bytes);
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

/// Calls `f` with the identity of the C++ type of a floating-point dtype; false if there is none.
template <class F>
bool with_float_type(std::string_view dtype, const F& f) {
  const auto is = [&]<class Source>(std::string_view name, std::type_identity<Source> type) {
    return dtype == name && (f(type), true);
  };
  return is("F64", std::type_identity<double>{}) || is("F32", std::type_identity<float>{}) ||
         is("F16", std::type_identity<f16>{}) || is("BF16", std::type_identity<bf16>{}) ||
         is("F8_E4M3", std::type_identity<E4m3>{}) || is("F8_E5M2", std::type_identity<E5m2>{});
}

/// True if T holds every value of Source exactly; all hold 8-bit floats.
template <class Source, class T>
inline constexpr bool widens_to =
    std::is_same_v<Source, T> || std::is_same_v<T, double> || std::is_same_v<Source, E4m3> ||
    std::is_same_v<Source, E5m2> || (std::is_same_v<T, float> && !std::is_same_v<Source, double>);

template <class T>
constexpr const char* widened_dtypes =
    std::is_same_v<T, double>  ? "F8_E4M3, F8_E5M2, F16, BF16, F32 or F64"
    : std::is_same_v<T, float> ? "F8_E4M3, F8_E5M2, F16, BF16 or F32"
    : std::is_same_v<T, bf16>  ? "F8_E4M3, F8_E5M2 or BF16"
                               : "F8_E4M3, F8_E5M2 or F16";

/// A matrix that can be read as T.
struct ReadableMatrix {
  Index rows, cols;
  const SafetensorsTensor* tensor;
};

template <StorageScalar T>
ReadableMatrix readable_matrix(const char* function, const SafetensorsContents& contents,
                               std::string_view name) {
  const SafetensorsTensor& tensor = tensor_of(function, contents, name);
  const Place place = Place{function, contents.source}.within(tensor_text(name));
  bool holds = false;
  with_float_type(tensor.dtype,
                  [&]<class Source>(std::type_identity<Source>) { holds = widens_to<Source, T>; });
  if (!holds) place.refuse("dtype '" + tensor.dtype + "'", widened_dtypes<T>);
  const std::vector<Index>& shape = tensor.shape;
  if (shape.empty() || shape.size() > 2)
    place.refuse("shape " + excerpt(shape_text(shape), 120), "1 or 2 dimensions");
  return {shape[0], shape.size() == 2 ? shape[1] : 1, &tensor};
}

template <class T, class Source>
T widened(Source value) {
  if constexpr (std::is_same_v<Source, T>)
    return value;
  else if constexpr (std::is_floating_point_v<Source>)
    return static_cast<T>(value);
  else
    return static_cast<T>(static_cast<float>(value));
}

/// Copies every element of rows that follow one another; the bytes need no alignment.
template <class Source, class T>
void widen(const std::byte* from, const TensorView<T, 2>& out) {
  for (Index i = 0; i < out.rows(); ++i)
    for (Index j = 0; j < out.cols(); ++j, from += sizeof(Source)) {
      Source value;
      std::memcpy(&value, from, sizeof(Source));
      out(i, j) = widened<T>(value);
    }
}

/// Rows `first` and following of a matrix that was checked.
template <class T>
void read_rows(const ReadableMatrix& matrix, Index first, const TensorView<T, 2>& out) {
  if (out.rows() == 0 || out.cols() == 0) return;
  with_float_type(matrix.tensor->dtype, [&]<class Source>(std::type_identity<Source>) {
    if constexpr (widens_to<Source, T>)
      widen<Source>(matrix.tensor->bytes.data() +
                        static_cast<std::size_t>(first * matrix.cols) * sizeof(Source),
                    out);
  });
}

/// Checks an output for rows `first` and following.
template <class T>
void check_rows(const char* function, const ReadableMatrix& matrix, Index first,
                const TensorView<T, 2>& out) {
  check(first >= 0 && first <= matrix.rows, function, "first", first,
        "0 to " + std::to_string(matrix.rows) + ", the rows of the tensor");
  const Index left = matrix.rows - first;
  check(out.rows() >= 0 && out.rows() <= left && out.cols() == matrix.cols, function, "out",
        out.extent,
        "up to " + std::to_string(left) + " rows of " + std::to_string(matrix.cols) + " columns");
  check_writable(function, "out", out);
  check_no_overlap(function, "out", out, "the file", to_view(matrix.tensor->bytes));
}

PARE_ABI_END
}  // namespace pare::io::detail
