// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A head whose weight is read where it lies: rows of float, bf16 or f16, or blocks of 8 or 4 bits
/// as a GGUF file has them.
///
/// ```cpp
/// using pare::kernel::Q8_0;
/// const auto& w = model.tensor("token_embd.weight");  // a tied head
/// const StoredHead<Q8_0> head(model.blocks<Q8_0>(w.name), w.rows(), w.cols());
/// const StoredHead<float> viewed(pare::as_const(pare::to_view(matrix)));
/// const auto top = head.top_k(hidden, 8);
/// ```
///
/// Nothing is copied. Logits are those of the de-quantised weight, multiplied by
/// `kernel::MultiplyWeightRows`, whose sums run along the inputs; `DenseHead`, which copies the
/// weight into panels, is faster where reading does not bind.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/head.hpp>
#include <pare/kernel/quantized.hpp>
#include <pare/kernel/weight_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::draft {
namespace detail {
PARE_ABI_BEGIN

/// Logits of rows of a weight, 64 outputs at a time.
template <kernel::WeightElement W>
struct StoredTiles {
  using T = float;
  static constexpr Index width = kernel::head_panel_outputs<float>;

  TensorView<const W, 2> rows{};  ///< [outputs, inputs / weight_inputs]
  Index outputs = 0;
  Index inputs = 0;

  template <class B>
  void tile(const B& backend, Index panel, const float* x, Index x_stride, Index n,
            float* y) const {
    kernel::MultiplyWeightRows<W> a;
    a.weights = &rows(panel * width, 0);
    a.weight_stride = rows.stride[0];
    a.x = x;
    a.x_stride = x_stride;
    a.y = y;
    a.y_stride = width;
    a.rows = n;
    a.inputs = inputs;
    a.outputs = std::min(width, outputs - panel * width);
    launch(backend, a);
  }

  double weight(Index output, Index input) const {
    if constexpr (kernel::WeightBlock<W>) {
      float values[W::elements];
      dequantize(rows(output, input / W::elements), values);
      return static_cast<double>(values[input % W::elements]);
    } else {
      return static_cast<double>(static_cast<float>(rows(output, input)));
    }
  }
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// W [outputs, inputs] of float, bf16, f16, or blocks Q8_0, Q4_0 or Q4_1, viewed: it must outlive
/// the head. It may be copied.
template <kernel::WeightElement W>
class StoredHead : public HeadCalls<StoredHead<W>, float> {
 public:
  using T = float;

  /// \param weight [outputs, inputs], rows contiguous
  /// \throws std::invalid_argument if an extent is below 1, there are more than 2^31 - 65 outputs,
  ///         or rows are not contiguous
  explicit StoredHead(TensorView<const W, 2> weight)
  requires(!kernel::WeightBlock<W>)
      : tiles_{checked(weight), weight.rows(), weight.cols()} {}

  /// \param blocks [outputs, inputs / 32] without gaps
  /// \throws std::invalid_argument likewise, if inputs are no multiple of 32, or there are more or
  ///         fewer blocks
  StoredHead(std::span<const W> blocks, Index outputs, Index inputs)
  requires kernel::WeightBlock<W>
      : tiles_{view_of_blocks(blocks, outputs, inputs), outputs, inputs} {}

  Index inputs() const { return tiles_.inputs; }
  Index outputs() const { return tiles_.outputs; }
  Index vocabulary() const { return tiles_.outputs; }
  std::span<const std::int32_t> ids() const { return {}; }
  /// What a call reads.
  Index bytes() const { return tiles_.outputs * tiles_.rows.cols() * Index{sizeof(W)}; }

  const detail::StoredTiles<W>& tiles() const { return tiles_; }

  /// \throws std::invalid_argument if an output shares memory with the weight
  template <class V>
  void check_viewed(const char* called, const char* output, const V& y) const {
    check_no_overlap(called, output, y, "the head's weight", tiles_.rows);
  }

  template <class B>
  TensorView<const T, 2> latents(const B&, TensorView<const T, 2> hidden,
                                 AlignedBuffer<std::byte>& buffer) const {
    return detail::contiguous_rows(hidden, make_room<T>(buffer, detail::copied_size(hidden)));
  }

  void reference_logits(TensorView<const T, 2> hidden, Index row, std::vector<double>& z) const {
    detail::reference_product(tiles_, [&](Index i) { return hidden(row, i); }, z);
  }

 private:
  static constexpr const char* function = "draft::StoredHead";

  static TensorView<const W, 2> checked(TensorView<const W, 2> w) {
    check_view(function, "weight", w);
    check(
        w.rows() >= 1 && w.rows() <= std::numeric_limits<std::int32_t>::max() - 64 && w.cols() >= 1,
        function, "weight", w.extent, "1 to 2^31 - 65 outputs and at least one input");
    if (w.cols() == 1) w.stride[1] = 1;
    check(w.stride[1] == 1, function, "weight", w.stride, "[outputs, inputs] with contiguous rows");
    return w;
  }

  static TensorView<const W, 2> view_of_blocks(std::span<const W> blocks, Index outputs,
                                               Index inputs) {
    check(outputs >= 1, function, "outputs", outputs, "at least 1");
    check(inputs >= 1 && inputs % kernel::weight_inputs<W> == 0, function, "inputs", inputs,
          Worded{"a multiple of ", kernel::weight_inputs<W>, ", at least that"});
    const Index line = inputs / kernel::weight_inputs<W>;
    const Index wanted = checked_product(function, "outputs", outputs, line);
    check(static_cast<Index>(blocks.size()) == wanted, function, "blocks", blocks.size(), wanted);
    return checked({blocks.data(), {outputs, line}, {line, 1}});
  }

  detail::StoredTiles<W> tiles_;
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
