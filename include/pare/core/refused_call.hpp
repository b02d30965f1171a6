// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Calls that no overload takes, refused by the compiler with the reason in its first line:
///
///     error: pare::projection::project: y: wanted the scalar type that the inputs are computed in
///
/// Behind the overloads of a public function stands one PARE_REFUSE_CALLS. It names the function,
/// says what may follow the arguments, and lists the arguments between backend and options:
///
/// ```cpp
/// PARE_REFUSE_CALLS(project, "projection::project", "after y: wanted nothing or a Workspace",
///                   (INPUT, (roles::ReadsMatrix), "x", "[n, input_dim]"),
///                   (PLAIN, (roles::Takes<IsRandomOperator>), "r", "a RandomOperator"),
///                   (OUTPUT, (roles::WritesComputed<2>), "y", "[n, output_dim]"))
/// ```
///
/// An argument has a kind (INPUT, SPARSE, OUTPUT, PLAIN or ANY), which chooses the words; a role in
/// parentheses, a type that judges it; its name; and its shape. The macro declares overloads that
/// are viable only where a role finds its argument wrong, and one for right arguments followed by
/// anything but options, which loses to every other overload. None of them can be called, so a
/// concept that asks whether a wrong call compiles hears that it does not. What no role can name
/// stays with the compiler's own message.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <string>
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
    !requires { typename scalar_of<X>; } && requires { typename X::scalar; }) struct element<X> {
  using type = typename X::scalar;
};
template <SparseIn X>
struct element<X> {
  using type = sparse_scalar_of<X>;
};

/// The scalars of what a call reads: `first`, of the first argument that has one of Pare's, and
/// what all are computed in together.
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

/// Roles. `wrong<A, S>()` judges an argument deduced as A (of `A&&`); S are the Scalars of the
/// call, to which those with `counts` belong.
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

/// The same, and of the first scalar.
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

/// What is written.
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

/// The same, of what the first scalar is computed in, of it or of that (Either), or of what all
/// are computed in together.
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

/// What Trait holds of, which sees A as it is deduced; anything else is wrong, or belongs to
/// `Otherwise`.
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

/// What states its scalar, as a model does; anything else belongs to another overload.
struct TakesScalar {
  static constexpr bool counts = true;
  template <class A, class>
  static consteval Wrong wrong() {
    return requires { typename std::remove_cvref_t<A>::scalar; }
    ? right : other_call;
  }
};

/// Anything: the overloads themselves say what, and may convert to it. Of kind ANY.
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

#if !defined(__clang__)
/// A sentence as a type, which g++ spells out where it names what a deleted function returns.
template <std::size_t N>
struct Sentence {
  char text[N]{};
  constexpr explicit Sentence(const char* from) {
    for (std::size_t i = 0; i < N; ++i) text[i] = from[i];
  }
};
template <Sentence>
struct Refused;

template <class Reasons, int Why>
constexpr auto sentence_of() {
  constexpr const char* text = Reasons::text(Why);
  return Sentence<std::char_traits<char>::length(text) + 1>(text);
}
template <class Reasons, int Why>
using RefusedFor = Refused<sentence_of<Reasons, Why>()>;
#endif

}  // namespace pare::roles

// What follows makes declarations of that list. Reasons are written once, as PARE_WRONG(position,
// reason, text): clang gets them as attributes, which it prints as they are; g++ gets the one that
// holds as the type which the deleted overload returns, which it prints first.

#define PARE_WRONG_INPUT(F, I, NAME, SHAPE)                                          \
  PARE_WRONG(I, no_memory,                                                           \
             F NAME ": wanted " SHAPE                                                \
                    " in memory, as an Eigen object or a "                           \
                    "TensorView (an expression: .eval() it first)")                  \
  PARE_WRONG(I, other_rank, F NAME ": wanted " SHAPE ", got another rank")           \
  PARE_WRONG(I, no_scalar, F NAME ": wanted elements of float, double, bf16 or f16") \
  PARE_WRONG(I, no_compute_scalar, F NAME ": wanted elements of float or double")    \
  PARE_WRONG(I, other_scalar, F NAME ": wanted the scalar type of what stands before it")
#define PARE_WRONG_SPARSE(F, I, NAME, SHAPE)                                         \
  PARE_WRONG(I, no_memory, F NAME ": wanted " SHAPE " as an Eigen::SparseMatrix")    \
  PARE_WRONG(I, other_rank, F NAME ": wanted an Eigen::SparseMatrix stored by rows") \
  PARE_WRONG(I, no_scalar,                                                           \
             F NAME                                                                  \
             ": wanted an Eigen::SparseMatrix of float or double with "              \
             "32 or 64 bit indices")
