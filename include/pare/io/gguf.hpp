// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// GGUF files, the weights and the vocabulary of a language model in one file, mapped into memory.
///
/// ```cpp
/// const pare::io::GgufFile model("model.gguf");
/// const auto layers = model.get<int>("llama.block_count");
/// const auto base = model.find<float>("llama.rope.freq_base").value_or(10000.0f);
/// const auto words = model.get<std::vector<std::string_view>>("tokenizer.ggml.tokens");
/// const auto& w = model.tensor("blk.0.attn_q.weight");  // w.type, w.shape, w.bytes
/// Eigen::MatrixXf rows(16, w.cols());
/// model.read_rows(pare::simd.threads(2), w.name, 512, rows);  // rows 512 to 527, as float
/// auto blocks = model.blocks<pare::kernel::Q4_1>(w.name);     // as stored: rows x cols / 32
/// ```
///
/// Versions 2 and 3 are read, little endian. Shapes are row-major: a file that says [in, out], the
/// fastest first, has a weight of shape [out, in].
///
/// | type of a tensor | `read_rows` | `view<S, Rank>` | `blocks<Block>` | listed, with its bytes |
/// |---|---|---|---|---|
/// | `F32`, `F16`, `BF16` | yes | `float`, `f16`, `bf16` | | yes |
/// | `Q8_0`, `Q4_0`, `Q4_1`, `Q4_K`, `Q6_K` | yes | | `pare::kernel::Q8_0`, ... | yes |
/// | `F64` | | `double` | | yes |
/// | `I8` to `I64`, `Q5_K` and the format's other types | | | | yes |
/// | a number that the format did not have | | | | without bytes |
///
/// A tensor that cannot be read is refused when it is read, by its name and type; the others of its
/// file can be used.
///
/// A file is not trusted. All of it but the data is checked before anything is handed out: counts
/// and lengths against the bytes that are left, before memory is taken; value types, and bools to
/// be 0 or 1; no arrays of arrays; `general.alignment`, a power of two (32 if it is not there); at
/// most 4 dimensions, whose products do not overflow; rows that fill whole blocks; offsets at
/// multiples of the alignment, and data inside the file. Keys and names that occur twice are
/// refused. Two tensors may share bytes: our choice, for tied weights. Memory is bounded by a small
/// multiple of the size of metadata and directory; pages of data are loaded when they are read.
///
/// Every failure, malformed content as well as a file that cannot be opened, is a
/// `std::invalid_argument` that names the function, the file, what was found and what was wanted;
/// of an output or a row that does not fit, the argument in the file's place.
///
/// Source: docs/gguf.md of ggml; the blocks: kernel/quantized.hpp.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/gguf_format.hpp>
#include <pare/io/detail/gguf_metadata.hpp>
#include <pare/io/detail/gguf_read.hpp>
#include <pare/io/detail/gguf_types.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/kernel/quantized.hpp>

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

static_assert(std::endian::native == std::endian::little,
              "pare: GGUF files are little endian and are viewed without a copy");

namespace pare::io {

/// A vector that is written: std::vector, std::span, TensorView<T, 1>, or a vector of Eigen's.
template <class V>
concept GgufRowOut =
    Out<V, 1> || (Out<V, 2> && bool(std::remove_cvref_t<V>::IsVectorAtCompileTime));

PARE_ABI_BEGIN

/// The name of a type, as files of models are named: `Q4_1`; empty for a number without a name.
inline std::string_view name_of(GgufType type) {
  const detail::GgufBlock* const block = detail::gguf_block(type);
  return block == nullptr ? std::string_view() : block->name;
}

/// The name of a type of metadata, as the format spells it: `uint32`, `string`.
inline std::string_view name_of(GgufValue type) { return detail::gguf_value(type).name; }

/// A checked GGUF file, open for reading.
///
/// The file is mapped where the system can (POSIX), and otherwise read. Views, names and texts
/// point into it and are valid while this object or a copy of it lives; copies share the memory.
/// The file must not be changed in place meanwhile: a file that is cut short under a mapping ends
/// the program with SIGBUS.
class GgufFile {
 public:
  /// Opens a file. Cost: its metadata and directory; its data is not read.
  /// \throws std::invalid_argument if it cannot be opened or is not a well-formed GGUF file.
  explicit GgufFile(const std::filesystem::path& path) : contents_(detail::open_gguf(path)) {}

