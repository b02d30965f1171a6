// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What arguments of retrieval can be taken as.

#include <pare/core/argument_roles.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/int8_rows.hpp>

#include <span>
#include <type_traits>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Whether X can be taken as the offsets of documents.
template <class X>
using IsOffsets = std::is_convertible<X, std::span<const Index>>;

/// Whether X is a matrix of float that is read.
template <class X>
struct IsFloats : std::false_type {};
template <class X>
requires In<std::remove_cvref_t<X>, 2>
struct IsFloats<X> : std::is_same<scalar_of<X>, float> {};

/// Whether X is rows of bytes.
template <class X>
using IsInt8Rows = std::bool_constant<linalg::Int8RowsIn<std::remove_cvref_t<X>>>;

/// The role of rows beside others of the same scalar, or of bytes beside others of float.
struct ReadsSameOrInt8 {
  static constexpr bool counts = true;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    if constexpr (IsInt8Rows<A>::value)
      return std::is_same_v<typename S::first, float> ? roles::right : roles::other_scalar;
    else
      return roles::ReadsSame<2>::template wrong<A, S>();
  }
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