#define PARE_WRONG_OUTPUT(F, I, NAME, SHAPE)                                                 \
  PARE_WRONG(I, no_memory,                                                                   \
             F NAME ": wanted " SHAPE                                                        \
                    " in memory, as an Eigen object or a "                                   \
                    "TensorView, to write to")                                               \
  PARE_WRONG(I, other_rank, F NAME ": wanted " SHAPE ", got another rank")                   \
  PARE_WRONG(I, no_scalar, F NAME ": wanted elements of float, double, bf16 or f16")         \
  PARE_WRONG(I, other_scalar,                                                                \
             F NAME                                                                          \
             ": wanted the scalar type that the inputs are computed in: "                    \
             "float for float, bf16 and f16, double where one is double")                    \
  PARE_WRONG(I, read_only, F NAME ": wanted an output that may be written, got a const one") \
  PARE_WRONG(I, temporary,                                                                   \
             F NAME                                                                          \
             ": wanted an output that outlives the call, got a temporary "                   \
             "that owns its elements")
#define PARE_WRONG_PLAIN(F, I, NAME, WHAT) PARE_WRONG(I, no_memory, F NAME ": wanted " WHAT)

#define PARE_WRONG_ANY(F, I, NAME, WHAT)

#define PARE_EXPAND(...) __VA_ARGS__
#define PARE_COMMA() ,
#define PARE_NO_COMMA()
#define PARE_MAP_1(M, C, F, R) M(F, 1, R)
#define PARE_MAP_2(M, C, F, R, ...) M(F, 2, R) C() PARE_MAP_1(M, C, F, __VA_ARGS__)
#define PARE_MAP_3(M, C, F, R, ...) M(F, 3, R) C() PARE_MAP_2(M, C, F, __VA_ARGS__)
#define PARE_MAP_4(M, C, F, R, ...) M(F, 4, R) C() PARE_MAP_3(M, C, F, __VA_ARGS__)
#define PARE_MAP_5(M, C, F, R, ...) M(F, 5, R) C() PARE_MAP_4(M, C, F, __VA_ARGS__)
#define PARE_MAP_6(M, C, F, R, ...) M(F, 6, R) C() PARE_MAP_5(M, C, F, __VA_ARGS__)
#define PARE_NINTH(a, b, c, d, e, f, g, h, n, ...) n
/// M(F, position, role) for each role after the first, and between two of them C().
#define PARE_MAP(M, C, F, FIRST, ...)                                                             \
  __VA_OPT__(C() PARE_NINTH(FIRST, __VA_ARGS__, , PARE_MAP_6, PARE_MAP_5, PARE_MAP_4, PARE_MAP_3, \
                            PARE_MAP_2, PARE_MAP_1)(M, C, F, __VA_ARGS__))
#define PARE_CLASS_OF(F, I, ROLE) PARE_CLASS_OF_EXPANDED(I, PARE_EXPAND ROLE)
#define PARE_CLASS_OF_EXPANDED(...) PARE_CLASS_IN(__VA_ARGS__)
#define PARE_CLASS_IN(I, KIND, ROLE, NAME, SHAPE) class A##I PARE_CLASS_DEFAULT_##KIND
#define PARE_CLASS_DEFAULT_INPUT
#define PARE_CLASS_DEFAULT_SPARSE
#define PARE_CLASS_DEFAULT_PLAIN
#define PARE_CLASS_DEFAULT_OUTPUT
#define PARE_CLASS_DEFAULT_ANY = ::pare::roles::Anything
#define PARE_TYPE_OF(F, I, ROLE) A##I
#define PARE_PARAMETER_OF(F, I, ROLE) A##I&&
#define PARE_ROLE_OF(F, I, ROLE) PARE_ROLE_IN ROLE
#define PARE_ROLE_IN(KIND, ROLE, NAME, SHAPE) PARE_EXPAND ROLE
#define PARE_REASONS_OF(F, I, ROLE) PARE_REASONS_OF_EXPANDED(F, I, PARE_EXPAND ROLE)
#define PARE_REASONS_OF_EXPANDED(...) PARE_REASONS_IN(__VA_ARGS__)
#define PARE_REASONS_IN(F, I, KIND, ROLE, NAME, SHAPE) PARE_WRONG_##KIND(F, I, NAME, SHAPE)
// The valid overloads' own parameters, so that those never lose.
#define PARE_LATE_OF(F, I, ROLE) PARE_LATE_OF_EXPANDED(I, PARE_EXPAND ROLE)
#define PARE_LATE_OF_EXPANDED(...) PARE_LATE_IN(__VA_ARGS__)
#define PARE_LATE_IN(I, KIND, ROLE, NAME, SHAPE) PARE_LATE_##KIND(A##I)
#define PARE_LATE_INPUT(A) const A&
#define PARE_LATE_SPARSE(A) const A&
#define PARE_LATE_PLAIN(A) const A&
#define PARE_LATE_OUTPUT(A) A&&
// Worse than any conversion that a valid overload asks for.
#define PARE_LATE_ANY(A) ::pare::roles::Anything

