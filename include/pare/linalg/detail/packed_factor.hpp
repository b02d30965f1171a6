// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A factor of a product as what packs its lines, whatever its scalar.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/linalg/product_options.hpp>

#include <type_traits>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// A factor of a product, of any storage scalar, with what packs lines of it into T: the product is
/// compiled once for all of them.
template <class B, class T>
struct PackedFactor {
  /// Lines [begin, begin + count), `depth` elements from `first` on.
  struct Part {
    Index begin, count, first, depth;
  };
  const void* data = nullptr;
  Index line_stride = 0, depth_stride = 0;
  void (*pack)(const B&, const PackedFactor&, const Part&, const ProductOptions<T>&, T*) = nullptr;
  bool is_packed = false;  ///< lines are rows of T as they would be packed, but for their stride

  template <class S>
  const S* at(const Part& part) const {
    return static_cast<const S*>(data) + part.begin * line_stride + part.first * depth_stride;
  }
};

template <bool pairs, class B, class S, class T>
PackedFactor<B, T> left_factor(TensorView<const S, 2> a) {
  using Factor = PackedFactor<B, T>;
  return {a.data, a.stride[0], a.stride[1],
          [](const B& backend, const Factor& factor, const typename Factor::Part& part,
             const ProductOptions<T>& options, T* to) {
            launch(backend,
                   kernel::PackLeftLines<S, T, pairs>{
                       {factor.template at<S>(part), factor.line_stride, factor.depth_stride,
                        part.count, part.depth,
                        options.row_scale != nullptr ? options.row_scale + part.begin : nullptr},
                       to});
          },
          std::is_same_v<S, T> && a.stride[1] == 1};
}

template <bool pairs, class B, class S, class T>
PackedFactor<B, T> right_factor(TensorView<const S, 2> b) {
  using Factor = PackedFactor<B, T>;
  return {b.data, b.stride[1], b.stride[0],
          [](const B& backend, const Factor& factor, const typename Factor::Part& part,
             const ProductOptions<T>& options, T* to) {
            launch(
                backend,
                kernel::PackRightLines<S, T, pairs>{
                    {factor.template at<S>(part), factor.line_stride, factor.depth_stride,
                     part.count, part.depth,
                     options.column_scale != nullptr ? options.column_scale + part.begin : nullptr,
                     options.depth_scale != nullptr ? options.depth_scale + part.first : nullptr},
                    to});
          }};
}

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
