// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The blocks that projection heads of multi-vector retrieval are made of: a layer with a bias, an
/// activation and a residual, or a gated one.
///
///     Projection:      y = A(x W^T + b) + r(x)
///     GatedProjection: y = A(x G^T + b) * (x V^T + c) + r(x)
///     r(x) = 0, x, or x R^T
///
/// ```cpp
/// const Projection<DenseLinear<float>> plain(DenseLinear<float>(w));      // w [outputs, inputs]
/// const Projection<DenseLinear<float>, Gelu, SameRows> block(DenseLinear<float>(square), {},
/// bias); const Projection<DenseLinear<float>, Silu, DenseLinear<float>> wide(
///     DenseLinear<float>(up), DenseLinear<float>(residual));              // both [outputs,
///     inputs]
/// const GatedProjection<DenseLinear<float>> glu(DenseLinear<float>(gate),
/// DenseLinear<float>(value)); block.apply(pare::simd.with(workspace), x, y);
/// ```
///
/// Layers are any `LinearOf`: dense, quantised, of low rank. A block is one too, so that it can
/// stand where a layer does; projection_head.hpp chains blocks and normalises rows.
///
/// Source: Clavie et al., "Simple projection variants improve ColBERT performance", arXiv
/// 2510.12327, by its abstract: feed-forward blocks, gated units, residuals and wider layers
/// between. Order of steps and the residual by a layer where extents differ: the Dense module of
/// pylate, as we read it. Which activation the paper's best variant takes is not known to us.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/detail/finish_projection.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::retrieval {

/// No residual: r(x) = 0.
struct NoResidual {};
/// The rows themselves: r(x) = x, of a block with as many outputs as inputs.
struct SameRows {};

/// NoResidual, SameRows, or a layer of rows of T.
template <class R, class T>
concept ResidualOf =
    std::is_same_v<R, NoResidual> || std::is_same_v<R, SameRows> || transformer::LinearOf<R, T>;

namespace detail {
PARE_ABI_BEGIN

/// Refuses a residual that does not fit a block.
template <class R>
void check_residual(const char* function, const R& residual, Index inputs, Index outputs) {
  if constexpr (std::is_same_v<R, SameRows>) {
    check(inputs == outputs, function, "residual", std::array<Index, 2>{outputs, inputs},
          "as many outputs as inputs, or a residual layer");
  } else if constexpr (!std::is_same_v<R, NoResidual>) {
    check(residual.inputs() == inputs && residual.outputs() == outputs, function, "residual",
          std::array<Index, 2>{residual.outputs(), residual.inputs()},
          std::array<Index, 2>{outputs, inputs});
  }
}

template <class T>
void check_bias(const char* function, const char* argument, const std::vector<T>& bias,
                Index size) {
  check(bias.empty() || static_cast<Index>(bias.size()) == size, function, argument, bias.size(),
        Worded{"none, or one for each of the outputs, ", size});
}

/// r(x): empty, x, or written to `memory`.
template <class B, class R, class T>
TensorView<const T, 2> residual_rows(const B& backend, const R& residual, TensorView<const T, 2> x,
                                     AlignedBuffer<T>& memory) {
  if constexpr (std::is_same_v<R, NoResidual>) {
    return {};
  } else if constexpr (std::is_same_v<R, SameRows>) {
    return x;
  } else {
    const TensorView<T, 2> rows = matrix_in(memory, x.rows(), residual.outputs());
    residual.apply(backend, x, rows);
    return as_const(rows);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// y = A(x W^T + b) + r(x).
template <class L, transformer::Activation A = transformer::Identity, class R = NoResidual>
requires transformer::LinearOf<L, transformer::linear_scalar<L>> &&
         ResidualOf<R, transformer::linear_scalar<L>>
class Projection
    : public transformer::LinearCalls<Projection<L, A, R>, transformer::linear_scalar<L>> {
 public:
  using scalar = transformer::linear_scalar<L>;  ///< of x and y

  /// \param layer    W, [outputs, inputs]
  /// \param residual SameRows{}, or a layer of the same shape
  /// \param bias     [outputs]; empty: none
  /// \throws std::invalid_argument if they do not fit each other
  explicit Projection(L layer, R residual = {}, std::vector<scalar> bias = {})
      : layer_(std::move(layer)), residual_(std::move(residual)), bias_(std::move(bias)) {
    constexpr const char* function = "retrieval::Projection";
    detail::check_residual(function, residual_, inputs(), outputs());
    detail::check_bias(function, "bias", bias_, outputs());
  }

  Index inputs() const { return layer_.inputs(); }
  Index outputs() const { return layer_.outputs(); }
  const std::vector<scalar>& bias() const { return bias_; }
  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(layer_);
    if constexpr (transformer::LinearOf<R, scalar>) visit(residual_);
  }
  /// Visits its other memory.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(to_view(bias_));
  }

  using transformer::LinearCalls<Projection<L, A, R>, scalar>::apply;
  /// y = A(x W^T + b) + r(x).
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x, the layers and the bias
  /// \throws std::invalid_argument if an extent does not fit or y overlaps what is read. Nothing is
  ///         written then. No rows: a no-op.
  ///
  /// Cost: that of the layers, and a pass over y. Memory, kept in the backend's workspace: that of
  /// the layers, [rows, outputs] with a residual layer, and some rows where those of x or y do not
  /// lie side by side. A NaN stays in its row, if layers keep it there. Bits as those of the
  /// layers.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "retrieval::Projection::apply";
    transformer::check_linear(function, inputs(), outputs(), x, y);
    transformer::check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    const auto memory = leased<detail::ProjectionMemory<scalar>>(backend);
    const auto skip = detail::residual_rows(backend, residual_, x, memory->skip);
    layer_.apply(backend, x, y);
    if (std::is_same_v<A, transformer::Identity> && bias_.empty() && skip.data == nullptr) return;
    detail::finish_projection<A>(backend, bias_, skip, y);
  }

