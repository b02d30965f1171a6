// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Hugging Face's .safetensors files: many named tensors per file, mapped into memory.
///
/// Needs nlohmann-json, and is therefore not part of pare.hpp; in CMake link `pare::safetensors`.
///
/// ```cpp
/// const pare::io::SafetensorsFile model("model.safetensors");
/// for (const auto& tensor : model.tensors()) std::puts(tensor.name.c_str());
/// auto w = model.matrix<pare::bf16>("lm_head.weight");  // TensorView<const bf16, 2> of the file
/// pare::io::write_safetensors("small.safetensors", {{"left", left}, {"right", right}});
/// ```
///
/// | C++ | dtype |
/// |---|---|
/// | `double`, `float` | `F64`, `F32` |
/// | `pare::f16`, `Eigen::half` | `F16` |
/// | `pare::bf16`, `Eigen::bfloat16` | `BF16` |
/// | `std::int8_t` to `std::int64_t` | `I8` to `I64` |
/// | `std::uint8_t` to `std::uint64_t` | `U8` to `U64` |
/// | `bool`, written only | `BOOL` |
/// | none: read as any float above | `F8_E4M3`, `F8_E5M2` |
/// | none: listed, given as bytes | `C64`, `F4`, `F6_...` and the other `F8_...` |
///
/// BOOL is viewed as `std::uint8_t`: a byte of a file may be neither 0 nor 1. Tensors that have no
/// C++ type are listed with their bytes, and are copied from file to file as they are:
///
/// ```cpp
/// Eigen::MatrixXf w(256, 4096);
/// model.read_rows("w", 512, w);  // rows 512 to 767 of an F8_E4M3 tensor, as float
/// ```
///
/// A file with a dtype that the format does not have is refused, and the error names it.
///
/// A file is not trusted. All of its header is checked before anything is handed out: its length
/// (at most 100 MB, as in the reference implementation, and inside the file), strict JSON, known
/// dtypes, `__metadata__` a map of strings or null, and tensors that take up the data from the
/// first byte to the last without gap or overlap, each as many bytes as its dtype and shape stand
/// for. Keys of a tensor other than dtype, shape and data_offsets are skipped, as there. Names
/// and keys that occur twice, and a header that does not start with `{`, are refused: our choice.
/// Values are not looked at. Memory is bounded by a small multiple of the header's size; data pages
/// are loaded when they are read.
///
/// Every failure, malformed content as well as a file that cannot be opened or written, is a
/// `std::invalid_argument` that names the function, the file, what was found and what was wanted.
///
/// Source: the format description in the README of huggingface/safetensors, and its reference
/// implementation for the limits.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/file_bytes.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/replace_file.hpp>
#include <pare/io/detail/safetensors_format.hpp>
#include <pare/io/detail/safetensors_read.hpp>
#include <pare/io/detail/safetensors_write.hpp>

#include <Eigen/Core>

#include <bit>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <map>
#include <ostream>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

static_assert(std::endian::native == std::endian::little,
              "pare: .safetensors files are little endian and are viewed without a copy");

namespace pare::io {

/// What data may be viewed as: every scalar that has a dtype, except bool.
template <class S>
concept SafetensorsViewable = SafetensorsScalar<S> && !std::same_as<S, bool>;

/// What is written: an Eigen Matrix, Array, Map, Ref or Block of either storage order, a row-major
/// Tensor, std::vector, std::array, std::span or TensorView.
template <class X>
concept SafetensorsWritable = SafetensorsScalar<scalar_of<X>>;

PARE_ABI_BEGIN

/// A checked .safetensors file, open for reading.
///
/// The file is mapped where the system can (POSIX), and otherwise read. Views point into it and are
/// valid while this object or a copy of it lives; copies share the memory. The file must not be
/// changed in place meanwhile: a file that is cut short under a mapping ends the program with
/// SIGBUS. To write a new file of the same name is safe, since `write_safetensors` replaces it.
class SafetensorsFile {
 public:
  /// Opens a file. Cost: its header; its data is not read.
  /// \throws std::invalid_argument if it cannot be opened or is not a well-formed .safetensors file
  /// of the dtypes above.
  PARE_ALWAYS_INLINE explicit SafetensorsFile(const std::filesystem::path& path)
      : contents_(detail::open_safetensors(path)) {}

