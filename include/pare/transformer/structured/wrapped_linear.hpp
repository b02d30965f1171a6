// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer between two block-diagonal matrices: y = A core(B x), as ARMOR leaves a weight.
///
/// ```cpp
/// auto f = factor::armor(w, second_moments, {.block = 128});
/// const ArmorLinear<float> layer = armor_linear<float>(f);       // a copy of its three matrices
/// const auto small = armor_linear<bf16>(f);                      // rounded
/// layer.apply(pare::simd.with(workspace), x, y);
/// WrappedLinear other(std::move(f.left), std::move(core), std::move(f.right));  // any core
/// ```
///
/// The core is any Linear. The blocks are plain tensors: `BlockDiagonal::values()` is what a file
/// takes, `BlockDiagonal::from` what it gives. The core's own cost is nearly all there is: blocks
/// of b add b (1 / inputs + 1 / outputs) of the bytes of a dense weight.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/armor.hpp>
#include <pare/factor/structured/block_diagonal.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/transformer/detail/linear_product.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>
#include <pare/transformer/structured/two_four_linear.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace pare::transformer {
namespace detail {
PARE_ABI_BEGIN

/// Rows on their way through a WrappedLinear: B x and core(B x).
struct WrappedMemory {
  AlignedBuffer<float> inner, outer;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// W = left core right, blocks of S around any layer. It can be moved, not copied.
template <Linear Core, StorageScalar S>
requires(!std::is_same_v<S, double>)
class WrappedLinear : public LinearCalls<WrappedLinear<Core, S>, float> {
 public:
  using weight = S;

  /// \param left  A [outputs x outputs]
  /// \param core  [outputs x inputs]
  /// \param right B [inputs x inputs]
  /// \throws std::invalid_argument if their sizes do not fit.
  WrappedLinear(factor::BlockDiagonal<S> left, Core core, factor::BlockDiagonal<S> right)
      : left_(std::move(left)), core_(std::move(core)), right_(std::move(right)) {
    constexpr const char* function = "transformer::WrappedLinear";
    check(left_.size() == core_.outputs(), function, "left", left_.size(), core_.outputs());
    check(right_.size() == core_.inputs(), function, "right", right_.size(), core_.inputs());
  }

  Index inputs() const { return core_.inputs(); }
  Index outputs() const { return core_.outputs(); }
  const factor::BlockDiagonal<S>& left() const { return left_; }
  const Core& core() const { return core_; }
  const factor::BlockDiagonal<S>& right() const { return right_; }

  /// Visits the blocks.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(left_.values());
    visit(right_.values());
  }

  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(core_);
  }

  using LinearCalls<WrappedLinear<Core, S>, float>::apply;
  /// y = A core(B x), row by row of x.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides; rows that are not contiguous are copied
  /// \param y [rows, outputs], the same; apart from x and the weights
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or a weight. Nothing
  ///         is written then. No rows: a no-op.
  ///
  /// Cost: that of the core, and 2 rows b (inputs + outputs) FLOPs; of a few rows, reading the
  /// blocks binds. Memory, kept in the backend's workspace: [rows, inputs + outputs], rows of x and
  /// y that are not contiguous, and the core's.
  template <Backend B>
  void apply(const B& backend, TensorView<const float, 2> x, TensorView<float, 2> y) const {
    constexpr const char* function = "transformer::WrappedLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    const auto memory = leased<detail::WrappedMemory>(backend);
    const auto inner = matrix_in(memory->inner, y.rows(), inputs());
    const auto outer = matrix_in(memory->outer, y.rows(), outputs());
    detail::with_contiguous_rows(backend, x, y, [&](auto from, auto to) {
      factor::multiply_blocks(backend, right_, from, inner);
      core_.apply(backend, as_const(inner), outer);
      factor::multiply_blocks(backend, left_, as_const(outer), to);
    });
  }

 private:
  factor::BlockDiagonal<S> left_;
  Core core_;
  factor::BlockDiagonal<S> right_;
};

/// The layer of ARMOR: a 2:4 matrix between two block-diagonal ones, all of S.
template <StorageScalar S>
using ArmorLinear = WrappedLinear<TwoFourLinear<S>, S>;

/// A layer with a copy of ARMOR's matrices, rounded to S: nearest, ties to even.
/// \param f a result of factor::armor
template <StorageScalar S, ComputeScalar T>
ArmorLinear<S> armor_linear(const factor::Armor<T>& f) {
  factor::TwoFour<S> core{f.core.mask()};
  const auto from = f.core.values();
  const auto to = core.own_values();
  for (Index i = 0; i < to.rows(); ++i)
    for (Index j = 0; j < to.cols(); ++j)
      to(i, j) = static_cast<S>(static_cast<compute_t<S>>(from(i, j)));
  return {factor::BlockDiagonal<S>::from(f.left.values()), TwoFourLinear<S>(std::move(core)),
          factor::BlockDiagonal<S>::from(f.right.values())};
}

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