 private:
  L layer_;
  [[no_unique_address]] R residual_;
  std::vector<scalar> bias_;
};

/// y = A(x G^T + b) * (x V^T + c) + r(x), element by element: GLU with Sigmoid, SwiGLU with Silu.
template <class L, transformer::Activation A = transformer::Sigmoid, class R = NoResidual>
requires transformer::LinearOf<L, transformer::linear_scalar<L>> &&
         ResidualOf<R, transformer::linear_scalar<L>>
class GatedProjection
    : public transformer::LinearCalls<GatedProjection<L, A, R>, transformer::linear_scalar<L>> {
 public:
  using scalar = transformer::linear_scalar<L>;  ///< of x and y

  /// \param gate,value G and V, [outputs, inputs] both
  /// \param residual   SameRows{}, or a layer of the same shape
  /// \param gate_bias,value_bias [outputs]; empty: none
  /// \throws std::invalid_argument if they do not fit each other
  GatedProjection(L gate, L value, R residual = {}, std::vector<scalar> gate_bias = {},
                  std::vector<scalar> value_bias = {})
      : gate_(std::move(gate)),
        value_(std::move(value)),
        residual_(std::move(residual)),
        gate_bias_(std::move(gate_bias)),
        value_bias_(std::move(value_bias)) {
    constexpr const char* function = "retrieval::GatedProjection";
    check(gate_.inputs() == inputs() && gate_.outputs() == outputs(), function, "gate",
          std::array<Index, 2>{gate_.outputs(), gate_.inputs()},
          std::array<Index, 2>{outputs(), inputs()});
    detail::check_residual(function, residual_, inputs(), outputs());
    detail::check_bias(function, "gate_bias", gate_bias_, outputs());
    detail::check_bias(function, "value_bias", value_bias_, outputs());
  }

  Index inputs() const { return value_.inputs(); }
  Index outputs() const { return value_.outputs(); }
  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(gate_);
    visit(value_);
    if constexpr (transformer::LinearOf<R, scalar>) visit(residual_);
  }
  /// Visits its other memory.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(to_view(gate_bias_));
    visit(to_view(value_bias_));
  }

  using transformer::LinearCalls<GatedProjection<L, A, R>, scalar>::apply;
  /// As Projection's, with [rows, outputs] more of memory.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "retrieval::GatedProjection::apply";
    transformer::check_linear(function, inputs(), outputs(), x, y);
    transformer::check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    const auto memory = leased<detail::ProjectionMemory<scalar>>(backend);
    const auto skip = detail::residual_rows(backend, residual_, x, memory->skip);
    const TensorView<scalar, 2> gate = matrix_in(memory->gate, y.rows(), outputs());
    gate_.apply(backend, x, gate);
    value_.apply(backend, x, y);
    detail::finish_gated_projection<A>(backend, as_const(gate), gate_bias_, value_bias_, skip, y);
  }

 private:
  L gate_, value_;
  [[no_unique_address]] R residual_;
  std::vector<scalar> gate_bias_, value_bias_;
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
