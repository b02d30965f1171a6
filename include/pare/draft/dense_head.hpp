// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A head whose weight is stored in panels: dense, of float, double, bf16 or f16, or of bytes.
///
/// ```cpp
/// DenseHead<pare::bf16> head(vocabulary, inputs);  // zeros
/// head.set_rows(0, part);                          // part [any rows, inputs], rounded to bf16
/// const DenseHead<float> copied(w);                // w [vocabulary, inputs], any Eigen matrix
/// const QuantizedHead small(w);                    // one byte per weight, one scale per token
/// ```
///
/// A panel holds 64 tokens (32 of double), input by input, so that the whole head is one stream of
/// memory and no sum crosses lanes. Weights are copied into panels; `StoredHead` reads rows where
/// they lie. bf16, f16 and bytes are widened in registers; sums are float (double for double).
///
/// QuantizedHead: z_v = scale_v sum_i q_vi h_i with scale_v = max_i |w_vi| / 127 and q the nearest
/// integers, ties to even. Its logits differ from the dense ones by at most scale_v ||h||_1 / 2.
/// A row that is not finite has a NaN for its scale.
/// Source of the layout and of rows of bytes: ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/detail/head_panels.hpp>
#include <pare/draft/head.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// A head of panels of W: a storage scalar, or bytes with a scale per output. It can be moved, not
/// copied.
template <kernel::HeadElement W>
class PanelHead : public HeadCalls<PanelHead<W>, kernel::head_t<W>> {
 public:
  using weight = W;
  using T = kernel::head_t<W>;

  /// Zeros until set_rows.
  /// \throws std::invalid_argument if an extent is below 1 or the weight too large
  PanelHead(Index outputs, Index inputs) : panels_("draft::PanelHead", outputs, inputs) {}

  /// A copy of w [outputs, inputs], any strides, each element rounded to W.
  /// \throws std::invalid_argument likewise
  template <In<2> X>
  explicit PanelHead(const X& w) : PanelHead(checked_extent(to_view(w))) {
    set_rows(0, w);
  }

  /// Writes outputs [first, first + rows) from a matrix [rows, inputs].
  /// \throws std::invalid_argument if they are not outputs of the head, or inputs differ
  template <In<2> X>
  void set_rows(Index first, const X& rows) {
    constexpr const char* function = "draft::PanelHead::set_rows";
    const auto from = as_const(to_view(rows));
    check_view(function, "rows", from);
    check_extents<2>(function, "rows", from.extent, {from.rows(), inputs()});
    check(first >= 0 && first <= outputs() - from.rows(), function, "first", first,
          Worded{"0 to ", outputs() - from.rows()});
    panels_.set_rows(first, from);
  }

  Index inputs() const { return panels_.inputs(); }
  Index outputs() const { return panels_.outputs(); }
  Index vocabulary() const { return panels_.outputs(); }
  std::span<const std::int32_t> ids() const { return {}; }
  /// What a call reads.
  Index bytes() const { return panels_.bytes(); }

  detail::PanelTiles<W> tiles() const { return panels_.tiles(); }

  template <class B>
  TensorView<const T, 2> latents(const B&, TensorView<const T, 2> hidden,
                                 AlignedBuffer<std::byte>& buffer) const {
    return detail::contiguous_rows(hidden, make_room<T>(buffer, detail::copied_size(hidden)));
  }

  void reference_logits(TensorView<const T, 2> hidden, Index row, std::vector<double>& z) const {
    detail::reference_product(tiles(), [&](Index i) { return hidden(row, i); }, z);
  }

 private:
  explicit PanelHead(std::array<Index, 2> extent) : PanelHead(extent[0], extent[1]) {}

  /// Checked before there is memory of such extents.
  template <class S>
  static std::array<Index, 2> checked_extent(TensorView<S, 2> w) {
    check_view("draft::PanelHead", "w", w);
    return w.extent;
  }

  detail::HeadPanels<W> panels_;
};

/// A head of float, double, bf16 or f16.
template <StorageScalar S>
using DenseHead = PanelHead<S>;

/// A head of one byte per weight.
using QuantizedHead = PanelHead<std::int8_t>;

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
