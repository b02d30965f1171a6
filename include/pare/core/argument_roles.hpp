// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Roles: types that judge an argument of a call and say what is wrong with it. refused_call.hpp
/// makes overloads of them, by which the compiler refuses wrong calls in words.
///
/// ```cpp
/// static_assert(pare::roles::Reads<2>::wrong<const Eigen::MatrixXf&,
///                                            pare::roles::Scalars<Eigen::MatrixXf>>() ==
///               pare::roles::right);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::roles {

/// What is wrong with an argument. `other_call`: it belongs to another overload of the function.
enum Wrong {
  other_call = -1,
  right = 0,
  no_memory,
  other_rank,
  no_scalar,
  no_compute_scalar,
  other_scalar,
  read_only,
  temporary,
  wrongs
};

/// The elements of an argument, void if it has none that a call could compute with.
template <class X>
struct element {
  using type = void;
};
template <class X>
requires requires { typename scalar_of<X>; }
struct element<X> {
  using type = scalar_of<X>;
};
template <class X>
requires(
    !requires { typename scalar_of<X>; } && requires { typename X::scalar; })
struct element<X> {
  using type = typename X::scalar;
};
template <SparseIn X>
struct element<X> {
  using type = sparse_scalar_of<X>;
};

/// The scalars that a call reads: `first` is that of the first argument with a scalar of Pare's;
/// the other is the one that all are computed in together.
template <class... A>
struct Scalars {
  using first = void;
  using together = float;
};
template <class A, class... Rest>
struct Scalars<A, Rest...> {
  using own = typename element<std::remove_cvref_t<A>>::type;
  static constexpr bool here = StorageScalar<own>;
  using first = std::conditional_t<here, own, typename Scalars<Rest...>::first>;
  using together =
      std::conditional_t<std::is_same_v<own, double>, double, typename Scalars<Rest...>::together>;
};

/// Roles. `wrong<A, S>()` judges an argument whose type is deduced as A (of `A&&`). S are the
/// Scalars of the call; arguments whose role has `counts` contribute to them.
template <std::size_t Rank>
struct Reads {
  static constexpr bool counts = true;
  template <class A, class>
  static consteval Wrong wrong() {
    using X = std::remove_cvref_t<A>;
    if constexpr (!requires { typename view_of<const X>; })
      return no_memory;
    else if constexpr (view_of<const X>::rank != Rank)
      return other_rank;
    else
      return StorageScalar<scalar_of<X>> ? right : no_scalar;
  }
};

/// As Reads, and its scalar is that of the first argument.
template <std::size_t Rank>
struct ReadsSame {
  static constexpr bool counts = true;
  template <class A, class S>
  static consteval Wrong wrong() {
    constexpr Wrong first = Reads<Rank>::template wrong<A, S>();
    if constexpr (first != right)
      return first;
    else
      return std::is_same_v<scalar_of<A>, typename S::first> ? right : other_scalar;
  }
};

/// As Reads, and float or double.
template <std::size_t Rank>
struct ReadsCompute {
  static constexpr bool counts = true;
  template <class A, class S>
  static consteval Wrong wrong() {
    constexpr Wrong first = Reads<Rank>::template wrong<A, S>();
    if constexpr (first != right)
      return first;
    else
      return ComputeScalar<scalar_of<A>> ? right : no_compute_scalar;
  }
};

/// A sparse matrix, stored by rows where `ByRows` is true.
template <bool ByRows = false>
struct ReadsSparse {
  static constexpr bool counts = true;
  template <class A, class>
  static consteval Wrong wrong() {
    using X = std::remove_cvref_t<A>;
    if constexpr (!detail::EigenSparse<X>)
      return no_memory;
    else if constexpr (!SparseIn<X>)
      return no_scalar;
    else
      return ByRows && !bool(X::IsRowMajor) ? other_rank : right;
  }
};

/// A matrix, dense or sparse.
struct ReadsMatrix {
  static constexpr bool counts = true;
  template <class A, class S>
  static consteval Wrong wrong() {
    if constexpr (detail::EigenSparse<std::remove_cvref_t<A>>)
      return ReadsSparse<>::wrong<A, S>();
    else
      return Reads<2>::template wrong<A, S>();
  }
};

