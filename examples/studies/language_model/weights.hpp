// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// In which form a model's linear layers are held.

#include "common/any_linear.hpp"
#include "language_model/gguf_source.hpp"

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/gguf.hpp>
#include <pare/kernel/quantized.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace language_model {

enum class Weights {
  Stored,  ///< as the file has them, where they lie in it; types without a layer as bf16
  Float,   ///< de-quantised
  Bf16,    ///< de-quantised, and rounded
  /// The same, and more than few_rows rows that go into a layer are rounded too and multiplied in
  /// pairs: a prompt takes little more than half the time where pairs are as fast as floats.
  Bf16Pairs,
};

namespace detail {

template <class Block>
AnyLinear blocks_of(const pare::io::GgufFile& file, const pare::io::GgufTensor& tensor) {
  return pare::transformer::QuantizedLinear<Block>(file.blocks<Block>(tensor.name), tensor.rows(),
                                                   tensor.cols());
}

template <class S>
AnyLinear view_of(const pare::io::GgufFile& file, const pare::io::GgufTensor& tensor) {
  return pare::transformer::DenseLinear<S>(file.view<S, 2>(tensor.name));
}

/// A layer of memory that it shares with others.
template <class S>
struct SharedLayer {
  std::shared_ptr<const void> memory;
  pare::transformer::DenseLinear<S> layer;

  Index inputs() const { return layer.inputs(); }
  Index outputs() const { return layer.outputs(); }
  void apply(const models::ModelBackend& backend, TensorView<const float, 2> x,
             TensorView<float, 2> y) const {
    layer.apply(backend, x, y);
  }
};

/// Makes layers that lie one behind the other in one piece of memory, which takes huge pages: a
/// core then reads weights by a third faster.
template <class S>
class LayerMemory {
 public:
  explicit LayerMemory(const pare::transformer::DenseLinearOptions& options = {})
      : options_(options) {}

  AnyLinear copy_of(const pare::io::GgufFile& file, const pare::io::GgufTensor& tensor) {
    const Index rows = tensor.rows(), columns = tensor.cols();
    const auto size = static_cast<std::size_t>(rows * columns);
    if (!piece_) piece_ = std::make_shared<pare::AlignedBuffer<S>>(matrix_elements(file));
    if (piece_->capacity() - used_ < size) {
      piece_ = std::make_shared<pare::AlignedBuffer<S>>(size);
      used_ = 0;
    }
    const TensorView<S, 2> weights{piece_->data() + used_, {rows, columns}, {columns, 1}};
    used_ += size;
    file.read_rows(tensor.name, 0, weights);
    file.release_pages();
    return SharedLayer<S>{piece_,
                          pare::transformer::DenseLinear<S>(pare::as_const(weights), options_)};
  }

 private:
  static std::size_t matrix_elements(const pare::io::GgufFile& file) {
    std::size_t sum = 0;
    for (const auto& tensor : file.tensors())
      if (tensor.shape.size() == 2) sum += static_cast<std::size_t>(tensor.rows() * tensor.cols());
    return sum;
  }

  pare::transformer::DenseLinearOptions options_;
  std::shared_ptr<pare::AlignedBuffer<S>> piece_;
  std::size_t used_ = 0;
};

inline AnyLinear stored(const pare::io::GgufFile& file, const pare::io::GgufTensor& tensor,
                        LayerMemory<pare::bf16>& memory) {
  using pare::io::GgufType;
  switch (tensor.type) {
    case GgufType::Q8_0:
      return blocks_of<pare::kernel::Q8_0>(file, tensor);
    case GgufType::Q4_0:
      return blocks_of<pare::kernel::Q4_0>(file, tensor);
    case GgufType::Q4_1:
      return blocks_of<pare::kernel::Q4_1>(file, tensor);
    case GgufType::F32:
      return view_of<float>(file, tensor);
    case GgufType::BF16:
      return view_of<pare::bf16>(file, tensor);
    case GgufType::F16:
      return view_of<pare::f16>(file, tensor);
    default:
      return memory.copy_of(file, tensor);
  }
}

}  // namespace detail

/// Makes the layers of a file, which must outlive them.
inline MakeLinear linear_of(const pare::io::GgufFile& file, Weights weights) {
  struct Memory {
    explicit Memory(bool pairs) : rounded({.round_inputs = pairs}) {}
    detail::LayerMemory<float> floats;
    detail::LayerMemory<pare::bf16> rounded;
  };
  const auto memory = std::make_shared<Memory>(weights == Weights::Bf16Pairs);
  return [&file, weights, memory](const std::string& name) {
    const auto& tensor = file.tensor(name);
    if (weights == Weights::Stored) return detail::stored(file, tensor, memory->rounded);
    if (weights == Weights::Float) return memory->floats.copy_of(file, tensor);
    return memory->rounded.copy_of(file, tensor);
  };
}

/// What a model is made of, its layers in that form. Where they are no longer read from the file,
/// its pages take no memory.
inline LlamaSource source_of(const pare::io::GgufFile& file, Weights weights) {
  LlamaSource source = gguf_source(file, linear_of(file, weights));
  if (weights != Weights::Stored)
    source.embedding = [&file, read = source.embedding](Token token, std::span<float> row) {
      read(token, row);
      file.release_pages();
    };
  return source;
}

}  // namespace language_model
