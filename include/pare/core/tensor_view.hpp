// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Views: they hand any object of Eigen's, or other memory, to a kernel without a copy.
///
/// ```cpp
/// Eigen::MatrixXf m(3, 4);
/// const auto v = pare::to_view(m);    // TensorView<float, 2>: extent {3, 4}, stride {1, 3}
/// v(2, 1) = 5;                        // writes m(2, 1)
/// const auto t = pare::transpose(v);  // [4, 3] of the same memory
/// const pare::TensorView<const float, 2> rows{data, {n, dim}, {stride, 1}};  // any memory
/// void scale(const pare::In<2> auto& x, pare::Out<2> auto&& y);              // takes all of these
/// ```
///
/// `to_view` turns a Matrix, Array, Map, Ref, Block, Tensor or TensorMap into a pointer with
/// extents and strides. It asks for the members it needs and so includes no Eigen header; the
/// unsupported Tensor header in particular is never pulled in. Public entries are constrained with
/// `In<X, Rank>` and `Out<X, Rank>`, convert once, and go on per scalar type, never per Eigen type.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace Eigen {
struct bfloat16;
struct half;
}  // namespace Eigen

namespace pare {

/// A pointer, extents and strides in elements. Element (i, j, ...) is `data[i*stride[0] + ...]`.
/// Strides may be 0 or negative. A view owns nothing: it is valid while its memory is.
template <class T, std::size_t Rank>
struct TensorView {
  using scalar = T;
  static constexpr std::size_t rank = Rank;

  T* data = nullptr;
  std::array<Index, Rank> extent{};
  std::array<Index, Rank> stride{};

  /// A view that may be written converts to one that may not.
  constexpr operator TensorView<const T, Rank>() const
  requires(!std::is_const_v<T>)
  {
    return {data, extent, stride};
  }

  /// The element at an index, which is not checked.
  template <class... I>
  requires(sizeof...(I) == Rank && (std::convertible_to<I, Index> && ...))
  constexpr T& operator()(I... index) const {
    const std::array<Index, Rank> at{static_cast<Index>(index)...};
    Index offset = 0;
    for (std::size_t d = 0; d < Rank; ++d) offset += at[d] * stride[d];
    return data[offset];
  }

