// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// RMS norm and layer norm of rows, and both with a residual that is added first.
///
///     RMS norm:   y_j = x_j / sqrt(mean(x^2) + epsilon) gain_j
///     layer norm: y_j = (x_j - mean(x)) / sqrt(var(x) + epsilon) gain_j + bias_j
///
/// ```cpp
/// rms_norm(x, gain, y);                              // x, y [rows, dim]
/// rms_norm(x, gain, x, {.epsilon = 1e-6});           // in place
/// add_rms_norm(x, delta, gain, y);                   // x += delta, then y = rms_norm(x)
/// layer_norm(pare::simd.threads(4), x, gain, bias, y);
/// const pare::TensorView<float, 2> row{data, {1, dim}, {dim, 1}};  // one row of any memory
/// ```
///
/// Matrices are [rows, dim] of one scalar (float, double, bf16 or f16), in any order; gain and bias
/// are vectors of what it is computed in. var is the mean of (x - mean)^2.
///
/// Sums are kept in float (double for double) for at most 64 registers, then in double. Rows whose
/// squares are too large or too small for that are summed again in double, scaled by a power of 2,
/// so that no finite row gives infinity: rows of 1e30 in float are normed as those of 1. The mean
/// of a layer norm is corrected by what its rounding left, so that rows far from 0 keep their
/// digits. A NaN makes its row NaN; so does an infinity in a layer norm. In an RMS norm an infinity
/// becomes NaN, and the finite numbers of its row 0. A row of zeros with an epsilon of 0 is NaN.
///
/// Source: Zhang and Sennrich, "Root mean square layer normalization", NeurIPS 2019, eq. 4; Ba,
/// Kiros and Hinton, "Layer normalization", 2016, eq. 4.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/row_blocks.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/norm_rows.hpp>
#include <pare/transformer/detail/row_checks.hpp>
#include <pare/transformer/reference.hpp>

#include <type_traits>

