// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Roles for refused_call.hpp of what sequences are computed with.

#include <pare/core/argument_roles.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::sequence::detail {

/// An input of what the first argument's scalar is computed in.
template <std::size_t Rank>
struct ReadsComputed {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    constexpr roles::Wrong first = roles::Reads<Rank>::template wrong<A, S>();
    if constexpr (first != roles::right || std::is_void_v<typename S::first>)
      return first;
    else
      return std::is_same_v<scalar_of<A>, compute_t<typename S::first>> ? roles::right
                                                                        : roles::no_compute_scalar;
  }
};

/// An input that is computed in the first argument's scalar: its shape says so, in words.
template <std::size_t Rank>
struct ReadsComputedIn {
  static constexpr bool counts = true;
  template <class A, class S>
  static consteval roles::Wrong wrong() {
    constexpr roles::Wrong first = roles::Reads<Rank>::template wrong<A, S>();
    if constexpr (first != roles::right || std::is_void_v<typename S::first>)
      return first;
    else
      return std::is_same_v<compute_t<scalar_of<A>>, typename S::first> ? roles::right
                                                                        : roles::no_memory;
  }
};

}  // namespace pare::sequence::detail