  /// The same from the bytes of a file, which must outlive this object; nothing is copied.
  /// \throws std::invalid_argument as for a path.
  PARE_ALWAYS_INLINE explicit SafetensorsFile(std::span<const std::byte> bytes)
      : contents_(detail::view_safetensors(bytes)) {}
  /// The bytes would be gone: name them first.
  template <class Bytes>
  requires(pare::detail::OwningRvalue<Bytes> &&
           std::same_as<std::ranges::range_value_t<Bytes>, std::byte>)
  explicit SafetensorsFile(const Bytes&&) = delete;

  /// All tensors in the order of their data.
  const std::vector<SafetensorsTensor>& tensors() const& { return contents_.tensors; }
  const std::vector<SafetensorsTensor>& tensors() const&& = delete;

  /// The file's own notes: `__metadata__`.
  const std::map<std::string, std::string>& metadata() const& { return contents_.metadata; }
  const std::map<std::string, std::string>& metadata() const&& = delete;

  /// Whether there is a tensor of that name. Cost: here and below, a search among sorted names.
  PARE_ALWAYS_INLINE bool contains(std::string_view name) const {
    return detail::find_tensor(contents_, name) != nullptr;
  }

  /// Name, dtype, shape and bytes of a tensor.
  /// \throws std::invalid_argument if there is no tensor of that name.
  PARE_ALWAYS_INLINE const SafetensorsTensor& tensor(std::string_view name) const& {
    return detail::tensor_of("io::SafetensorsFile::tensor", contents_, name);
  }
  const SafetensorsTensor& tensor(std::string_view name) const&& = delete;

  /// A tensor's elements where they lie in the file: row-major, without gaps.
  ///
  /// The format does not align its data, although its writers do: what does not lie at a multiple
  /// of the element's size cannot be viewed, only taken by `read_matrix` or from its bytes.
  ///
  /// \tparam S    the C++ type of its dtype, as in the table above
  /// \tparam Rank its number of dimensions
  /// \throws std::invalid_argument if there is no tensor of that name, its dtype is not that of S
  /// (`BOOL` passes for `std::uint8_t`), it has another number of dimensions, or it is not aligned.
  template <SafetensorsViewable S, std::size_t Rank>
  PARE_ALWAYS_INLINE TensorView<const S, Rank> view(std::string_view name) const& {
    return detail::tensor_view<S, Rank>("io::SafetensorsFile::view", contents_, name);
  }
  /// The view would outlive the file: name the file first.
  template <SafetensorsViewable S, std::size_t Rank>
  void view(std::string_view name) const&& = delete;

  /// The view of a tensor of two dimensions, [rows, cols].
  /// \throws std::invalid_argument as `view`.
  template <SafetensorsViewable S>
  PARE_ALWAYS_INLINE TensorView<const S, 2> matrix(std::string_view name) const& {
    return detail::tensor_view<S, 2>("io::SafetensorsFile::matrix", contents_, name);
  }
  template <SafetensorsViewable S>
  void matrix(std::string_view name) const&& = delete;

  /// A copy of a matrix of floats, widened to T, float or double; a tensor of one dimension becomes
  /// one column.
  ///
  /// `F8_E4M3`, `F8_E5M2`, `F16`, `BF16` and `F32` are read as float or double, `F64` as double;
  /// data need not be aligned. Scales that a model keeps beside an 8-bit tensor are not applied.
  /// Cost: one pass.
  /// \throws std::invalid_argument if there is no tensor of that name, T does not hold every value
  /// of its dtype, or it has neither 1 nor 2 dimensions.
  template <ComputeScalar T>
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> read_matrix(
      std::string_view name) const {
    const detail::ReadableMatrix source =
        detail::readable_matrix<T>("io::SafetensorsFile::read_matrix", contents_, name);
    Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> matrix(source.rows,
                                                                             source.cols);
    detail::read_rows(source, 0, to_view(matrix));
    return matrix;
  }

  /// Copies rows of a matrix into the caller's memory, widened to its scalar.
  ///
  /// out [rows, cols] takes rows `first` to `first + rows - 1`; float, double, bf16 or f16, any
  /// strides, cols as many as the tensor has (1 for a tensor of one dimension). A row of `F8_E4M3`
  /// or `F8_E5M2` is read as any of these, exactly: NaN stays NaN, infinity infinity (`F8_E4M3` has
  /// none). Other rows are read as by `read_matrix`, into bf16 or f16 only from the same dtype.
  /// Cost: one pass over the rows.
  ///
  /// \throws std::invalid_argument as `read_matrix`, and if the tensor does not have the rows or
  /// columns, or out overlaps itself or the file's memory; out is then as before.
  template <Out<2> Y>
  PARE_ALWAYS_INLINE void read_rows(std::string_view name, Index first, Y&& out) const {
    const char* const function = "io::SafetensorsFile::read_rows";
    const auto y = to_view(out);
    const detail::ReadableMatrix source =
        detail::readable_matrix<typename view_of<Y>::scalar>(function, contents_, name);
    detail::check_rows(function, source, first, y);
    detail::read_rows(source, first, y);
  }