  /// The same from the bytes of a file, which must outlive this object; nothing is copied.
  /// \throws std::invalid_argument as for a path.
  explicit GgufFile(std::span<const std::byte> bytes) : contents_(detail::view_gguf(bytes)) {}
  /// The bytes would be gone: name them first.
  template <class Bytes>
  requires(pare::detail::OwningRvalue<Bytes> &&
           std::same_as<std::ranges::range_value_t<Bytes>, std::byte>)
  explicit GgufFile(const Bytes&&) = delete;

  /// 2 or 3.
  std::uint32_t version() const { return contents_.version; }

  /// Tensors lie at multiples of so many bytes.
  std::size_t alignment() const { return contents_.alignment; }

  /// All metadata in the order of the file: keys, types, numbers of elements.
  const std::vector<GgufEntry>& metadata() const& { return contents_.entries; }
  const std::vector<GgufEntry>& metadata() const&& = delete;

  /// Whether there is metadata of that key. Cost: here and below, a search among sorted names.
  bool has_key(std::string_view key) const {
    return detail::find_gguf_entry(contents_, key) != nullptr;
  }

  /// The metadata of a key as T.
  ///
  /// \tparam T a number, std::string, std::string_view, or a std::vector of one of them
  ///
  /// An integer is read as any integer type that holds its value, `float32` as float or double,
  /// `float64` as double, `bool` as bool. Views point into the file's memory, so that a vocabulary
  /// is not copied, only its vector of views is made. Cost: one pass over the value.
  /// \throws std::invalid_argument if there is no such key, its value is of another type, or it
  /// does not fit.
  template <GgufReadable T>
  T get(std::string_view key) const& {
    const char* const function = "io::GgufFile::get";
    return detail::gguf_value_as<T>(function, contents_,
                                    detail::gguf_entry_of(function, contents_, key));
  }
  /// The view would outlive the file: name the file first, here and below.
  template <GgufReadable T>
  requires detail::is_gguf_view<T>
  void get(std::string_view key) const&& = delete;

  /// The same, or nothing if there is no such key.
  /// \throws std::invalid_argument if its value is of another type, or does not fit.
  template <GgufReadable T>
  std::optional<T> find(std::string_view key) const& {
    const GgufEntry* const entry = detail::find_gguf_entry(contents_, key);
    if (entry == nullptr) return std::nullopt;
    return detail::gguf_value_as<T>("io::GgufFile::find", contents_, *entry);
  }
  template <GgufReadable T>
  requires detail::is_gguf_view<T>
  void find(std::string_view key) const&& = delete;

  /// All tensors in the order of the file's directory.
  const std::vector<GgufTensor>& tensors() const& { return contents_.tensors; }
  const std::vector<GgufTensor>& tensors() const&& = delete;

  /// Whether there is a tensor of that name.
  bool contains(std::string_view name) const {
    return detail::find_gguf_tensor(contents_, name) != nullptr;
  }

  /// Name, type, shape and bytes of a tensor.
  /// \throws std::invalid_argument if there is no tensor of that name.
  const GgufTensor& tensor(std::string_view name) const& {
    return detail::gguf_tensor_of("io::GgufFile::tensor", contents_, name);
  }
  const GgufTensor& tensor(std::string_view name) const&& = delete;

  /// A tensor's blocks as they are stored, [rows, cols / Block::elements] without gaps: for kernels
  /// that multiply by quantised weights.
  ///
  /// \tparam Block the struct of its type in kernel/quantized.hpp
  /// \throws std::invalid_argument if there is no tensor of that name, or it is of another type.
  template <GgufBlocks Block>
  std::span<const Block> blocks(std::string_view name) const& {
    return detail::gguf_blocks_of<Block>("io::GgufFile::blocks", contents_, name);
  }
  template <GgufBlocks Block>
  void blocks(std::string_view name) const&& = delete;

