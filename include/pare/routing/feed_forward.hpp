// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whole feed-forward layers as experts: gated, or of two layers.
///
///     GatedFeedForward: y = (A(x G^T) * (x U^T)) D^T
///     FeedForward:      y = A(x U^T + b) D^T + c
///
/// ```cpp
/// std::vector<GatedFeedForward<DenseLinear<bf16>>> experts;
/// // gate and up [hidden, dim], down [dim, hidden]
/// experts.emplace_back(std::move(gate), std::move(up), std::move(down));
/// grouped_multiply(x, plan, experts, parts);
/// // down of another kind: GatedFeedForward<DenseLinear<bf16>, Silu, LowRankLinear<bf16>>
/// ```
///
/// Both model `transformer::LinearOf`, which asks for shapes and `apply`, not for linearity: they
/// are what a router chooses among. A group of neurons of a dense layer is one, of views
/// (neuron_groups.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/linear.hpp>

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

/// Rows between the layers of an expert.
template <class T>
struct HiddenMemory {
  AlignedBuffer<T> gate, up;
};

template <class T>
TensorView<T, 2> hidden_rows(AlignedBuffer<T>& buffer, Index rows, Index hidden) {
  return {buffer.resize(
              static_cast<std::size_t>(checked_product("routing::FeedForward", "x", rows, hidden))),
          {rows, hidden},
          {hidden, 1}};
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// SwiGLU and its relatives: y = (A(x G^T) * (x U^T)) D^T. Gate and up are layers of one kind, down
/// may be of another, of rows of the same scalar.
template <class L, transformer::Activation A = transformer::Silu, class Down = L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>> &&
         transformer::LinearOf<Down, transformer::linear_scalar<L>>
class GatedFeedForward {
 public:
  using scalar = transformer::linear_scalar<L>;  ///< of x and y

  /// \param gate,up [hidden, inputs] both
  /// \param down    [outputs, hidden]
  /// \throws std::invalid_argument if they do not fit each other
  GatedFeedForward(L gate, L up, Down down)
      : gate_(std::move(gate)), up_(std::move(up)), down_(std::move(down)) {
    constexpr const char* function = "routing::GatedFeedForward";
    check(up_.inputs() == gate_.inputs() && up_.outputs() == gate_.outputs(), function, "up",
          std::array<Index, 2>{up_.outputs(), up_.inputs()},
          Worded{"[outputs, inputs] of gate, which has ", gate_.outputs(), " outputs"});
    check(down_.inputs() == gate_.outputs(), function, "down", down_.inputs(),
          Worded{"the outputs of gate as inputs, ", gate_.outputs()});
  }

  Index inputs() const { return gate_.inputs(); }
  Index hidden() const { return gate_.outputs(); }
  Index outputs() const { return down_.outputs(); }
  const L& gate() const { return gate_; }
  const L& up() const { return up_; }
  const Down& down() const { return down_; }
  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(gate_);
    visit(up_);
    visit(down_);
  }

  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x and the layers
  /// \throws std::invalid_argument if an extent does not fit or y overlaps what is read. Nothing is
  ///         written then. No rows: a no-op.
  ///
  /// Cost: that of the three layers. Memory, kept in the backend's workspace: [rows, hidden] twice,
  /// and what layers need.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "routing::GatedFeedForward::apply";
    transformer::check_linear(function, inputs(), outputs(), x, y);
    transformer::check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    const auto memory = leased<detail::HiddenMemory<scalar>>(backend);
    const auto gate = detail::hidden_rows(memory->gate, x.rows(), hidden());
    const auto up = detail::hidden_rows(memory->up, x.rows(), hidden());
    gate_.apply(backend, x, gate);
    up_.apply(backend, x, up);
    transformer::activate_gated(backend, as_const(gate), as_const(up), gate, A{});
    down_.apply(backend, as_const(gate), y);
  }

 private:
  L gate_, up_;
  Down down_;
};

/// Two layers with an activation between them: y = A(x U^T + b) D^T + c.
template <class L, transformer::Activation A = transformer::Relu>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
class FeedForward {
 public:
  using scalar = transformer::linear_scalar<L>;  ///< of x and y

  /// \param up   [hidden, inputs]
  /// \param down [outputs, hidden]
  /// \param up_bias,down_bias [hidden] and [outputs]; empty: none
  /// \throws std::invalid_argument if they do not fit each other
  FeedForward(L up, L down, std::vector<scalar> up_bias = {}, std::vector<scalar> down_bias = {})
      : up_(std::move(up)),
        down_(std::move(down)),
        up_bias_(std::move(up_bias)),
        down_bias_(std::move(down_bias)) {
    constexpr const char* function = "routing::FeedForward";
    check(down_.inputs() == up_.outputs(), function, "down", down_.inputs(),
          Worded{"the outputs of up as inputs, ", up_.outputs()});
    check_bias(function, "up_bias", up_bias_, up_.outputs());
    check_bias(function, "down_bias", down_bias_, down_.outputs());
  }

  Index inputs() const { return up_.inputs(); }
  Index hidden() const { return up_.outputs(); }
  Index outputs() const { return down_.outputs(); }
  const L& up() const { return up_; }
  const L& down() const { return down_; }
  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(up_);
    visit(down_);
  }

  /// As GatedFeedForward's, with one matrix [rows, hidden] of memory.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "routing::FeedForward::apply";
    transformer::check_linear(function, inputs(), outputs(), x, y);
    transformer::check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    const auto memory = leased<detail::HiddenMemory<scalar>>(backend);
    const auto up = detail::hidden_rows(memory->up, x.rows(), hidden());
    up_.apply(backend, x, up);
    add_bias(up_bias_, up);
    transformer::activate(backend, as_const(up), up, A{});
    down_.apply(backend, as_const(up), y);
    add_bias(down_bias_, y);
  }

 private:
  static void check_bias(const char* function, const char* argument,
                         const std::vector<scalar>& bias, Index size) {
    check(bias.empty() || static_cast<Index>(bias.size()) == size, function, argument, bias.size(),
          Worded{"none, or one for each of the outputs, ", size});
  }
  static void add_bias(const std::vector<scalar>& bias, const TensorView<scalar, 2>& rows) {
    if (bias.empty()) return;
    for (Index r = 0; r < rows.rows(); ++r)
      for (Index c = 0; c < rows.cols(); ++c) rows(r, c) += bias[static_cast<std::size_t>(c)];
  }

  L up_, down_;
  std::vector<scalar> up_bias_, down_bias_;
};

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
