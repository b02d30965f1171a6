// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer whose weight is a matrix: y = x W^T.
///
/// ```cpp
/// const DenseLinear<float> viewed(file.view<float, 2>(name));  // where it lies, nothing copied
/// const DenseLinear<float> of_eigen(w);                       // a RowMatrix<float>, viewed too
/// const auto small = DenseLinear<bf16>::copy_of(w);           // rounded, of any order and scalar
/// DenseLinear<bf16> owned(outputs, inputs);                   // half the bytes of float
/// file.read_rows(pare::simd, name, 0, owned.own_weights());   // rounded, from any type
/// owned.apply(pare::simd.with(workspace), x, y);              // x, y: Eigen objects or views
/// ```
///
/// bf16 and f16 are widened in registers; activations and sums are float, unless `round_inputs`
/// asks for products of bf16 pairs. Of a weight of double, all is double: such a layer is no
/// `Linear`, but has the same members.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/transformer/detail/linear_product.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::transformer {

/// Options of DenseLinear.
struct DenseLinearOptions {
  /// Round more than `few_rows` rows of x to bf16, nearest, ties to even, and multiply pairs of
  /// bf16 where the arch can: half the time on Zen 4, but up to twice on Sapphire Rapids, whose
  /// pairs are slower than its floats. Each term is off by up to 2^-9 of itself. For a weight of
  /// bf16 only.
  bool round_inputs = false;
  /// The same for up to `few_rows` rows: where reading the weight does not bind, from about 8 rows
  /// on, they take half to a third of the time. Of a weight with a multiple of 64 inputs only;
  /// others are multiplied as they are.
  bool round_few_rows = false;
};

PARE_ABI_BEGIN

/// W [outputs, inputs] of float, bf16, f16 or double, viewed or owned. It can be moved, not copied.
template <StorageScalar S>
class DenseLinear : public LinearCalls<DenseLinear<S>, compute_t<S>> {
 public:
  using weight = S;
  using scalar = compute_t<S>;  ///< of x and y

  /// Views a weight, which must outlive the layer.
  /// \param weights [outputs, inputs], rows contiguous, at least one of each
  /// \throws std::invalid_argument if it is empty, its rows are not contiguous, or an option is
  ///         for another weight.
  explicit DenseLinear(TensorView<const S, 2> weights, const DenseLinearOptions& options = {})
      : weights_(weights), options_(checked(options)) {
    detail::check_weight<S>("transformer::DenseLinear", "weights", weights_);
  }

  /// \overload
  /// Views an Eigen object by rows, such as a RowMatrix.
  template <In<2> W>
  requires std::is_same_v<scalar_of<W>, S>
  explicit DenseLinear(const W& weights, const DenseLinearOptions& options = {})
      : DenseLinear(as_const(to_view(weights)), options) {}
  /// A temporary's elements would be gone: name it first, or use `copy_of`.
  template <In<2> W>
  requires pare::detail::OwningRvalue<W>
  explicit DenseLinear(const W&&, const DenseLinearOptions& = {}) = delete;

  /// A layer with a copy of a weight.
  /// \param weights [outputs, inputs] of any storage scalar and order, rounded to S: nearest, ties
  ///                to even (double to 16 bits by way of float)
  /// \throws std::invalid_argument if it is empty or no valid view, or an option is for another
  ///         weight
  template <In<2> W>
  static DenseLinear copy_of(const W& weights, const DenseLinearOptions& options = {}) {
    using From = compute_t<scalar_of<W>>;
    const auto from = as_const(to_view(weights));
    check_view("transformer::DenseLinear::copy_of", "weights", from);
    DenseLinear layer(from.rows(), from.cols(), options);
    const TensorView<S, 2> to = layer.own_weights();
    for (Index o = 0; o < to.rows(); ++o)
      for (Index i = 0; i < to.cols(); ++i)
        to(o, i) = static_cast<S>(static_cast<compute_t<S>>(static_cast<From>(from(o, i))));
    return layer;
  }

  /// A weight of its own, zeros until it is written through `own_weights`.
  /// \throws std::invalid_argument if an extent is below 1, their product too large, or an option
  ///         for another weight.
  DenseLinear(Index outputs, Index inputs, const DenseLinearOptions& options = {})
      : memory_(size_of(outputs, inputs)),
        weights_{memory_.data(), {outputs, inputs}, {inputs, 1}},
        options_(checked(options)) {
    std::fill_n(memory_.data(), memory_.capacity(), S{});
  }

  Index inputs() const { return weights_.cols(); }
  Index outputs() const { return weights_.rows(); }
  TensorView<const S, 2> weights() const { return weights_; }

  /// The layer's own weight, to write.
  /// \throws std::invalid_argument if it views another's.
  TensorView<S, 2> own_weights() {
    check(memory_.data() != nullptr, "transformer::DenseLinear::own_weights", "weights",
          "a view of other memory", "a weight of the layer's own");
    return {memory_.data(), weights_.extent, weights_.stride};
  }

  using LinearCalls<DenseLinear<S>, compute_t<S>>::apply;
  /// y = x W^T.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides; rows that are not contiguous are copied
  /// \param y [rows, outputs], the same; apart from x and the weight
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or the weight. Nothing
  ///         is written then. No rows: a no-op.
  ///
  /// Cost: 2 rows inputs outputs FLOPs. Up to `few_rows` rows, W is read once for every 16 (for
  /// every 24 with `round_few_rows`), which binds; more, and all of double, run as
  /// `linalg::multiply`. Memory, kept in the backend's workspace: none for a few contiguous rows,
  /// else that of linalg::multiply.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "transformer::DenseLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_no_overlap(function, "y", y, "the weight", weights_);
    detail::apply_weight<B, S>(backend, weights_, x, y,
                               {options_.round_inputs, options_.round_few_rows});
  }

 private:
  static std::size_t size_of(Index outputs, Index inputs) {
    constexpr const char* function = "transformer::DenseLinear";
    check(outputs >= 1, function, "outputs", outputs, "at least 1");
    check(inputs >= 1, function, "inputs", inputs, "at least 1");
    const Index size = checked_product(function, "outputs", outputs, inputs);
    return static_cast<std::size_t>(checked_count(function, "outputs", size, sizeof(S)));
  }

  static const DenseLinearOptions& checked(const DenseLinearOptions& options) {
    constexpr const char* wanted = "false for a weight that is not bf16";
    check(!options.round_inputs || std::is_same_v<S, bf16>, "transformer::DenseLinear",
          "round_inputs", options.round_inputs, wanted);
    check(!options.round_few_rows || std::is_same_v<S, bf16>, "transformer::DenseLinear",
          "round_few_rows", options.round_few_rows, wanted);
    return options;
  }

  AlignedBuffer<S> memory_;
  TensorView<const S, 2> weights_;
  DenseLinearOptions options_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
