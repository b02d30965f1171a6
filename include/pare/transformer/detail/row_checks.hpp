// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What matrices, whose rows a call works on one by one, and vectors beside them must be.

#include <pare/core/macros_off.hpp>

#include <pare/core/argument_roles.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::transformer {

/// A vector in memory: of Eigen's, or a range.
template <class X>
concept Vector = (requires { requires bool(X::IsVectorAtCompileTime); } && In<X, 2> &&
                  pare::detail::DenseMatrix<const X>) ||
                 (!requires { X::IsVectorAtCompileTime; } && In<X, 1>);

/// The same, of what S is computed in.
template <class X, class S>
concept VectorFor = Vector<X> && std::is_same_v<scalar_of<X>, compute_t<S>>;

/// The same, to write to.
template <class X, class S>
concept OutVectorFor = VectorFor<std::remove_cvref_t<X>, S> && (Out<X, 1> || Out<X, 2>);

namespace detail {

/// Roles for refused_call.hpp: an argument whose scalar counts though it is written, and vectors of
/// what that is computed in.
template <std::size_t Rank>
struct Changes : roles::Writes<Rank> {
  static constexpr bool counts = true;
};
struct ReadsVector {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    if constexpr (!Vector<std::remove_cvref_t<A>>)
      return roles::no_memory;
    else if constexpr (std::is_void_v<typename S::first>)
      return roles::right;
    else
      return VectorFor<std::remove_cvref_t<A>, typename S::first> ? roles::right : roles::no_memory;
  }
};
struct WritesVector {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    if constexpr (std::is_void_v<typename S::first>)
      return roles::right;
    else
      return OutVectorFor<A, typename S::first> ? roles::right : roles::no_memory;
  }
};

PARE_ABI_BEGIN

/// [rows x dim], dim at least 1.
template <class T>
void check_rows(const char* function, const char* argument, const TensorView<T, 2>& x) {
  check_view(function, argument, x);
  check(x.cols() >= 1, function, argument, x.extent, "rows of at least one element");
}

/// A vector of the length of a row, contiguous.
template <class T, class X>
void check_row_vector(const char* function, const char* argument, const TensorView<T, 1>& v,
                      const TensorView<X, 2>& x) {
  check_view(function, argument, v);
  check_extents<1>(function, argument, v.extent, {x.cols()});
  check(v.stride[0] == 1 || v.extent[0] == 1, function, argument, v.stride, "a contiguous vector");
}

inline void check_epsilon(const char* function, double epsilon) {
  check(is_finite(epsilon) && epsilon >= 0, function, "epsilon", epsilon,
        "a finite number of at least 0");
}

/// The output is the input itself, or apart from it.
template <class T>
void check_in_place_or_apart(const char* function, const char* output, const TensorView<T, 2>& out,
                             const char* input, const TensorView<const T, 2>& in) {
  if (out.data == in.data && out.stride == in.stride && out.extent == in.extent) return;
  check_no_overlap(function, output, out, input, in);
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
