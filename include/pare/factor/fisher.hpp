// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The diagonal of the Fisher information of a layer y = W x. It says how much the loss changes
/// with each weight; FWSVD weighs its error by it.
///
/// ```cpp
/// FisherDiagonal fisher(out, in);
/// for (const auto& gradient : gradients) fisher.add_gradient(gradient);  // one call an example
/// fisher.add_layer(delta, x, offsets);     // or from the layer's inputs and output gradients
/// const Eigen::VectorXd weights = fisher.sums(Axis::Input);
/// ```
///
/// F_ij = 1 / N sum over examples e of (dL_e / dw_ij)^2. The gradient of each example is squared.
/// The square of a batch's mean gradient is something else: (E g)^2 + Var(g) / batch. The labels
/// decide which Fisher information this is. Losses on the labels of the data give the empirical
/// one, which FWSVD uses; labels drawn from the model's own predictions give an estimate of the
/// true one.
///
/// Gradients are not checked for NaN and infinities: the sums of their rows and columns become NaN
/// or infinite, and a method that takes such sums as weights refuses them. Source: Hsu et al.,
/// "Language model compression with weighted low-rank factorization", ICLR 2022, section 3.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/fisher_sums.hpp>
#include <pare/factor/detail/reference_statistics.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <Eigen/Core>

#include <array>
#include <cstddef>
#include <iterator>
#include <ranges>
#include <span>
#include <string>
#include <vector>

