// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Permutation divergence: how far permuting a field moves it, which decides the penalty on its
/// gate.
///
/// ```cpp
/// Divergences means;
/// means.squared = divergence_closed(layout, x, DonorPolicy::BaseShift);    // x [rows x dim]
/// const auto q = penalty_divergence(Penalty::Rms, layout, means);          // [fields]
/// const auto lambda = penalty_weights(q);                                  // [fields], mean 1
/// ```
///
/// The penalty is R = alpha sum_j lambda_j g_j, with alpha the alpha_per_field of the options.
/// lambda_j = q_j / mean_k q_k is held constant in the gradient, so that Penalty::Uniform is the
/// penalty of LeAP's released code (whose alpha, of mean_j g_j, is ours times the number of
/// fields). Under a uniform penalty a wide field resists pruning, since the noise in its gate
/// gradient grows as the root of the width, and a rarely active field is lost.
///
/// Reconstructed: the paper names the idea (arXiv 2606.01111, "Permutation Divergence"), but we
/// could read neither its formula nor code of it. q_j of Penalty::Rms and the normalisation are
/// ours, by the bound |dL/dg_j| <= sqrt(sum_b |Delta_b|^2) sqrt(sum_b |G_b|^2).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/feature/fields/detail/column_moments.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature {

/// What q_j is. With Delta_b = x_b - x_donor(b) of field j, and means over the batch:
enum class Penalty {
  Uniform,    ///< 1: LeAP's released code
  SqrtWidth,  ///< sqrt(width): as good as Rms where every column has the same variance
  Rms,        ///< sqrt(mean |Delta|_2^2): the default; follows scale and activity of the field
  L2,         ///< mean |Delta|_2: over-protects rare fields
  L1,         ///< mean |Delta|_1: too steep in width and activity
  Squared,    ///< mean |Delta|_2^2: too steep in width and activity
};

PARE_ABI_BEGIN

/// Means over the rows of a batch, by field.
struct Divergences {
  std::vector<double> squared;   ///< of |Delta|_2^2
  std::vector<double> absolute;  ///< of |Delta|_1
  std::vector<double> norms;     ///< of |Delta|_2; empty unless asked for (MixOptions::norms)
};

/// Whether a penalty needs Divergences::norms.
constexpr bool needs_norms(Penalty penalty) { return penalty == Penalty::L2; }

/// Checks the penalty; messages name `function`.
/// \throws std::invalid_argument if it is none of the enumerators
inline void validate(const char* function, Penalty penalty) {
  check_enumerator(function, "penalty", penalty, Penalty::Squared);
}

/// q_j of each field, [fields].
///
/// \param divergences means of one batch; only those that the penalty needs are read
/// \throws std::invalid_argument if the penalty is none of the enumerators, or what it needs lacks
///         a number for each field
inline std::vector<double> penalty_divergence(Penalty penalty, const FieldLayout& layout,
                                              const Divergences& divergences) {
  validate("feature::penalty_divergence", penalty);
  const auto fields = static_cast<std::size_t>(layout.fields());
  std::vector<double> q(fields, 1.0);
  if (penalty == Penalty::Uniform) return q;
  if (penalty == Penalty::SqrtWidth) {
    for (std::size_t j = 0; j < fields; ++j)
      q[j] = std::sqrt(static_cast<double>(layout.width(static_cast<Index>(j))));
    return q;
  }
  const auto& means = penalty == Penalty::L2   ? divergences.norms
                      : penalty == Penalty::L1 ? divergences.absolute
                                               : divergences.squared;
  check(means.size() == fields, "feature::penalty_divergence", "divergences", means.size(), fields);
  for (std::size_t j = 0; j < fields; ++j)
    q[j] = penalty == Penalty::Rms ? std::sqrt(means[j]) : means[j];
  return q;
}

/// lambda_j = max(floor, q_j / mean q), the mean over fields with a finite q_j; 0 for all where
/// that mean is 0, and for fields whose q_j is not finite (their batch held a NaN or an infinity).
/// \param q     [fields] of penalty_divergence
/// \param floor the least lambda_j, at least 0; not checked
/// \return      [fields]
inline std::vector<double> penalty_weights(std::span<const double> q, double floor = 0) {
  double sum = 0;
  std::size_t finite = 0;
  for (const double value : q)
    if (is_finite(value)) {
      sum += value;
      ++finite;
    }
  std::vector<double> weights(q.size(), 0.0);
  if (!(sum > 0)) return weights;
  const double mean = sum / static_cast<double>(finite);
  for (std::size_t j = 0; j < q.size(); ++j)
    if (is_finite(q[j])) weights[j] = q[j] / mean > floor ? q[j] / mean : floor;
  return weights;
}

/// The expectation of mean |Delta|_2^2 of each field over the donors of a policy, without drawing
/// any: 2 tr Cov_j with Cov over B rows for Uniform, B / (B - 1) times that for policies in which
/// no row is its own donor. Derived, and exact.
///
/// \param backend left out: pare::simd
/// \param layout  the fields
/// \param x       [rows x dim] of float or double, at least 2 rows
/// \return        [fields], what Divergences::squared is on average
/// \throws std::invalid_argument if x has fewer than 2 rows, or columns other than the layout's
/// Cost: x is read once; sums in double of x less its first row.
template <Backend B, FieldsIn X>
std::vector<double> divergence_closed(const B& backend, const FieldLayout& layout, const X& x,
                                      DonorPolicy policy) {
  constexpr const char* function = "feature::divergence_closed";
  using T = field_scalar_of<X>;
  validate(function, policy);
  const FieldBatch<const T> batch = detail::to_batch(function, "x", layout, x);
  check(layout.fields() >= 1, function, "layout", "no field", "at least one");
  check(batch.rows >= 2, function, "x", batch.rows, "at least 2 rows");
  std::vector<double> variance;
  if constexpr (KernelBackend<B>)
    variance = detail::total_variances(on_any_executor(backend), batch);
  else
    variance = detail::reference_total_variances(batch);
  const auto rows = static_cast<double>(batch.rows);
  const double factor = policy == DonorPolicy::Uniform ? 2 : 2 * rows / (rows - 1);
  for (double& v : variance) v *= factor;
  return variance;
}

/// \overload
template <FieldsIn X>
std::vector<double> divergence_closed(const FieldLayout& layout, const X& x, DonorPolicy policy) {
  return divergence_closed(simd, layout, x, policy);
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
