// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The output of a layer with a DoRA adapter, once the gains of its rows are known.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/low_rank_product.hpp>
#include <pare/factor/detail/reference_matrix.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

template <class S>
TensorView<const S, 2> checked_input(const char* function, TensorView<const S, 2> x, Index in) {
  check_extents<2>(function, "x", x.extent, {x.rows(), in});
  return linalg::checked_lines(function, "x", x);
}

/// Refuses a scale by which no product in T can be multiplied.
template <class T>
void check_scale_in(const char* function, double scale) {
  check(is_finite(scale) && std::abs(scale) <= double{std::numeric_limits<T>::max()}, function,
        "scale", scale, "a finite number of the output's scalar");
}

/// Refuses an output of another shape than [tokens x out] or in the memory of an input.
template <class T, class S, class U>
void check_output(const char* function, const char* name, TensorView<T, 2> y,
                  TensorView<const S, 2> x, TensorView<const U, 2> a, TensorView<const U, 2> b) {
  check_extents<2>(function, name, y.extent, {x.rows(), b.rows()});
  linalg::checked_lines(function, name, y);
  check_writable(function, name, y);
  check_no_overlap(function, name, y, "x", x);
  check_no_overlap(function, name, y, "a", a);
  check_no_overlap(function, name, y, "b", b);
}

/// y(i, j) = f(i, j, y(i, j)) for rows [begin, begin + rows), along the contiguous side.
template <class T, class F>
void transform_rows(TensorView<T, 2> y, Index begin, Index rows, const F& f) {
  if (y.stride[1] == 1) {
    for (Index i = begin; i < begin + rows; ++i)
      for (Index j = 0; j < y.cols(); ++j) y(i, j) = f(i, j, y(i, j));
  } else {
    for (Index j = 0; j < y.cols(); ++j)
      for (Index i = begin; i < begin + rows; ++i) y(i, j) = f(i, j, y(i, j));
  }
}

template <class T>
struct GainMemory {
  std::vector<T> gain, gain_less_one;
};

/// delta = gain_less_one .* base_output + gain .* (scale delta), where delta is the adapter's
/// output.
template <class O, class T>
struct ComposeDelta {
  TensorView<const O, 2> base_output;
  const GainMemory<T>& of;
  T scale;
  TensorView<T, 2> delta;

  void operator()(Index begin, Index rows) const {
    transform_rows(delta, begin, rows, [&](Index i, Index j, T adapter) {
      const T base = static_cast<T>(static_cast<compute_t<O>>(base_output(i, j)));
      const auto at = static_cast<std::size_t>(j);
      return of.gain_less_one[at] * base + of.gain[at] * (scale * adapter);
    });
  }
};

template <class T, class O, class G>
ComposeDelta<O, T> compose_delta(TensorView<const O, 2> base_output, TensorView<const G, 1> gains,
                                 double scale, TensorView<T, 2> delta, GainMemory<T>& memory) {
  memory.gain.clear();
  memory.gain_less_one.clear();
  for (Index j = 0; j < gains.extent[0]; ++j) {
    const auto gain = static_cast<double>(static_cast<compute_t<G>>(gains(j)));
    memory.gain_less_one.push_back(static_cast<T>(gain - 1));
    memory.gain.push_back(static_cast<T>(gain));
  }
  return {base_output, memory, static_cast<T>(scale), delta};
}

template <class B, class O, class S, class U, class G, class T>
void dora_delta_views(const B& backend, TensorView<const O, 2> base_output,
                      TensorView<const S, 2> x, TensorView<const U, 2> a, TensorView<const U, 2> b,
                      TensorView<const G, 1> gains, double scale, TensorView<T, 2> delta) {
  constexpr const char* function = "factor::dora_delta";
  check(a.rows() >= 1 && a.cols() >= 1, function, "a", a.extent, "a rank and inputs of at least 1");
  check_extents<2>(function, "b", b.extent, {b.rows(), a.rows()});
  const auto from = checked_input(function, x, a.cols());
  check_extents<2>(function, "base_output", base_output.extent, {x.rows(), b.rows()});
  check_extents<1>(function, "gains", gains.extent, {b.rows()});
  check_scale_in<T>(function, scale);
  check_output(function, "delta", delta, from, a, b);
  check_no_overlap(function, "delta", delta, "base_output", base_output);
  check_no_overlap(function, "delta", delta, "gains", gains);
  const auto right = linalg::checked_lines(function, "a", a),
             left = linalg::checked_lines(function, "b", b);
  const auto to = linalg::checked_lines(function, "delta", delta);
  if (to.rows() == 0 || to.cols() == 0) return;
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    const auto memory = leased<GainMemory<T>>(backend);
    multiply_low_rank(any, left, right, from, to,
                      compose_delta(base_output, gains, scale, to, *memory));
  } else {
    RowMatrix<double> exact(to.rows(), to.cols());
    reference_low_rank_product(left, right, from, to_view(exact));
    GainMemory<double> memory;
    compose_delta(base_output, gains, scale, to_view(exact), memory)(0, to.rows());
    transform_rows(to, 0, to.rows(),
                   [&](Index i, Index j, T) { return static_cast<T>(exact(i, j)); });
  }
}

/// Y = g .* (X W^T + scale X A^T B^T).
template <class B, class S, class V, class U, class T>
void dora_layer(const B& backend, TensorView<const S, 2> x, TensorView<const V, 2> w,
                TensorView<const U, 2> a, TensorView<const U, 2> b, const Eigen::VectorXd& gains,
                double scale, TensorView<T, 2> y) {
  if constexpr (KernelBackend<B>) {
    const auto middle = leased<RowMatrix<T>>(backend);
    middle->resize(x.rows(), a.rows());
    linalg::multiply(backend, x, transpose(a), to_view(*middle));
    *middle *= static_cast<T>(scale);
    linalg::multiply(backend, x, transpose(w), y);
    const auto gain = leased<Eigen::Matrix<T, Eigen::Dynamic, 1>>(backend);
    *gain = gains.cast<T>();
    linalg::multiply(backend, as_const(to_view(*middle)), transpose(b), y, {.accumulate = true},
                     linalg::ScaleColumns<T>{gain->data()});
  } else {
    const Eigen::MatrixXd inputs = reference_matrix(x),
                          weight = reference_matrix(w) +
                                   scale * reference_matrix(b) * reference_matrix(a),
                          wanted = inputs * weight.transpose() * gains.asDiagonal();
    transform_rows(y, 0, y.rows(),
                   [&](Index i, Index j, T) { return static_cast<T>(wanted(i, j)); });
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
