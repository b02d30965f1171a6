// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// UltraMemV2's block: the memory between the layers that make its queries and take its values.
///
///     q = LN(x W_q^T) per half of a head,  p = x W_pre^T,  y = memory(q, p) W_v^T
///
/// ```cpp
/// // layers of one type; gain and bias are views, [half]
/// const UltraMemoryLayers<DenseLinear<bf16>> layers{query, pre, value, gain, bias};
/// ultra_memory(pare::simd.with(workspace), x, layers, memory, y);
/// ```
///
/// Source: UltraMemV2, arXiv 2508.18756, by its released code. Reconstructed: the norm runs over a
/// half of a head, as that of its keys does; gain starts at half^-0.4 there.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/memory/ultra_memory.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/norms.hpp>

#include <type_traits>

namespace pare::routing {
PARE_ABI_BEGIN

/// The layers around a memory, viewed: they must outlive this.
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
struct UltraMemoryLayers {
  using scalar = transformer::linear_scalar<L>;

  const L& query;                    ///< [heads 2 half, inputs]
  const L& pre;                      ///< [pre dim, inputs]
  const L& value;                    ///< [outputs, dim]
  TensorView<const scalar, 1> gain;  ///< [half], of the queries' norm
  TensorView<const scalar, 1> bias;  ///< [half]
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <class T>
struct UltraBlockMemory {
  AlignedBuffer<T> queries, pre, values;
};

template <class L, class S>
void check_layers(const UltraMemoryLayers<L>& layers, const UltraMemory<S>& memory) {
  constexpr const char* function = "routing::ultra_memory";
  check(layers.query.outputs() == memory.heads() * 2 * memory.half(), function, "layers.query",
        layers.query.outputs(),
        Worded{"as many outputs as queries have numbers, ", memory.heads() * 2 * memory.half()});
  check(layers.pre.inputs() == layers.query.inputs(), function, "layers.pre", layers.pre.inputs(),
        Worded{"the inputs of query, ", layers.query.inputs()});
  check(layers.pre.outputs() == memory.pre_dim(), function, "layers.pre", layers.pre.outputs(),
        Worded{"as many outputs as a pre-value has numbers, ", memory.pre_dim()});
  check(layers.value.inputs() == memory.dim(), function, "layers.value", layers.value.inputs(),
        Worded{"as many inputs as a value has numbers, ", memory.dim()});
  check_view(function, "layers.gain", layers.gain);
  check_extents<1>(function, "layers.gain", layers.gain.extent, {memory.half()});
  check_view(function, "layers.bias", layers.bias);
  check_extents<1>(function, "layers.bias", layers.bias.extent, {memory.half()});
}

template <class B, class L, class S>
void ultra_memory(const B& backend, TensorView<const compute_t<S>, 2> x,
                  const UltraMemoryLayers<L>& layers, const UltraMemory<S>& memory,
                  TensorView<compute_t<S>, 2> y) {
  using T = compute_t<S>;
  constexpr const char* function = "routing::ultra_memory";
  check_layers(layers, memory);
  check_view(function, "x", x);
  for (const Index numbers : {layers.query.outputs(), memory.pre_dim(), memory.dim()})
    checked_count(function, "x", checked_product(function, "x", x.rows(), numbers), sizeof(T));
  transformer::check_linear(function, layers.query.inputs(), layers.value.outputs(), x, y);
  for (const L* layer : {&layers.query, &layers.pre, &layers.value})
    transformer::check_apart_from_layer(function, "y", y, *layer);
  check_no_overlap(function, "y", y, "layers.gain", layers.gain);
  check_no_overlap(function, "y", y, "layers.bias", layers.bias);
  memory.check_apart(function, "y", y);
  const Index rows = y.rows(), heads = memory.heads(), half = memory.half();
  if (rows == 0) return;
  const auto kept = leased<UltraBlockMemory<T>>(backend);
  const auto q = matrix_in(kept->queries, rows, heads * 2 * half);
  const auto p = matrix_in(kept->pre, rows, memory.pre_dim());
  const auto values = matrix_in(kept->values, rows, memory.dim());
  layers.query.apply(backend, x, q);
  const TensorView<T, 2> halves{q.data, {rows * heads * 2, half}, {half, 1}};
  transformer::layer_norm(backend, as_const(halves), layers.gain, layers.bias, halves);
  layers.pre.apply(backend, x, p);
  memory.apply(
      backend,
      TensorView<const T, 3>{q.data, {rows, heads, 2 * half}, {heads * 2 * half, 2 * half, 1}},
      as_const(p), values);
  layers.value.apply(backend, as_const(values), y);
}

template <class X>
struct IsUltraLayers : std::false_type {};
template <class L>
struct IsUltraLayers<UltraMemoryLayers<L>> : std::true_type {};
template <class X>
using TakesUltraLayers = IsUltraLayers<std::remove_cvref_t<X>>;

template <class X>
struct IsUltraMemory : std::false_type {};
template <class S>
struct IsUltraMemory<UltraMemory<S>> : std::true_type {};
template <class X>
using TakesUltraMemory = IsUltraMemory<std::remove_cvref_t<X>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Runs the block.
///
/// \param backend left out: pare::simd
/// \param x       [rows, inputs] of what tables and layers are computed in, any strides
/// \param layers  the layers around the memory, of that scalar
/// \param memory  the memory
/// \param y       [rows, outputs], any strides, written; apart from x, layers, keys and tables
/// \throws std::invalid_argument if an extent does not fit, sizes of what is kept do not fit 63
///         bits, or y overlaps what is read. Nothing is written then. No rows: a no-op.
///
/// Cost: those of the layers and of the memory. Memory, in the backend's workspace: queries, p and
/// values of all rows, and that of the memory.
template <Backend B, In<2> X, class L, StorageScalar S, Out<2> Y>
requires std::is_same_v<scalar_of<X>, compute_t<S>> && SameScalar<X, Y> &&
         std::is_same_v<transformer::linear_scalar<L>, compute_t<S>>
void ultra_memory(const B& backend, const X& x, const UltraMemoryLayers<L>& layers,
                  const UltraMemory<S>& memory, Y&& y) {
  detail::ultra_memory<B, L, S>(backend, as_const(to_view(x)), layers, memory, to_view(y));
}

/// \overload
template <In<2> X, class L, StorageScalar S, Out<2> Y>
requires std::is_same_v<scalar_of<X>, compute_t<S>> && SameScalar<X, Y> &&
         std::is_same_v<transformer::linear_scalar<L>, compute_t<S>>
void ultra_memory(const X& x, const UltraMemoryLayers<L>& layers, const UltraMemory<S>& memory,
                  Y&& y) {
  ultra_memory(simd, x, layers, memory, y);
}

PARE_REFUSE_CALLS(ultra_memory, "routing::ultra_memory", "after y: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "x", "[rows, inputs]"),
                  (PLAIN, (roles::Takes<detail::TakesUltraLayers>), "layers",
                   "UltraMemoryLayers of the scalar of x"),
                  (PLAIN, (roles::Takes<detail::TakesUltraMemory>), "memory",
                   "an UltraMemory that is computed in the scalar of x"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, outputs] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
