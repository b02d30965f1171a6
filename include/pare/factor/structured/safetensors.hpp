// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Structured weights in .safetensors files: a weight is some named tensors, NAME.values and more.
///
/// Needs nlohmann-json, as io/safetensors.hpp, and is no part of pare.hpp; in CMake link
/// `pare::safetensors`.
///
/// ```cpp
/// std::vector<pare::io::NamedTensor> tensors;
/// add_structured(tensors, "blk.0.q", weight);  // a TwoFour<bf16>; it lives until it is written
/// pare::io::write_safetensors("small.safetensors", tensors);
/// const pare::io::SafetensorsFile file("small.safetensors");
/// const auto again = read_structured<TwoFour<bf16>>(file, "blk.0.q");
/// ```
///
/// | weight | tensor | dtype | shape |
/// |---|---|---|---|
/// | `TwoFour<S>` | NAME.values | that of S | [outputs, inputs / 2] |
/// | | NAME.mask | U16 | [outputs, ceil(inputs / 16)], bit i of word w: input 16 w + i is kept |
/// | | NAME.scales, of 8 bits | F32 | [outputs, ceil(inputs / 128)] |
/// | `BlockDiagonal<S>` | NAME.blocks | that of S | [size, block], blocks below each other |
/// | `DenseSparse<S>` | NAME.extents | I64 | outputs, inputs, block, atoms, nonzeros |
/// | | NAME.dictionary | that of S | [outputs / block atoms, inputs] |
/// | | NAME.values | that of S | [blocks, ceil(block / 16), nonzeros, 16], as they lie |
/// | | NAME.places | U8 to 256 atoms, else U16 | the same |
///
/// ARMOR's layer is three of them, its left blocks, its core, its right blocks:
///
/// ```cpp
/// add_structured(tensors, "q.left", f.left);                      // f of armor()
/// add_structured(tensors, "q.core", f.core);
/// add_structured(tensors, "q.right", f.right);
/// transformer::WrappedLinear layer(                               // wrapped_linear.hpp
///     read_structured<BlockDiagonal<float>>(file, "q.left"),
///     transformer::TwoFourLinear<float>(read_structured<TwoFour<float>>(file, "q.core")),
///     read_structured<BlockDiagonal<float>>(file, "q.right"));
/// ```
///
/// Another weight is saved by a specialisation of StructuredFormat. The names are ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/block_diagonal.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/io/safetensors.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pare::factor {
PARE_ABI_BEGIN

/// How a weight W is stored: `add(tensors, name, weight)` appends its tensors, which view it, and
/// `read(file, name)` makes one of those that a file has, or throws std::invalid_argument.
template <class W>
struct StructuredFormat;

/// What is saved and loaded.
template <class W>
concept SavedStructured =
    requires(std::vector<io::NamedTensor>& tensors, const io::SafetensorsFile& file,
             const std::string& name, const W& weight) {
      StructuredFormat<W>::add(tensors, name, weight);
      { StructuredFormat<W>::read(file, name) } -> std::same_as<W>;
    };

/// Values, mask and, of 8 bits, scales.
template <TwoFourScalar S>
struct StructuredFormat<TwoFour<S>> {
  static void add(std::vector<io::NamedTensor>& tensors, const std::string& name,
                  const TwoFour<S>& weight) {
    auto values = weight.values();
    values.extent[1] = weight.inputs() / 2;  // without the zeros behind rows
    tensors.emplace_back(name + ".values", values);
    tensors.emplace_back(name + ".mask", weight.mask().words());
    if constexpr (TwoFour<S>::has_scales) tensors.emplace_back(name + ".scales", weight.scales());
  }

  static TwoFour<S> read(const io::SafetensorsFile& file, const std::string& name) {
    constexpr const char* function = "factor::read_structured";
    const auto values = file.view<S, 2>(name + ".values");
    const auto words = file.view<std::uint16_t, 2>(name + ".mask");
    const Index outputs = values.rows();
    const Index inputs = checked_product(function, "values", values.cols(), 2);
    check_extents<2>(function, (name + ".mask").c_str(), words.extent,
                     {outputs, ceil_div(inputs, TwoFourMask::word_inputs)});
    TwoFour<S> weight(TwoFourMask::from_words(words, inputs));
    copy(values, weight.own_values());
    if constexpr (TwoFour<S>::has_scales) {
      const auto scales = file.view<float, 2>(name + ".scales");
      check_extents<2>(function, (name + ".scales").c_str(), scales.extent,
                       {outputs, weight.row_scales()});
      copy(scales, weight.own_scales());
    }
    return weight;
  }

