// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which norm weighs the error of a factorization: the concept and the metrics users know.
///
/// ```cpp
/// factorize(w, Uniform{}, {.rank = 64});                         // plain truncated SVD
/// factorize(w, OutputWeights(fisher.sums(Axis::Output)), {.rank = 64});           // FWSVD
/// factorize(w, InputWeights(mean_squares), {.rank = 64});        // ASVD
/// factorize(w, InputCovariance(c, 0.01), {.rank = 64});          // SVD-LLM, CARE: a matrix, or a
///                                                                // Covariance
/// ```
///
/// Every metric is || D (W - A B) R ||_F^2. D is diagonal and holds the roots of the output
/// weights. R is such a diagonal for the inputs, or satisfies R R^T = C, the covariance of the
/// inputs. With D W R = U S V^T, cut after the first k:
///
/// | weighed | A | B | carries S (Split) |
/// |---|---|---|---|
/// | neither, or outputs | W V | V^T | A |
/// | inputs | U | U^T W | B |
/// | both | W R V S^-1 | U^T D W | B |
///
/// No form divides by a weight or inverts C, so weights may be 0 and C singular. Rows and columns
/// without weight are reconstructed as well as the subspace of the others allows. The last line of
/// the table contains the others, with D = I or R = I; S^-1 leaves out directions in which S is 0.
///
/// Sources: Hsu et al., "Language model compression with weighted low-rank factorization" (FWSVD),
/// ICLR 2022; Wang et al., SVD-LLM, arXiv 2403.07378; CARE, arXiv 2603.17946.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/options.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::factor {

PARE_ABI_BEGIN

/// C = matrix + ridge I [n x n], symmetric and positive semi-definite; a null matrix: none.
template <ComputeScalar T>
struct CovarianceView {
  using scalar = T;

  TensorView<const T, 2> matrix{};
  double ridge = 0;
  /// Known to be symmetric and semi-definite, as a sum of x x^T is: neither is looked at.
  bool is_moment = false;

  bool empty() const { return matrix.data == nullptr; }
};

PARE_ABI_END

namespace detail {
/// What is no matrix, but has one of second moments.
template <class C>
concept HasMoments = !In<C, 2> && requires(const C& c) {
  { c.matrix() } -> std::same_as<RowMatrix<double>>;
};

template <class V>
inline constexpr bool is_covariance_view = false;
template <class T>
inline constexpr bool is_covariance_view<CovarianceView<T>> = true;
}  // namespace detail

/// Anything that says how outputs and inputs are weighed. Weights multiply squared errors: the
/// objective is sum_ij output_i (W - AB)_ij^2 input_j. An empty span or covariance means equal
/// weight. Inputs have weights or a covariance, not both. What the member functions return must
/// live as long as the metric; the solver checks it. A metric derived from Uniform defines only the
/// functions that differ.
template <class M>
concept Metric = requires(const M& m) {
  { m.output_weights() } -> std::same_as<std::span<const double>>;
  { m.input_weights() } -> std::same_as<std::span<const double>>;
  requires detail::is_covariance_view<decltype(m.input_covariance())>;
};

PARE_ABI_BEGIN

/// The Frobenius norm, and the base of metrics.
struct Uniform {
  std::span<const double> output_weights() const { return {}; }
  std::span<const double> input_weights() const { return {}; }
  CovarianceView<double> input_covariance() const { return {}; }
};

PARE_ABI_END

namespace detail {
template <class X>
concept EigenVector = bool(X::IsVectorAtCompileTime);
}  // namespace detail

/// A vector at compile time, in memory, of storage scalars.
template <class X>
concept WeightVector = (detail::EigenVector<X> && In<X, 2> && pare::detail::DenseMatrix<const X>) ||
                       (!requires { X::IsVectorAtCompileTime; } && In<X, 1>);

/// The same without memory: a product, say, or a root of an array.
template <class D>
concept WeightExpression = detail::EigenVector<D> && ComputeScalar<typename D::Scalar>;

namespace detail {
PARE_ABI_BEGIN

/// share tr(C) / n, also where the trace is beyond double.
template <ComputeScalar T>
double diagonal_mean(TensorView<const T, 2> c, double share = 1) {
  const Index n = std::min(c.rows(), c.cols());
  const auto size = static_cast<double>(n);
  double trace = 0, mean = 0;
  for (Index i = 0; i < n; ++i) trace += static_cast<double>(c(i, i));
  if (is_finite(share * trace)) return share * trace / size;
  for (Index i = 0; i < n; ++i) mean += static_cast<double>(c(i, i)) / size;
  return share * mean;
}

/// A copy of weights, in double; empty ones are refused, since they would mean equal weight.
class Weights {
 public:
  template <WeightVector X>
  Weights(const char* name, const X& weights) : values_(copy(weights)) {
    check(values_.size() >= 1, name, "weights", values_.size(), "at least 1 weight");
  }

