// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Eigenvalues of a diagonal matrix plus one of rank one, as roots of the secular equation.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/kernel/secular_sums.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// f(t) = 1 / weight + sum_j z_j^2 / (d_j - t), whose roots are the eigenvalues of
/// diag(d) + weight z z^T.
struct SecularEquation {
  const double* d = nullptr;  ///< [count], ascending
  const double* z = nullptr;  ///< [count], none 0
  Index count = 0;
  double weight = 0;  ///< above 0
};

/// A root as the pole d_origin plus `shift`: differences to all poles are exact to a rounding.
struct SecularRoot {
  Index origin = 0;
  double shift = 0;
};

/// The root between d_i and d_i+1, or beyond the last d.
///
/// Each step solves the equation of two poles that has f's value and the slopes of the poles on
/// either side (R.-C. Li 1993, Solving secular equations stably and efficiently, the middle way),
/// within bounds that close in.
template <class B>
class SecularSearch {
  struct Sums {
    double value = 0, slope = 0;
  };

 public:
  SecularSearch(const B& backend, const SecularEquation& f, Index i)
      : backend_(backend), f_(f), last_(i + 1 == f.count), left_(last_ ? i - 1 : i) {}

  SecularRoot run() {
    if (f_.count == 1) return {0, f_.weight * f_.z[0] * f_.z[0]};
    start();
    constexpr int most_steps = 100;
    for (int step = 0; step < most_steps; ++step)
      if (!improve()) break;
    return {origin_, shift_};
  }

 private:
  double pole(Index j) const { return (f_.d[j] - f_.d[origin_]) - shift_; }
  double square(Index j) const { return f_.z[j] * f_.z[j]; }

  /// Sums over poles [begin, end) at the shift.
  Sums sums(Index begin, Index end) const {
    Sums sums;
    launch(backend_, kernel::SecularSums{f_.d + begin, f_.z + begin, end - begin, f_.d[origin_],
                                         shift_, &sums.value, &sums.slope});
    return sums;
  }

  /// Origin, bounds and a first shift, from f in the middle and the two poles beside the root.
  void start() {
    const double gap = f_.d[left_ + 1] - f_.d[left_];
    double norm = 0;
    for (Index j = 0; j < f_.count; ++j) norm += square(j);
    origin_ = last_ ? left_ + 1 : left_;
    high_ = last_ ? f_.weight * norm : gap;
    shift_ = high_ / 2;
    const double far = 1 / f_.weight + sums(0, left_).value + sums(left_ + 2, f_.count).value;
    const double middle = far + square(left_) / pole(left_) + square(left_ + 1) / pole(left_ + 1);
    if (middle > 0) {
      high_ = shift_;
    } else if (last_) {
      low_ = shift_;
    } else {
      origin_ = left_ + 1;
      low_ = shift_ - gap;
      high_ = 0;
    }
    // far = -(z_l^2 / (d_l - t) + z_r^2 / (d_r - t)) as a quadratic equation of the shift.
    const double own = origin_ == left_ ? gap : -gap;
    const double a = far * own + square(left_) + square(left_ + 1);
    const double b = square(origin_) * own;
    take(step_of(far, a, b), (low_ + high_) / 2);
  }

  /// The shift, or another if it is out of bounds.
  void take(double shift, double otherwise) {
    shift_ = shift > low_ && shift < high_ ? shift : otherwise;
  }

  /// One step; false if the shift is the root as far as f can tell.
  bool improve() {
    const Sums below = sums(0, left_ + 1), above = sums(left_ + 1, f_.count);
    const double reciprocal = 1 / f_.weight, value = reciprocal + below.value + above.value;
    const double slope = below.slope + above.slope;
    const double error = std::abs(below.value) + std::abs(above.value);
    constexpr double rounding = std::numeric_limits<double>::epsilon();
    if (std::abs(value) <= rounding * (8 * error + reciprocal + std::abs(shift_) * slope))
      return false;
    (value > 0 ? high_ : low_) = shift_;
    const double middle = low_ + (high_ - low_) / 2;
    if (middle <= low_ || middle >= high_) return false;
    const double l = pole(left_), r = pole(left_ + 1);
    const double c = value - l * below.slope - r * above.slope;
    const double a = (l + r) * value - l * r * slope, b = l * r * value;
    take(shift_ + step_of(c, a, b), middle);
    return true;
  }

  /// The root of c t^2 - a t + b that lies between the poles; of the last root's equation, the one
  /// beyond both.
  double step_of(double c, double a, double b) const {
    const double size = last_ ? std::abs(c) : c;
    const double root = std::sqrt(std::max(a * a - 4 * b * size, 0.0));
    if (last_) return a >= 0 ? (a + root) / (2 * size) : 2 * b / (a - root);
    return a > 0 ? 2 * b / (a + root) : (a - root) / (2 * size);
  }

  const B& backend_;
  const SecularEquation& f_;
  bool last_;
  Index left_;
  Index origin_ = 0;
  double shift_ = 0, low_ = 0, high_ = 0;
};

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
