// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Activations of rows, and the gated units of transformers: SwiGLU, GEGLU, or with a function of
/// your own.
///
/// ```cpp
/// activate_gated(gate, up, y, Silu{});        // SwiGLU: y = silu(gate) * up, element by element
/// activate_gated(gate, up, gate, GeluTanh{}); // in place of either
/// activate(x, x, Gelu{});                     // without a gate
/// struct Square {                             // a function of your own
///   static double exact(double x) { return x * x; }
///   template <class Arch, class V>
///   static V apply(V x) noexcept { return x * x; }
/// };
/// ```
///
/// | activation | formula | relative error |
/// |---|---|---|
/// | `Silu` | x / (1 + e^-x) | 8 u |
/// | `Gelu` | x / 2 (1 + erf(x / sqrt(2))) | 16 u |
/// | `GeluTanh` | x / 2 (1 + tanh(w / 2)), w = sqrt(8 / pi) (x + 0.044715 x^3) | (10 + 6 \|w\|) u |
/// | `Relu` | max(x, 0) | exact |
/// | `Sigmoid` | 1 / (1 + e^-x) | 8 u |
/// | `Identity` | x | exact |
///
/// u is the unit roundoff of float (2^-24) or double (2^-53). The bounds hold over the whole range
/// where the result is a normal number, in the tails too: silu(-87) and gelu(-13) keep their
/// digits. Below, results are rounded once more, to a subnormal number or -0. Limits are kept: of
/// minus infinity all are -0 (Relu and Sigmoid 0, Identity itself), of plus infinity infinity
/// (Sigmoid 1); a NaN stays one and reaches no other element. Where the gate is subnormal or 0, so
/// is its accuracy times up, and -0 times an infinite up is NaN.
///
/// Matrices are [rows, dim] of one scalar: float, double, bf16 or f16, in any order. Source:
/// Shazeer, "GLU variants improve transformer", 2020, eq. 5 to 7.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/activate_rows.hpp>
#include <pare/kernel/activation.hpp>
#include <pare/transformer/detail/row_checks.hpp>
#include <pare/transformer/reference.hpp>

#include <type_traits>

