// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Reading a .npy file: the bytes, the checks against their number, and the elements with byte
/// order, type and storage order brought to ours.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/npy_format.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/shape.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pare::io {

namespace detail {
PARE_ABI_BEGIN

/// Elements converted at a time.
inline constexpr std::size_t npy_read_chunk = 8192;

/// The bytes of a file or of memory, in order, with the count of those that are left.
class NpyInput {
 public:
  NpyInput(const char* function, std::span<const std::byte> bytes)
      : place_{function, "bytes"}, memory_(bytes), remaining_(bytes.size()) {
    check_view(function, "bytes", to_view(memory_));
  }

  NpyInput(const char* function, const std::filesystem::path& path)
      : place_{function, path.string()} {
    check_regular_file(place_, path, "a .npy file");
    file_.open(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file_ ? std::streamoff{file_.tellg()} : -1;
    if (size < 0 || !file_.seekg(0)) place_.refuse("a file that cannot be opened", "a .npy file");
    remaining_ = static_cast<std::uintmax_t>(size);
  }

  const Place& place() const { return place_; }
  std::uintmax_t remaining() const { return remaining_; }

  /// Copies the next `count` bytes; refused if the input is shorter.
  void take(void* to, std::size_t count, const char* part) {
    if (count == 0) return;
    bool whole = count <= remaining_;
    if (whole && file_.is_open()) {
      whole = bool(file_.read(static_cast<char*>(to), static_cast<std::streamsize>(count)));
    } else if (whole) {
      std::memcpy(to, memory_.data(), count);
      memory_ = memory_.subspan(count);
    }
    if (!whole) place_.refuse("a file cut short in its " + std::string(part), "a whole .npy file");
    remaining_ -= count;
  }

 private:
  Place place_;
  std::ifstream file_;
  std::span<const std::byte> memory_;
  std::uintmax_t remaining_ = 0;
};

/// Magic, version and length checked; the text that follows.
inline std::string read_npy_header_text(NpyInput& in) {
  std::array<char, 8> start{};
  in.take(start.data(), start.size(), "first 8 bytes");
  if (std::string_view(start.data(), npy_magic.size()) != npy_magic)
    in.place().refuse("bytes that do not start with \\x93NUMPY", "a .npy file");
  const int major = static_cast<unsigned char>(start[6]);
  const int minor = static_cast<unsigned char>(start[7]);
  if (major < 1 || major > 3 || minor != 0)
    in.place().refuse("format version " + std::to_string(major) + "." + std::to_string(minor),
                      "1.0, 2.0 or 3.0");
  std::array<unsigned char, 4> length_bytes{};
  in.take(length_bytes.data(), major == 1 ? 2 : 4, "header length");
  std::size_t length = 0;
  for (std::size_t i = 4; i-- > 0;) length = length << 8 | length_bytes[i];
  const std::uintmax_t most = std::min<std::uintmax_t>(in.remaining(), npy_longest_header);
  if (length > most)
    in.place().refuse("a header of " + std::to_string(length) + " bytes",
                      "at most " + std::to_string(most) + " here");
  std::string text(length, '\0');
  in.take(text.data(), length, "header");
  return text;
}

/// The header, checked against the bytes that follow it.
inline NpyHeader read_npy_header(NpyInput& in) {
  const std::string text = read_npy_header_text(in);
  NpyHeader header = NpyHeaderParser(text, in.place()).parse();
  const Index bytes =
      checked_product(in.place().function, in.place().source.c_str(),
                      element_count(in.place(), header.shape), header.dtype[2] - '0');
  if (in.remaining() != static_cast<std::uintmax_t>(bytes))
    in.place().refuse(std::to_string(in.remaining()) + " bytes of data",
                      std::to_string(bytes) + " for shape " + shape_text(header.shape) +
                          " of dtype '" + header.dtype + "'");
  return header;
}

/// Bits of an integer, or of a significand.
template <class T>
inline constexpr int npy_digits = std::numeric_limits<T>::digits;
template <>
inline constexpr int npy_digits<f16> = 11;

/// True if T holds every value of Source exactly.
template <class Source, class T>
constexpr bool npy_holds() {
  if (is_npy_float<Source> && !is_npy_float<T>) return false;
  const bool source_is_signed = is_npy_float<Source> || std::is_signed_v<Source>;
  const bool is_signed = is_npy_float<T> || std::is_signed_v<T>;
  return npy_digits<Source> <= npy_digits<T> && (is_signed || !source_is_signed);
}

template <class Source>
Source load_npy(const std::byte* from, bool swap) {
  if constexpr (std::is_same_v<Source, bool>) {
    return *from != std::byte{0};
  } else {
    std::array<std::byte, sizeof(Source)> raw;
    std::memcpy(raw.data(), from, raw.size());
    if (swap) std::reverse(raw.begin(), raw.end());
    return std::bit_cast<Source>(raw);
  }
}

template <class T, class Source>
T convert_npy(Source value) {
  if constexpr (std::is_same_v<Source, T>)
    return value;
  else if constexpr (std::is_same_v<Source, f16> || std::is_same_v<T, f16>)
    return static_cast<T>(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

/// Reads `count` elements in the file's order.
template <class Source, class T>
void read_npy_run(NpyInput& in, bool swap, std::size_t count, T* out) {
  constexpr bool same_bits = npy_code<Source> == npy_code<T> && !std::is_same_v<Source, bool>;
  if (same_bits && !swap) return in.take(out, count * sizeof(T), "data");
  std::vector<std::byte> chunk(std::min(count, npy_read_chunk) * sizeof(Source));
  for (std::size_t done = 0; done < count;) {
    const std::size_t n = std::min(count - done, npy_read_chunk);
    in.take(chunk.data(), n * sizeof(Source), "data");
    for (std::size_t i = 0; i < n; ++i)
      out[done + i] = convert_npy<T>(load_npy<Source>(chunk.data() + i * sizeof(Source), swap));
    done += n;
  }
}

/// Column-major to row-major, both contiguous. The first and the last dimension make matrices that
/// are transposed in tiles, one for every index of the dimensions between them.
template <class T>
void to_row_major(const T* in, const std::vector<Index>& shape, Index count, T* out) {
  constexpr Index tile = 32;
  const Index rows = shape.front(), cols = shape.back();
  const Index in_step = count / cols, out_step = count / rows, between = count / rows / cols;
  const auto copy_tile = [&](const T* from, T* to, Index i0, Index j0) {
    for (Index i = i0; i < std::min(i0 + tile, rows); ++i)
      for (Index j = j0; j < std::min(j0 + tile, cols); ++j)
        to[i * out_step + j] = from[i + j * in_step];
  };
  for (Index m = 0; m < between; ++m) {
    Index row_major = 0, left = m;
    for (std::size_t d = 1; d + 1 < shape.size(); ++d) {
      row_major = row_major * shape[d] + left % shape[d];
      left /= shape[d];
    }
    for (Index i = 0; i < rows; i += tile)
      for (Index j = 0; j < cols; j += tile) copy_tile(in + m * rows, out + row_major * cols, i, j);
  }
}

/// Reads all elements in row-major order, widened to T.
template <class T>
void read_npy_elements(NpyInput& in, const NpyHeader& header, Index count, T* out) {
  const bool is_little = header.dtype[0] != '>';
  const bool swap =
      header.dtype[0] != '|' && is_little != (std::endian::native == std::endian::little);
  const bool reorder = header.fortran_order && header.shape.size() > 1 && count > 0;
  with_npy_type(NpyTypes{}, std::string_view(header.dtype).substr(1), [&](auto type) {
    using Source = typename decltype(type)::type;
    if constexpr (npy_holds<Source, T>()) {
      std::vector<T> columns(static_cast<std::size_t>(reorder ? count : 0));
      read_npy_run<Source>(in, swap, static_cast<std::size_t>(count),
                           reorder ? columns.data() : out);
      if (reorder) to_row_major(columns.data(), header.shape, count, out);
    }
  });
}

/// Refuses a dtype with values that T does not hold, before anything is allocated.
template <class T>
void check_npy_dtype(const Place& place, const NpyHeader& header) {
  bool holds = false;
  with_npy_type(NpyTypes{}, std::string_view(header.dtype).substr(1),
                [&](auto type) { holds = npy_holds<typename decltype(type)::type, T>(); });
  if (!holds)
    place.refuse("dtype '" + header.dtype + "'",
                 "one whose values '" + npy_dtype<T>() + "' holds exactly");
}

/// The elements of an owning array as a view of a rank fixed at compile time.
template <std::size_t Rank, class T>
TensorView<T, Rank> npy_array_view(T* data, std::size_t size, const std::vector<Index>& shape) {
  const Place place{"io::NpyArray::view", "shape"};
  if (element_count(place, shape) != static_cast<Index>(size))
    place.refuse(shape_text(shape), "a shape of " + std::to_string(size) + " elements");
  return row_major_view<Rank>(place, data, shape);
}

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