  std::span<const double> span() const {
    return {values_.data(), static_cast<std::size_t>(values_.size())};
  }

 private:
  template <class X>
  static Eigen::VectorXd copy(const X& weights) {
    const auto from = as_const(to_vector_view(weights));
    check_view("factor::metric", "weights", from);
    Eigen::VectorXd to(from.extent[0]);
    for (Index i = 0; i < to.size(); ++i)
      to(i) = static_cast<double>(static_cast<compute_t<scalar_of<X>>>(from(i)));
    return to;
  }

  Eigen::VectorXd values_;
};

PARE_ABI_END

}  // namespace detail

PARE_ABI_BEGIN

/// sum_i weight_i ||(W - AB)_i||^2 over outputs i, weights [out]: FWSVD with sums of the Fisher
/// information. Takes any vector of Eigen's, std::vector or std::span of any storage scalar, or an
/// expression, and copies it.
class OutputWeights : public Uniform {
 public:
  /// \throws std::invalid_argument if there is no weight; their values and number are checked by
  ///         the solver.
  template <WeightVector X>
  explicit OutputWeights(const X& weights) : weights_("factor::OutputWeights", weights) {}
  template <WeightExpression D>
  explicit OutputWeights(const Eigen::DenseBase<D>& weights) : OutputWeights(weights.eval()) {}

  std::span<const double> output_weights() const { return weights_.span(); }

 private:
  detail::Weights weights_;
};

/// sum_j weight_j ||column j of W - AB||^2 over inputs j, weights [in]: ASVD with squared scales.
class InputWeights : public Uniform {
 public:
  template <WeightVector X>
  explicit InputWeights(const X& weights) : weights_("factor::InputWeights", weights) {}
  template <WeightExpression D>
  explicit InputWeights(const Eigen::DenseBase<D>& weights) : InputWeights(weights.eval()) {}

  std::span<const double> input_weights() const { return weights_.span(); }

 private:
  detail::Weights weights_;
};

/// sum_ij output_i (W - AB)_ij^2 input_j.
class BothWeights : public Uniform {
 public:
  /// Takes on each side what OutputWeights and InputWeights take.
  template <class Output, class Input>
  BothWeights(const Output& output, const Input& input) : output_(output), input_(input) {}

  std::span<const double> output_weights() const { return output_.output_weights(); }
  std::span<const double> input_weights() const { return input_.input_weights(); }

 private:
  OutputWeights output_;
  InputWeights input_;
};

/// tr((W - AB) C (W - AB)^T): the squared error of the outputs over inputs whose second moment
/// X^T X, sum or mean, is the matrix [in x in]; C = matrix + damping mean(diag) I. A matrix with a
/// name is not copied and must outlive the metric; a temporary is.
template <ComputeScalar T>
class InputCovariance : public Uniform {
 public:
  /// \param matrix  [in x in] of float or double, symmetric, positive semi-definite
  /// \param damping share of the mean of the diagonal that is added to it; at least 0. CARE and
  ///                SVD-LLM invert C and use 0.01; no solver here needs it.
  template <class X>
  requires In<std::remove_cvref_t<X>, 2> && std::same_as<scalar_of<X>, T>
  explicit InputCovariance(X&& matrix, double damping = 0)
      : owned_(owned<X>(matrix)),
        matrix_(as_const(owned_ ? to_view(*owned_) : as_const(to_view(matrix)))),
        damping_(damping) {
    check_view("factor::InputCovariance", "matrix", matrix_);
    // A view without memory would mean equal weight.
    check(matrix_.rows() >= 1 && matrix_.cols() >= 1, "factor::InputCovariance", "matrix",
          matrix_.extent, "extents of at least 1");
  }

  /// Of an accumulator, such as a factor::Covariance: a copy of its matrix.
  /// \throws std::invalid_argument if no token was added
  template <detail::HasMoments C>
  requires std::same_as<T, double>
  explicit InputCovariance(const C& covariance, double damping = 0)
      : InputCovariance(covariance.matrix(), damping) {}

  double damping() const { return damping_; }

  PARE_ALWAYS_INLINE CovarianceView<T> input_covariance() const {
    return {matrix_, damping_ == 0 ? 0.0 : detail::diagonal_mean(matrix_, damping_)};
  }

 private:
  using Owned = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

  template <class X>
  static std::shared_ptr<const Owned> owned(const std::remove_reference_t<X>& matrix) {
    if constexpr (pare::detail::OwningRvalue<X>)
      return std::make_shared<const Owned>(matrix);
    else
      return nullptr;
  }

  std::shared_ptr<const Owned> owned_;  ///< of a temporary; copies of the metric share it
  TensorView<const T, 2> matrix_;
  double damping_;
};

template <class X>
requires In<std::remove_cvref_t<X>, 2>
explicit InputCovariance(X&&, double = 0) -> InputCovariance<scalar_of<X>>;
template <detail::HasMoments C>
explicit InputCovariance(const C&, double = 0) -> InputCovariance<double>;

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