  constexpr Index rows() const
  requires(Rank == 2)
  {
    return extent[0];
  }
  constexpr Index cols() const
  requires(Rank == 2)
  {
    return extent[1];
  }
};

/// The same matrix read with rows and columns exchanged; nothing moves.
template <class T>
constexpr TensorView<T, 2> transpose(TensorView<T, 2> m) {
  return {m.data, {m.extent[1], m.extent[0]}, {m.stride[1], m.stride[0]}};
}

/// The same view with const elements, which function bodies are written for.
template <class T, std::size_t Rank>
constexpr TensorView<const T, Rank> as_const(TensorView<T, Rank> v) {
  return {v.data, v.extent, v.stride};
}

namespace detail {

/// Maps Eigen's 16-bit scalars to ours, which have the same bits.
template <class T>
struct storage_of {
  using type = T;
};
template <>
struct storage_of<Eigen::bfloat16> {
  using type = bf16;
};
template <>
struct storage_of<Eigen::half> {
  using type = f16;
};

/// What `e.data()` points to, const where the object is const.
template <class E>
using element_of = std::remove_pointer_t<decltype(std::declval<E&>().data())>;

/// The same with Pare's scalar in the place of Eigen's.
template <class E>
using view_element_of =
    std::conditional_t<std::is_const_v<element_of<E>>,
                       const typename storage_of<std::remove_const_t<element_of<E>>>::type,
                       typename storage_of<element_of<E>>::type>;

template <class E>
view_element_of<E>* data_of(E& e) {
  if constexpr (std::is_same_v<view_element_of<E>, element_of<E>>)
    return e.data();
  else
    return reinterpret_cast<view_element_of<E>*>(e.data());
}

/// Eigen's flag of what lies in memory; the transpose of a sum has `data()` too, but no memory.
inline constexpr int direct_access = 0x40;

template <class E>
concept DenseMatrix = requires(E& e) {
  e.data();
  e.outerStride();
  e.innerStride();
  E::IsRowMajor;
  requires(int(E::Flags) & direct_access) != 0;
};

/// The step between two elements of a line. A Diagonal says outerStride() + 1, which is right only
/// where the inner stride of its matrix is 1.
template <class E>
Index inner_stride_of(const E& e) {
  if constexpr (requires {
                  e.nestedExpression().innerStride();
                  e.index();
                })
    return e.nestedExpression().outerStride() + e.nestedExpression().innerStride();
  else
    return e.innerStride();
}

template <class E>
concept DenseTensor = requires(E& e) {
  e.data();
  e.dimensions();
  E::NumDimensions;
  E::Layout;
};

/// Any matrix of Eigen; of its expressions some have data() and size() but no memory.
template <class E>
concept EigenMatrix = requires { E::IsRowMajor; };

template <class E>
concept DenseRange = !EigenMatrix<E> && !DenseTensor<E> && requires(E& e) {
  { e.data() } -> std::convertible_to<const volatile void*>;
  { e.size() } -> std::convertible_to<std::size_t>;
};

/// An object that holds its elements itself: Matrix or Array, Tensor, std::vector or std::array,
/// but no Map, Block, TensorMap or span. A range owns what it makes const with itself.
template <class E>
concept Owning =
    (DenseMatrix<E> && std::is_same_v<typename E::PlainObject, E>) ||
    (DenseTensor<E> && requires(E& e) { e.resize(e.dimensions()); }) ||
    (DenseRange<E> && std::is_const_v<element_of<const E>> && !std::is_const_v<element_of<E>>);

/// X as it is deduced from an argument of type `X&&`.
template <class X>
concept OwningRvalue = !std::is_reference_v<X> && Owning<std::remove_const_t<X>>;

/// Eigen's number for row-major storage, without its header.
inline constexpr int row_major = 1;

}  // namespace detail

PARE_ABI_BEGIN

/// A view is its own view.
template <class T, std::size_t Rank>
constexpr TensorView<T, Rank> to_view(TensorView<T, Rank> v) {
  return v;
}

/// Matrix, Array, Map, Ref, Block, Diagonal of either storage order: rank 2, a vector as one row or
/// one column. A view is valid while the object lives and is not resized; this and the overloads
/// below neither copy nor check.
template <detail::DenseMatrix E>
TensorView<detail::view_element_of<E>, 2> to_view(E& e) {
  const Index outer = e.outerStride(), inner = detail::inner_stride_of(e);
  return {detail::data_of(e),
          {e.rows(), e.cols()},
          {E::IsRowMajor ? outer : inner, E::IsRowMajor ? inner : outer}};
}

/// Tensor and TensorMap, row-major: rank as declared, contiguous. A column-major one does not
/// compile.
template <detail::DenseTensor E>
auto to_view(E& e) -> TensorView<detail::view_element_of<E>, std::size_t(E::NumDimensions)> {
  static_assert(
      int(E::Layout) == detail::row_major,
      "pare: pass Eigen::Tensor<T, N, Eigen::RowMajor>; the last index must be contiguous");
  TensorView<detail::view_element_of<E>, std::size_t(E::NumDimensions)> v{
      detail::data_of(e), {}, {}};
  [&]<std::size_t... D>(std::index_sequence<D...>) {
    ((v.extent[D] = static_cast<Index>(e.dimensions()[D])), ...);
  }(std::make_index_sequence<std::size_t(E::NumDimensions)>{});
  Index stride = 1;
  for (std::size_t d = v.extent.size(); d-- > 0;) {
    v.stride[d] = stride;
    stride *= v.extent[d];
  }
  return v;
}

/// std::vector, std::array, std::span: rank 1.
template <detail::DenseRange E>
TensorView<detail::view_element_of<E>, 1> to_view(E& e) {
  return {detail::data_of(e), {static_cast<Index>(e.size())}, {1}};
}

/// A rank-1 view of a range, or of an Eigen object that is a vector at compile time. An Eigen
/// matrix does not compile.
template <class E>
requires(detail::DenseMatrix<E> || requires(E& e) { to_view(e); })
auto to_vector_view(E& e) {
  if constexpr (detail::DenseMatrix<E>) {
    static_assert(E::IsVectorAtCompileTime, "pare: wanted a vector, got a matrix type");
    return TensorView<detail::view_element_of<E>, 1>{
        detail::data_of(e), {static_cast<Index>(e.size())}, {detail::inner_stride_of(e)}};
  } else {
    return to_view(e);
  }
}

PARE_ABI_END

/// The view type of an object that may be an rvalue (a Map, a Block) or an lvalue.
template <class X>
using view_of = decltype(to_view(std::declval<std::remove_reference_t<X>&>()));

/// What is read: X can be viewed with this rank and holds one of Pare's scalars.
template <class X, std::size_t Rank>
concept In = requires { typename view_of<const X>; } && view_of<const X>::rank == Rank &&
             StorageScalar<std::remove_const_t<typename view_of<const X>::scalar>>;

/// What is written: as In, with elements that are not const, and it outlives the call. X, deduced
/// from `X&&`, is therefore no temporary that owns its memory, such as a matrix returned by a
/// function.
template <class X, std::size_t Rank>
concept Out = requires { typename view_of<X>; } && view_of<X>::rank == Rank &&
              !std::is_const_v<typename view_of<X>::scalar> &&
              StorageScalar<typename view_of<X>::scalar> && !detail::OwningRvalue<X>;

/// The scalar of what is read, without const.
template <class X>
using scalar_of = std::remove_const_t<typename view_of<const std::remove_reference_t<X>>::scalar>;

/// Objects of one scalar.
template <class X, class... Others>
concept SameScalar = (std::is_same_v<scalar_of<X>, scalar_of<Others>> && ...);

}  // namespace pare

#include <pare/core/view_check.hpp>

#include <pare/core/macros_on.hpp>
