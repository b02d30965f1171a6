// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The weight of a head in panels (kernel/head_panels.hpp), owned, and its logits panel by panel.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/head_panels.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::draft::detail {
PARE_ABI_BEGIN

/// Where logits come from, a panel of `head_panel_outputs` at a time.
///
/// `tile(backend, panel, x, x_stride, rows, y)` writes y [rows x head_panel_outputs<T>]; what it
/// writes for a row depends on that row alone. Outputs behind the last are not used.
template <kernel::HeadElement W>
struct PanelTiles {
  using T = kernel::head_t<W>;
  static constexpr Index width = kernel::head_panel_outputs<T>;

  const W* panels = nullptr;
  const T* scale = nullptr;
  Index outputs = 0;
  Index inputs = 0;

  template <class B>
  void tile(const B& backend, Index panel, const T* x, Index x_stride, Index rows, T* y) const {
    launch(backend, kernel::MultiplyHeadPanel<W>{panels + panel * inputs * width,
                                                 scale == nullptr ? nullptr : scale + panel * width,
                                                 x, x_stride, y, rows, inputs});
  }

  /// Element (output, input) of the weight.
  double weight(Index output, Index input) const {
    const auto w = static_cast<double>(
        static_cast<T>(panels[(output / width * inputs + input) * width + output % width]));
    return scale == nullptr ? w : w * static_cast<double>(scale[output]);
  }
};

/// Panels of W [outputs, inputs], zeros until they are set.
template <kernel::HeadElement W>
class HeadPanels {
 public:
  using T = kernel::head_t<W>;
  static constexpr Index width = kernel::head_panel_outputs<T>;
  static constexpr bool scaled = std::is_same_v<W, std::int8_t>;

  HeadPanels(const char* function, Index outputs, Index inputs)
      : outputs_(outputs), inputs_(inputs), memory_(size_of(function, outputs, inputs)) {
    std::fill_n(memory_.data(), memory_.capacity(), W{});
    if (scaled) scale_.resize(static_cast<std::size_t>(ceil_div(outputs, width) * width));
  }

  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  Index bytes() const {
    return ceil_div(outputs_, width) * width *
           (inputs_ * static_cast<Index>(sizeof(W)) + (scaled ? Index{sizeof(T)} : 0));
  }

  PanelTiles<W> tiles() const {
    return {memory_.data(), scaled ? scale_.data() : nullptr, outputs_, inputs_};
  }

  /// Outputs [first, first + rows) from a matrix [rows, inputs], each element rounded to W.
  template <class S>
  void set_rows(Index first, TensorView<const S, 2> rows) {
    for (Index r = 0; r < rows.rows(); ++r) {
      const Index output = first + r;
      W* const to = memory_.data() + output / width * inputs_ * width + output % width;
      const auto element = [&](Index i) {
        return static_cast<T>(static_cast<compute_t<S>>(rows(r, i)));
      };
      if constexpr (scaled) {
        T largest = 0;
        bool finite = true;
        for (Index i = 0; i < inputs_; ++i) {
          largest = std::max(largest, std::abs(element(i)));
          finite = finite && is_finite(static_cast<double>(element(i)));
        }
        const T scale = finite ? step_of(largest) : std::numeric_limits<T>::quiet_NaN();
        scale_[static_cast<std::size_t>(output)] = scale;
        for (Index i = 0; i < inputs_; ++i)
          to[i * width] =
              scale > 0 ? static_cast<std::int8_t>(std::lrint(element(i) / scale)) : W{};
      } else {
        for (Index i = 0; i < inputs_; ++i) to[i * width] = static_cast<W>(element(i));
      }
    }
  }

 private:
  /// A step by which the largest size of a row is at most 127 of them: of a denormal number a 127th
  /// may be rounded down, to 0 too.
  static T step_of(T largest) {
    T step = largest / 127;
    while (largest > 0 && largest / step > T(127.4))
      step = std::nextafter(step, std::numeric_limits<T>::infinity());
    return step;
  }

  static std::size_t size_of(const char* function, Index outputs, Index inputs) {
    check(outputs >= 1 && outputs <= std::numeric_limits<std::int32_t>::max() - width, function,
          "outputs", outputs, "1 to 2^31 - 65");
    check(inputs >= 1, function, "inputs", inputs, "at least 1");
    const Index whole = ceil_div(outputs, width) * width;
    const Index size = checked_product(function, "outputs", whole, inputs);
    return static_cast<std::size_t>(checked_count(function, "outputs", size, sizeof(W)));
  }

  Index outputs_, inputs_;
  AlignedBuffer<W> memory_;
  std::vector<T> scale_;
};

PARE_ABI_END
}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
