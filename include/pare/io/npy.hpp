// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// NumPy's .npy files: one array per file, with its dtype and its shape.
///
/// ```cpp
/// pare::io::write_npy("embedding.npy", embedding);               // any Eigen matrix, vector, view
/// auto labels = pare::io::read_npy<std::int32_t>("labels.npy");  // labels.shape, labels.data
/// auto x = pare::io::read_npy_matrix<float>("embedding.npy");    // a row-major Eigen matrix
/// ```
///
/// | C++ | dtype | |
/// |---|---|---|
/// | `float`, `double` | `f4`, `f8` | |
/// | `pare::f16`, `Eigen::half` | `f2` | |
/// | `pare::bf16`, `Eigen::bfloat16` | `f4` | widened when written: NumPy has no bfloat16 |
/// | `std::int8_t` to `std::uint64_t` | `i1` to `u8` | character types are text and not accepted |
/// | `bool` | `b1` | written; read as an integer, 0 or 1 |
///
/// Reading widens and never narrows: a file is read as T if T holds every value of its dtype
/// exactly (`f2` as float, `i4` as `std::int64_t` or double, but not `i4` as float or `f8` as
/// float). Either byte order and either storage order is read, `f4` and `=f4` in this machine's
/// byte order as in NumPy; what is returned is in this machine's byte order and row-major.
/// Versions 1.0, 2.0 and 3.0 are read; 1.0 is written, or 2.0 when the header needs more than 65535
/// bytes. Headers that Python 2 wrote (`3L`, `u'shape'`) are read. Text, complex, structured and
/// Python object arrays are refused.
///
/// A file is not trusted: its shape must account for every byte that follows the header, no byte
/// less or more, before anything is allocated for it. Memory is bounded by the file's size, times
/// the widening (at most 8), once more while a Fortran-order array is transposed.
///
/// Every failure, malformed content as well as a file that cannot be opened or written, is a
/// `std::invalid_argument` that names the function, the file, what was found and what was wanted.
///
/// Source: NumPy Enhancement Proposal 1 and numpy.lib.format.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/npy_format.hpp>
#include <pare/io/detail/npy_read.hpp>
#include <pare/io/detail/npy_write.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/replace_file.hpp>
#include <pare/io/detail/shape.hpp>

