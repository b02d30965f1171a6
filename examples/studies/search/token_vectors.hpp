// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Token vectors of texts in bf16, and one vector of each text, in memory or in a file.
///
/// ```cpp
/// vectors.view().of(3);    // [tokens, dim], of length 1 each
/// vectors.view().mean(3);  // [1, dim], of length 1
/// ```

#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace search {

using pare::bf16;
using pare::Index;
using pare::TensorView;

/// Vectors of texts, wherever they lie.
struct VectorView {
  std::span<const Index> offsets;    ///< [texts + 1], in tokens
  TensorView<const bf16, 2> tokens;  ///< [tokens, dim]
  TensorView<const float, 2> means;  ///< [texts, dim]

  Index texts() const { return means.rows(); }
  Index dim() const { return means.cols(); }
  Index length(Index text) const {
    const auto at = static_cast<std::size_t>(text);
    return offsets[at + 1] - offsets[at];
  }
  TensorView<const bf16, 2> of(Index text) const {
    return pare::rows_of(tokens, offsets[static_cast<std::size_t>(text)], length(text));
  }
  TensorView<const float, 2> mean(Index text) const { return pare::rows_of(means, text, 1); }
};

/// Vectors of texts in memory.
struct TokenVectors {
  std::vector<Index> offsets{0};
  std::vector<bf16> tokens{};
  pare::RowMatrix<float> means{};

  VectorView view() const {
    return {offsets,
            {tokens.data(), {offsets.back(), means.cols()}, {means.cols(), 1}},
            {means.data(), {means.rows(), means.cols()}, {means.cols(), 1}}};
  }
};

}  // namespace search
