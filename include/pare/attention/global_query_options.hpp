// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of global-query attention.
///
/// ```cpp
/// const pare::TensorView<const bool, 2> mask{data, {1, tokens}, {tokens, 1}};
/// const GlobalQueryOptions<float> padded{.seen = mask};
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/tensor_view.hpp>

#include <optional>

namespace pare::attention {

/// Options of `global_query`; T is what it computes in.
template <class T>
struct GlobalQueryOptions {
  /// [batch, dim] or [1, dim] for all: the context c. Left out: the mean of the tokens that count.
  std::optional<TensorView<const T, 2>> context{};

  /// [batch, tokens]: whether a token counts. Left out: all do.
  std::optional<TensorView<const bool, 2>> seen{};

  /// [batch, heads, tokens], written: A.
  std::optional<TensorView<T, 3>> weights{};

  /// The least norm of a token's scores that they are divided by, above 0. Reconstructed: PyTorch's
  /// normalize has 1e-12.
  double epsilon = 1e-12;
};

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
