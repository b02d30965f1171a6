// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tensors of a checked .gguf file by name: as views, as blocks, or de-quantised.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/file_bytes.hpp>
#include <pare/io/detail/gguf_format.hpp>
#include <pare/io/detail/gguf_types.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/shape.hpp>
#include <pare/kernel/quantized.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace pare::io::detail {
PARE_ABI_BEGIN

inline constexpr const char* gguf_reader = "io::GgufFile";

inline GgufContents open_gguf(const std::filesystem::path& path) {
  const Place place{gguf_reader, path.string()};
  FileBytes file = file_bytes(place, path, gguf_file);
  GgufContents contents = parse_gguf(place, file.bytes);
  contents.owner = std::move(file.owner);
  contents.mapping = file.mapping;
  return contents;
}

/// The bytes of a file in the caller's memory.
inline GgufContents view_gguf(std::span<const std::byte> bytes) {
  const Place place{gguf_reader, "bytes"};
  check_view(place.function, "bytes", to_view(bytes));
  return parse_gguf(place, bytes);
}

inline const GgufTensor* find_gguf_tensor(const GgufContents& contents, std::string_view name) {
  return find_by_name(contents.tensors, contents.tensor_order, &GgufTensor::name, name);
}

inline const GgufTensor& gguf_tensor_of(const char* function, const GgufContents& contents,
                                        std::string_view name) {
  const GgufTensor* const tensor = find_gguf_tensor(contents, name);
  if (tensor == nullptr)
    Place{function, contents.source}.refuse(
        "no " + tensor_text(name),
        "one of the file's " + std::to_string(contents.tensors.size()) + " tensors");
  return *tensor;
}

/// The elements or blocks of a tensor of the type that S is.
template <class S>
std::span<const S> gguf_span(const Place& place, const GgufTensor& tensor) {
  if (tensor.type != gguf_type_of<S>())
    place.refuse(type_text(tensor.type), type_text(gguf_type_of<S>()) + ", what it is viewed as");
  const auto off = reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % alignof(S);
  if (off != 0 && !tensor.bytes.empty())
    place.refuse(
        "data " + std::to_string(off) + " bytes past a multiple of " + std::to_string(alignof(S)),
        "aligned data (read_rows and bytes need none)");
  if (tensor.bytes.empty()) return {};
  return {reinterpret_cast<const S*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(S)};
}

template <class S>
std::span<const S> gguf_blocks_of(const char* function, const GgufContents& contents,
                                  std::string_view name) {
  const GgufTensor& tensor = gguf_tensor_of(function, contents, name);
  return gguf_span<S>(Place{function, contents.source}.within(tensor_text(name)), tensor);
}

template <class S, std::size_t Rank>
TensorView<const S, Rank> gguf_view(const char* function, const GgufContents& contents,
                                    std::string_view name) {
  const GgufTensor& tensor = gguf_tensor_of(function, contents, name);
  const Place place = Place{function, contents.source}.within(tensor_text(name));
  return row_major_view<Rank>(place.within("shape"), gguf_span<S>(place, tensor).data(),
                              tensor.shape);
}

/// Calls `f` with the identity of the element or block of a type that `read_rows` reads; false if
/// it does not.
template <class F>
bool with_gguf_block(GgufType type, const F& f) {
  const auto is = [&]<class S>(std::type_identity<S> identity) {
    return type == gguf_type_of<S>() && (f(identity), true);
  };
  return is(std::type_identity<float>{}) || is(std::type_identity<f16>{}) ||
         is(std::type_identity<bf16>{}) || is(std::type_identity<kernel::Q8_0>{}) ||
         is(std::type_identity<kernel::Q4_0>{}) || is(std::type_identity<kernel::Q4_1>{}) ||
         is(std::type_identity<kernel::Q4_K>{}) || is(std::type_identity<kernel::Q6_K>{});
}

/// Elements de-quantised at a time on the stack: the longest block.
inline constexpr Index gguf_chunk = 256;

/// Writes a chunk of elements from the start of a block on.
template <class S>
void dequantize_chunk(const std::byte* from, Index count, float* x) {
  if constexpr (GgufBlocks<S>) {
    const S* const blocks = reinterpret_cast<const S*>(from);
    for (Index i = 0; i * S::elements < count; ++i)
      kernel::dequantize(blocks[i], x + i * S::elements);
  } else {
    S values[gguf_chunk];
    std::memcpy(values, from, static_cast<std::size_t>(count) * sizeof(S));
    for (Index i = 0; i < count; ++i) x[i] = static_cast<float>(values[i]);
  }
}

/// The bytes of so many elements, which fill whole blocks.
template <class S>
constexpr Index gguf_bytes_of(Index count) {
  if constexpr (GgufBlocks<S>)
    return count / S::elements * Index{sizeof(S)};
  else
    return count * Index{sizeof(S)};
}

