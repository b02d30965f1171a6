// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The softmax loss of scores, one of each row's positive and those of its negatives: for models
/// that score in their own way, and for negatives of each row's own.
///
/// ```cpp
/// // scores [rows, 1 + negatives], the positive's first
/// const double loss = score_softmax(scores, gradient, {.temperature = 0.1});
/// ```
///
///     loss = mean over i of -s_i0 / tau + ln sum over j of e^(s_ij / tau)
///
/// with the gradient by s_ij (p_ij - [j = 0]) / (tau rows), p the softmax of the row. Take ln(m q)
/// times tau off the scores of sampled negatives, and make accidental hits -infinity, as
/// sampled_softmax.hpp does, of which this is the part behind the products.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/softmax_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::retrieval {

/// Options of score_softmax.
struct ScoreSoftmaxOptions {
  double temperature = 1;  ///< that scores are divided by; from 1e-30 to 1e30
};

namespace detail {
PARE_ABI_BEGIN

template <class T>
double reference_score_softmax(TensorView<const T, 2> scores, TensorView<T, 2> gradient,
                               double temperature) {
  const auto rows = static_cast<double>(scores.rows());
  double loss = 0;
  for (Index i = 0; i < scores.rows(); ++i) {
    const auto z = [&](Index j) { return static_cast<double>(scores(i, j)) / temperature; };
    double largest = z(0), sum = 0;
    for (Index j = 1; j < scores.cols(); ++j) largest = std::max(largest, z(j));
    for (Index j = 0; j < scores.cols(); ++j) sum += std::exp(z(j) - largest);
    loss += largest + std::log(sum) - z(0);
    for (Index j = 0; j < scores.cols(); ++j)
      gradient(i, j) = static_cast<T>((std::exp(z(j) - largest) / sum - (j == 0 ? 1 : 0)) /
                                      (temperature * rows));
  }
  return loss / rows;
}

/// Turns a row's shares of the softmax into its gradient. That of the positive is e^-loss - 1.
template <class T>
void finish_scores(TensorView<T, 2> shares, Index row, double loss, double factor) {
  for (Index j = 1; j < shares.cols(); ++j)
    shares(row, j) = static_cast<T>(factor * static_cast<double>(shares(row, j)));
  shares(row, 0) = static_cast<T>(factor * std::expm1(-loss));
}

template <class B, class T>
double score_softmax_on(const B& backend, TensorView<const T, 2> scores, TensorView<T, 2> gradient,
                        double temperature) {
  const double inverse = 1 / temperature, rows = static_cast<double>(scores.rows());
  const auto losses = leased<std::vector<double>>(backend);
  losses->resize(static_cast<std::size_t>(scores.rows()));
  const TensorView<double, 2> column{losses->data(), {scores.rows(), 1}, {1, 1}};
  over_row_blocks(
      backend,
      [&](const B& on, TensorView<const T, 2> from, TensorView<T, 2> to,
          TensorView<double, 2> loss) {
        kernel::SoftmaxRows<T, false> softmax{from.data,    from.stride[0], to.data,
                                              to.stride[0], from.rows(),    from.cols()};
        softmax.inverse_temperature = inverse;
        softmax.log_sums = loss.data;
        launch(on, softmax);
        for (Index r = 0; r < to.rows(); ++r) {
          loss(r, 0) -= static_cast<double>(from(r, 0)) * inverse;
          finish_scores(to, r, loss(r, 0), inverse / rows);
        }
      },
      scores, gradient, column);
  double sum = 0;
  for (const double loss : *losses) sum += loss;
  return sum / rows;
}

template <class B, class T>
double score_softmax(const B& backend, TensorView<const T, 2> scores, TensorView<T, 2> gradient,
                     const ScoreSoftmaxOptions& options) {
  constexpr const char* function = "retrieval::score_softmax";
  check(options.temperature >= 1e-30 && options.temperature <= 1e30, function, "temperature",
        options.temperature, "from 1e-30 to 1e30");
  check_view(function, "scores", scores);
  check(scores.rows() >= 1 && scores.cols() >= 2, function, "scores", scores.extent,
        "at least one row, of a positive and a negative");
  check_writable(function, "gradient", gradient);
  check_extents<2>(function, "gradient", gradient.extent, scores.extent);
  check_no_overlap(function, "gradient", gradient, "scores", scores);
  if constexpr (KernelBackend<B>)
    return score_softmax_on(backend, scores, gradient, options.temperature);
  else
    return reference_score_softmax(scores, gradient, options.temperature);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The loss, whose gradient it writes.
///
/// \param backend  left out: pare::simd
/// \param scores   [rows, 1 + negatives] of float or double, any strides, the positive's first; at
///                 least one row and one negative
/// \param gradient [rows, 1 + negatives] by the scores, written, any strides; apart from them
/// \param options  see ScoreSoftmaxOptions
/// \throws std::invalid_argument if shapes do not fit, the gradient overlaps, or the temperature is
///         out of its range. Nothing is written then.
///
/// Finite scores of any size have their loss; a negative of -infinity takes no part. A score that
/// is NaN or +infinity makes the loss and its row of the gradient NaN.
///
/// Cost: an exponential for each score, and two reads and writes of them. Memory: a number per row;
/// where rows are not contiguous, a block of both per worker. The same bits for any number of
/// threads.
template <Backend B, In<2> S, Out<2> G>
requires ComputeScalar<scalar_of<S>> && SameScalar<S, G>
double score_softmax(const B& backend, const S& scores, G&& gradient,
                     const ScoreSoftmaxOptions& options = {}) {
  return detail::score_softmax(on_any_executor(backend), as_const(to_view(scores)),
                               to_view(gradient), options);
}

/// \overload
template <In<2> S, Out<2> G>
requires ComputeScalar<scalar_of<S>> && SameScalar<S, G>
double score_softmax(const S& scores, G&& gradient, const ScoreSoftmaxOptions& options = {}) {
  return score_softmax(simd, scores, gradient, options);
}

PARE_REFUSE_CALLS(score_softmax, "retrieval::score_softmax",
                  "after gradient: wanted ScoreSoftmaxOptions",
                  (INPUT, (roles::ReadsCompute<2>), "scores", "[rows, 1 + negatives]"),
                  (OUTPUT, (roles::WritesComputed<2>), "gradient", "[rows, 1 + negatives]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
