// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Hidden states, weights, and an oracle of what heads answer, written over all logits.

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <pare/core/gumbel.hpp>
#include <pare/draft/head.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace pare::testing {

template <class T>
using HeadRows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Tokens of a row in the order (logit falling, token rising), by a sort of all.
template <class Row>
std::vector<std::int32_t> ranking_of(const Row& z) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(z.size()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](std::int32_t a, std::int32_t b) { return z(a) > z(b) || (z(a) == z(b) && a < b); });
  return order;
}

/// log sum_i e^(z_i / temperature) in long double.
template <class Row>
double log_sum_exp_of(const Row& z, double temperature) {
  long double largest = -std::numeric_limits<long double>::infinity(), sum = 0;
  for (Index i = 0; i < z.size(); ++i) largest = std::max(largest, static_cast<long double>(z(i)));
  for (Index i = 0; i < z.size(); ++i)
    sum += std::exp((static_cast<long double>(z(i)) - largest) / temperature);
  return static_cast<double>(largest / temperature + std::log(sum));
}

/// Expects that a summary is what follows from all logits z [rows, outputs].
template <class T, class Z>
void expect_summary(const draft::HeadSummary<T>& got, const Z& z, double temperature) {
  ASSERT_EQ(got.rows, z.rows());
  for (Index r = 0; r < z.rows(); ++r) {
    const auto row = z.row(r);
    const auto order = ranking_of(row);
    ASSERT_EQ(got.status[static_cast<std::size_t>(r)], draft::RowStatus::Sound);
    for (Index i = 0; i < got.k; ++i) {
      ASSERT_EQ(got.id(r, i), order[static_cast<std::size_t>(i)]) << "row " << r << " rank " << i;
      ASSERT_EQ(got.value(r, i), row(got.id(r, i)));
    }
    // An exponential is off by 3e-7 (5e-16) and by its argument's rounding; 64 are added in T. The
    // logarithm of the sum is off by as much as the sum is in relation to itself.
    const double wanted = log_sum_exp_of(row, temperature);
    const double largest = static_cast<double>(row.maxCoeff()) / temperature;
    const double bound = (std::is_same_v<T, float> ? 1e-6 : 1e-14) +
                         8 * std::numeric_limits<double>::epsilon() * std::abs(largest);
    ASSERT_NEAR(got.log_sum_exp[static_cast<std::size_t>(r)], wanted, bound);
  }
}

}  // namespace pare::testing