 private:
  template <class T>
  static void copy(TensorView<const T, 2> from, TensorView<T, 2> to) {
    for (Index i = 0; i < from.rows(); ++i)
      for (Index j = 0; j < from.cols(); ++j) to(i, j) = from(i, j);
  }
};

/// Blocks.
template <StorageScalar S>
struct StructuredFormat<BlockDiagonal<S>> {
  static void add(std::vector<io::NamedTensor>& tensors, const std::string& name,
                  const BlockDiagonal<S>& weight) {
    tensors.emplace_back(name + ".blocks", weight.values());
  }
  static BlockDiagonal<S> read(const io::SafetensorsFile& file, const std::string& name) {
    return BlockDiagonal<S>::from(file.view<S, 2>(name + ".blocks"));
  }
};

/// Extents, dictionary, values and places.
template <StorageScalar S>
struct StructuredFormat<DenseSparse<S>> {
  static constexpr Index group = kernel::code_group;

  static void add(std::vector<io::NamedTensor>& tensors, const std::string& name,
                  const DenseSparse<S>& weight) {
    tensors.emplace_back(name + ".extents", weight.extents());
    tensors.emplace_back(name + ".dictionary", weight.dictionary());
    tensors.emplace_back(name + ".values", weight.stored_values());
    if (weight.places_are_small())
      tensors.emplace_back(name + ".places", weight.small_places());
    else
      tensors.emplace_back(name + ".places", weight.wide_places());
  }

  static DenseSparse<S> read(const io::SafetensorsFile& file, const std::string& name) {
    constexpr const char* function = "factor::read_structured";
    const auto e = file.view<Index, 1>(name + ".extents");
    check(e.extent[0] == 5, function, (name + ".extents").c_str(), e.extent[0], "5 numbers");
    const DenseSparseShape shape{e(0), e(1), e(2), e(3), e(4)};
    validate(function, shape);
    const auto dictionary = file.view<S, 2>(name + ".dictionary");
    const Index blocks = shape.outputs / shape.block;
    check_extents<2>(function, (name + ".dictionary").c_str(), dictionary.extent,
                     {blocks * shape.atoms, shape.inputs});
    const auto values = file.view<S, 4>(name + ".values");
    check_extents<4>(function, (name + ".values").c_str(), values.extent,
                     {blocks, ceil_div(shape.block, group), shape.nonzeros, group});
    return shape.atoms <= small_place_atoms
               ? of_places<std::uint8_t>(file, name, shape, dictionary, values)
               : of_places<std::uint16_t>(file, name, shape, dictionary, values);
  }

 private:
  template <class P>
  static DenseSparse<S> of_places(const io::SafetensorsFile& file, const std::string& name,
                                  const DenseSparseShape& shape, TensorView<const S, 2> dictionary,
                                  TensorView<const S, 4> values) {
    const auto places = file.view<P, 4>(name + ".places");
    check_extents<4>("factor::read_structured", (name + ".places").c_str(), places.extent,
                     values.extent);
    std::vector<P> by_output;
    RowMatrix<S> of_output(shape.outputs, shape.nonzeros);
    for (Index o = 0; o < shape.outputs; ++o)
      for (Index k = 0; k < shape.nonzeros; ++k) {
        const Index block = o / shape.block, at = o % shape.block;
        by_output.push_back(places(block, at / group, k, at % group));
        of_output(o, k) = values(block, at / group, k, at % group);
      }
    return DenseSparse<S>(shape, dictionary, std::span<const P>(by_output), const_view(of_output));
  }
};

/// Appends the tensors of a weight to those that are to be written.
/// \param name before the dot in the names of its tensors
/// \param weight what they view: it lives, and stays where it is, until they are written
template <SavedStructured W>
void add_structured(std::vector<io::NamedTensor>& tensors, const std::string& name,
                    const W& weight) {
  StructuredFormat<W>::add(tensors, name, weight);
}
/// A temporary would be gone: name it first.
template <SavedStructured W>
void add_structured(std::vector<io::NamedTensor>& tensors, const std::string& name,
                    const W&& weight) = delete;

/// The weight of that name, in memory of its own.
/// \throws std::invalid_argument if a tensor is missing, of another dtype or shape, or not aligned,
///         or if a mask has a group without two bits, which is named by row and column, or places
///         do not ascend below the atoms. Values are not looked at.
/// Cost: one pass over its tensors.
template <SavedStructured W>
W read_structured(const io::SafetensorsFile& file, const std::string& name) {
  return StructuredFormat<W>::read(file, name);
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