namespace pare::transformer {

/// Options of norms.
struct NormOptions {
  double epsilon = 1e-5;  ///< added to the mean of squares, at least 0; 1e-5 in Llama
};

namespace detail {
PARE_ABI_BEGIN

/// A call of any norm. Without a bias it is an RMS norm; without a delta nothing is added.
template <class S>
struct NormCall {
  const char* function = "";
  TensorView<const S, 2> x{};
  TensorView<const S, 2> delta{};
  TensorView<S, 2> sum{};  ///< x itself, where there is a delta
  TensorView<const compute_t<S>, 1> gain{};
  TensorView<const compute_t<S>, 1> bias{};
  TensorView<S, 2> y{};
  bool centred = false;
  double epsilon = 0;
};

template <class S>
void check_norm(const NormCall<S>& c, bool adds) {
  check_rows(c.function, "x", c.x);
  check_row_vector(c.function, "gain", c.gain, c.x);
  if (c.centred) check_row_vector(c.function, "bias", c.bias, c.x);
  check_epsilon(c.function, c.epsilon);
  check_writable(c.function, "y", c.y);
  check_extents(c.function, "y", c.y.extent, c.x.extent);
  check_no_overlap(c.function, "y", c.y, "gain", c.gain);
  if (c.centred) check_no_overlap(c.function, "y", c.y, "bias", c.bias);
  if (!adds) return check_in_place_or_apart(c.function, "y", c.y, "x", c.x);
  check_writable(c.function, "x", c.sum);
  check_view(c.function, "delta", c.delta);
  check_extents(c.function, "delta", c.delta.extent, c.x.extent);
  check_no_overlap(c.function, "x", c.sum, "delta", c.delta);
  check_no_overlap(c.function, "x", c.sum, "gain", c.gain);
  if (c.centred) check_no_overlap(c.function, "x", c.sum, "bias", c.bias);
  check_no_overlap(c.function, "y", c.y, "x", c.x);
  check_in_place_or_apart(c.function, "y", c.y, "delta", c.delta);
}

/// The kernel's view of blocks with contiguous rows.
template <bool Centred, class S>
auto norm_arguments(const NormCall<S>& c, TensorView<const S, 2> x, TensorView<const S, 2> delta,
                    TensorView<S, 2> sum, TensorView<S, 2> y) {
  std::conditional_t<Centred, kernel::LayerNormRows<S>, kernel::RmsNormRows<S>> a;
  a.x = x.data;
  a.x_stride = x.stride[0];
  a.delta = delta.data;
  a.delta_stride = delta.stride[0];
  a.sum = sum.data;
  a.sum_stride = sum.stride[0];
  a.out = y.data;
  a.out_stride = y.stride[0];
  a.gain = c.gain.data;
  if constexpr (Centred) a.bias = c.bias.data;
  a.rows = x.rows();
  a.columns = x.cols();
  a.epsilon = c.epsilon;
  return a;
}

template <bool Centred, class B, class S>
void norm_on(const B& backend, const NormCall<S>& c) {
  if (c.delta.data == nullptr)
    over_row_blocks(
        backend,
        [&c](const B& on, TensorView<const S, 2> x, TensorView<S, 2> y) {
          launch(on, norm_arguments<Centred, S>(c, x, {}, {}, y));
        },
        c.x, c.y);
  else
    over_row_blocks(
        backend,
        [&c](const B& on, TensorView<const S, 2> x, TensorView<const S, 2> delta,
             TensorView<S, 2> sum,
             TensorView<S, 2> y) { launch(on, norm_arguments<Centred, S>(c, x, delta, sum, y)); },
        c.x, c.delta, c.sum, c.y);
}

template <class B, class S>
void run_norm(const B& backend, const NormCall<S>& c, bool adds) {
  check_norm(c, adds);
  if (c.x.rows() == 0) return;
  if constexpr (!KernelBackend<B>) {
    if (adds) reference_add(c.sum, c.delta);
    // With one element its stride may be anything.
    reference_norm(c.x, c.gain.data, c.centred ? c.bias.data : nullptr, c.y, c.epsilon);
  } else if (c.centred) {
    norm_on<true>(on_any_executor(backend), c);
  } else {
    norm_on<false>(on_any_executor(backend), c);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// y_ij = x_ij / sqrt(mean_j x_ij^2 + epsilon) gain_j.
///
/// \param backend left out: pare::simd
/// \param x       [rows, dim], dim at least 1
/// \param gain    [dim], of what x is computed in
/// \param y       [rows, dim], of x's scalar: x itself, or apart from it
/// \throws std::invalid_argument if an extent does not fit, epsilon is negative or not finite, y
///         overlaps gain or overlaps x without being x. Nothing is written then. No rows: a no-op.
///
/// Cost: x is read twice, once from L1, and y written; memory or, in L1, the loads bind. Memory:
/// none if rows are contiguous; else a block of rows per worker, in the backend's workspace. The
/// same bits for any number of threads, and wherever rows lie.
template <Backend B, In<2> X, class G, Out<2> Y>
requires SameScalar<X, Y> && VectorFor<G, scalar_of<X>>
void rms_norm(const B& backend, const X& x, const G& gain, Y&& y, const NormOptions& options = {}) {
  using S = scalar_of<X>;
  detail::run_norm(backend,
                   detail::NormCall<S>{.function = "transformer::rms_norm",
                                       .x = as_const(to_view(x)),
                                       .gain = as_const(to_vector_view(gain)),
                                       .y = to_view(y),
                                       .epsilon = options.epsilon},
                   false);
}

/// \overload
template <In<2> X, class G, Out<2> Y>
requires SameScalar<X, Y> && VectorFor<G, scalar_of<X>>
void rms_norm(const X& x, const G& gain, Y&& y, const NormOptions& options = {}) {
  rms_norm(simd, x, gain, y, options);
}

/// x += delta, rounded to x's scalar, then y = rms_norm of x: a residual and the norm behind it,
/// row by row in L1.
///
/// \param x     [rows, dim], changed
/// \param delta [rows, dim], of the same scalar, apart from x
/// \param gain  [dim], of what x is computed in
/// \param y     [rows, dim], of the same scalar: delta itself, or apart from it; apart from x
/// \throws std::invalid_argument as rms_norm, or if x overlaps delta or gain. Nothing is written
///         then, x neither.
///
/// All else as rms_norm; delta is read and x written once more.
template <Backend B, Out<2> X, In<2> D, class G, Out<2> Y>
requires SameScalar<X, D, Y> && VectorFor<G, scalar_of<X>>
void add_rms_norm(const B& backend, X&& x, const D& delta, const G& gain, Y&& y,
                  const NormOptions& options = {}) {
  using S = scalar_of<X>;
  const auto sum = to_view(x);
  detail::run_norm(backend,
                   detail::NormCall<S>{.function = "transformer::add_rms_norm",
                                       .x = as_const(sum),
                                       .delta = as_const(to_view(delta)),
                                       .sum = sum,
                                       .gain = as_const(to_vector_view(gain)),
                                       .y = to_view(y),
                                       .epsilon = options.epsilon},
                   true);
}

/// \overload
template <Out<2> X, In<2> D, class G, Out<2> Y>
requires SameScalar<X, D, Y> && VectorFor<G, scalar_of<X>>
void add_rms_norm(X&& x, const D& delta, const G& gain, Y&& y, const NormOptions& options = {}) {
  add_rms_norm(simd, x, delta, gain, y, options);
}

/// y_ij = (x_ij - m_i) / sqrt(v_i + epsilon) gain_j + bias_j, with m_i the mean and v_i the
/// variance of row i.
///
/// \param bias [dim], of what x is computed in; for a norm without one, zeros
///
/// All else as rms_norm; x is read three times.
template <Backend B, In<2> X, class G, class O, Out<2> Y>
requires SameScalar<X, Y> && VectorFor<G, scalar_of<X>> && VectorFor<O, scalar_of<X>>
void layer_norm(const B& backend, const X& x, const G& gain, const O& bias, Y&& y,
                const NormOptions& options = {}) {
  using S = scalar_of<X>;
  detail::run_norm(backend,
                   detail::NormCall<S>{.function = "transformer::layer_norm",
                                       .x = as_const(to_view(x)),
                                       .gain = as_const(to_vector_view(gain)),
                                       .bias = as_const(to_vector_view(bias)),
                                       .y = to_view(y),
                                       .centred = true,
                                       .epsilon = options.epsilon},
                   false);
}

/// \overload
template <In<2> X, class G, class O, Out<2> Y>
requires SameScalar<X, Y> && VectorFor<G, scalar_of<X>> && VectorFor<O, scalar_of<X>>
void layer_norm(const X& x, const G& gain, const O& bias, Y&& y, const NormOptions& options = {}) {
  layer_norm(simd, x, gain, bias, y, options);
}

/// x += delta, then y = layer_norm of x, as add_rms_norm. Where the norm takes the place of the
/// residual (BERT), y is copied to x, or x and y change places in the next layer.
template <Backend B, Out<2> X, In<2> D, class G, class O, Out<2> Y>
requires SameScalar<X, D, Y> && VectorFor<G, scalar_of<X>> && VectorFor<O, scalar_of<X>>
void add_layer_norm(const B& backend, X&& x, const D& delta, const G& gain, const O& bias, Y&& y,
                    const NormOptions& options = {}) {
  using S = scalar_of<X>;
  const auto sum = to_view(x);
  detail::run_norm(backend,
                   detail::NormCall<S>{.function = "transformer::add_layer_norm",
                                       .x = as_const(sum),
                                       .delta = as_const(to_view(delta)),
                                       .sum = sum,
                                       .gain = as_const(to_vector_view(gain)),
                                       .bias = as_const(to_vector_view(bias)),
                                       .y = to_view(y),
                                       .centred = true,
                                       .epsilon = options.epsilon},
                   true);
}

/// \overload
template <Out<2> X, In<2> D, class G, class O, Out<2> Y>
requires SameScalar<X, D, Y> && VectorFor<G, scalar_of<X>> && VectorFor<O, scalar_of<X>>
void add_layer_norm(X&& x, const D& delta, const G& gain, const O& bias, Y&& y,
                    const NormOptions& options = {}) {
  add_layer_norm(simd, x, delta, gain, bias, y, options);
}

PARE_REFUSE_CALLS(rms_norm, "transformer::rms_norm",
                  "after y: wanted NormOptions, members spelt as declared",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (PLAIN, (detail::ReadsVector), "gain", "a vector [dim] of what x is computed in"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"))
PARE_REFUSE_CALLS(add_rms_norm, "transformer::add_rms_norm",
                  "after y: wanted NormOptions, members spelt as declared",
                  (OUTPUT, (detail::Changes<2>), "x", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "delta", "[rows, dim]"),
                  (PLAIN, (detail::ReadsVector), "gain", "a vector [dim] of what x is computed in"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"))
PARE_REFUSE_CALLS(layer_norm, "transformer::layer_norm",
                  "after y: wanted NormOptions, members spelt as declared",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (PLAIN, (detail::ReadsVector), "gain", "a vector [dim] of what x is computed in"),
                  (PLAIN, (detail::ReadsVector), "bias", "a vector [dim] of what x is computed in"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"))
PARE_REFUSE_CALLS(add_layer_norm, "transformer::add_layer_norm",
                  "after y: wanted NormOptions, members spelt as declared",
                  (OUTPUT, (detail::Changes<2>), "x", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "delta", "[rows, dim]"),
                  (PLAIN, (detail::ReadsVector), "gain", "a vector [dim] of what x is computed in"),
                  (PLAIN, (detail::ReadsVector), "bias", "a vector [dim] of what x is computed in"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, dim] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
