// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// UltraMemV2's block: the memory between the layers that make its queries and take its values.
///
///     q = LN(x W_q^T) per half of a head,  p = x W_pre^T,  y = memory(q, p) W_v^T
///
/// ```cpp
/// ultra_memory(pare::simd.with(workspace), x, UltraMemoryLayers{query, pre, value, gain, bias},
///              memory, y);
/// ```
///
/// Source: UltraMemV2, arXiv 2508.18756, by its released code. Reconstructed: the norm runs over a
/// half of a head, as that of its keys does; gain starts at half^-0.4 there.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/routing/memory/ultra_memory.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/norms.hpp>

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

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Runs the block.
///
/// \param x      [rows, inputs], any strides
/// \param layers and \param memory see there, of one scalar
/// \param y      [rows, outputs], any strides; apart from x and the layers
/// \throws std::invalid_argument if an extent does not fit, or y overlaps what is read. Nothing is
///         written then. No rows: a no-op.
///
/// Cost: those of the layers and of the memory. Memory, in the backend's workspace: queries, p and
/// values of all rows.
template <Backend B, class L, StorageScalar S>
requires std::is_same_v<transformer::linear_scalar<L>, compute_t<S>>
void ultra_memory(const B& backend, TensorView<const compute_t<S>, 2> x,
                  const UltraMemoryLayers<L>& layers, const UltraMemory<S>& memory,
                  TensorView<compute_t<S>, 2> y) {
  using T = compute_t<S>;
  constexpr const char* function = "routing::ultra_memory";
  detail::check_layers(layers, memory);
  transformer::check_linear(function, layers.query.inputs(), layers.value.outputs(), x, y);
  for (const L* layer : {&layers.query, &layers.pre, &layers.value})
    transformer::check_apart_from_layer(function, "y", y, *layer);
  const Index rows = y.rows(), heads = memory.heads(), half = memory.half();
  if (rows == 0) return;
  const auto kept = leased<detail::UltraBlockMemory<T>>(backend);
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

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
