// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SparseGPT to 2:4 sparsity: weights go one after the other, and those behind each make up for it
/// as well as the covariance of the inputs allows.
///
/// ```cpp
/// Covariance covariance(in);
/// for (...) covariance.add(activations);                    // [tokens x in]
/// const auto core = sparse_gpt(w, covariance);              // w [outputs, inputs]
/// const auto other = sparse_gpt(simd.threads(2), w, c, {.damping = 0.1});  // c [inputs, inputs]
/// ```
///
/// With H = C + damping mean(diag C) I and H^-1 = U^T U, U upper triangular, columns i are passed
/// from left to right. At the first of each four the two weights with the smallest w_i^2 / u_ii^2
/// of a row are marked; one that is marked goes with the error e = w_i / u_ii, and w_j -= e u_ij
/// for all j > i. After each column the weights behind it are those which lose least,
/// tr(D H D^T) for D = W - What, given what stands in front.
///
/// Source: Frantar and Alistarh, "SparseGPT", arXiv 2301.00774, algorithm 1, from memory: the
/// damping of 0.01, blocks of 128 columns, and that a group is chosen when its first column comes.
/// Ours: neither H^-1 nor U is computed. With H = R R^T, R = U^-1 upper triangular, which is one
/// decomposition of H with rows and columns in reverse order, the loss is the sum of squares of D
/// R, and the weights that lose least, given D in front, make columns of it 0: w_i + (D R)_i /
/// r_ii, by one product for a block of columns. An input without variance loses its weights first.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/detail/sparse_gpt_blocks.hpp>
#include <pare/factor/structured/sparse_gpt_options.hpp>
#include <pare/factor/structured/two_four.hpp>

#include <concepts>
#include <type_traits>

namespace pare::factor {
namespace detail {
template <class X>
using IsInputCovariance =
    std::bool_constant<std::derived_from<std::remove_cvref_t<X>, Covariance> ||
                       (In<std::remove_cvref_t<X>, 2> &&
                        requires { requires ComputeScalar<scalar_of<X>>; })>;
}  // namespace detail
PARE_ABI_BEGIN

/// Prunes a weight to 2:4 and updates what stays.
///
/// \param backend    left out: pare::simd
/// \param w          [outputs, inputs] of float, double, bf16 or f16, any strides, inputs a
///                   multiple of 4
/// \param covariance of the inputs: a Covariance, or C [inputs, inputs] of float or double,
///                   symmetric, of any scale
/// \param options    see SparseGptOptions
/// \return           the pruned weight, in compute_t of w
/// \throws std::invalid_argument if extents do not fit, a number of w or C is not finite, C is not
///         symmetric, all its diagonal is 0, an element of it negative, an option is out of its
///         range, no token was added, or C + damping is not positive definite: its smallest
///         eigenvalue is at most s of the largest, s = n 2^-53; with a damping of 0, and C of float
///         or with float sums, s = sqrt(n) 2^-24
///
/// Of equal weights of a group the lower columns stay. An input whose variance is 0 has weights of
/// 0.
///
/// Cost: outputs inputs^2 FLOPs in compute_t and inputs^3 / 3 in double, nearly all in products,
/// which bind; 3 passes, or 19, over inputs^2 / 2 doubles. Memory: inputs^2 doubles (2 of a
/// Covariance), a copy of w, and (outputs + inputs) block of compute_t. Same bits for any number of
/// threads. pare::reference passes the columns without blocks, with the inverse of H, in double.
template <Backend B, In<2> W, class C>
requires(detail::IsInputCovariance<C>::value)
TwoFour<compute_t<scalar_of<W>>> sparse_gpt(const B& backend, const W& w, const C& covariance,
                                            const SparseGptOptions& options = {}) {
  const auto view = as_const(to_view(w));
  if constexpr (std::derived_from<C, Covariance>) {
    const auto c = covariance.matrix(backend);
    return detail::sparse_gpt_views(backend, view, CovarianceView<double>{const_view(c), 0, true},
                                    covariance.has_float_sums(), options);
  } else {
    return detail::sparse_gpt_views(backend, view,
                                    CovarianceView<scalar_of<C>>{as_const(to_view(covariance)), 0},
                                    false, options);
  }
}

/// \overload
template <In<2> W, class C>
requires(detail::IsInputCovariance<C>::value)
TwoFour<compute_t<scalar_of<W>>> sparse_gpt(const W& w, const C& covariance,
                                            const SparseGptOptions& options = {}) {
  return sparse_gpt(simd, w, covariance, options);
}

PARE_REFUSE_CALLS(sparse_gpt, "factor::sparse_gpt",
                  "after the covariance: wanted SparseGptOptions such as {.damping = 0.1}, members "
                  "spelt and ordered as declared",
                  (INPUT, (roles::Reads<2>), "w", "[outputs, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsInputCovariance>), "covariance",
                   "a Covariance or a matrix [inputs, inputs] in memory of float or double"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
