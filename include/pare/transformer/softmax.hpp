// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Softmax of rows with a temperature, its logarithm, and log-sum-exp.
///
///     softmax:      y_j = e^(x_j / T) / sum_k e^(x_k / T)
///     log softmax:  y_j = x_j / T - log sum_k e^(x_k / T)
///     log-sum-exp:  log sum_k e^(x_k / T)
///
/// ```cpp
/// softmax(logits, logits, {.temperature = 0.7});   // [rows, dim], in place
/// log_softmax(logits, y);
/// log_sum_exp(pare::simd.threads(4), logits, sums);  // sums [rows]
/// ```
///
/// Matrices are [rows, dim] of one scalar: float, double, bf16 or f16, in any order. The largest of
/// a row is subtracted first, so that no sum overflows; weights below 2^-126 (2^-1022 in double) of
/// the largest count as 0. Differences beyond the largest number count as infinite.
///
/// An element of -infinity has weight 0. A row of nothing else has no weights: softmax gives zeros,
/// as attention does for a row that sees no key, log softmax and log-sum-exp -infinity. A NaN or
/// +infinity makes its row NaN. No row reaches another.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/softmax_rows.hpp>
#include <pare/transformer/detail/row_checks.hpp>
#include <pare/transformer/reference.hpp>

namespace pare::transformer {

/// Options of softmax and of what belongs to it.
struct SoftmaxOptions {
  double temperature = 1;  ///< T, in [1e-30, 1e30]; below 1 sharper, above flatter
};

namespace detail {
PARE_ABI_BEGIN

inline double checked_inverse(const char* function, const SoftmaxOptions& options) {
  check(options.temperature >= 1e-30 && options.temperature <= 1e30, function, "temperature",
        options.temperature, "a number in [1e-30, 1e30]");
  return 1 / options.temperature;
}

template <bool Log, class B, class S>
void softmax_on(const B& backend, TensorView<const S, 2> x, TensorView<S, 2> y, double inverse) {
  over_row_blocks(
      backend,
      [inverse](const B& on, TensorView<const S, 2> from, TensorView<S, 2> to) {
        launch(on, kernel::SoftmaxRows<S, Log>{from.data, from.stride[0], to.data, to.stride[0],
                                               from.rows(), from.cols(), inverse});
      },
      x, y);
}

template <bool Log, class B, class S>
void softmax_views(const B& backend, TensorView<const S, 2> x, TensorView<S, 2> y,
                   const SoftmaxOptions& options) {
  constexpr const char* function = Log ? "transformer::log_softmax" : "transformer::softmax";
  check_rows(function, "x", x);
  const double inverse = checked_inverse(function, options);
  check_writable(function, "y", y);
  check_extents(function, "y", y.extent, x.extent);
  check_in_place_or_apart(function, "y", y, "x", x);
  if (x.rows() == 0) return;
  if constexpr (KernelBackend<B>)
    softmax_on<Log>(on_any_executor(backend), x, y, inverse);
  else
    reference_softmax<Log>(x, y, inverse);
}

template <class B, class S>
void log_sum_exp_on(const B& backend, TensorView<const S, 2> x, TensorView<compute_t<S>, 1> out,
                    double inverse) {
  using T = compute_t<S>;
  // A column, so that blocks of it go with blocks of x.
  const TensorView<T, 2> column{out.data, {out.extent[0], 1}, {out.stride[0], 1}};
  over_row_blocks(
      backend,
      [inverse](const B& on, TensorView<const S, 2> from, TensorView<T, 2> to) {
        launch(on, kernel::LogSumExpRows<S>{from.data, from.stride[0], to.data, to.stride[0],
                                            from.rows(), from.cols(), inverse});
      },
      x, column);
}

template <class B, class S>
void log_sum_exp_views(const B& backend, TensorView<const S, 2> x, TensorView<compute_t<S>, 1> out,
                       const SoftmaxOptions& options) {
  constexpr const char* function = "transformer::log_sum_exp";
  check_rows(function, "x", x);
  const double inverse = checked_inverse(function, options);
  check_writable(function, "out", out);
  check_extents<1>(function, "out", out.extent, {x.rows()});
  check_no_overlap(function, "out", out, "x", x);
  if (x.rows() == 0) return;
  if constexpr (KernelBackend<B>)
    log_sum_exp_on(on_any_executor(backend), x, out, inverse);
  else
    reference_log_sum_exp(x, out, inverse);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// y_ij = e^(x_ij / T) / sum_k e^(x_ik / T).
///
/// \param backend left out: pare::simd
/// \param x       [rows, dim], dim at least 1
/// \param y       [rows, dim], of x's scalar: x itself, or apart from it
/// \throws std::invalid_argument if an extent does not fit, the temperature is none in its range,
///         or y overlaps x without being x. Nothing is written then. No rows: a no-op.
///
/// Cost: one exponential per element (two of 16-bit storage), some 15 operations, which bind in
/// cache. Memory: none if rows are contiguous; else a block of rows per worker, in the backend's
/// workspace. The same bits for any number of threads, and wherever rows lie.
template <Backend B, In<2> X, Out<2> Y>
requires SameScalar<X, Y>
void softmax(const B& backend, const X& x, Y&& y, const SoftmaxOptions& options = {}) {
  detail::softmax_views<false>(backend, as_const(to_view(x)), to_view(y), options);
}

/// \overload
template <In<2> X, Out<2> Y>
requires SameScalar<X, Y>
void softmax(const X& x, Y&& y, const SoftmaxOptions& options = {}) {
  softmax(simd, x, y, options);
}

/// y_ij = x_ij / T - log sum_k e^(x_ik / T), from the difference of x_ij and the largest of its
/// row. All else as softmax.
template <Backend B, In<2> X, Out<2> Y>
requires SameScalar<X, Y>
void log_softmax(const B& backend, const X& x, Y&& y, const SoftmaxOptions& options = {}) {
  detail::softmax_views<true>(backend, as_const(to_view(x)), to_view(y), options);
}

/// \overload
template <In<2> X, Out<2> Y>
requires SameScalar<X, Y>
void log_softmax(const X& x, Y&& y, const SoftmaxOptions& options = {}) {
  log_softmax(simd, x, y, options);
}

/// out_i = log sum_k e^(x_ik / T).
///
/// \param x   [rows, dim], dim at least 1
/// \param out [rows], of what x is computed in, apart from x
///
/// All else as softmax.
template <Backend B, In<2> X, class O>
requires OutVectorFor<O, scalar_of<X>>
void log_sum_exp(const B& backend, const X& x, O&& out, const SoftmaxOptions& options = {}) {
  detail::log_sum_exp_views(backend, as_const(to_view(x)), to_vector_view(out), options);
}

/// \overload
template <In<2> X, class O>
requires OutVectorFor<O, scalar_of<X>>
void log_sum_exp(const X& x, O&& out, const SoftmaxOptions& options = {}) {
  log_sum_exp(simd, x, out, options);
}

PARE_REFUSE_CALLS(softmax, "transformer::softmax",
                  "after y: wanted SoftmaxOptions, members spelt as declared",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"))
PARE_REFUSE_CALLS(log_softmax, "transformer::log_softmax",
                  "after y: wanted SoftmaxOptions, members spelt as declared",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"))
PARE_REFUSE_CALLS(log_sum_exp, "transformer::log_sum_exp",
                  "after out: wanted SoftmaxOptions, members spelt as declared",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (OUTPUT, (detail::WritesVector), "out",
                   "a vector [rows] of what x is computed in"))

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
