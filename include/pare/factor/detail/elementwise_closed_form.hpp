// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Where the solvers of the element-wise weighted problem start: the better of two closed forms.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/factor/detail/elementwise_start.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/detail/factorize.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The best factors for weights of rank one.
template <class B, class T, class F, class M>
ElementwiseFactors closed_form(ElementwiseProblem<B, T, F>& p, const M& metric, Index rank) {
  const SvdOptions options{.rank = rank, .accuracy = Accuracy::High};
  FactorProblem<B, T> problem("factor::elementwise_svd", p.backend, const_view(p.w),
                              metric.output_weights(), metric.input_weights(), options);
  const LowRank<T> start = factorize_weighted(problem);
  return {row_matrix<double>(transpose(const_view(start.left))),
          row_matrix<double>(const_view(start.right))};
}

/// The optimum for the row sums of F, or for the products of its row and column sums, whichever has
/// the lower loss.
template <class B, class T, class F>
ElementwiseFactors closed_form_start(ElementwiseProblem<B, T, F>& p, Index rank, double squares) {
  const ElementwiseMargins margins(const_view(p.f));
  ElementwiseFactors rows = closed_form(p, OutputWeights(margins.rows), rank);
  if (!takes_both_margins(squares)) return rows;
  ElementwiseFactors both = closed_form(p, margins.both(), rank);
  return scaled_loss(p, both) < scaled_loss(p, rows) ? both : rows;
}

PARE_ABI_END
}  // namespace pare::factor::detail
