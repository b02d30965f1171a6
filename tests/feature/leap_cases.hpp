// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What tests of LeAP share: fields and gates to run over, and the penalty by its definition.

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace pare::testing::leap_cases {

using Eigen::MatrixXd;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::Penalty;
using pare::optim::GateKind;

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr Penalty penalties[] = {Penalty::Uniform, Penalty::SqrtWidth, Penalty::Rms,
                                        Penalty::L2,      Penalty::L1,        Penalty::Squared};
inline constexpr GateKind kinds[] = {GateKind::Sigmoid, GateKind::GumbelSigmoid,
                                     GateKind::HardConcrete, GateKind::Stg,
                                     GateKind::StraightThrough};

inline const FieldLayout widths({1, 3, 8, 17, 1});
inline constexpr Index rows = 37;
inline const std::vector<double> some_thetas{-0.4, 0.3, 0.05, -0.1, 0.5};

inline double sigma(double t) { return 1 / (1 + std::exp(-t)); }

/// Of g (1 - g) on two sides, each with an exponential, two roundings and a difference that cancels
/// where g is near 1.
inline double slope_bound(double gate) { return Tolerance<double>::gamma(12) / (1 - gate); }

/// Of lambda on two sides: a ratio of roots of sums of positive terms, at most all of the batch.
template <class T>
double weight_bound() {
  return 2 * sum_bound<T>(static_cast<double>(rows * widths.dim())) + Tolerance<double>::gamma(16);
}

inline std::vector<double> as_list(std::span<const double> v) { return {v.begin(), v.end()}; }

inline std::vector<double> donors_of(const Donors& donors) {
  std::vector<double> all;
  for (Index j = 0; j < donors.layout().fields(); ++j)
    for (Index b = 0; b < donors.rows(); ++b)
      all.push_back(static_cast<double>(donors.donor(j, b)));
  return all;
}

template <class T>
Eigen::Matrix<T, -1, -1> as(const MatrixXd& m) {
  return m.cast<T>();
}

/// q_j by its definition.
inline std::vector<double> divergences_by_formula(Penalty penalty, const MatrixXd& x,
                                                  const Donors& donors) {
  const MatrixXd delta = x - permuted(x, donors);
  const FieldLayout& layout = donors.layout();
  const auto count = static_cast<double>(x.rows());
  std::vector<double> q;
  for (Index j = 0; j < layout.fields(); ++j) {
    const auto d = delta.middleCols(layout.offset(j), layout.width(j));
    switch (penalty) {
      case Penalty::Uniform:
        q.push_back(1);
        break;
      case Penalty::SqrtWidth:
        q.push_back(std::sqrt(static_cast<double>(layout.width(j))));
        break;
      case Penalty::Rms:
        q.push_back(std::sqrt(d.squaredNorm() / count));
        break;
      case Penalty::L2:
        q.push_back(d.rowwise().norm().sum() / count);
        break;
      case Penalty::L1:
        q.push_back(d.cwiseAbs().sum() / count);
        break;
      case Penalty::Squared:
        q.push_back(d.squaredNorm() / count);
        break;
    }
  }
  return q;
}

/// lambda_j = max(floor, q_j / mean q), the mean over numbers.
inline std::vector<double> weights_by_formula(const std::vector<double>& q, double floor = 0) {
  double sum = 0, count = 0;
  for (const double value : q)
    if (std::isfinite(value)) {
      sum += value;
      ++count;
    }
  std::vector<double> weights;
  for (const double value : q)
    weights.push_back(std::isfinite(value) ? std::max(floor, value / (sum / count)) : 0);
  return weights;
}

/// Thetas after some steps, with something done after each forward pass.
template <class T, class B, class F>
std::vector<double> trained(const B& backend, const FieldLayout& layout, const LeapOptions& options,
                            Storage storage, const F& between) {
  Leap<T> leap(layout, options);
  OwnedBatch<T> x(layout, 60, storage), mixed(layout, 60, storage), upstream(layout, 60, storage);
  const MatrixXd w = normal_batch<T>(60, layout.dim(), 5);
  for (std::uint64_t step = 0; step < 5; ++step) {
    x.set(normal_batch<T>(60, layout.dim(), step));
    leap.forward(backend, x.batch(), mixed.batch());
    between(leap);
    upstream.set(w.cwiseProduct(mixed.get()));
    if (step % 2 == 0)
      leap.backward_gates(backend, upstream.batch());
    else
      leap.backward(backend, upstream.batch(), upstream.batch());
    leap.step_gates();
  }
  return as_list(leap.thetas());
}

}  // namespace pare::testing::leap_cases
