// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// y = x W^T for a weight of any storage: checks, the definition, a few rows, many rows.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/narrow_rows.hpp>
#include <pare/kernel/pack_weights.hpp>
#include <pare/kernel/weight_rows.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/weight_rows.hpp>
#include <pare/transformer/linear.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::transformer::detail {
PARE_ABI_BEGIN

/// W as it is stored, [outputs x inputs / weight_inputs], elements of a row contiguous.
template <class W>
using WeightView = TensorView<const W, 2>;

/// What a weight is multiplied in: float, or double for double.
template <class W>
using linear_t = std::conditional_t<std::is_same_v<W, double>, double, float>;

template <class W>
Index inputs_of(const WeightView<W>& w) {
  if constexpr (kernel::WeightElement<W>)
    return w.cols() * kernel::weight_inputs<W>;
  else
    return w.cols();
}

/// A weight that a layer can be made of.
template <class W>
void check_weight(const char* function, const char* argument, WeightView<W>& w) {
  check_view(function, argument, w);
  check(w.rows() >= 1 && w.cols() >= 1, function, argument, w.extent,
        "at least one output and one input");
  if (w.cols() == 1) w.stride[1] = 1;
  check(w.stride[1] == 1, function, argument, w.stride,
        "[outputs, inputs] with contiguous rows, RowMajor in Eigen");
}

template <class W>
void reference_linear(WeightView<W> w, TensorView<const linear_t<W>, 2> x,
                      TensorView<linear_t<W>, 2> y) {
  for (Index r = 0; r < y.rows(); ++r)
    for (Index o = 0; o < y.cols(); ++o) {
      double sum = 0;
      for (Index i = 0; i < w.cols(); ++i) {
        if constexpr (kernel::WeightBlock<W>) {
          float values[W::elements];
          kernel::dequantize(w(o, i), values);
          for (Index k = 0; k < W::elements; ++k)
            sum += static_cast<double>(values[k]) * static_cast<double>(x(r, i * W::elements + k));
        } else {
          sum +=
              static_cast<double>(static_cast<linear_t<W>>(w(o, i))) * static_cast<double>(x(r, i));
        }
      }
      y(r, o) = static_cast<linear_t<W>>(sum);
    }
}

/// A right factor of linalg::multiply, whose panels are packed of blocks.
template <class B, class W>
linalg::detail::PackedFactor<B, float> block_factor(WeightView<W> w) {
  using Factor = linalg::detail::PackedFactor<B, float>;
  return {w.data, w.stride[0], 1,
          [](const B& backend, const Factor& factor, const typename Factor::Part& part,
             const linalg::ProductOptions<float>&, float* to) {
            launch(backend, kernel::PackWeights<W>{static_cast<const W*>(factor.data) +
                                                       part.begin * factor.line_stride +
                                                       part.first / W::elements,
                                                   factor.line_stride, part.count, part.depth, to});
          }};
}

template <class B, class W>
void multiply_many(const B& backend, WeightView<W> w, TensorView<const linear_t<W>, 2> x,
                   TensorView<linear_t<W>, 2> y) {
  if constexpr (kernel::WeightBlock<W>) {
    static_assert(linalg::product_depth % W::elements == 0);
    linalg::detail::run_product<false>(
        backend, linalg::detail::left_factor<false, B, float, float>(x), block_factor<B, W>(w),
        inputs_of<W>(w), y, linalg::ProductOptions<float>{}, linalg::NoEpilogue{});
  } else {
    linalg::multiply(backend, x, transpose(w), y);
  }
}

/// Which rows are rounded to bf16, and multiplied in pairs: more than few_rows, and up to them.
struct RoundedRows {
  bool many = false, few = false;
};