/// An argument that the call writes.
template <std::size_t Rank>
struct Writes {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval Wrong wrong() {
    constexpr Wrong first = Reads<Rank>::template wrong<A, S>();
    if constexpr (first != right)
      return first;
    else if constexpr (std::is_const_v<typename view_of<A>::scalar>)
      return read_only;
    else
      return Out<A, Rank> ? right : temporary;
  }
};

/// As Writes, and its scalar is the one that the first argument's is computed in; or that or the
/// first argument's own (Either); or the one that all are computed in together.
enum class Of { Computed, Either, Together };
template <std::size_t Rank, Of Which>
struct WritesOf {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval Wrong wrong() {
    constexpr Wrong first = Writes<Rank>::template wrong<A, S>();
    if constexpr (first != right || std::is_void_v<typename S::first>)
      return first;
    else if constexpr (Which == Of::Together)
      return std::is_same_v<scalar_of<A>, typename S::together> ? right : other_scalar;
    else
      return std::is_same_v<scalar_of<A>, compute_t<typename S::first>> ||
                     (Which == Of::Either && std::is_same_v<scalar_of<A>, typename S::first>)
                 ? right
                 : other_scalar;
  }
};
template <std::size_t Rank>
using WritesComputed = WritesOf<Rank, Of::Computed>;
template <std::size_t Rank>
using WritesEither = WritesOf<Rank, Of::Either>;
template <std::size_t Rank>
using WritesTogether = WritesOf<Rank, Of::Together>;

/// As Writes, and of the first argument's own scalar: its shape says so, in words.
template <std::size_t Rank>
struct WritesSame {
  static constexpr bool counts = false;
  template <class A, class S>
  static consteval Wrong wrong() {
    constexpr Wrong first = Writes<Rank>::template wrong<A, S>();
    if constexpr (first != right || std::is_void_v<typename S::first>)
      return first;
    else
      return std::is_same_v<scalar_of<A>, typename S::first> ? right : no_memory;
  }
};

/// An argument for which Trait holds (it sees A as deduced). For any other the answer is
/// `Otherwise`: it is wrong, or belongs to another overload.
template <template <class> class Trait, Wrong Otherwise = no_memory>
struct Takes {
  static constexpr bool counts = false;
  template <class A, class>
  static consteval Wrong wrong() {
    return Trait<A>::value ? right : Otherwise;
  }
};

/// Another role, unless Trait holds: then the argument is `Then`.
template <class Role, template <class> class Trait, Wrong Then>
struct Unless {
  static constexpr bool counts = true;
  template <class A, class S>
  static consteval Wrong wrong() {
    if constexpr (Trait<A>::value)
      return Then;
    else
      return Role::template wrong<A, S>();
  }
};

/// An argument that names its scalar, as a model does. Anything else belongs to another overload.
struct TakesScalar {
  static constexpr bool counts = true;
  template <class A, class>
  static consteval Wrong wrong() {
    return requires { typename std::remove_cvref_t<A>::scalar; } ? right : other_call;
  }
};

/// Any argument: the overloads themselves check it, and may convert to what they take. Of kind ANY.
struct Anything {
  template <class A>
  Anything(A&&);
};
struct TakesAny {
  static constexpr bool counts = false;
  template <class, class>
  static consteval Wrong wrong() {
    return right;
  }
};

/// The roles of all arguments of a call.
template <class... Role>
struct Roles {
  template <class... A>
  static consteval int judge() {
    using S = Scalars<std::conditional_t<Role::counts, A, void>...>;
    int position = 0, found = 0;
    const auto note = [&](int why) {
      if (found == 0) found = why > 0 ? why + wrongs * position : why;
      position = (position == 0 ? int(sizeof...(A)) : position) - 1;
    };
    (note(Role::template wrong<A, S>()), ...);
    return found;
  }

  /// 0, other_call, or `wrongs * p + Wrong` for the first argument that is wrong, where p is 0 for
  /// the first of all and else counts from the last, which is 1. Called without a backend, B is
  /// void.
  template <class B, class A, class... Rest>
  static constexpr int wrong = [] {
    if constexpr (std::is_void_v<B> ? Backend<A> : !Backend<B>)
      return int(other_call);
    else
      return judge<A, Rest...>();
  }();
};

}  // namespace pare::roles

#include <pare/core/macros_on.hpp>
