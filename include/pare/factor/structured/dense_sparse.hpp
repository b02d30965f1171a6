// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Dense times sparse factorization of a weight (DSFormer): atoms that a block of outputs shares,
/// and for each output the few of them that it is a sum of.
///
/// ```cpp
/// auto fit = dense_sparse(w, {.block = 256, .atoms = 64, .nonzeros = 8});
/// fit.weight.dictionary(), fit.losses, fit.relative_error();
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
/// output to output. Right singular vectors as a start ended higher in our tests.
/// Paper: Chand, Prabhu and Kumar, DSFormer, arXiv 2312.13211.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/factor/structured/detail/dense_sparse_block.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace pare::factor {

/// Options of dense_sparse.
struct DenseSparseOptions {
  /// Outputs that share atoms, a divisor of the outputs; left out: all outputs.
  std::optional<Index> block{};
  Index atoms = 64;         ///< of a block, in [1, min(block, inputs)], at most 65536
  Index nonzeros = 8;       ///< of an output, in [1, atoms]
  int sweeps = 10;          ///< at most, at least 0: codes for the atoms of the start alone
  double tolerance = 1e-4;  ///< a block's sweeps end once one takes less of its loss; in [0, 1)
  double ridge = 1e-10;     ///< share of the mean of diag(S^T S), at least 0; ours
};

PARE_ABI_BEGIN

/// Checks the options for a weight; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range
inline void validate(const char* function, const DenseSparseOptions& o, Index outputs,
                     Index inputs) {
  const Index block = o.block.value_or(outputs);
  validate(function, DenseSparseShape{outputs, inputs, block, o.atoms, o.nonzeros});
  check(
      o.atoms <= std::min(block, inputs), function, "atoms", o.atoms,
      Worded{"at most the smaller of a block's outputs and the inputs, ", std::min(block, inputs)});
  check(o.sweeps >= 0, function, "sweeps", o.sweeps, "at least 0");
  check(o.tolerance >= 0 && o.tolerance < 1, function, "tolerance", o.tolerance,
        "a share in [0, 1)");
  check(is_finite(o.ridge) && o.ridge >= 0, function, "ridge", o.ridge,
        "a finite share, at least 0");
}

/// A weight and how it was found. Losses are squared norms in the metric of the call, before the
/// result was rounded to T.
template <ComputeScalar T>
struct DenseSparseFit {
  DenseSparse<T> weight;
  /// ||W - S D||^2 with the codes of the start, and after each sweep: none above the one before.
  std::vector<double> losses;
  double total_energy = 0;  ///< ||W||^2

  /// ||W - S D|| / ||W||; 0 if W is 0 in the metric.
  double relative_error() const {
    return total_energy > 0 ? std::sqrt(losses.back() / total_energy) : 0.0;
  }
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// Rows of W over a scale, in double.
template <StorageScalar S>
RowMatrix<double> scaled_rows(TensorView<const S, 2> w, Index begin, Index count, double scale) {
  RowMatrix<double> rows(count, w.cols());
  for (Index i = 0; i < count; ++i)
    for (Index j = 0; j < w.cols(); ++j)
      rows(i, j) = static_cast<double>(static_cast<compute_t<S>>(w(begin + i, j))) / scale;
  return rows;
}

/// The largest |w|, or 1 of zeros.
template <StorageScalar S>
double largest_size(TensorView<const S, 2> w) {
  double most = 0;
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j)
      most = std::max(most, std::abs(static_cast<double>(static_cast<compute_t<S>>(w(i, j)))));
  return most > 0 ? most : 1;
}

/// A block of an earlier weight, its values over the scale.
template <ComputeScalar T>
BlockStart start_of(const DenseSparse<T>& weight, Index b, double scale) {
  BlockStart start;
  const Index block = weight.block(), nonzeros = weight.nonzeros();
  start.atoms =
      row_matrix<double>(rows_of(weight.dictionary(), b * weight.atoms(), weight.atoms()));
  start.codes.values.resize(block, nonzeros);
  start.codes.places.resize(block, nonzeros);
  for (Index o = 0; o < block; ++o)
    for (Index k = 0; k < nonzeros; ++k) {
      start.codes.values(o, k) = static_cast<double>(weight.value(b * block + o, k)) / scale;
      start.codes.places(o, k) = static_cast<std::int32_t>(weight.place(b * block + o, k));
    }
  return start;
}