  /// A tensor's elements where they lie in the file: row-major, without gaps.
  ///
  /// \tparam S    the C++ type of its type: float, double, f16 or bf16
  /// \tparam Rank its number of dimensions
  /// \throws std::invalid_argument if there is no tensor of that name, it is of another type, it
  /// has another number of dimensions, or it does not lie at a multiple of the element's size (it
  /// does with the default alignment, unless the bytes of the file do not).
  template <GgufViewable S, std::size_t Rank>
  TensorView<const S, Rank> view(std::string_view name) const& {
    return detail::gguf_view<S, Rank>("io::GgufFile::view", contents_, name);
  }
  template <GgufViewable S, std::size_t Rank>
  void view(std::string_view name) const&& = delete;

  /// Reads rows of a tensor into the caller's memory, de-quantised.
  ///
  /// \param backend on which threads; the bits are the same for all
  /// \param name    a tensor of a type of the table, taken as a matrix: its last extent are the
  ///                columns, all others together the rows (1 for a tensor of one dimension)
  /// \param first   the first row that is read, from 0
  /// \param out     [rows, cols] takes rows `first` to `first + rows - 1`; float, double, bf16 or
  ///                f16, any strides, cols as many as the tensor has
  ///
  /// Elements are floats: a block's formula stands in kernel/quantized.hpp, and its bits do not
  /// depend on the processor. Into bf16 and f16 they are rounded to nearest, ties to even (above
  /// 65504 to infinity in f16); `F16` and `BF16` are copied into their own type. Cost: one pass
  /// over the rows, cut into items of 16384 elements; the stores of `out` bind; rows without gaps
  /// are written a register at a time, columns one by one. Memory: none.
  ///
  /// \throws std::invalid_argument if there is no tensor of that name, its type is not read, it
  /// does not have the rows or columns, or out overlaps itself or the file's memory; out is then as
  /// before.
  template <Backend B, Out<2> Y>
  void read_rows(const B& backend, std::string_view name, Index first, Y&& out) const {
    const detail::Place place{"io::GgufFile::read_rows", contents_.source};
    const GgufTensor& tensor = detail::gguf_tensor_of(place.function, contents_, name);
    detail::read_gguf_rows_on(backend, tensor.type,
                              detail::check_gguf_rows(place, tensor, "first", first, to_view(out)));
  }
  template <Out<2> Y>
  void read_rows(std::string_view name, Index first, Y&& out) const {
    read_rows(simd, name, first, std::forward<Y>(out));
  }

  /// Reads one row of a tensor into a vector of its columns: the embedding of a token, or row 0 of
  /// a tensor of one dimension, such as the gains of a norm. All else is as in `read_rows`.
  /// \throws std::invalid_argument as `read_rows`.
  template <Backend B, GgufRowOut V>
  void read_row(const B& backend, std::string_view name, Index row, V&& out) const {
    const detail::Place place{"io::GgufFile::read_row", contents_.source};
    const GgufTensor& tensor = detail::gguf_tensor_of(place.function, contents_, name);
    check(row >= 0 && row < tensor.rows(), place.function, "row", row,
          Worded{"below ", tensor.rows(), ", the rows of the tensor"});
    detail::read_gguf_rows_on(
        backend, tensor.type,
        detail::check_gguf_rows(place, tensor, "row", row, detail::as_row(to_vector_view(out))));
  }
  template <GgufRowOut V>
  void read_row(std::string_view name, Index row, V&& out) const {
    read_row(simd, name, row, std::forward<V>(out));
  }

  /// Lets go of the memory that the mapped file takes: after tensors were converted, whose bytes
  /// are not needed again. Views stay valid; what is read again comes from the system's cache of
  /// the file, or from the disk. Does nothing where the file is not mapped.
  void release_pages() const { detail::release_pages(contents_.mapping); }

 private:
  detail::GgufContents contents_;
};

PARE_ABI_END

}  // namespace pare::io

#include <pare/core/macros_on.hpp>
