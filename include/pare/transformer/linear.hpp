// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear layers: y = x W^T for rows x of a batch, however the weight W is stored.
///
/// ```cpp
/// pare::RowMatrix<float> w(outputs, inputs), x(rows, inputs), y(rows, outputs);
/// const DenseLinear<float> dense(w);                        // viewed
/// const QuantizedLinear<pare::kernel::Q4_1> small(blocks, outputs, inputs);
/// const LowRankLinear<float> thin(factors);                 // of truncated_svd and the like
/// dense.apply(x, y);
/// small.apply(pare::simd.threads(2).with(workspace), x, y);
/// ```
///
/// | layer | header | W is |
/// |---|---|---|
/// | `DenseLinear<S>` | `dense_linear.hpp` | float, bf16 or f16, viewed or owned |
/// | `QuantizedLinear<B>` | `quantized_linear.hpp` | blocks `Q8_0`, `Q4_0` or `Q4_1`, viewed |
/// | `LowRankLinear<S>` | `low_rank_linear.hpp` | left right, of rank k |
/// | `TwoFourLinear<S>` | `structured/two_four_linear.hpp` | 2:4 sparse, owned |
/// | `WrappedLinear<L, S>` | `structured/wrapped_linear.hpp` | a layer between block diagonals |
/// | `DenseSparseLinear<S>` | `structured/dense_sparse_linear.hpp` | dense times sparse, owned |
/// | `SharedLinear<S>` | `structured/shared_linear.hpp` | several, with a factor in common |
/// | `EditedLinear<L>` | `structured/edited_linear.hpp` | a layer and edits of rank one |
///
/// x and y are objects of Eigen's or views, of any strides; rows of a weight that is viewed are
/// contiguous (RowMajor in Eigen).
///
/// A forward pass that is written over the concept takes each of them, and a layer of the user's
/// own:
///
/// ```cpp
/// template <Linear Gate, Linear Up>
/// void feed_forward(const Gate& gate, const Up& up, ...);
/// ```
///
/// All layers here keep to these rules. Activations are float, and so are sums, each over the
/// inputs in one fixed order: results have the same bits for any number of threads, and a row the
/// same among up to `few_rows` rows, however many. More rows run as a product of matrices, whose
/// bits are again the same for any of their number. A NaN or infinity in a row of x reaches that
/// row of y only.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/linalg/weight_rows.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

namespace pare::transformer {

/// A linear layer: `apply(backend, x, y)` of views writes y = x W^T for x [rows, inputs] and
/// y [rows, outputs], on `pare::simd`, on `pare::reference` and on whatever backend it supports.
/// It allocates nothing on a backend that carries a workspace, once that has grown.
template <class L>
concept Linear = requires(const L& l, TensorView<const float, 2> x, TensorView<float, 2> y) {
  { l.inputs() } -> std::same_as<Index>;
  { l.outputs() } -> std::same_as<Index>;
  l.apply(simd, x, y);
  l.apply(reference, x, y);
};

/// A linear layer of rows of T: a `Linear` where T is float, and the same in double.
template <class L, class T>
concept LinearOf =
    ComputeScalar<T> && requires(const L& l, TensorView<const T, 2> x, TensorView<T, 2> y) {
      { l.inputs() } -> std::same_as<Index>;
      { l.outputs() } -> std::same_as<Index>;
      l.apply(simd, x, y);
      l.apply(reference, x, y);
    };

/// What rows a layer takes: of float, or else of double.
template <class L>
using linear_scalar = std::conditional_t<LinearOf<L, float>, float, double>;

/// Rows up to which layers here read their weight where it lies, widened in registers. For more
/// they pack it into panels in each call, which takes as long as the products of some twenty rows.
inline constexpr Index few_rows = linalg::few_weight_rows;

PARE_ABI_BEGIN

/// Throws std::invalid_argument if x [rows, inputs] and y [rows, outputs] do not fit a layer, or
/// share memory.
template <class T>
void check_linear(const char* function, Index inputs, Index outputs,
                  const TensorView<const T, 2>& x, const TensorView<T, 2>& y) {
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {x.rows(), inputs});
  check_writable(function, "y", y);
  check_extents<2>(function, "y", y.extent, {x.rows(), outputs});
  check_no_overlap(function, "y", y, "x", x);
}

/// Throws std::invalid_argument if an output shares memory with what a layer has as `weights()` or
/// `blocks()`, or as other memory, which `each_memory(visit)` visits, or with the layers it is made
/// of, which `each_layer(visit)` visits; a layer that has none of them is not looked at.
template <class L, class T, std::size_t Rank>
void check_apart_from_layer(const char* function, const char* output,
                            const TensorView<T, Rank>& out, const L& layer) {
  if constexpr (requires { check_no_overlap(function, output, out, "", layer.weights()); })
    check_no_overlap(function, output, out, "a weight", layer.weights());
  if constexpr (requires { check_no_overlap(function, output, out, "", layer.blocks()); })
    check_no_overlap(function, output, out, "a weight", layer.blocks());
  if constexpr (requires { layer.each_memory([](const auto&) {}); })
    layer.each_memory(
        [&](const auto& memory) { check_no_overlap(function, output, out, "a weight", memory); });
  if constexpr (requires { layer.each_layer([](const auto&) {}); })
    layer.each_layer(
        [&](const auto& part) { check_apart_from_layer(function, output, out, part); });
}

PARE_ABI_END

}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
