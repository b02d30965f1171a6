// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of what heads answer, from a whole row of logits: a full sort, two passes for
/// log-sum-exp, and noise for each token.

#include <pare/core/macros_off.hpp>

#include <pare/core/gumbel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/draft/head_summary.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// Whether a row of logits is a law of probability at a temperature.
template <ComputeScalar T>
RowStatus status_of(std::span<const T> logits, double temperature = 1) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  T largest = lowest;
  for (const T z : logits) {
    if (is_nan(z) || z == std::numeric_limits<T>::infinity()) return RowStatus::NotFinite;
    largest = std::max(largest, z);
  }
  if (largest == lowest) return RowStatus::NoMass;
  return is_finite(static_cast<double>(largest) / temperature) ? RowStatus::Sound
                                                               : RowStatus::NotFinite;
}

/// Writes row `row` of a summary that has its sizes.
/// \param logits [outputs]
/// \param ids    [outputs] rising, the tokens that they are of; empty: 0, 1, 2, ...
template <ComputeScalar T>
void reference_summary(std::span<const T> logits, std::span<const std::int32_t> ids,
                       const HeadRequest& request, Index row, HeadSummary<T>& out) {
  const auto r = static_cast<std::size_t>(row), k = static_cast<std::size_t>(out.k);
  const auto id = [&](std::size_t i) {
    return ids.empty() ? static_cast<std::int32_t>(i) : ids[i];
  };
  const RowStatus status = out.status[r] = status_of(logits, out.temperature);
  if (status != RowStatus::Sound) {
    const double none = status == RowStatus::NoMass ? -std::numeric_limits<double>::infinity()
                                                    : std::numeric_limits<double>::quiet_NaN();
    out.log_sum_exp[r] = out.maximum[r] = none;
    std::fill_n(out.values.begin() + row * out.k, k, static_cast<T>(none));
    std::fill_n(out.ids.begin() + row * out.k, k, -1);
    if (request.noise) out.drawn[r] = -1;
    return;
  }
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  for (std::size_t i = 0; i < k; ++i) {
    out.values[r * k + i] = logits[order[i]];
    out.ids[r * k + i] = id(order[i]);
  }
  const auto largest = static_cast<double>(logits[order[0]]);
  double sum = 0;
  for (const T z : logits) sum += std::exp((static_cast<double>(z) - largest) / out.temperature);
  out.maximum[r] = largest;
  out.log_sum_exp[r] = largest / out.temperature + std::log(sum);
  if (!request.noise) return;
  out.drawn[r] = id(order[0]);
  if (request.temperature < least_temperature) return;
  double best = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double score = static_cast<double>(logits[i]) / out.temperature +
                         request.noise->at(request.positions[r], static_cast<std::uint32_t>(id(i)));
    if (!(score > best)) continue;
    best = score;
    out.drawn[r] = id(i);
  }
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