namespace pare::factor {

/// What a FisherDiagonal keeps.
enum class FisherTerms {
  Sums,      ///< over each output and each input: out + in numbers
  Elements,  ///< every F_ij too, in double: out * in numbers
};

namespace detail {
PARE_ABI_BEGIN

inline FisherSums empty_fisher_sums(Index out, Index in, FisherTerms terms) {
  constexpr const char* name = "factor::FisherDiagonal";
  check(out >= 1, name, "out", out, "at least 1");
  check(in >= 1, name, "in", in, "at least 1");
  check_enumerator(name, "terms", terms, FisherTerms::Elements);
  checked_count(name, "out", out, sizeof(double));
  checked_count(name, "in", in, sizeof(double));
  const bool elements = terms == FisherTerms::Elements;
  const Index size = elements ? checked_product(name, "extents", out, in) : 0;
  checked_count(name, "extents", size, sizeof(double));
  FisherSums sums;
  sums.outputs.assign(static_cast<std::size_t>(out), 0.0);
  sums.inputs.assign(static_cast<std::size_t>(in), 0.0);
  sums.elements.assign(static_cast<std::size_t>(size), 0.0);
  return sums;
}

inline void check_examples(const char* function, Index count) {
  check(count > 0, function, "count", count, "an example that was added");
}

/// The number of examples that offsets [examples + 1] bound.
inline Index example_count(const char* function, std::span<const Index> offsets) {
  check(!offsets.empty(), function, "example_offsets", "no offset", "one more than examples");
  return static_cast<Index>(offsets.size()) - 1;
}

/// Offsets [examples + 1] from 0 to the number of tokens that do not fall.
inline void check_offsets(const char* function, std::span<const Index> offsets, Index tokens) {
  check(offsets.front() == 0, function, "example_offsets", offsets.front(), "0 at the front");
  check(offsets.back() == tokens, function, "example_offsets", offsets.back(),
        "the number of tokens, " + std::to_string(tokens) + ", at the back");
  for (std::size_t e = 1; e < offsets.size(); ++e)
    check(offsets[e - 1] <= offsets[e], function, "example_offsets", offsets[e],
          "at least the offset before, " + std::to_string(offsets[e - 1]));
}

/// Adds squares that were computed as they are defined.
inline void add_reference(const Eigen::MatrixXd& squares, FisherSums& sums) {
  for (Index i = 0; i < sums.out(); ++i)
    for (Index j = 0; j < sums.in(); ++j) {
      sums.outputs[static_cast<std::size_t>(i)] += squares(i, j);
      sums.inputs[static_cast<std::size_t>(j)] += squares(i, j);
      if (!sums.elements.empty()) sums.element_view()(i, j) += squares(i, j);
    }
}

template <class B, class S>
void add_checked_gradient(const B& backend, TensorView<const S, 2> gradient, FisherSums& sums) {
  constexpr const char* name = "factor::FisherDiagonal::add_gradient";
  check_extents<2>(name, "gradient", gradient.extent, {sums.out(), sums.in()});
  gradient = linalg::checked_lines(name, "gradient", gradient);
  if constexpr (KernelBackend<B>) {
    add_gradient(on_any_executor(backend), gradient, sums);
  } else {
    Eigen::MatrixXd squares = Eigen::MatrixXd::Zero(sums.out(), sums.in());
    reference_add_gradient(gradient, squares);
    add_reference(squares, sums);
  }
}

template <class S, class U>
void check_layer(const char* name, TensorView<const S, 2> delta, TensorView<const U, 2> x,
                 const FisherSums& sums) {
  check_view(name, "delta", delta);
  check_view(name, "x", x);
  check_extents<2>(name, "delta", delta.extent, {delta.rows(), sums.out()});
  check_extents<2>(name, "x", x.extent, {delta.rows(), sums.in()});
}

template <class B, class S, class U>
void add_checked_layer(const char* name, const B& backend, TensorView<const S, 2> delta,
                       TensorView<const U, 2> x, std::span<const Index> offsets, FisherSums& sums) {
  check_layer(name, delta, x, sums);
  check_offsets(name, offsets, x.rows());
  delta = linalg::checked_lines(name, "delta", delta);
  x = linalg::checked_lines(name, "x", x);
  if constexpr (KernelBackend<B>) {
    add_layer(on_any_executor(backend), delta, x, offsets, sums);
  } else {
    Eigen::MatrixXd squares = Eigen::MatrixXd::Zero(sums.out(), sums.in());
    reference_add_layer(delta, x, offsets, squares);
    add_reference(squares, sums);
  }
}

/// 0, 1, ..., tokens: every token an example.
inline std::vector<Index> single_token_offsets(Index tokens) {
  std::vector<Index> offsets(static_cast<std::size_t>(tokens) + 1);
  for (std::size_t t = 0; t < offsets.size(); ++t) offsets[t] = static_cast<Index>(t);
  return offsets;
}

inline void merge_fisher(const FisherSums& from, FisherSums& to) {
  constexpr const char* name = "factor::FisherDiagonal::merge";
  check_extents<2>(name, "other", {from.out(), from.in()}, {to.out(), to.in()});
  check(from.elements.size() == to.elements.size(), name, "other",
        from.elements.empty() ? "sums alone" : "elements",
        to.elements.empty() ? "sums alone" : "elements");
  const auto add = [](const std::vector<double>& x, std::vector<double>& sum) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += x[i];
  };
  add(from.outputs, to.outputs);
  add(from.inputs, to.inputs);
  add(from.elements, to.elements);
}

inline Eigen::VectorXd mean_of_examples(const std::vector<double>& sums, Index count) {
  check_examples("factor::FisherDiagonal::sums", count);
  Eigen::VectorXd mean(static_cast<Index>(sums.size()));
  for (Index i = 0; i < mean.size(); ++i)
    mean[i] = sums[static_cast<std::size_t>(i)] / static_cast<double>(count);
  return mean;
}

inline RowMatrix<double> mean_elements(const FisherSums& sums, Index count) {
  constexpr const char* name = "factor::FisherDiagonal::elements";
  check(!sums.elements.empty(), name, "terms", "sums alone", "FisherTerms::Elements");
  check_examples(name, count);
  RowMatrix<double> mean(sums.out(), sums.in());
  for (Index i = 0; i < mean.size(); ++i)
    mean.data()[i] = sums.elements[static_cast<std::size_t>(i)] / static_cast<double>(count);
  return mean;
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Accumulates squared gradients of examples, in any order and any grouping of calls.
///
/// Sums are kept in double. Within a call, squares of float and 16-bit gradients are added in
/// float, at most 256 at a time, so that a sum is off by at most 300 * 2^-24 of itself. Squares
/// below 2^-126 (gradients below 1e-19) are lost or rounded, and squares beyond 3.4e38 are
/// infinite. Elements, and gradients in double, are squared and added in double. Bits depend on the
/// order of the calls, not on the executor.
class FisherDiagonal {
 public:
  /// Of a weight [out x in].
  /// \throws std::invalid_argument if out or in is below 1.
  PARE_ALWAYS_INLINE FisherDiagonal(Index out, Index in, FisherTerms terms = FisherTerms::Sums)
      : sums_(detail::empty_fisher_sums(out, in, terms)) {}

  Index out() const { return sums_.out(); }
  Index in() const { return sums_.in(); }

  /// Examples that were added.
  Index count() const { return count_; }

  FisherTerms terms() const {
    return sums_.elements.empty() ? FisherTerms::Sums : FisherTerms::Elements;
  }

  /// Adds one example.
  ///
  /// \param backend  left out: pare::simd
  /// \param gradient [out x in] of its loss by W, any storage scalar, rows or columns contiguous
  /// \throws std::invalid_argument if the extents are not [out x in], or neither rows nor columns
  ///         are contiguous
  ///
  /// Cost: the gradient is read once, which binds; with elements, out * in doubles are read and
  /// written too. Memory: 1/256 of the gradient.
  template <Backend B, In<2> G>
  PARE_ALWAYS_INLINE void add_gradient(const B& backend, const G& gradient) {
    const Index count = checked_sum("factor::FisherDiagonal::add_gradient", "count", count_, 1);
    detail::add_checked_gradient(backend, as_const(to_view(gradient)), sums_);
    count_ = count;
  }

  /// \overload
  template <In<2> G>
  PARE_ALWAYS_INLINE void add_gradient(const G& gradient) {
    add_gradient(simd, gradient);
  }

  /// Adds examples of one or more tokens, given the layer's inputs and output gradients. The
  /// examples' gradients G_e = sum over tokens t of example e of delta_t x_t^T are not stored.
  ///
  /// \param backend         left out: pare::simd
  /// \param delta           [tokens x out] gradient of the examples' losses by y
  /// \param x               [tokens x in] inputs of the layer
  /// \param example_offsets [examples + 1] example e has the tokens from e's offset to the next;
  ///                        from 0 to tokens, not falling. One without a token has a gradient of 0.
  /// \throws std::invalid_argument if extents do not fit, delta or x has neither rows nor columns
  ///         contiguous, or the offsets fall or do not run from 0 to tokens
  ///
  /// Cost of examples of one token: delta and x are read twice (their squares factor: delta_i^2
  /// x_j^2), and with elements 2 out in FLOPs in double per example. Longer examples: 2 tokens out
  /// in FLOPs, which bind, with tiles of G squared in cache. Memory: 1 MiB per worker, and out + in
  /// doubles per tile.
  template <Backend B, In<2> D, In<2> X>
  PARE_ALWAYS_INLINE void add_layer(const B& backend, const D& delta, const X& x,
                                    std::span<const Index> example_offsets) {
    constexpr const char* name = "factor::FisherDiagonal::add_layer";
    const Index count =
        checked_sum(name, "count", count_, detail::example_count(name, example_offsets));
    detail::add_checked_layer(name, backend, as_const(to_view(delta)), as_const(to_view(x)),
                              example_offsets, sums_);
    count_ = count;
  }

  /// \overload
  template <In<2> D, In<2> X>
  PARE_ALWAYS_INLINE void add_layer(const D& delta, const X& x,
                                    std::span<const Index> example_offsets) {
    add_layer(simd, delta, x, example_offsets);
  }

  /// The same where every token is an example of its own. Memory: also tokens + 1 offsets.
  /// \throws std::invalid_argument if extents do not fit, or delta or x has neither rows nor
  ///         columns contiguous
  template <Backend B, In<2> D, In<2> X>
  PARE_ALWAYS_INLINE void add_tokens(const B& backend, const D& delta, const X& x) {
    constexpr const char* name = "factor::FisherDiagonal::add_tokens";
    const auto rows = as_const(to_view(delta));
    const auto inputs = as_const(to_view(x));
    detail::check_layer(name, rows, inputs, sums_);
    const Index count = checked_sum(name, "count", count_, rows.rows());
    const std::vector<Index> offsets = detail::single_token_offsets(rows.rows());
    detail::add_checked_layer(name, backend, rows, inputs, std::span<const Index>(offsets), sums_);
    count_ = count;
  }

  /// \overload
  template <In<2> D, In<2> X>
  PARE_ALWAYS_INLINE void add_tokens(const D& delta, const X& x) {
    add_tokens(simd, delta, x);
  }

  PARE_REFUSE_CALLS(add_gradient, "factor::FisherDiagonal::add_gradient",
                    "after gradient: wanted nothing",
                    (INPUT, (roles::Reads<2>), "gradient", "[out, in]"))
  PARE_REFUSE_CALLS(add_layer, "factor::FisherDiagonal::add_layer",
                    "after x: wanted example_offsets, and the terms",
                    (INPUT, (roles::Reads<2>), "delta", "[tokens, out]"),
                    (INPUT, (roles::Reads<2>), "x", "[tokens, in]"))
  PARE_REFUSE_CALLS(add_tokens, "factor::FisherDiagonal::add_tokens", "after x: wanted nothing",
                    (INPUT, (roles::Reads<2>), "delta", "[tokens, out]"),
                    (INPUT, (roles::Reads<2>), "x", "[tokens, in]"))

  /// Adds the examples of another accumulator.
  /// \throws std::invalid_argument if its extents or terms are others, or both have more examples
  ///         than Index counts.
  PARE_ALWAYS_INLINE void merge(const FisherDiagonal& other) {
    const Index count = checked_sum("factor::FisherDiagonal::merge", "count", count_, other.count_);
    detail::merge_fisher(other.sums_, sums_);
    count_ = count;
  }

  /// The sums of F over inputs, one for each output (Axis::Output), or over outputs, one for each
  /// input (Axis::Input): the weights of FWSVD.
  /// \throws std::invalid_argument if no example was added.
  PARE_ALWAYS_INLINE Eigen::VectorXd sums(Axis axis) const {
    check_enumerator("factor::FisherDiagonal::sums", "axis", axis, Axis::Output);
    return detail::mean_of_examples(axis == Axis::Output ? sums_.outputs : sums_.inputs, count_);
  }

  /// F [out x in], a copy.
  /// \throws std::invalid_argument if no example was added, or elements are not kept.
  PARE_ALWAYS_INLINE RowMatrix<double> elements() const {
    return detail::mean_elements(sums_, count_);
  }

 private:
  detail::FisherSums sums_;
  Index count_ = 0;
};

PARE_ABI_END

/// The Fisher information of a range of gradients, one for each example.
///
/// \param backend   left out: pare::simd
/// \param gradients each [out x in], of any storage scalar; the range is read once
/// \param terms     what is kept
/// \throws std::invalid_argument if the range is empty, or extents differ.
/// Cost: that of add_gradient for each.
template <Backend B, std::ranges::input_range R>
requires In<std::ranges::range_value_t<R>, 2>
PARE_ALWAYS_INLINE FisherDiagonal fisher_diagonal(const B& backend, R&& gradients,
                                                  FisherTerms terms = FisherTerms::Sums) {
  auto next = std::ranges::begin(gradients);
  const auto end = std::ranges::end(gradients);
  check(next != end, "factor::fisher_diagonal", "gradients", "no gradient", "at least one");
  const auto extent = to_view(*next).extent;
  FisherDiagonal fisher(extent[0], extent[1], terms);
  for (; next != end; ++next) fisher.add_gradient(backend, *next);
  return fisher;
}

/// \overload
template <std::ranges::input_range R>
requires In<std::ranges::range_value_t<R>, 2>
PARE_ALWAYS_INLINE FisherDiagonal fisher_diagonal(R&& gradients,
                                                  FisherTerms terms = FisherTerms::Sums) {
  return fisher_diagonal(simd, gradients, terms);
}

}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