/// Calls multiply(rows rounded to bf16, `stride` elements apart).
template <class B, class Multiply>
void with_rounded_rows(const B& backend, TensorView<const float, 2> x, Index stride,
                       const Multiply& multiply) {
  const auto memory = leased<AlignedBuffer<bf16>>(backend);
  TensorView<bf16, 2> rounded = matrix_in(*memory, x.rows(), stride);
  rounded.extent[1] = x.cols();
  const Index block = rows_of_block(x.cols());
  parallel_for(backend.executor, ceil_div(x.rows(), block), [&](Index item, int) {
    const Index begin = item * block, end = std::min(x.rows(), begin + block);
    launch(backend, kernel::NarrowRows<bf16>{&x(begin, 0), x.stride[0], &rounded(begin, 0), stride,
                                             end - begin, x.cols()});
  });
  multiply(as_const(rounded));
}

/// Rows that are copied because theirs are not contiguous.
template <class T>
struct LinearMemory {
  AlignedBuffer<T> x, y;
};

/// Rows that are contiguous.
template <class B, class W>
void multiply_contiguous(const B& backend, WeightView<W> w, TensorView<const linear_t<W>, 2> x,
                         TensorView<linear_t<W>, 2> y, RoundedRows rounds) {
  const bool few = x.rows() <= few_rows;
  if constexpr (std::is_same_v<W, bf16>) {
    if constexpr (linalg::PairBackend<B>)
      if (few && rounds.few && linalg::multiplies_weight_pairs(backend, w))
        return with_rounded_rows(backend, x, linalg::weight_pairs_stride(x.cols()),
                                 [&](TensorView<const bf16, 2> rows) {
                                   linalg::multiply_weight_pairs(backend, w, rows, y);
                                 });
    if (!few && rounds.many)
      return with_rounded_rows(backend, x, x.cols(), [&](TensorView<const bf16, 2> rows) {
        linalg::multiply(backend, rows, transpose(w), y);
      });
  }
  if constexpr (kernel::WeightElement<W>)
    if (few) return linalg::multiply_weight_rows(backend, w, x, y);
  multiply_many(backend, w, x, y);
}

/// Calls multiply(x, y) with copies of those whose rows are not contiguous, and copies y back.
template <class B, class T, class Multiply>
void with_contiguous_rows(const B& backend, TensorView<const T, 2> x, TensorView<T, 2> y,
                          const Multiply& multiply) {
  const bool copies_x = !has_contiguous_rows(x), copies_y = !has_contiguous_rows(y);
  if (!copies_x && !copies_y) return multiply(x, y);
  const auto memory = leased<LinearMemory<T>>(backend);
  const auto copy = [](auto from, auto to) {
    for (Index j = 0; j < from.cols(); ++j)
      for (Index i = 0; i < from.rows(); ++i) to(i, j) = from(i, j);
  };
  TensorView<const T, 2> from = x;
  TensorView<T, 2> to = y;
  if (copies_x) {
    const auto rows = matrix_in(memory->x, x.rows(), x.cols());
    copy(x, rows);
    from = as_const(rows);
  }
  if (copies_y) to = matrix_in(memory->y, y.rows(), y.cols());
  multiply(from, to);
  if (copies_y) copy(as_const(to), y);
}

/// Nobody steps along an extent of 1.
template <class T>
TensorView<T, 2> with_unit_steps(TensorView<T, 2> m) {
  if (m.cols() == 1) m.stride[1] = 1;
  return m;
}

/// A layer's call, checked but for what belongs to the layer.
template <class B, class W>
void apply_weight(const B& backend, WeightView<W> w, TensorView<const linear_t<W>, 2> x,
                  TensorView<linear_t<W>, 2> y, RoundedRows rounds = {}) {
  if (y.rows() == 0) return;
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    with_contiguous_rows(any, with_unit_steps(x), with_unit_steps(y), [&](auto from, auto to) {
      multiply_contiguous(any, w, from, to, rounds);
    });
  } else {
    reference_linear<W>(w, x, y);
  }
}

PARE_ABI_END
}  // namespace pare::transformer::detail

#include <pare/core/macros_on.hpp>
