// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer whose weight is 2:4 sparse: y = x W^T, of each four inputs of an output two.
///
/// ```cpp
/// auto weight = pare::factor::TwoFour<bf16>::from(w, mask);   // w [outputs, inputs]
/// const TwoFourLinear<bf16> layer(std::move(weight));
/// layer.apply(pare::simd.threads(2).with(workspace), x, y);
/// ```
///
/// bf16, f16 and 8 bits are widened in registers; activations and sums are float, unless
/// `round_inputs` asks for products of bf16 pairs. Of a weight of double, all is double: such a
/// layer is no `Linear`, but has the same members. It keeps to the rules of linear.hpp.
///
/// A number of x that an output does not keep is no part of it: of a few rows, a NaN there does not
/// reach y. More rows are multiplied by the zeros as well, as a dense layer multiplies them.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/transformer/detail/two_four_product.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <type_traits>
#include <utility>

namespace pare::transformer {

/// Options of TwoFourLinear.
struct TwoFourLinearOptions {
  /// As that of DenseLinearOptions: more than `few_rows` rows of x are rounded to bf16. For values
  /// of bf16 only.
  bool round_inputs = false;
};

PARE_ABI_BEGIN

/// W [outputs, inputs] as TwoFour stores it, owned: values of float, bf16, f16, double or
/// std::int8_t with scales. It can be moved, not copied.
template <factor::TwoFourScalar S>
class TwoFourLinear : public LinearCalls<TwoFourLinear<S>, factor::two_four_t<S>> {
 public:
  using weight = S;
  using scalar = factor::two_four_t<S>;  ///< of x and y

  /// \throws std::invalid_argument if the weight is that of no outputs, or an option is for another
  ///         weight
  explicit TwoFourLinear(factor::TwoFour<S> two_four, const TwoFourLinearOptions& options = {})
      : weight_(std::move(two_four)), options_(options) {
    constexpr const char* function = "transformer::TwoFourLinear";
    check(weight_.outputs() >= 1, function, "two_four", weight_.outputs(), "at least one output");
    check(!options.round_inputs || std::is_same_v<S, bf16>, function, "round_inputs",
          options.round_inputs, "false for a weight that is not bf16");
  }

  Index inputs() const { return weight_.inputs(); }
  Index outputs() const { return weight_.outputs(); }
  const factor::TwoFour<S>& two_four() const { return weight_; }
  /// The values, [outputs, row_values] of TwoFour: what an output must lie apart from.
  TensorView<const S, 2> weights() const { return weight_.values(); }

  /// Visits what it reads beside the values.
  template <class Visit>
  void each_memory(const Visit& visit) const {
    visit(weight_.mask().words());
    if constexpr (factor::TwoFour<S>::has_scales) visit(weight_.scales());
  }

  using LinearCalls<TwoFourLinear<S>, scalar>::apply;
  /// y = x W^T.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides; rows that are not contiguous are copied
  /// \param y [rows, outputs], the same; apart from x and the weight
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or the weight. Nothing
  ///         is written then. No rows: a no-op.
  ///
  /// Cost: rows inputs outputs FLOPs of a few rows, for which W is read once for every 6, which
  /// binds of one: 18 bytes for 16 inputs of 16 bits. More are a product of matrices, for which W
  /// is expanded once, of 2 rows inputs outputs FLOPs: bytes are saved, FLOPs not. Memory, kept in
  /// the backend's workspace: none for a few contiguous rows, else that of linalg::multiply.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "transformer::TwoFourLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_apart_from_layer(function, "y", y, *this);
    detail::apply_two_four(backend, weight_, x, y, options_.round_inputs);
  }

 private:
  factor::TwoFour<S> weight_;
  TwoFourLinearOptions options_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
