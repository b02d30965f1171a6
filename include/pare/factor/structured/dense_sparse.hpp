// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Dense times sparse factorization of a weight (DSFormer): atoms that a block of outputs shares,
/// and for each output the few of them that it is a sum of.
///
/// ```cpp
/// auto fit = dense_sparse(w, {.block = 256, .atoms = 64, .nonzeros = 8});
/// fit.weight.dictionary(), fit.losses, fit.relative_error();
/// auto half = dense_sparse(w, options_of_share(w.rows(), w.cols(), 0.5));    // of w's bytes
/// auto aware = dense_sparse(w, covariance, {.atoms = 128, .nonzeros = 16});  // of the inputs
/// auto again = dense_sparse(w, fit.weight, {.sweeps = 1});                  // a warm start
/// DenseSparseLinear<bf16> layer(fit.weight.rounded<bf16>());  // transformer/structured/
/// ```
///
/// min over D_b, S_b of ||(W_b - S_b D_b) C^1/2||_F^2 for each block of outputs, S_b with
/// `nonzeros` in each row (dense_sparse_weight.hpp). Two steps alternate:
///
///     S <- orthogonal matching pursuit of each row of W_b over the atoms
///     D <- (S^T S + ridge I)^-1 S^T W_b, rows scaled to norm 1
///
/// A row keeps its code unless the new one leaves less, and D is kept if the new one leaves more:
/// the loss never rises. The pursuit is batch OMP: it reads D C D^T and W C D^T, and per step adds
/// one row to a Cholesky factor. The least squares of D does not depend on C at all, so that a
/// covariance costs three more products with C and no root or inverse of it; it may be singular.
///
/// The paper says that a weight is the product of a small dense and a semi-structured sparse matrix
/// and that training finds both; how it projects is not public. So all of this is reconstructed:
/// the alternation is MOD (Engan, Aase and Husoy, 1999) with batch OMP (Rubinstein, Zibulevsky and
/// Elad, 2008), and atoms that no output uses become the outputs that are left furthest. The start
/// is ours: D_b are outputs of the block at even distances, which costs nothing and differs from
/// output to output. Right singular vectors as a start begin lower, but ended higher on two weights
/// of SmolLM2-135M (10 sweeps: 0.653 against 0.644 of the norm, and 0.821 against 0.818).
/// Paper: Chand, Prabhu and Kumar, DSFormer, arXiv 2312.13211.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/structured/dense_sparse_options.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/factor/structured/detail/dense_sparse_fit.hpp>

namespace pare::factor {
PARE_ABI_BEGIN

/// W ~ S D by blocks of outputs.
///
/// \param backend left out: pare::simd
/// \param w       [outputs x inputs], any dense Eigen matrix of float, double, bf16 or f16
/// \param options extents and when to stop
/// \return        the weight in compute_t of w's scalar, atoms of norm 1 in the metric, and losses
/// \throws std::invalid_argument if w is empty or not finite, an option is out of its range, the
///         sum of squares is beyond double, or a value does not fit its scalar
///
/// An output of zeros has a code of zeros. Everything is computed in double. Cost per sweep, FLOPs:
/// outputs atoms nonzeros^2 for the codes, in L2, which bind from about 30 nonzeros on; products of
/// 2 outputs inputs atoms and, of each block, 4 atoms^2 inputs; 2 outputs nonzeros inputs and
/// atoms^3 for the atoms. Memory: a block of W and two dictionaries, each with atoms, correlations
/// [block x atoms] and a Gram matrix [atoms x atoms], and nonzeros atoms per worker; with a
/// covariance two of its size; all in double. The bits are the same for every executor.
template <Backend B, In<2> W>
auto dense_sparse(const B& backend, const W& w, const DenseSparseOptions& options = {}) {
  constexpr const char* function = "factor::dense_sparse";
  const auto view = as_const(to_view(w));
  detail::check_dense_sparse(function, view, options);
  return detail::dense_sparse_views(function, on_any_executor(backend), view, nullptr, nullptr,
                                    options);
}

/// \overload
template <In<2> W>
auto dense_sparse(const W& w, const DenseSparseOptions& options = {}) {
  return dense_sparse(simd, w, options);
}

/// The same in the metric of the inputs: losses are tr((W - S D) C (W - S D)^T).
///
/// \param covariance C [inputs x inputs]; at least one token was added
/// \throws std::invalid_argument also if no token was added, or C is of other inputs or not finite
///
/// Cost: also 2 outputs inputs^2 FLOPs once, and 2 atoms inputs^2 for each block and sweep.
template <Backend B, In<2> W>
auto dense_sparse(const B& backend, const W& w, const Covariance& covariance,
                  const DenseSparseOptions& options = {}) {
  constexpr const char* function = "factor::dense_sparse";
  const auto view = as_const(to_view(w));
  detail::check_dense_sparse(function, view, options);
  const auto c = detail::checked_moments(function, covariance.matrix(backend), view.cols());
  return detail::dense_sparse_views(function, on_any_executor(backend), view, &c, nullptr, options);
}

/// \overload
template <In<2> W>
auto dense_sparse(const W& w, const Covariance& covariance,
                  const DenseSparseOptions& options = {}) {
  return dense_sparse(simd, w, covariance, options);
}

/// The same from an earlier weight, of this or of a W nearby: no loss is above that of `start`.
/// Block, atoms and nonzeros are those of `start`; with `sweeps` 0, codes are sought for its atoms.
///
/// \param start of compute_t of w's scalar
/// \throws std::invalid_argument if start is of other extents or has elements that are not finite,
///         or as the other calls
template <Backend B, In<2> W>
auto dense_sparse(const B& backend, const W& w, const DenseSparse<compute_t<scalar_of<W>>>& start,
                  const DenseSparseOptions& options = {}) {
  constexpr const char* function = "factor::dense_sparse";
  const auto view = as_const(to_view(w));
  DenseSparseOptions same = options;
  same.block = start.block();
  same.atoms = start.atoms();
  same.nonzeros = start.nonzeros();
  check_extents<2>(function, "start", {start.outputs(), start.inputs()}, view.extent);
  detail::check_dense_sparse(function, view, same);
  detail::check_start(function, start);
  return detail::dense_sparse_views(function, on_any_executor(backend), view, nullptr, &start,
                                    same);
}

/// \overload
template <In<2> W>
auto dense_sparse(const W& w, const DenseSparse<compute_t<scalar_of<W>>>& start,
                  const DenseSparseOptions& options = {}) {
  return dense_sparse(simd, w, start, options);
}

PARE_REFUSE_CALLS(dense_sparse, "factor::dense_sparse",
                  "after w: wanted a Covariance or an earlier DenseSparse of the scalar that w is "
                  "computed in, or none, and DenseSparseOptions, members spelt and ordered as "
                  "declared",
                  (INPUT, (roles::Reads<2>), "w", "[outputs, inputs]"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
