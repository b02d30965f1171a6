// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The calls of a layer with objects of any kind, and without a backend, from its one call with
/// views.
///
/// ```cpp
/// class Doubled : public LinearCalls<Doubled, float> {  // a layer of your own
///  public:
///   using LinearCalls<Doubled, float>::apply;           // apply(x, y) and apply(backend, x, y)
///   template <Backend B>
///   void apply(const B& backend, TensorView<const float, 2> x, TensorView<float, 2> y) const;
/// };
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <type_traits>

namespace pare::transformer {
PARE_ABI_BEGIN

/// What a Layer of T has beside its own `apply(backend, view, view)`, which all of these call. It
/// brings them in by `using`.
template <class Layer, ComputeScalar T>
class LinearCalls {
 public:
  /// The same of x and y in any memory: Eigen's objects of either order, or views.
  template <Backend B, In<2> X, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, T> && std::is_same_v<scalar_of<Y>, T>)
  void apply(const B& backend, const X& x, Y&& y) const {
    static_cast<const Layer&>(*this).apply(backend, as_const(to_view(x)), to_view(y));
  }
  /// The same on pare::simd.
  template <In<2> X, Out<2> Y>
  requires(std::is_same_v<scalar_of<X>, T> && std::is_same_v<scalar_of<Y>, T>)
  void apply(const X& x, Y&& y) const {
    static_cast<const Layer&>(*this).apply(simd, as_const(to_view(x)), to_view(y));
  }

  PARE_REFUSE_CONST_CALLS(
      apply, "transformer::Linear::apply",
      "wanted x and y of float (of double with a weight of double), and nothing "
      "behind y",
      (INPUT, (roles::Reads<2>), "x", "[rows, inputs]"),
      (OUTPUT, (roles::Writes<2>), "y", "[rows, outputs]"))
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
