// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// In which form a model's linear layers are held.

#include "language_model/gguf_source.hpp"

#include <pare/core/scalar.hpp>
#include <pare/io/gguf.hpp>
#include <pare/kernel/quantized.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <string>

namespace language_model {

enum class Weights {
  Stored,  ///< as the file has them, where they lie in it; types without a layer as bf16
  Float,   ///< de-quantised
  Bf16,    ///< de-quantised, and rounded
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

template <class S>
AnyLinear copy_of(const pare::io::GgufFile& file, const pare::io::GgufTensor& tensor) {
  pare::transformer::DenseLinear<S> layer(tensor.rows(), tensor.cols());
  file.read_rows(tensor.name, 0, layer.own_weights());
  return layer;
}

inline AnyLinear stored(const pare::io::GgufFile& file, const pare::io::GgufTensor& tensor) {
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
      return copy_of<pare::bf16>(file, tensor);
  }
}

}  // namespace detail

/// Makes the layers of a file, which must outlive them.
inline MakeLinear linear_of(const pare::io::GgufFile& file, Weights weights) {
  return [&file, weights](const std::string& name) {
    const auto& tensor = file.tensor(name);
    if (weights == Weights::Stored) return detail::stored(file, tensor);
    return weights == Weights::Float ? detail::copy_of<float>(file, tensor)
                                     : detail::copy_of<pare::bf16>(file, tensor);
  };
}

}  // namespace language_model