#define PARE_FIRST(FIRST, ...) FIRST
#define PARE_JOIN(a, b) PARE_JOIN_EXPANDED(a, b)
#define PARE_JOIN_EXPANDED(a, b) a##b

#if defined(__clang__)
#define PARE_WRONG(I, WHY, TEXT) \
  __attribute__((                \
      diagnose_if(pare_wrong == ::pare::roles::wrongs * I + ::pare::roles::WHY, TEXT, "error")))
#define PARE_REASONS(ID, F, REST, ...)
#define PARE_REFUSED(ID, F, REST, ...)                     \
  PARE_REASONS_OF(F, 0, PARE_FIRST(__VA_ARGS__))           \
  PARE_MAP(PARE_REASONS_OF, PARE_NO_COMMA, F, __VA_ARGS__) \
  __attribute__((diagnose_if(true, F REST, "error"))) void
#define PARE_REFUSED_BODY
#define PARE_REFUSED_BEGIN \
  _Pragma("clang diagnostic push") _Pragma("clang diagnostic ignored \"-Wgcc-compat\"")
#define PARE_REFUSED_END \
  ;                      \
  _Pragma("clang diagnostic pop")
#else
#define PARE_WRONG(I, WHY, TEXT)                      \
  case ::pare::roles::wrongs* I + ::pare::roles::WHY: \
    return TEXT;
#define PARE_REASONS(ID, F, REST, ...)                           \
  struct ID {                                                    \
    static constexpr const char* text(int pare_wrong) {          \
      switch (pare_wrong) {                                      \
        PARE_REASONS_OF(F, 0, PARE_FIRST(__VA_ARGS__))           \
        PARE_MAP(PARE_REASONS_OF, PARE_NO_COMMA, F, __VA_ARGS__) \
        default:                                                 \
          return F REST;                                         \
      }                                                          \
    }                                                            \
  };
#define PARE_REFUSED(ID, F, REST, ...) ::pare::roles::RefusedFor<ID, pare_wrong>
#define PARE_REFUSED_BODY = delete
#define PARE_REFUSED_BEGIN
#define PARE_REFUSED_END ;
#endif

/// The head of an overload that is viable where `pare_wrong CONDITION`. B is a backend's type.
#define PARE_REFUSED_IF(CONDITION, CLASS_B, B, ...)                                                \
  template <PARE_EXPAND CLASS_B class A0 PARE_MAP(PARE_CLASS_OF, PARE_COMMA, , __VA_ARGS__),       \
            int pare_wrong = ::pare::roles::Roles<PARE_ROLE_OF(                                    \
                , 0, PARE_FIRST(__VA_ARGS__)) PARE_MAP(PARE_ROLE_OF, PARE_COMMA, , __VA_ARGS__)>:: \
                template wrong<B, A0 PARE_MAP(PARE_TYPE_OF, PARE_COMMA, , __VA_ARGS__)>,           \
            std::enable_if_t<(pare_wrong CONDITION), int> = 0>

#define PARE_REFUSE_CALLS(f, F, REST, ...)                                                 \
  PARE_REFUSE_CALLS_AS(f, PARE_JOIN(pare_reasons_##f##_, __LINE__), "pare::" F ": ", REST, \
                       __VA_ARGS__)
#define PARE_REFUSE_CALLS_AS(f, ID, F, REST, ...)                                                  \
  PARE_REFUSED_BEGIN                                                                               \
  PARE_REASONS(ID, F, REST, __VA_ARGS__)                                                           \
  PARE_REFUSED_IF(> 0, (), void, __VA_ARGS__)                                                      \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                           \
  f(A0&& PARE_MAP(PARE_PARAMETER_OF, PARE_COMMA, , __VA_ARGS__), ...) PARE_REFUSED_BODY;           \
  PARE_REFUSED_IF(> 0, (class B, ), B, __VA_ARGS__)                                                \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                           \
  f(const B&, A0&& PARE_MAP(PARE_PARAMETER_OF, PARE_COMMA, , __VA_ARGS__), ...) PARE_REFUSED_BODY; \
  PARE_REFUSED_IF(== 0, (), void, __VA_ARGS__)                                                     \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                           \
  f(const volatile A0& PARE_MAP(PARE_LATE_OF, PARE_COMMA, , __VA_ARGS__), ...) PARE_REFUSED_BODY;  \
  PARE_REFUSED_IF(== 0, (class B, ), B, __VA_ARGS__)                                               \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                           \
  f(const B&, const volatile A0& PARE_MAP(PARE_LATE_OF, PARE_COMMA, , __VA_ARGS__), ...)           \
      PARE_REFUSED_BODY PARE_REFUSED_END

#include <pare/core/macros_on.hpp>
