// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Matrices that are known only by their products, such as a difference that is never formed.

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <concepts>

namespace pare::factor {

/// A linear map W [rows x cols] that is known by its products.
///
/// ```cpp
/// struct Difference {                       // W - A B without forming it
///   using scalar = float;
///   pare::Index rows() const;
///   pare::Index cols() const;
///   // y = W x, and y = W^T x
///   void multiply(TensorView<const float, 2> x, TensorView<float, 2> y) const;
///   void multiply_transposed(TensorView<const float, 2> x, TensorView<float, 2> y) const;
/// };
/// ```
///
/// W is [rows() x cols()]; x is [cols() x l] for multiply and [rows() x l] for multiply_transposed.
/// Views are row-major and contiguous; every element of y is written. A product must give the same
/// bits each time, or the result is not reproducible. A member `double squared_norm() const` gives
/// ||W||_F^2 where it is known. Without it the energy is estimated from the first sample (unbiased,
/// relative deviation about sqrt(2 / (sample width)) at worst), and the tolerance and the error
/// rest on that estimate.
template <class W>
concept LinearOperator = ComputeScalar<typename W::scalar> &&
                         requires(const W& w, TensorView<const typename W::scalar, 2> x,
                                  TensorView<typename W::scalar, 2> y) {
                           { w.rows() } -> std::convertible_to<Index>;
                           { w.cols() } -> std::convertible_to<Index>;
                           w.multiply(x, y);
                           w.multiply_transposed(x, y);
                         };

}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