 private:
  detail::SafetensorsContents contents_;
};

/// A tensor to be written, with its name. It views what it is made from, which must live until the
/// file is written; a matrix or vector that is passed as a temporary is moved into it.
class NamedTensor {
 public:
  /// The elements of x; an Eigen vector, and a row or a column of a matrix, has one dimension.
  /// \throws std::invalid_argument if an extent is negative or the data pointer null.
  template <SafetensorsWritable X>
  NamedTensor(std::string name, const X& x)
      : output_(detail::safetensors_output_of(std::move(name), x)) {}
  template <SafetensorsWritable X>
  requires(pare::detail::OwningRvalue<X>)
  NamedTensor(std::string name, X&& x)
      : output_(detail::kept_safetensors_output(std::move(name), std::forward<X>(x))) {}

  /// A tensor of another file as it is; converts, so that one stands for the other in a list.
  PARE_ALWAYS_INLINE NamedTensor(const SafetensorsTensor& tensor)
      : NamedTensor(tensor.name, tensor.dtype, tensor.shape, tensor.bytes) {}

  /// Bytes of any dtype of the table, row-major and little endian.
  /// \throws std::invalid_argument if the dtype is none of them, an extent is negative, or the
  /// shape stands for another number of bytes.
  PARE_ALWAYS_INLINE NamedTensor(std::string name, std::string dtype, std::vector<Index> shape,
                                 std::span<const std::byte> bytes)
      : output_(detail::safetensors_output(std::move(name), std::move(dtype), std::move(shape),
                                           bytes)) {}

  /// What `write_safetensors` asks for.
  const detail::SafetensorsOutput& output() const { return output_; }

 private:
  detail::SafetensorsOutput output_;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline SafetensorsPlan safetensors_plan(const std::vector<NamedTensor>& tensors,
                                        const std::map<std::string, std::string>& metadata) {
  std::vector<const SafetensorsOutput*> outputs;
  outputs.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) outputs.push_back(&tensor.output());
  return {outputs, metadata};
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Writes tensors to a stream, which must be open in binary mode.
///
/// \param tensors  names and elements: a list such as {{"left", left}, {"right", right}}
/// \param metadata the file's own notes, `__metadata__`
///
/// The data is written in the order given, but wider elements before narrower ones, so that all of
/// it is aligned, as the reference implementation does. Elements without gaps are written from
/// where they are; others are gathered through a buffer of fixed size. Cost: one pass.
/// \throws std::invalid_argument if a name occurs twice or is `__metadata__`, a name or a note is
/// not UTF-8, the header would pass 100 MB (all before anything is written), or the stream fails.
inline void write_safetensors(std::ostream& stream, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  detail::safetensors_plan(tensors, metadata).write(stream);
  check(stream.good(), "io::write_safetensors", "stream", "a write that failed",
        "a stream with room");
}

/// Writes tensors to a file that appears whole or not at all.
///
/// The bytes go to a temporary file beside `path`, which then takes its name. A file that was there
/// is replaced and its mode kept (0600 stays 0600); its owner is whoever writes; a symbolic link is
/// replaced by the file. If anything fails, the temporary file is removed, and what was at `path`
/// is as before. A crash of the machine may lose the file: nothing is forced to the disk. Tensors
/// of an open `SafetensorsFile` may be written to its own path.
///
/// \param tensors  names and elements, as for a stream
/// \param metadata the file's own notes, `__metadata__`
/// \throws std::invalid_argument as for a stream, and if the file cannot be created, written or
/// renamed, or `path` names a folder or a device.
inline void write_safetensors(const std::filesystem::path& path,
                              const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  const detail::SafetensorsPlan plan = detail::safetensors_plan(tensors, metadata);
  detail::replace_file("io::write_safetensors", path,
                       [&plan](std::ostream& file) { plan.write(file); });
}

PARE_ABI_END

}  // namespace pare::io

#include <pare/core/macros_on.hpp>
