// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads of a multi-task loss: softmaxes over classes, whose vectors are the rows of a matrix.
///
/// ```cpp
/// const ClassHead<float> next{.classes = const_view(items), .map = const_view(map), .targets =
/// ids}; const ClassGradient<float> by_next{.by_classes = to_view(by_items), .by_map =
/// to_view(by_map)};
/// ```
///
/// metadata_heads.hpp has the loss, and its source.

#include <pare/core/macros_off.hpp>

#include <pare/core/tensor_view.hpp>

#include <optional>
#include <span>
#include <type_traits>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// A head: logits <classes_c, W s>, with s a session and W the map.
template <ComputeScalar T>
struct ClassHead {
  TensorView<const T, 2> classes;               ///< [classes, width], rows contiguous
  std::optional<TensorView<const T, 2>> map{};  ///< W [width, dim], rows contiguous; left out: W s
                                                ///< is s, and width is dim
  std::span<const Index> targets{};             ///< [sessions] from 0 to below classes
  double weight = 1;  ///< of its loss; at least 0, finite. The source's are equal
};

/// Gradients of a head, which multi_task_gradient writes.
template <ComputeScalar T>
struct ClassGradient {
  TensorView<T, 2> by_classes;               ///< [classes, width], rows contiguous
  std::optional<TensorView<T, 2>> by_map{};  ///< [width, dim], rows contiguous; where the head has
                                             ///< a map
};

/// Heads for sessions of type X, as a call takes them: a vector, an array or a span.
template <class X>
using HeadList = std::type_identity_t<std::span<const ClassHead<scalar_of<X>>>>;
template <class X>
using HeadGradients = std::type_identity_t<std::span<const ClassGradient<scalar_of<X>>>>;

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
