// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The elements of a file: which scalars have a fixed meaning, and how any view is streamed.

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <ostream>
#include <type_traits>
#include <vector>

namespace pare::io::detail {

/// float, double, f16, bool, and integers of 8 to 64 bits; character types are text.
template <class T>
concept PlainNumber =
    std::same_as<T, f16> || std::same_as<T, float> || std::same_as<T, double> ||
    (std::integral<T> && sizeof(T) <= 8 && std::same_as<T, std::remove_cv_t<T>> &&
     !std::same_as<T, char> && !std::same_as<T, wchar_t> && !std::same_as<T, char8_t> &&
     !std::same_as<T, char16_t> && !std::same_as<T, char32_t>);

PARE_ABI_BEGIN

/// Elements gathered at a time.
inline constexpr std::size_t write_chunk = 8192;

/// True if the elements lie without gaps, the last index fastest.
template <class T, std::size_t Rank>
bool is_row_major(const TensorView<T, Rank>& x) {
  Index stride = 1;
  for (std::size_t d = Rank; d-- > 0;) {
    if (x.extent[d] != 1 && x.stride[d] != stride) return false;
    stride *= x.extent[d];
  }
  return true;
}

/// Streams the elements of any view, converted and gathered a chunk at a time, as long as the
/// stream takes them.
template <class Stored, class T, std::size_t Rank>
void write_strided(std::ostream& os, const TensorView<const T, Rank>& x, std::size_t count) {
  using Raw = std::array<std::byte, sizeof(Stored)>;
  std::vector<Raw> chunk;
  chunk.reserve(std::min(count, write_chunk));
  std::array<Index, Rank> at{};
  Index offset = 0;
  for (std::size_t n = 0; n < count; ++n) {
    chunk.push_back(std::bit_cast<Raw>(static_cast<Stored>(x.data[offset])));
    if (chunk.size() == write_chunk || n + 1 == count) {
      os.write(reinterpret_cast<const char*>(chunk.data()),
               static_cast<std::streamsize>(chunk.size() * sizeof(Raw)));
      if (!os) return;
      chunk.clear();
    }
    for (std::size_t d = Rank; d-- > 0;) {
      offset += x.stride[d];
      if (++at[d] < x.extent[d]) break;
      offset -= x.stride[d] * x.extent[d];
      at[d] = 0;
    }
  }
}

/// Streams the elements as `Stored`, the last index fastest; from where they are if nothing has to
/// change.
template <class Stored, class T, std::size_t Rank>
void write_elements(std::ostream& os, const TensorView<const T, Rank>& x) {
  std::size_t count = 1;
  for (const Index extent : x.extent) count *= static_cast<std::size_t>(extent);
  if (count == 0) return;
  if (std::is_same_v<T, Stored> && is_row_major(x))
    os.write(reinterpret_cast<const char*>(x.data),
             static_cast<std::streamsize>(count * sizeof(T)));
  else
    write_strided<Stored>(os, x, count);
}

PARE_ABI_END
}  // namespace pare::io::detail
