// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer whose weight is stored in blocks of 8 or 4 bits: y = x W^T, W de-quantised in
/// registers.
///
/// ```cpp
/// using pare::kernel::Q4_1;
/// const auto& w = model.tensor("blk.0.attn_q.weight");
/// const QuantizedLinear<Q4_1> q(model.blocks<Q4_1>(w.name), w.rows(), w.cols());
/// q.apply(pare::simd.threads(2).with(workspace), x, y);
/// ```
///
/// Blocks are multiplied where they lie, in the mapped file: nothing is converted when a model is
/// loaded. Activations are float and stay so: the result is that of the de-quantised weight, which
/// programs that round activations to 8 bits do not reach.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/transformer/detail/linear_product.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <cstddef>
#include <span>

namespace pare::transformer {
PARE_ABI_BEGIN

/// W [outputs, inputs] in blocks `kernel::Q8_0`, `Q4_0` or `Q4_1`, viewed. It may be copied.
template <kernel::WeightBlock Block>
class QuantizedLinear : public LinearCalls<QuantizedLinear<Block>, float> {
 public:
  using weight = Block;

  /// Views the blocks of a weight, [outputs, inputs / 32] without gaps; they must outlive the
  /// layer.
  /// \throws std::invalid_argument if an extent is below 1, inputs are no multiple of 32, or there
  ///         are more or fewer blocks.
  QuantizedLinear(std::span<const Block> blocks, Index outputs, Index inputs)
      : blocks_{blocks.data(), {outputs, inputs / Block::elements}, {inputs / Block::elements, 1}} {
    constexpr const char* function = "transformer::QuantizedLinear";
    check(outputs >= 1, function, "outputs", outputs, "at least 1");
    check(inputs >= 1 && inputs % Block::elements == 0, function, "inputs", inputs,
          "a multiple of 32, at least 32");
    const Index wanted = checked_product(function, "outputs", outputs, inputs / Block::elements);
    check(blocks.size() == static_cast<std::size_t>(wanted), function, "blocks", blocks.size(),
          wanted);
    detail::check_weight<Block>(function, "blocks", blocks_);
  }

  Index inputs() const { return blocks_.cols() * Block::elements; }
  Index outputs() const { return blocks_.rows(); }
  TensorView<const Block, 2> blocks() const { return blocks_; }

  using LinearCalls<QuantizedLinear<Block>, float>::apply;
  /// y = x W^T.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides; rows that are not contiguous are copied
  /// \param y [rows, outputs], the same; apart from x and the blocks
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or the blocks. Nothing
  ///         is written then. No rows: a no-op.
  ///
  /// Cost: 2 rows inputs outputs FLOPs. Up to `few_rows` rows, W is read and de-quantised once for
  /// every 16: of one row instructions bind, some 4 for 16 weights, where a core can read blocks
  /// faster. More rows are a product of matrices, for which each block is de-quantised once.
  /// Memory, kept in the backend's workspace: none for a few contiguous rows, else that of
  /// linalg::multiply.
  template <Backend B>
  void apply(const B& backend, TensorView<const float, 2> x, TensorView<float, 2> y) const {
    constexpr const char* function = "transformer::QuantizedLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_no_overlap(function, "y", y, "the blocks", blocks_);
    detail::apply_weight<B, Block>(backend, blocks_, x, y);
  }

 private:
  TensorView<const Block, 2> blocks_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
