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
/// PARE_REFUSE_CALLS(project, "projection::project", "after y: wanted nothing",
///                   (INPUT, (roles::ReadsMatrix), "x", "[n, input_dim]"),
///                   (PLAIN, (roles::Takes<IsRandomOperator>), "r", "a RandomOperator"),
///                   (OUTPUT, (roles::WritesComputed<2>), "y", "[n, output_dim]"))
/// ```
///
/// An argument has a kind (INPUT, SPARSE, OUTPUT, PLAIN or ANY), which chooses the words; a role in
/// parentheses, a type that judges it; a name; and a shape. The macro declares overloads that are
/// viable only if a role finds its argument wrong, and one for right arguments that are followed by
/// something other than options; it loses to every other overload. None of these overloads can be
/// called, so a concept that asks whether a wrong call compiles gets no for an answer. What no role
/// can name is left to the compiler's own message.

#include <pare/core/macros_off.hpp>

#include <pare/core/argument_roles.hpp>
#include <pare/core/backend.hpp>

#include <cstddef>
#include <string>
#include <type_traits>

namespace pare::roles {

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

#define PARE_REFUSE_CALLS(f, F, REST, ...)                                                   \
  PARE_REFUSE_CALLS_AS(f, , PARE_JOIN(pare_reasons_##f##_, __LINE__), "pare::" F ": ", REST, \
                       __VA_ARGS__)
/// The same behind members that are const.
#define PARE_REFUSE_CONST_CALLS(f, F, REST, ...)                                                  \
  PARE_REFUSE_CALLS_AS(f, const, PARE_JOIN(pare_reasons_##f##_, __LINE__), "pare::" F ": ", REST, \
                       __VA_ARGS__)
#define PARE_REFUSE_CALLS_AS(f, CONST, ID, F, REST, ...)                                       \
  PARE_REFUSED_BEGIN                                                                           \
  PARE_REASONS(ID, F, REST, __VA_ARGS__)                                                       \
  PARE_REFUSED_IF(> 0, (), void, __VA_ARGS__)                                                  \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                       \
  f(A0&& PARE_MAP(PARE_PARAMETER_OF, PARE_COMMA, , __VA_ARGS__), ...) CONST PARE_REFUSED_BODY; \
  PARE_REFUSED_IF(> 0, (class B, ), B, __VA_ARGS__)                                            \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                       \
  f(const B&, A0&& PARE_MAP(PARE_PARAMETER_OF, PARE_COMMA, , __VA_ARGS__), ...)                \
      CONST PARE_REFUSED_BODY;                                                                 \
  PARE_REFUSED_IF(== 0, (), void, __VA_ARGS__)                                                 \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                       \
  f(const volatile A0& PARE_MAP(PARE_LATE_OF, PARE_COMMA, , __VA_ARGS__), ...)                 \
      CONST PARE_REFUSED_BODY;                                                                 \
  PARE_REFUSED_IF(== 0, (class B, ), B, __VA_ARGS__)                                           \
  PARE_REFUSED(ID, F, REST, __VA_ARGS__)                                                       \
  f(const B&, const volatile A0& PARE_MAP(PARE_LATE_OF, PARE_COMMA, , __VA_ARGS__), ...)       \
      CONST PARE_REFUSED_BODY PARE_REFUSED_END

#include <pare/core/macros_on.hpp>
