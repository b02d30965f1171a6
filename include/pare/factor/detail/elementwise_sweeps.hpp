// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sweeps of either solver of the element-wise weighted problem, none of which raises the loss.

#include <pare/core/matrix.hpp>
#include <pare/factor/detail/elementwise_als.hpp>
#include <pare/factor/detail/elementwise_em.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/factor/options.hpp>

#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Sweeps until the options stop it; a sweep that rounding kept from lowering the loss is undone.
template <class B, class T, class F, class Sweep>
std::vector<double> run_sweeps(ElementwiseProblem<B, T, F>& p, const ElementwiseOptions& options,
                               ElementwiseFactors& factors, const Sweep& run) {
  std::vector<double> losses{scaled_loss(p, factors)};
  for (int sweep = 0; sweep < options.sweeps; ++sweep) {
    const double before = losses.back();
    ElementwiseFactors old = factors;
    run();
    const double loss = scaled_loss(p, factors);
    if (!(loss <= before)) factors = std::move(old);
    losses.push_back(loss <= before ? loss : before);
    if (before - losses.back() <= options.tolerance * before) break;
  }
  return losses;
}

/// The same by the method of the options.
template <class B, class T, class F>
std::vector<double> run_method(ElementwiseProblem<B, T, F>& p, const ElementwiseOptions& options,
                               ElementwiseFactors& factors) {
  if (options.method == ElementwiseMethod::Als) {
    const AlsWeights<T> weights = als_weights(p);
    return run_sweeps(p, options, factors, [&] { als_sweep(p, weights, factors); });
  }
  const double greatest = static_cast<double>(p.f.maxCoeff());
  RowMatrix<double> expected;
  return run_sweeps(p, options, factors, [&] { em_sweep(p, greatest, factors, expected); });
}

PARE_ABI_END
}  // namespace pare::factor::detail