/// Writes a block, its values times the scale.
template <ComputeScalar T>
void store_block(const char* function, const BlockFit& fit, Index b, double scale,
                 DenseSparse<T>& weight) {
  const auto fitting = [&](double value) {
    const T rounded = static_cast<T>(value);
    check(is_finite(static_cast<double>(rounded)), function, "w", value,
          "values that fit the scalar of the result");
    return rounded;
  };
  const auto dictionary = rows_of(weight.own_dictionary(), b * weight.atoms(), weight.atoms());
  for (Index a = 0; a < dictionary.rows(); ++a)
    for (Index i = 0; i < dictionary.cols(); ++i) dictionary(a, i) = fitting(fit.atoms(a, i));
  for (Index o = 0; o < weight.block(); ++o)
    for (Index k = 0; k < weight.nonzeros(); ++k)
      weight.set(b * weight.block() + o, k, fit.codes.places(o, k),
                 fitting(fit.codes.values(o, k) * scale));
}

/// Adds a block's losses, each sweep to its own; what ended earlier stays as it was.
inline void add_losses(const std::vector<double>& block, double scale, std::vector<double>& all) {
  const double ended = all.empty() ? 0 : all.back();
  if (all.size() < block.size()) all.resize(block.size(), ended);
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] += scale * block[std::min(i, block.size() - 1)];
}

template <class B, StorageScalar S>
DenseSparseFit<compute_t<S>> dense_sparse_views(const char* function, const B& backend,
                                                TensorView<const S, 2> w,
                                                const RowMatrix<double>* covariance,
                                                const DenseSparse<compute_t<S>>* start,
                                                const DenseSparseOptions& options) {
  const Index block = options.block.value_or(w.rows());
  const double scale = largest_size(w);
  double variance = 1;
  RowMatrix<double> metric;
  if (covariance != nullptr) {
    const double most = covariance->diagonal().maxCoeff();
    variance = most > 0 ? most : 1;
    metric = *covariance / variance;
  }
  const double unit = scale * scale * variance;
  Workspace own;
  const B kept = keeping(backend, own);
  DenseSparseFit<compute_t<S>> result{
      DenseSparse<compute_t<S>>({w.rows(), w.cols(), block, options.atoms, options.nonzeros}),
      {},
      0};
  for (Index b = 0; b < w.rows() / block; ++b) {
    const RowMatrix<double> rows = scaled_rows(w, b * block, block, scale);
    BlockStart from;
    if (start != nullptr)
      from = start_of(*start, b, scale);
    else
      from.atoms = start_atoms(rows, options.atoms);
    const BlockFit fit =
        BlockFitter<B>(kept, rows, covariance != nullptr ? &metric : nullptr,
                       {options.nonzeros, options.sweeps, options.tolerance, options.ridge})
            .run(std::move(from));
    store_block(function, fit, b, scale, result.weight);
    add_losses(fit.losses, unit, result.losses);
    result.total_energy += unit * fit.energy;
  }
  check(is_finite(result.total_energy), function, "w", result.total_energy,
        "a sum of squares that is finite");
  return result;
}

template <StorageScalar S>
void check_dense_sparse(const char* function, TensorView<const S, 2> w,
                        const DenseSparseOptions& options) {
  check_view(function, "w", w);
  check(w.rows() >= 1 && w.cols() >= 1, function, "w", w.extent, "extents of at least 1");
  validate(function, options, w.rows(), w.cols());
  check_finite(function, "w", w);
}

template <ComputeScalar T>
void check_start(const char* function, const DenseSparse<T>& start) {
  check_finite(function, "start", start.dictionary());
  for (Index o = 0; o < start.outputs(); ++o)
    for (Index k = 0; k < start.nonzeros(); ++k) {
      const auto value = static_cast<double>(start.value(o, k));
      check(is_finite(value), function, "start", value, "finite values");
    }
}

/// A covariance that sums of x x^T give, of finite inputs.
inline RowMatrix<double> checked_moments(const char* function, RowMatrix<double> c, Index inputs) {
  check_extents<2>(function, "covariance", {c.rows(), c.cols()}, {inputs, inputs});
  check_finite<double>(function, "covariance", const_view(c));
  return c;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// W ~ S D by blocks of outputs.
///
/// \param backend left out: pare::simd
/// \param w       [outputs x inputs], any dense Eigen matrix of float, double, bf16 or f16
/// \param options extents and when to stop
/// \return        the weight in compute_t of w's scalar, atoms of norm 1, and the losses
/// \throws std::invalid_argument if w is empty or not finite, an option is out of its range, the
///         sum of squares is beyond double, or a value does not fit its scalar
///
/// An output of zeros has a code of zeros. Everything is computed in double. Cost per sweep, FLOPs:
/// outputs atoms nonzeros^2 for the codes, in L2, which bind from about 30 nonzeros on; products of
/// 4 outputs inputs atoms; 2 outputs nonzeros inputs and atoms^3 for the atoms. Memory: a block of
/// W, its correlations [block x atoms] and Gram matrices [atoms x atoms], all in double. The bits
/// are the same for every executor.
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