#include <Eigen/Core>

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <ostream>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::io {

/// What a file may be read as: every scalar that has a dtype, except bool. For bfloat16, read float
/// and convert.
template <class T>
concept NpyReadable = NpyScalar<T> && !std::same_as<T, bool>;

PARE_ABI_BEGIN

/// An array read from a file: any number of dimensions, row-major, without gaps.
///
/// A 0-d array has an empty shape and one element; an array with an extent of zero has none.
template <NpyReadable T>
struct NpyArray {
  std::vector<Index> shape;  ///< one extent per dimension
  std::vector<T> data;       ///< the elements, the last index fastest

  /// The array as a view of `Rank` dimensions; valid while the array lives.
  /// \throws std::invalid_argument if `shape` has another number of dimensions, or does not account
  /// for the elements of `data`.
  template <std::size_t Rank>
  PARE_ALWAYS_INLINE TensorView<T, Rank> view() & {
    return detail::npy_array_view<Rank>(data.data(), data.size(), shape);
  }
  template <std::size_t Rank>
  PARE_ALWAYS_INLINE TensorView<const T, Rank> view() const& {
    return detail::npy_array_view<Rank>(data.data(), data.size(), shape);
  }
  /// The view would outlive the array: name the array first.
  template <std::size_t Rank>
  void view() const&& = delete;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

template <class X>
inline constexpr bool is_npy_array = false;
template <class T>
inline constexpr bool is_npy_array<NpyArray<T>> = true;

PARE_ABI_END
}  // namespace detail

/// What a file may be written from: every scalar that has a dtype, and bf16.
template <class T>
concept NpyStorable = NpyScalar<T> || std::same_as<T, bf16>;

/// What is viewed and written: an Eigen Matrix, Array, Map, Ref or Block of either storage order, a
/// row-major Tensor, std::vector, std::array, std::span or TensorView.
template <class X>
concept NpyViewable = NpyStorable<scalar_of<X>>;

/// What can be written: anything that is viewed, or an array as it was read.
template <class X>
concept NpyWritable = NpyViewable<X> || detail::is_npy_array<X>;

namespace detail {
PARE_ABI_BEGIN

/// What is written for x: an Eigen vector has one dimension, as it has in NumPy.
template <class X>
auto npy_output_of(const char* function, const X& x) {
  if constexpr (is_npy_array<X>) {
    const Place place{function, "x"};
    const auto size = static_cast<Index>(x.data.size());
    if (element_count(place, x.shape) != size)
      place.refuse(shape_text(x.shape), "a shape of " + std::to_string(size) + " elements");
    auto output = npy_output(function, as_const(to_view(x.data)));
    output.header.shape = x.shape;
    return output;
  } else if constexpr (pare::detail::DenseMatrix<const X>) {
    if constexpr (X::IsVectorAtCompileTime)
      return npy_output(function, as_const(to_vector_view(x)));
    else
      return npy_output(function, as_const(to_view(x)));
  } else {
    return npy_output(function, as_const(to_view(x)));
  }
}

template <NpyReadable T>
NpyArray<T> read_npy_array(NpyInput in) {
  const NpyHeader header = read_npy_header(in);
  check_npy_dtype<T>(in.place(), header);
  NpyArray<T> array{header.shape, {}};
  const Index count = element_count(in.place(), header.shape);
  array.data.resize(static_cast<std::size_t>(count));
  read_npy_elements(in, header, count, array.data.data());
  return array;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Reads and checks the header alone: what the file holds, before choosing a type to read it as.
///
/// \returns dtype, storage order and shape; the dtype of one-byte types is given with `|`, as `|u1`
/// \throws std::invalid_argument if the file is not a well-formed .npy file of plain numbers, the
/// size of its data included.
///
/// Cost: the header, whatever the file's size.
inline NpyHeader read_npy_header(const std::filesystem::path& path) {
  detail::NpyInput in("io::read_npy_header", path);
  return detail::read_npy_header(in);
}

/// Reads an array of any number of dimensions as T, widening if need be.
///
/// Cost: one read of the file straight into the result, where neither type, byte order nor storage
/// order differ; else one more pass over it.
/// \throws std::invalid_argument if the file is not a well-formed .npy file, or T does not hold
/// every value of its dtype.
template <NpyReadable T>
NpyArray<T> read_npy(const std::filesystem::path& path) {
  return detail::read_npy_array<T>({"io::read_npy", path});
}

/// The same from the bytes of a file, which are copied and need no alignment.
/// \throws std::invalid_argument as `read_npy`.
template <NpyReadable T>
NpyArray<T> parse_npy(std::span<const std::byte> bytes) {
  return detail::read_npy_array<T>({"io::parse_npy", bytes});
}

/// Reads a matrix as T, straight into Eigen's memory; an array of one dimension becomes one column.
///
/// T is not f16, which has no arithmetic in Eigen: read that as float. Cost: as `read_npy`.
/// \throws std::invalid_argument as `read_npy`, and if the array has neither 1 nor 2 dimensions.
template <NpyReadable T>
Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> read_npy_matrix(
    const std::filesystem::path& path) {
  static_assert(!std::is_same_v<T, f16>, "pare: read f16 as float, or with read_npy");
  detail::NpyInput in("io::read_npy_matrix", path);
  const NpyHeader header = detail::read_npy_header(in);
  detail::check_npy_dtype<T>(in.place(), header);
  const std::vector<Index>& shape = header.shape;
  if (shape.empty() || shape.size() > 2)
    in.place().refuse("shape " + detail::shape_text(shape), "1 or 2 dimensions");
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> matrix(
      shape[0], shape.size() == 2 ? shape[1] : 1);
  detail::read_npy_elements(in, header, matrix.size(), matrix.data());
  return matrix;
}

/// Writes an array to a stream, which must be open in binary mode.
///
/// Contiguous elements are written from where they are: row-major with `fortran_order` False,
/// column-major with True. Views with gaps are gathered in row-major order through a buffer of
/// fixed size; bf16 is widened to float through it, in its own storage order. An Eigen vector, and
/// a row or a column of a matrix, has one dimension. Cost: one pass.
/// \throws std::invalid_argument if an extent is negative or the data pointer null (before anything
/// is written), or if the stream fails.
template <NpyWritable X>
void write_npy(std::ostream& stream, const X& x) {
  const auto output = detail::npy_output_of("io::write_npy", x);
  detail::write_npy_output(stream, output);
  check(stream.good(), "io::write_npy", "stream", "a write that failed", "a stream with room");
}

/// Writes an array to a file that appears whole or not at all.
///
/// The bytes go to a temporary file beside `path`, which then takes its name. A file that was there
/// is replaced and its mode kept (0600 stays 0600); its owner is whoever writes; a symbolic link is
/// replaced by the file. If anything fails, the temporary file is removed, and what was at `path`
/// is as before. A crash of the machine may lose the file: nothing is forced to the disk.
///
/// \throws std::invalid_argument as for a stream, and if the file cannot be created, written or
/// renamed, or `path` names a folder or a device.
template <NpyWritable X>
void write_npy(const std::filesystem::path& path, const X& x) {
  const auto output = detail::npy_output_of("io::write_npy", x);
  detail::replace_file("io::write_npy", path,
                       [&](std::ostream& file) { detail::write_npy_output(file, output); });
}

PARE_ABI_END

}  // namespace pare::io

#include <pare/core/macros_on.hpp>
