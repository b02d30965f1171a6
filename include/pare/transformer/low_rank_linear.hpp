// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer whose weight is a product of two thin matrices: y = (x right^T) left^T.
///
/// ```cpp
/// const auto factors = pare::factor::truncated_svd(w, {.rank = 128});  // w [outputs, inputs]
/// const LowRankLinear<float> viewed(factors);
/// const LowRankLinear<bf16> owned(std::move(left), std::move(right));  // DenseLinear<bf16> each
/// viewed.apply(pare::simd.with(workspace), x, y);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/apply.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/linear_calls.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::transformer {
namespace detail {
PARE_ABI_BEGIN

/// The product in the middle.
struct LowRankLinearMemory {
  AlignedBuffer<float> middle;
};

/// y = (x right^T) left^T in double.
template <class S>
void reference_low_rank(TensorView<const S, 2> left, TensorView<const S, 2> right,
                        TensorView<const float, 2> x, TensorView<float, 2> y) {
  const auto wide = [](auto value) { return static_cast<double>(static_cast<float>(value)); };
  std::vector<double> middle(static_cast<std::size_t>(right.rows()));
  for (Index r = 0; r < y.rows(); ++r) {
    for (Index k = 0; k < right.rows(); ++k) {
      double& sum = middle[static_cast<std::size_t>(k)] = 0;
      for (Index i = 0; i < x.cols(); ++i) sum += wide(right(k, i)) * wide(x(r, i));
    }
    for (Index o = 0; o < y.cols(); ++o) {
      double sum = 0;
      for (Index k = 0; k < right.rows(); ++k)
        sum += wide(left(o, k)) * middle[static_cast<std::size_t>(k)];
      y(r, o) = static_cast<float>(sum);
    }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// W = left right, left [outputs, rank] and right [rank, inputs] of S, each viewed or owned as
/// DenseLinear is. It can be moved, not copied.
template <StorageScalar S>
requires(!std::is_same_v<S, double>)
class LowRankLinear : public LinearCalls<LowRankLinear<S>, float> {
 public:
  using weight = S;

  /// \throws std::invalid_argument if left does not have as many inputs as right has outputs.
  LowRankLinear(DenseLinear<S> left, DenseLinear<S> right)
      : left_(std::move(left)), right_(std::move(right)) {
    check(left_.inputs() == right_.outputs(), "transformer::LowRankLinear", "left", left_.inputs(),
          right_.outputs());
  }

  /// Views the factors of a factorization, which must outlive the layer.
  /// \throws std::invalid_argument if they are empty.
  explicit LowRankLinear(const factor::LowRank<float>& factors)
  requires(std::is_same_v<S, float>)
      : LowRankLinear(DenseLinear<S>(as_const(to_view(factors.left))),
                      DenseLinear<S>(as_const(to_view(factors.right)))) {}
  /// The factors would be gone: name them first.
  explicit LowRankLinear(const factor::LowRank<float>&&) = delete;

  Index inputs() const { return right_.inputs(); }
  Index outputs() const { return left_.outputs(); }
  Index rank() const { return right_.outputs(); }

  /// Visits the layers that it is made of.
  template <class Visit>
  void each_layer(const Visit& visit) const {
    visit(left_);
    visit(right_);
  }

  using LinearCalls<LowRankLinear<S>, float>::apply;
  /// y = (x right^T) left^T.
  ///
  /// \param backend left out: pare::simd
  /// \param x [rows, inputs], any strides
  /// \param y [rows, outputs], the same; apart from x and the factors
  /// \throws std::invalid_argument if an extent does not fit or y overlaps x or a factor.
  ///         Nothing is written then. No rows: a no-op.
  ///
  /// Cost: 2 rows rank (inputs + outputs) FLOPs; of a few rows, reading the factors binds. More run
  /// as `factor::apply`, if rows of x and y are contiguous, else as two layers. Memory, kept in the
  /// backend's workspace: [rows, rank], or that of factor::apply.
  template <Backend B>
  void apply(const B& backend, TensorView<const float, 2> x, TensorView<float, 2> y) const {
    constexpr const char* function = "transformer::LowRankLinear::apply";
    check_linear(function, inputs(), outputs(), x, y);
    check_no_overlap(function, "y", y, "left", left_.weights());
    check_no_overlap(function, "y", y, "right", right_.weights());
    if (y.rows() == 0) return;
    if constexpr (!KernelBackend<B>)
      detail::reference_low_rank<S>(left_.weights(), right_.weights(), x, y);
    else if (y.rows() > few_rows && has_contiguous_rows(x) && has_contiguous_rows(y))
      factor::apply(backend, left_.weights(), right_.weights(), x, y);
    else
      apply_each(backend, x, y);
  }

 private:
  template <Backend B>
  void apply_each(const B& backend, TensorView<const float, 2> x, TensorView<float, 2> y) const {
    const auto memory = leased<detail::LowRankLinearMemory>(backend);
    const TensorView<float, 2> middle = matrix_in(memory->middle, x.rows(), rank());
    right_.apply(backend, x, middle);
    left_.apply(backend, as_const(middle), y);
  }

  DenseLinear<S> left_, right_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
