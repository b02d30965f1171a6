// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Uniformity, one half of DirectAU's loss: how evenly unit vectors lie on the sphere.
///
/// ```cpp
/// uniformity(x);                                        // x [rows, dim], any length of rows
/// const double loss = uniformity_gradient(x, gradient, {.weight = 0.5});
/// uniformity_gradient(pare::simd.threads(4).with(workspace), x, gradient);  // the same bits
/// ```
///
/// With u_i = x_i / |x_i|:
///
///     uniformity(x) = ln mean over pairs i < j of e^(-t |u_i - u_j|^2)
///
/// which is at most 0, 0 where all rows point the same way, and -4 t for two that point opposite.
/// Equal rows make pairs like any others, as in the reference code. The gradient is that by x:
///
///     d/dx_a = 2 t / Z (s_a - u_a <u_a, s_a>) / |x_a|,   s_a = sum over b != a of w_ab u_b,
///     w_ab = e^(-t |u_a - u_b|^2),   Z = sum over pairs of w
///
/// Neither stores the weights of all pairs: memory grows with the rows by their norms alone.
///
/// Sources: Wang and Isola, ICML 2020; DirectAU: Wang et al., KDD 2022, by its code (t = 2). Ours:
/// a row without a direction is refused, where the code divides by 1e-12; a batch of one row, whose
/// mean is over nothing, is refused too. Left out: the variant of its code that weighs pairs by
/// frequency.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/retrieval/detail/gradient_of.hpp>
#include <pare/retrieval/detail/reference_uniformity.hpp>
#include <pare/retrieval/detail/uniform_pairs.hpp>
#include <pare/retrieval/detail/unit_rows.hpp>

#include <cmath>
#include <vector>

namespace pare::retrieval {

/// Options of uniformity.
struct UniformityOptions {
  double t = 2;  ///< above 0, at most 20: weights down to e^(-4 t) are then normal floats
  /// The gradient is that of weight times the uniformity; finite. The loss returned has no weight.
  double weight = 1;
};

namespace detail {
PARE_ABI_BEGIN

template <class S>
void check_uniformity(const char* function, TensorView<const S, 2> x,
                      const UniformityOptions& options, std::vector<double>& inverse) {
  check(options.t > 0 && options.t <= 20, function, "t", options.t, "above 0, at most 20");
  check(is_finite(options.weight), function, "weight", options.weight, "a finite number");
  check(x.rows() >= 2, function, "x", x.extent, "at least two rows");
  // A worker's blocks and tiles of rows, of up to 384 rows in each of them.
  checked_count(function, "x", checked_product(function, "x", x.cols(), 2048),
                sizeof(compute_t<S>));
  check_unit_rows(function, "x", x, inverse);
}

/// ln of the mean weight of n rows' pairs.
inline double mean_of_pairs(double total, Index n) {
  const auto rows = static_cast<double>(n);
  return std::log(total) - std::log(rows * (rows - 1) / 2);
}

template <class B, class S>
double uniformity(const B& backend, TensorView<const S, 2> x, const UniformityOptions& options) {
  const auto memory = leased<PairMemory>(backend);
  check_uniformity("retrieval::uniformity", x, options, memory->inverse);
  if constexpr (KernelBackend<B>)
    return mean_of_pairs(UniformPairs<B, S>(backend, *memory, x, options.t).total(), x.rows());
  else
    return mean_of_pairs(reference_pairs(x, memory->inverse, options.t), x.rows());
}

template <class B, class S>
double uniformity_gradient(const B& backend, TensorView<const S, 2> x,
                           TensorView<compute_t<S>, 2> gradient, const UniformityOptions& options) {
  constexpr const char* function = "retrieval::uniformity_gradient";
  const auto memory = leased<PairMemory>(backend);
  check_uniformity(function, x, options, memory->inverse);
  check_writable(function, "gradient", gradient);
  check_extents<2>(function, "gradient", gradient.extent, x.extent);
  check_no_overlap(function, "gradient", gradient, "x", x);
  if constexpr (KernelBackend<B>)
    return mean_of_pairs(
        UniformPairs<B, S>(backend, *memory, x, options.t).gradient(gradient, options.weight),
        x.rows());
  else
    return mean_of_pairs(
        reference_pair_gradient(x, memory->inverse, options.t, options.weight, gradient), x.rows());
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The uniformity of the rows' directions.
///
/// \param backend left out: pare::simd
/// \param x       [rows, dim] of float, double, bf16 or f16, any strides, at least two rows; 16
///                bits are widened, and computed in float
/// \param options see UniformityOptions
/// \throws std::invalid_argument if there are fewer rows, no column, a row whose norm is 0 or not
///         finite, an option is out of its range, or memory as below would not fit 63 bits
///
/// Cost: rows^2 dim FLOPs, which bind from a dim of about 30 on, and an exponential per pair.
/// Memory, in the workspace: per worker at most 384 rows, and 128 of the others twice; a number per
/// row. Weights, and a row's sum of them in each lane, are in what x is computed in; lanes and rows
/// are added up in double. The same bits for any number of threads.
template <Backend B, In<2> X>
double uniformity(const B& backend, const X& x, const UniformityOptions& options = {}) {
  return detail::uniformity(on_any_executor(backend), as_const(to_view(x)), options);
}

/// \overload
template <In<2> X>
double uniformity(const X& x, const UniformityOptions& options = {}) {
  return uniformity(simd, x, options);
}

/// Writes the gradient by x, and returns the uniformity.
///
/// \param gradient [rows, dim], any strides, of what x is computed in (float for 16 bits); apart
///                 from x
/// \throws std::invalid_argument as uniformity, or if gradient does not fit. Nothing is then
///         written.
///
/// Cost: 4 rows^2 dim FLOPs, and two exponentials per pair. Memory: about twice that of uniformity.
template <Backend B, In<2> X, GradientOf<X> G>
double uniformity_gradient(const B& backend, const X& x, G&& gradient,
                           const UniformityOptions& options = {}) {
  return detail::uniformity_gradient(on_any_executor(backend), as_const(to_view(x)),
                                     to_view(gradient), options);
}

/// \overload
template <In<2> X, GradientOf<X> G>
double uniformity_gradient(const X& x, G&& gradient, const UniformityOptions& options = {}) {
  return uniformity_gradient(simd, x, gradient, options);
}

PARE_REFUSE_CALLS(uniformity, "retrieval::uniformity", "after x: wanted UniformityOptions",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"))
PARE_REFUSE_CALLS(uniformity_gradient, "retrieval::uniformity_gradient",
                  "after gradient: wanted UniformityOptions",
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (OUTPUT, (roles::WritesComputed<2>), "gradient", "[rows, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
