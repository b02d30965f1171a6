// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Conjugate gradients for the least squares of many lines at once.
///
/// Line i has the system (V diag(g_i) V^T + e I) d_i = r_i, with the same V [k x n] of orthonormal
/// rows for all lines and weights g_i in [0, 1] of its own. An iteration multiplies the directions
/// of all lines by V and by V^T: two matrix products, 4 n k FLOPs a line. The matrices of the
/// lines, n k^2 FLOPs each, and their decompositions, k^3 / 3, are never made.
///
/// Each iteration lowers every line's quadratic, also in the subspace of what no weight determines:
/// from 0 no step enters it. Where the weights of a line are alike, few iterations do.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/linalg/multiply.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The ridge e on the step: eigenvalues are at most 1, and those that rounding of the products
/// hides must not be divided by.
template <class T>
inline constexpr double step_ridge = std::is_same_v<T, float> ? 1e-6 : 1e-10;

/// Iterations end with one that gains no more than this share of what all have.
inline constexpr double step_gain = 1e-5;
/// A line ends where its residual is this share of the first: float knows no more of it.
inline constexpr double step_residual = 1e-5;
/// The most iterations. The steps that are found lower the loss wherever it ends.
inline constexpr int step_iterations = 30;

/// c_ij times the weight of i and j.
template <class T>
struct WeighElements {
  const T* weights = nullptr;
  Index stride = 0;
  T operator()(Index i, Index j, T sum) const { return weights[i * stride + j] * sum; }
};

/// The steps of lines, in rows.
template <class B, class T>
class LineSteps {
 public:
  /// \param v       [k x n], with orthonormal rows
  /// \param weights [lines x n], in rows
  /// \param right   [lines x k], the right sides r_i
  /// \param worth   [lines], by which the gain of each line counts
  LineSteps(const B& backend, TensorView<const T, 2> v, TensorView<const T, 2> weights,
            RowMatrix<T> right, const std::vector<double>& worth)
      : backend_(backend),
        v_(v),
        weigh_{weights.data, weights.stride[0]},
        worth_(worth),
        residual_(std::move(right)),
        direction_(residual_),
        step_(RowMatrix<T>::Zero(residual_.rows(), residual_.cols())),
        image_(residual_.rows(), residual_.cols()),
        product_(residual_.rows(), v.cols()),
        lines_(worth.size()) {}

  const RowMatrix<T>& solve() {
    each_line([&](Line& line, Index i) {
      line.squares = dot(&residual_(i, 0), &residual_(i, 0));
      line.least = step_residual * step_residual * line.squares;
    });
    double gained = 0;
    for (int iteration = 0; iteration < step_iterations; ++iteration) {
      const double gain = iterate();
      gained += gain;
      if (!(gain > step_gain * gained)) break;
    }
    return step_;
  }

 private:
  struct Line {
    double squares = 0;  ///< ||r||^2
    double least = 0;    ///< of it, where the line ends
    double gain = 0;     ///< of the last iteration
  };

  template <class F>
  void each_line(const F& f) {
    parallel_for(backend_.executor, residual_.rows(),
                 [&](Index i, int) { f(lines_[static_cast<std::size_t>(i)], i); });
  }

  double dot(const T* a, const T* b) const {
    return lane_sum(residual_.cols(),
                    [&](Index p) { return static_cast<double>(a[p]) * static_cast<double>(b[p]); });
  }

  double iterate() {
    linalg::multiply(backend_, const_view(direction_), v_, to_view(product_), {}, weigh_);
    linalg::multiply(backend_, const_view(product_), transpose(v_), to_view(image_));
    each_line([&](Line& line, Index i) { advance(line, i); });
    double gain = 0;
    for (std::size_t i = 0; i < lines_.size(); ++i) gain += worth_[i] * lines_[i].gain;
    return gain;
  }

  void advance(Line& line, Index i) {
    line.gain = 0;
    if (!(line.squares > 0)) return;
    T *r = &residual_(i, 0), *p = &direction_(i, 0), *d = &step_(i, 0), *q = &image_(i, 0);
    constexpr T ridge = static_cast<T>(step_ridge<T>);
    for (Index at = 0; at < residual_.cols(); ++at) q[at] += ridge * p[at];
    const double curvature = dot(p, q);
    const double length = curvature > 0 ? line.squares / curvature : 0;
    const T taken = static_cast<T>(length);
    for (Index at = 0; at < residual_.cols(); ++at) {
      d[at] += taken * p[at];
      r[at] -= taken * q[at];
    }
    line.gain = length * line.squares;
    const double squares = dot(r, r);
    const bool ends = !(length > 0) || !(squares > line.least);
    const T kept = static_cast<T>(ends ? 0 : squares / line.squares);
    for (Index at = 0; at < residual_.cols(); ++at) p[at] = ends ? T(0) : r[at] + kept * p[at];
    line.squares = ends ? 0 : squares;
  }

  const B& backend_;
  TensorView<const T, 2> v_;
  WeighElements<T> weigh_;
  const std::vector<double>& worth_;
  RowMatrix<T> residual_, direction_, step_;
  RowMatrix<T> image_;    ///< of the directions, by each line's matrix
  RowMatrix<T> product_;  ///< of the directions and V, weighed
  std::vector<Line> lines_;
};

PARE_ABI_END
}  // namespace pare::factor::detail
