// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Toeplitz heads applied: the definition, and as products with matrices that lie along the list of
/// their weights.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/sequence/detail/dense_runner.hpp>
#include <pare/sequence/toeplitz_heads.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

template <class T>
void check_apply_heads(const ToeplitzHeads<T>& heads, TensorView<const T, 3> x,
                       TensorView<T, 3> y) {
  constexpr const char* f = "sequence::apply_heads";
  const Index count = heads.heads();
  check(count >= 1, f, "heads", count, "at least 1 head");
  check(heads.outputs >= 1 && heads.inputs >= 1, f, "heads",
        std::array<Index, 2>{heads.outputs, heads.inputs}, "at least 1 output and 1 input");
  check_extents<2>(f, "heads", {heads.values.rows(), heads.values.cols()},
                   {count, checked_product(f, "heads", heads.outputs, heads.inputs)});
  check_extents<2>(f, "heads", {heads.weights.rows(), heads.weights.cols()}, {heads.lags(), count});
  check_view(f, "x", x);
  check_extents<3>(f, "x", x.extent, {x.extent[0], x.extent[1], heads.inputs});
  check_contiguous_rows(f, "x", x);
  check(x.extent[1] <= heads.lags(), f, "x", x.extent,
        Worded{"at most the ", heads.lags(), " tokens that the heads have weights for"});
  check_writable(f, "y", y);
  check_extents<3>(f, "y", y.extent, {x.extent[0], x.extent[1], heads.outputs});
  check_contiguous_rows(f, "y", y);
  check_no_overlap(f, "y", y, "x", x);
  check_no_overlap(f, "y", y, "heads", const_view(heads.weights));
  check_no_overlap(f, "y", y, "heads", const_view(heads.values));
  const Index width = checked_product(f, "heads", count, heads.outputs);
  checked_count(f, "x", checked_product(f, "x", x.extent[1], width), sizeof(T));
}

/// The definition, in double.
template <class T>
void reference_apply_heads(const ToeplitzHeads<T>& heads, TensorView<const T, 3> x,
                           TensorView<T, 3> y) {
  for (Index s = 0; s < x.extent[0]; ++s)
    for (Index i = 0; i < x.extent[1]; ++i)
      for (Index o = 0; o < heads.outputs; ++o) {
        double sum = 0;
        for (Index h = 0; h < heads.heads(); ++h)
          for (Index j = 0; j <= i; ++j) {
            double value = 0;
            for (Index k = 0; k < heads.inputs; ++k)
              value += static_cast<double>(heads.values(h, o * heads.inputs + k)) *
                       static_cast<double>(x(s, j, k));
            sum += static_cast<double>(heads.weights(i - j, h)) * value;
          }
        y(s, i, o) = static_cast<T>(sum);
      }
}

/// Tokens of a block of rows: half of as many columns are zeros that are multiplied.
inline constexpr Index toeplitz_block = 256;

template <class T>
struct ApplyHeadsMemory {
  AlignedBuffer<T> weights, values;
};

/// With w_h as a list behind zeros for tokens to come, its matrix [rows, columns] is a view of the
/// list: the element of token i and token j stands i - j places behind that of lag 0.
template <class B, class T>
void product_apply_heads(const B& backend, const ToeplitzHeads<T>& heads, TensorView<const T, 3> x,
                         TensorView<T, 3> y) {
  Workspace own;
  const auto kept = keeping(backend, own);
  const auto memory = leased<ApplyHeadsMemory<T>>(kept);
  const Index tokens = x.extent[1], count = heads.heads(), width = count * heads.outputs;
  const Index list = toeplitz_block - 1 + tokens;
  T* const weights = memory->weights.resize(static_cast<std::size_t>(count * list));
  for (Index h = 0; h < count; ++h) {
    T* const w = weights + h * list;
    std::fill_n(w, toeplitz_block - 1, T(0));
    for (Index l = 0; l < tokens; ++l) w[toeplitz_block - 1 + l] = heads.weights(l, h);
  }
  const TensorView<T, 2> values = matrix_in(memory->values, tokens, width);
  const TensorView<const T, 2> maps{heads.values.data(), {heads.inputs, width}, {1, heads.inputs}};
  for (Index s = 0; s < x.extent[0]; ++s) {
    linalg::multiply(kept,
                     TensorView<const T, 2>{&x(s, 0, 0), {tokens, heads.inputs}, {x.stride[1], 1}},
                     maps, values);
    for (Index begin = 0; begin < tokens; begin += toeplitz_block) {
      const Index end = std::min(begin + toeplitz_block, tokens);
      const TensorView<T, 2> out{&y(s, begin, 0), {end - begin, heads.outputs}, {y.stride[1], 1}};
      for (Index h = 0; h < count; ++h)
        linalg::multiply(
            kept,
            TensorView<const T, 2>{
                weights + h * list + toeplitz_block - 1 + begin, {end - begin, end}, {1, -1}},
            as_const(columns_of(rows_of(values, 0, end), h * heads.outputs, heads.outputs)), out,
            {.accumulate = h > 0});
    }
  }
}

template <class B, class T>
void run_apply_heads(const B& backend, const ToeplitzHeads<T>& heads, TensorView<const T, 3> x,
                     TensorView<T, 3> y) {
  check_apply_heads(heads, x, y);
  if (x.extent[0] == 0 || x.extent[1] == 0) return;
  if constexpr (!KernelBackend<B>)
    reference_apply_heads(heads, x, y);
  else
    product_apply_heads(on_any_executor(backend), heads, x, y);
}

PARE_ABI_END
}  // namespace pare::sequence::detail