namespace pare::transformer {

using kernel::Activation;
using kernel::Gelu;
using kernel::GeluTanh;
using kernel::Identity;
using kernel::Relu;
using kernel::Sigmoid;
using kernel::Silu;

namespace detail {
template <class A>
using IsActivation = std::bool_constant<Activation<std::remove_cvref_t<A>>>;

PARE_ABI_BEGIN

template <class S, class A, bool Times>
auto activate_arguments(TensorView<const S, 2> x, TensorView<const S, 2> factor,
                        TensorView<S, 2> y) {
  return kernel::ActivateRows<S, A, Times>{.x = x.data,
                                           .x_stride = x.stride[0],
                                           .factor = factor.data,
                                           .factor_stride = factor.stride[0],
                                           .out = y.data,
                                           .out_stride = y.stride[0],
                                           .rows = y.rows(),
                                           .columns = y.cols()};
}

template <class A, class B, class S>
void activate_on(const B& backend, TensorView<const S, 2> x, TensorView<S, 2> y) {
  over_row_blocks(
      backend,
      [](const B& on, TensorView<const S, 2> from, TensorView<S, 2> to) {
        launch(on, activate_arguments<S, A, false>(from, {}, to));
      },
      x, y);
}

template <class A, class B, class S>
void activate_gated_on(const B& backend, TensorView<const S, 2> gate, TensorView<const S, 2> up,
                       TensorView<S, 2> y) {
  over_row_blocks(
      backend,
      [](const B& on, TensorView<const S, 2> from, TensorView<const S, 2> times,
         TensorView<S, 2> to) { launch(on, activate_arguments<S, A, true>(from, times, to)); },
      gate, up, y);
}

/// Stored by columns: columns are then as good as rows.
template <class T>
bool contiguous_columns(const TensorView<T, 2>& m) {
  return m.stride[0] == 1 && m.stride[1] != 1;
}

template <class A, class B, class S>
void activate_views(const B& backend, TensorView<const S, 2> x, TensorView<S, 2> y) {
  constexpr const char* function = "transformer::activate";
  check_rows(function, "x", x);
  check_writable(function, "y", y);
  check_extents(function, "y", y.extent, x.extent);
  check_in_place_or_apart(function, "y", y, "x", x);
  if (x.rows() == 0) return;
  if constexpr (!KernelBackend<B>)
    reference_activate<A, S>(x, {}, y);
  else if (contiguous_columns(x) && contiguous_columns(y))
    activate_on<A>(on_any_executor(backend), transpose(x), transpose(y));
  else
    activate_on<A>(on_any_executor(backend), x, y);
}

template <class A, class B, class S>
void activate_gated_views(const B& backend, TensorView<const S, 2> gate, TensorView<const S, 2> up,
                          TensorView<S, 2> y) {
  constexpr const char* function = "transformer::activate_gated";
  check_rows(function, "gate", gate);
  check_view(function, "up", up);
  check_extents(function, "up", up.extent, gate.extent);
  check_writable(function, "y", y);
  check_extents(function, "y", y.extent, gate.extent);
  check_in_place_or_apart(function, "y", y, "gate", gate);
  check_in_place_or_apart(function, "y", y, "up", up);
  if (gate.rows() == 0) return;
  if constexpr (!KernelBackend<B>)
    reference_activate<A, S>(gate, up, y);
  else if (contiguous_columns(gate) && contiguous_columns(up) && contiguous_columns(y))
    activate_gated_on<A>(on_any_executor(backend), transpose(gate), transpose(up), transpose(y));
  else
    activate_gated_on<A>(on_any_executor(backend), gate, up, y);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// y_ij = A(x_ij).
///
/// \param backend    left out: pare::simd
/// \param x          [rows, dim], dim at least 1
/// \param y          [rows, dim], of x's scalar: x itself, or apart from it
/// \param activation Silu, Gelu, GeluTanh, Relu, or a type of your own (`Activation`)
/// \throws std::invalid_argument if an extent does not fit, or y overlaps x without being x;
///         nothing is written then. No rows: a no-op.
///
/// Cost: for each register about 30 operations and a division, which bind in cache; beyond it,
/// memory. Memory: none where all matrices lie by rows, or all by columns; else a block of rows per
/// worker, in the backend's workspace. The same bits for any number of threads, and wherever an
/// element lies.
template <Backend B, In<2> X, Out<2> Y, Activation A>
requires SameScalar<X, Y>
void activate(const B& backend, const X& x, Y&& y, [[maybe_unused]] const A& activation) {
  detail::activate_views<A>(backend, as_const(to_view(x)), to_view(y));
}

/// \overload
template <In<2> X, Out<2> Y, Activation A>
requires SameScalar<X, Y>
void activate(const X& x, Y&& y, const A& activation) {
  activate(simd, x, y, activation);
}

/// y_ij = A(gate_ij) up_ij, A rounded to what is computed in before the product.
///
/// \param gate [rows, dim], dim at least 1
/// \param up   [rows, dim], of the same scalar
/// \param y    [rows, dim], of the same scalar: gate itself, up itself, or apart from both
/// \throws std::invalid_argument as activate
///
/// All else as activate.
template <Backend B, In<2> G, In<2> U, Out<2> Y, Activation A>
requires SameScalar<G, U, Y>
void activate_gated(const B& backend, const G& gate, const U& up, Y&& y, const A&) {
  detail::activate_gated_views<A>(backend, as_const(to_view(gate)), as_const(to_view(up)),
                                  to_view(y));
}

/// \overload
template <In<2> G, In<2> U, Out<2> Y, Activation A>
requires SameScalar<G, U, Y>
void activate_gated(const G& gate, const U& up, Y&& y, const A& activation) {
  activate_gated(simd, gate, up, y, activation);
}

PARE_REFUSE_CALLS(activate, "transformer::activate", "after the activation: wanted nothing",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"),
                  (PLAIN, (roles::Takes<detail::IsActivation>), "activation",
                   "Silu, Gelu, GeluTanh, Relu, or an Activation of your own"))
PARE_REFUSE_CALLS(activate_gated, "transformer::activate_gated",
                  "after the activation: wanted nothing",
                  (INPUT, (roles::Reads<2>), "gate", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "up", "[rows, dim]"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of gate"),
                  (PLAIN, (roles::Takes<detail::IsActivation>), "activation",
                   "Silu, Gelu, GeluTanh, Relu, or an Activation of your own"))

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
