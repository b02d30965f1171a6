// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A low-rank head from a dense one, in any metric of factor/, without training.
///
/// ```cpp
/// using namespace pare::factor;
/// const auto plain = low_rank_head_of<pare::bf16>(w, {.rank = d / 8});     // w [vocabulary, d]
/// Covariance c(d);
/// c.add(states);                                                           // [tokens, d]
/// const auto aware = low_rank_head_of<pare::bf16>(w, c, {.rank = d / 8});
/// const auto fisher = low_rank_head_of<float>(w, OutputWeights(sums), {.rank = d / 8});
/// aware.head.top_k(hidden, 8);                                             // a LowRankHead
/// ```
///
/// The vocabulary's mean row m is taken from W first: m h moves all logits of a row of hidden
/// states by one number, so that probabilities and the order of tokens stay, and one direction less
/// is to be kept. The factors are then the best of their rank for the metric (factor/metric.hpp):
///
/// | metric | minimises, of z - z_r the error of logits less their mean over tokens |
/// |---|---|
/// | `Uniform` | the F-norm of W - up down; the 2-norm of z - z_r is at most sigma_(r+1) of h's |
/// | a `Covariance` of hidden states | E (z - z_r)^T (z - z_r) over them |
/// | `OutputWeights` | as Uniform, with a weight per token, such as its frequency |
///
/// SlimSpec trains its factors; how they begin, its text as known to us does not say, and all three
/// forms here are ours for that: plain SVD, activation-aware (SVD-LLM, arXiv 2403.07378), FWSVD
/// (Hsu et al., ICLR 2022).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/low_rank_head.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/svd.hpp>

#include <cstddef>
#include <vector>

namespace pare::draft {

/// A head, and how well its factors fit.
template <kernel::HeadElement S>
struct LowRankFit {
  LowRankHead<S> head;

  /// ||W - up down|| over ||W||, both less the mean row and in the metric; before factors are
  /// rounded to S.
  double relative_error = 0;
};

PARE_ABI_BEGIN

/// \param backend left out: pare::simd
/// \param w       [vocabulary, inputs], any storage scalar, at least two rows
/// \param metric  such as OutputWeights, or the Covariance of hidden states, which stands for
///                InputCovariance(covariance), as in covariance_svd; left out: Uniform
/// \param options of factorize (factor/svd.hpp): the rank, or a tolerance
/// \throws std::invalid_argument if W has fewer than two rows, and as factor::factorize
///
/// Cost, determinism: those of factorize. Memory: W once more in float (double for double), what
/// factorize takes, and the head.
template <kernel::HeadElement S, Backend B, In<2> W, factor::Metric M>
LowRankFit<S> low_rank_head_of(const B& backend, const W& w, const M& metric,
                               const factor::SvdOptions& options) {
  using T = compute_t<scalar_of<W>>;
  constexpr const char* function = "draft::low_rank_head_of";
  const auto from = as_const(to_view(w));
  check_view(function, "w", from);
  check(from.rows() >= 2 && from.cols() >= 1, function, "w", from.extent,
        "at least two rows and one column");
  std::vector<double> mean(static_cast<std::size_t>(from.cols()));
  for (Index v = 0; v < from.rows(); ++v)
    for (Index i = 0; i < from.cols(); ++i)
      mean[static_cast<std::size_t>(i)] += static_cast<double>(static_cast<T>(from(v, i)));
  RowMatrix<T> centred(from.rows(), from.cols());
  for (Index v = 0; v < from.rows(); ++v)
    for (Index i = 0; i < from.cols(); ++i)
      centred(v, i) =
          static_cast<T>(static_cast<double>(static_cast<T>(from(v, i))) -
                         mean[static_cast<std::size_t>(i)] / static_cast<double>(from.rows()));
  const auto factors = factor::factorize(backend, centred, metric, options);
  return {LowRankHead<S>(factors.right, factors.left), factors.relative_error()};
}
/// \overload
template <kernel::HeadElement S, In<2> W, factor::Metric M>
LowRankFit<S> low_rank_head_of(const W& w, const M& metric, const factor::SvdOptions& options) {
  return low_rank_head_of<S>(simd, w, metric, options);
}
/// \overload
template <kernel::HeadElement S, Backend B, In<2> W>
LowRankFit<S> low_rank_head_of(const B& backend, const W& w, const factor::Covariance& covariance,
                               const factor::SvdOptions& options) {
  return low_rank_head_of<S>(backend, w, factor::InputCovariance(covariance), options);
}
/// \overload
template <kernel::HeadElement S, In<2> W>
LowRankFit<S> low_rank_head_of(const W& w, const factor::Covariance& covariance,
                               const factor::SvdOptions& options) {
  return low_rank_head_of<S>(simd, w, covariance, options);
}
/// \overload
template <kernel::HeadElement S, In<2> W>
LowRankFit<S> low_rank_head_of(const W& w, const factor::SvdOptions& options) {
  return low_rank_head_of<S>(simd, w, factor::Uniform{}, options);
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
