// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear layers of the same inputs with a factor that they share: y_i = (x B^T) A_i^T.
///
/// ```cpp
/// // weights: a list of matrices [out_i x in]
/// const auto factors = pare::factor::shared_factors(weights, {.latent = 64});
/// const SharedLinear<float> layers(factors);                  // viewed
/// const auto small = SharedLinear<bf16>::copy_of(factors);
/// layers.apply(x, y);                      // all of them: y [rows, sum of out_i]
/// layers.project(x, latent);               // B once,
/// layers.apply_specific(2, latent, y2);    // and A_2 where it is wanted
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/apply.hpp>
#include <pare/factor/structured/shared_factors.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace pare::transformer {
PARE_ABI_BEGIN

/// B [latent, inputs] and all A_i, one above the other [sum of out_i, latent], of S, each viewed or
/// owned as DenseLinear is. As a `Linear` (of double: the same in double) it is all layers side by
/// side: y has the outputs of the first, then those of the second. It can be moved, not copied.
template <StorageScalar S>
class SharedLinear : public LinearCalls<SharedLinear<S>, compute_t<S>> {
 public:
  using weight = S;
  using scalar = compute_t<S>;  ///< of x and y

  /// \param specific all A_i, one above the other
  /// \param shared   B
  /// \param offsets  A_i has the rows offsets[i] to offsets[i + 1] - 1: from 0 to all, increasing
  /// \throws std::invalid_argument if they do not fit
  SharedLinear(DenseLinear<S> specific, DenseLinear<S> shared, std::vector<Index> offsets)
      : specific_(std::move(specific)), shared_(std::move(shared)), offsets_(std::move(offsets)) {
    constexpr const char* function = "transformer::SharedLinear";
    check(specific_.inputs() == shared_.outputs(), function, "specific", specific_.inputs(),
          shared_.outputs());
    check_offsets(function, "offsets", offsets_, specific_.outputs(), "outputs");
    for (std::size_t i = 1; i < offsets_.size(); ++i)
      check(offsets_[i] > offsets_[i - 1], function, "offsets", offsets_[i],
            "at least one output per layer");
  }

  /// Views factors, which must outlive the layer.
  explicit SharedLinear(const factor::SharedFactors<scalar>& factors)
  requires ComputeScalar<S>
      : SharedLinear(DenseLinear<S>(const_view(factors.factors.left)),
                     DenseLinear<S>(factors.shared()), factors.offsets) {}
  /// The factors would be gone: name them first, or use `copy_of`.
  explicit SharedLinear(const factor::SharedFactors<scalar>&&) = delete;

  /// A copy of factors, rounded to S.
  template <ComputeScalar T>
  static SharedLinear copy_of(const factor::SharedFactors<T>& factors) {
    return {DenseLinear<S>::copy_of(factors.factors.left),
            DenseLinear<S>::copy_of(factors.factors.right), factors.offsets};
  }

  Index inputs() const { return shared_.inputs(); }
  Index outputs() const { return specific_.outputs(); }  ///< of all layers together
  Index latent() const { return shared_.outputs(); }
  Index layers() const { return static_cast<Index>(offsets_.size()) - 1; }
  const std::vector<Index>& offsets() const { return offsets_; }
  TensorView<const S, 2> shared() const { return shared_.weights(); }
  /// All A_i, one above the other.
  TensorView<const S, 2> specific() const { return specific_.weights(); }

  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(shared_);
    visit(specific_);
  }

  using LinearCalls<SharedLinear<S>, scalar>::apply;
  /// y = [y_0, y_1, ...], the outputs of all layers side by side.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x and the factors
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or a factor. Nothing
  ///         is written then. No rows: a no-op.
  ///
  /// Cost: 2 rows latent (inputs + outputs) FLOPs; of a few rows, reading the factors binds.
  /// Memory, kept in the backend's workspace: [rows, latent], or that of factor::apply, as which
  /// more than `few_rows` contiguous rows run.
  template <Backend B>
  void apply(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    constexpr const char* function = "transformer::SharedLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_apart_from_layer(function, "y", y, *this);
    if (y.rows() == 0) return;
    if constexpr (KernelBackend<B>) {
      if (y.rows() > few_rows && has_contiguous_rows(x) && has_contiguous_rows(y))
        return factor::apply(backend, specific(), shared(), x, y);
      apply_each(backend, x, y, *leased<AlignedBuffer<scalar>>(backend));
    } else {
      AlignedBuffer<scalar> memory;
      apply_each(backend, x, y, memory);
    }
  }

  /// latent = x B^T, what all layers are applied to.
  /// \param x      [rows, inputs], any strides
  /// \param latent [rows, latent], the same; apart from x and B
  /// \throws std::invalid_argument as DenseLinear::apply, which is named then
  template <Backend B, In<2> X, Out<2> L>
  void project(const B& backend, const X& x, L&& latent) const {
    shared_.apply(backend, x, latent);
  }
  /// \overload
  template <In<2> X, Out<2> L>
  void project(const X& x, L&& latent) const {
    shared_.apply(simd, x, latent);
  }

  /// y = latent A_i^T.
  /// \param i      which layer
  /// \param latent [rows, latent] of `project`
  /// \param y      [rows, out_i], apart from latent and A_i
  /// \throws std::invalid_argument if there is no such layer, or as DenseLinear::apply, which is
  ///         named then
  template <Backend B, In<2> L, Out<2> Y>
  void apply_specific(const B& backend, Index i, const L& latent, Y&& y) const {
    check(i >= 0 && i < layers(), "transformer::SharedLinear::apply_specific", "i", i,
          Worded{"a number below ", layers()});
    const auto at = static_cast<std::size_t>(i);
    const DenseLinear<S> own(rows_of(specific(), offsets_[at], offsets_[at + 1] - offsets_[at]));
    own.apply(backend, latent, y);
  }
  /// \overload
  template <In<2> L, Out<2> Y>
  void apply_specific(Index i, const L& latent, Y&& y) const {
    apply_specific(simd, i, latent, y);
  }

 private:
  template <Backend B>
  void apply_each(const B& backend, TensorView<const scalar, 2> x, TensorView<scalar, 2> y,
                  AlignedBuffer<scalar>& memory) const {
    const TensorView<scalar, 2> middle = matrix_in(memory, x.rows(), latent());
    shared_.apply(backend, x, middle);
    specific_.apply(backend, as_const(middle), y);
  }

  DenseLinear<S> specific_, shared_;
  std::vector<Index> offsets_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