/// Copies elements of one row bit by bit.
template <class T>
void copy_gguf_run(const std::byte* from, Index count, T* to, Index stride) {
  if (stride == 1)
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  else
    for (Index i = 0; i < count; ++i, from += sizeof(T))
      std::memcpy(to + i * stride, from, sizeof(T));
}

/// Rounds floats to T, a number of them that compilers know at a time, and then the rest.
template <class T>
void round_gguf_run(const float* __restrict x, Index count, T* __restrict to) {
  constexpr Index step = 32;  // the shortest block, so that quantised rows have no rest
  Index i = 0;
  for (; i + step <= count; i += step)
    for (Index j = 0; j < step; ++j) to[i + j] = static_cast<T>(x[i + j]);
  for (; i < count; ++i) to[i] = static_cast<T>(x[i]);
}

/// Writes elements of one row, from the start of a block on, rounded to T.
template <class S, class T>
void read_gguf_run(const std::byte* from, Index count, T* to, Index stride) {
  if constexpr (std::is_same_v<S, T>) {
    copy_gguf_run(from, count, to, stride);
  } else {
    float values[gguf_chunk];
    for (Index at = 0; at < count; at += gguf_chunk, from += gguf_bytes_of<S>(gguf_chunk)) {
      const Index n = std::min(gguf_chunk, count - at);
      if constexpr (std::is_same_v<T, float>)
        if (stride == 1) {
          dequantize_chunk<S>(from, n, to + at);
          continue;
        }
      dequantize_chunk<S>(from, n, values);
      if (stride == 1)
        round_gguf_run(values, n, to + at);
      else
        for (Index i = 0; i < n; ++i) to[(at + i) * stride] = static_cast<T>(values[i]);
    }
  }
}

/// Rows of a tensor that are read into out, which has as many.
template <class T>
struct GgufRows {
  const std::byte* from;  ///< the first of them
  TensorView<T, 2> out;
};

/// Cuts the rows into items of about this many elements, whatever the number of threads: several
/// rows, or a piece of one. A multiple of every block; 64 KiB as float, which a second level cache
/// holds.
inline constexpr Index gguf_piece = 16384;

template <class S, class T>
void read_gguf_rows(const ExecutorRef& executor, const GgufRows<T>& a) {
  const Index cols = a.out.cols(), pieces = ceil_div(cols, gguf_piece);
  const Index rows = pieces > 1 ? 1 : gguf_piece / cols;  // of an item
  parallel_for(executor, ceil_div(a.out.rows(), rows) * pieces, [&](Index item, int) {
    const Index first = item / pieces * rows, last = std::min(first + rows, a.out.rows());
    const Index begin = item % pieces * gguf_piece;
    const Index count = std::min(gguf_piece, cols - begin);
    for (Index row = first; row < last; ++row)
      read_gguf_run<S>(a.from + gguf_bytes_of<S>(row * cols + begin), count, &a.out(row, begin),
                       a.out.stride[1]);
  });
}

/// Checks an output for rows `first` and following, of the tensor, and finds them.
template <class T>
GgufRows<T> check_gguf_rows(const Place& place, const GgufTensor& tensor, const char* row,
                            Index first, const TensorView<T, 2>& out) {
  if (!with_gguf_block(tensor.type, [](auto) {}))
    place.within(tensor_text(tensor.name))
        .refuse(type_text(tensor.type),
                "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K or Q6_K, the types that are read");
  const char* const function = place.function;
  const Index rows = tensor.rows(), cols = tensor.cols();
  check(first >= 0 && first <= rows, function, row, first,
        Worded{"0 to ", rows, ", the rows of the tensor"});
  const Index left = rows - first;
  if (out.rows() < 0 || out.rows() > left || out.cols() != cols)
    pare::detail::refuse(function, "out", out.extent,
                         "up to " + std::to_string(left) + " rows of " + std::to_string(cols) +
                             " columns, those of " + tensor_text(tensor.name) + " from row " +
                             std::to_string(first) + " on");
  check_writable(function, "out", out);
  check_no_overlap(function, "out", out, "the file", to_view(tensor.bytes));
  const GgufBlock& block = *gguf_block(tensor.type);
  return {tensor.bytes.data() + first * (cols / block.elements * block.bytes), out};
}

/// Reads rows that were checked, on the threads of a backend; the definition has one.
template <class B, class T>
void read_gguf_rows_on(const B& backend, GgufType type, const GgufRows<T>& rows) {
  if (rows.out.rows() == 0 || rows.out.cols() == 0) return;
  with_gguf_block(type, [&]<class S>(std::type_identity<S>) {
    if constexpr (KernelBackend<B>)
      read_gguf_rows<S>(ExecutorRef(backend.executor), rows);
    else
      read_gguf_rows<S>(ExecutorRef(SerialExecutor{}), rows);
  });
}

/// A vector as the only row of a matrix.
template <class T>
TensorView<T, 2> as_row(const TensorView<T, 1>& v) {
  return {v.data, {1, v.extent[0]}, {v.extent[0], v.stride[0]}};
}

PARE_ABI_END
}  // namespace pare::io::detail
