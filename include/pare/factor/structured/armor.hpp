// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// ARMOR: a 2:4 sparse matrix between two block-diagonal ones, W ~ A S B, which loses a fraction of
/// what pruning alone loses, for the bytes of the blocks.
///
/// ```cpp
/// Covariance covariance(in);
/// for (...) covariance.add(activations);                       // or mean squares in a vector
/// const auto f = armor(w, SecondMoments(covariance), {.block = 64, .sweeps = 5});
/// f.left; f.core; f.right;                                     // A, S, B
/// f.loss_history;                                              // never rises
/// ```
///
/// W [outputs, inputs] is normalised (normalized_weight.hpp) to Wbar, and sum_ij h_j (Wbar - A S
/// B)_ij^2 falls by exact half-steps: every block of A, the others given, is W_i D (S_i B)^T times
/// the inverse of (S_i B) D (S_i B)^T with D = diag(h); every block of B is (Q^T Q)^-1 Q^T W_j with
/// Q = A S_j; and for every group of four entries of S the best values of the best of its six
/// masks. It starts from A = I, B = I and the entries that NoWag-P keeps, so that it ends at or
/// below NoWag-P, which ends at or below every other choice of entries of W. The norms are then put
/// back, into the rows of A and the columns of B.
///
/// Source: Liu, Liu, Wang, Zhao and Yang, "ARMOR", arXiv 2510.05528: the form, the loss, the
/// start. Its code takes an Adam step on A, B and S and updates one group of each block, drawn at
/// random, in an iteration, whose loss may rise. Ours: the exact half-steps in the place of Adam
/// (theorem 3.1 of the paper is said to be about them; its text was not read); every group in each
/// sweep, in order; a ridge on the change of a block, 1e-6 (double: 1e-12) of the mean of the
/// diagonal of its normal equations (on `pare::reference` 1e-12 on the block itself); and a step is
/// taken back where the measured loss does not fall.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/block_diagonal.hpp>
#include <pare/factor/structured/detail/armor_fit.hpp>
#include <pare/factor/structured/detail/armor_problem.hpp>
#include <pare/factor/structured/detail/reference_armor.hpp>
#include <pare/factor/structured/normalized_weight.hpp>
#include <pare/factor/structured/second_moments.hpp>
#include <pare/factor/structured/select_two_four.hpp>
#include <pare/factor/structured/two_four.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor {

/// Options of `armor`.
struct ArmorOptions {
  /// Inputs of a block of B, and outputs of one of A: a multiple of 4 that divides both. The
  /// paper's experiments have 128, the configuration of its code 32. Blocks take block (1 / inputs
  /// + 1 / outputs) of the bytes of the dense weight, beside the 0.53 of the core in float: 0.06 of
  /// 4096 x 4096, but 0.42 of a layer of MiniLM, 384 to 1536, whose loss falls to .024 then. Blocks
  /// of 32 take 0.10 there and end at .070; NoWag-P has .124.
  Index block = 128;

  /// Outputs of a block of A; left out: `block`.
  std::optional<Index> output_block{};

  /// The most sweeps that run, at least 0: of 0, the result is NoWag-P. Our default.
  int sweeps = 5;

  /// Stops after a sweep that lowers the loss by no more than this share of it; at least 0, and 0
  /// stops where nothing is gained.
  double tolerance = 0;
};

PARE_ABI_BEGIN

/// W ~ left core right.
template <ComputeScalar T>
struct Armor {
  using scalar = T;

  BlockDiagonal<T> left;   ///< A [outputs x outputs]
  TwoFour<T> core;         ///< S [outputs x inputs]
  BlockDiagonal<T> right;  ///< B [inputs x inputs]

  /// The proxy loss (normalized_weight.hpp) at the start, which is that of NoWag-P, and after each
  /// step, three to a sweep: blocks of A, blocks of B, groups of S. No number is above the one
  /// before.
  std::vector<double> loss_history;

  Index outputs() const { return core.outputs(); }
  Index inputs() const { return core.inputs(); }
  /// Of all three.
  Index bytes() const { return left.bytes() + core.bytes() + right.bytes(); }

  /// A S B, in double before it is rounded; slow.
  RowMatrix<T> product() const {
    RowMatrix<double> s(outputs(), inputs());
    core.to_dense(s);
    RowMatrix<T> product(outputs(), inputs());
    const Index rows = left.block(), columns = right.block();
    for (Index i = 0; i < left.blocks(); ++i)
      for (Index j = 0; j < right.blocks(); ++j)
        product.block(i * rows, j * columns, rows, columns) =
            (row_matrix<double>(left.block_at(i)) * s.block(i * rows, j * columns, rows, columns) *
             row_matrix<double>(right.block_at(j)))
                .template cast<T>();
    return product;
  }
};

PARE_ABI_END
namespace detail {
template <class X>
using IsSecondMoments = std::bool_constant<std::constructible_from<SecondMoments, const X&>>;
PARE_ABI_BEGIN

inline void validate(const char* function, const ArmorOptions& o, Index outputs, Index inputs) {
  check(o.block >= 4 && o.block % 4 == 0, function, "block", o.block, "a multiple of 4");
  check(inputs % o.block == 0, function, "block", o.block,
        Worded{"a divisor of the inputs, ", inputs});
  const Index rows = o.output_block.value_or(o.block);
  const char* argument = o.output_block ? "output_block" : "block";
  check(rows >= 1, function, argument, rows, "at least 1");
  check(outputs % rows == 0, function, argument, rows,
        Worded{"a divisor of the outputs, ", outputs});
  check(o.sweeps >= 0, function, "sweeps", o.sweeps, "at least 0");
  check(is_finite(o.tolerance) && o.tolerance >= 0, function, "tolerance", o.tolerance,
        "a number of at least 0");
}

/// The start: Wbar with the entries of a mask.
template <class T, class B, class U>
ArmorProblem<T> armor_start(const B& backend, const NormalizedWeight<U>& n, const TwoFourMask& mask,
                            const SecondMoments& h, const ArmorOptions& o) {
  ArmorProblem<T> p;
  p.rows = o.output_block.value_or(o.block);
  p.columns = o.block;
  p.row_blocks = n.matrix.rows() / p.rows;
  p.column_blocks = n.matrix.cols() / p.columns;
  for (const double x : h.relative()) p.moments.push_back(static_cast<T>(x));
  p.left = row_matrix<T>(BlockDiagonal<T>(p.outputs(), p.rows).values());
  p.right = row_matrix<T>(BlockDiagonal<T>(p.inputs(), p.columns).values());
  p.weight.resize(p.row_blocks * p.column_blocks * p.rows, p.columns);
  p.core.resize(p.weight.rows(), p.columns);
  p.groups.resize(static_cast<std::size_t>(p.weight.size() / 4));
  p.losses.setZero(p.row_blocks, p.column_blocks);
  std::vector<double> energies(static_cast<std::size_t>(p.outputs()));
  each_row(backend, p.outputs(), [&](Index i) {
    double& energy = energies[static_cast<std::size_t>(i)];
    for (Index j = 0; j < p.inputs(); ++j) {
      const auto at = p.place(i, j);
      const T w = p.weight(at[0], at[1]) = static_cast<T>(n.matrix(i, j));
      p.core(at[0], at[1]) = mask.keeps(i, j) ? w : T(0);
      const auto wide = static_cast<double>(w);
      energy += static_cast<double>(p.moments[static_cast<std::size_t>(j)]) * wide * wide;
      if (j % 4 == 0) p.group_at(i, j) = static_cast<std::uint8_t>(mask.group_bits(i, j / 4));
    }
  });
  for (const double energy : energies) p.energy += energy;
  return p;
}

/// Sweeps of a solver; the history of the loss.
template <class Fit, class T>
std::vector<double> run_sweeps(Fit& fit, ArmorProblem<T>& p, const ArmorOptions& o) {
  fit.measure();
  std::vector<double> history{p.relative_loss()};
  // No step is taken that raises the loss of its blocks; their sum may round upwards.
  const auto note = [&] { history.push_back(std::min(history.back(), p.relative_loss())); };
  for (int sweep = 0; sweep < o.sweeps; ++sweep) {
    const double before = history.back();
    fit.fit_left();
    note();
    fit.fit_right();
    note();
    fit.fit_core();
    note();
    if (!(before - history.back() > o.tolerance * before)) break;
  }
  return history;
}

/// A, S and B with the norms put back, which the scalar of the result may not hold.
template <class U, class B, class T>
Armor<U> denormalized(const B& backend, ArmorProblem<T>& p, const std::vector<double>& input_norms,
                      const std::vector<double>& output_norms, std::vector<double> history) {
  Armor<U> r{BlockDiagonal<U>(p.outputs(), p.rows),
             {},
             BlockDiagonal<U>(p.inputs(), p.columns),
             std::move(history)};
  const auto fitting = [](T value, double norm) {
    const double product = static_cast<double>(value) * norm;
    const U rounded = static_cast<U>(product);
    check(is_finite(static_cast<double>(rounded)), "factor::armor", "w", product,
          "norms that fit the scalar of the result");
    return rounded;
  };
  for (Index i = 0; i < p.outputs(); ++i)
    for (Index k = 0; k < p.rows; ++k)
      r.left.own_values()(i, k) = fitting(p.left(i, k), output_norms[static_cast<std::size_t>(i)]);
  for (Index j = 0; j < p.inputs(); ++j)
    for (Index k = 0; k < p.columns; ++k) {
      const Index input = j / p.columns * p.columns + k;
      r.right.own_values()(j, k) =
          fitting(p.right(j, k), input_norms[static_cast<std::size_t>(input)]);
    }
  TwoFourMask mask(p.outputs(), p.inputs());
  RowMatrix<T> core(p.outputs(), p.inputs());
  each_row(backend, p.outputs(), [&](Index i) {
    for (Index j = 0; j < p.inputs(); ++j) {
      const auto at = p.place(i, j);
      core(i, j) = p.core(at[0], at[1]);
      if (j % 4 == 0) mask.set_group(i, j / 4, p.group_at(i, j));
    }
  });
  r.core = TwoFour<U>::from(core, std::move(mask));
  return r;
}

template <Backend B, StorageScalar S>
Armor<compute_t<S>> armor_views(const B& backend, TensorView<const S, 2> w, const SecondMoments& h,
                                const ArmorOptions& options) {
  using U = compute_t<S>;
  using T = std::conditional_t<KernelBackend<B>, U, double>;
  constexpr const char* function = "factor::armor";
  check_two_four_weight(function, w);
  validate(function, options, w.rows(), w.cols());
  check_moments(function, h, w.cols());
  auto n = normalized(function, backend, w);
  const TwoFourMask mask = two_four(backend, w, NowagP(h)).mask();
  ArmorProblem<T> p = armor_start<T>(backend, n, mask, h, options);
  n.matrix.resize(0, 0);
  std::vector<double> history;
  if constexpr (KernelBackend<B>) {
    ArmorFit<B, T> fit(backend, p);
    history = run_sweeps(fit, p, options);
  } else {
    ReferenceArmor<> fit(p);
    history = run_sweeps(fit, p, options);
  }
  return denormalized<U>(backend, p, n.input_norms, n.output_norms, std::move(history));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Fits A, S and B.
///
/// \param backend        left out: pare::simd
/// \param w              [outputs, inputs] of float, double, bf16 or f16, any strides
/// \param second_moments SecondMoments of the inputs, or what one is made of: a vector [inputs] or
///                       a Covariance
/// \param options        see ArmorOptions
/// \return               A, S and B in compute_t of w, and the history of the loss
/// \throws std::invalid_argument if the extents are no multiples of the blocks, or an option is out
///         of its range, there are not as many moments as inputs, or a number of w or the norm of
///         a column of it is not finite in the scalar of the result.
///         Of SecondMoments: if no moment is finite and above 0
///
/// Cost: of a sweep about 28 outputs inputs block FLOPs in compute_t, in products of matrices,
/// which bind; half of that for twice as many, smaller blocks. Memory: four matrices of w's size,
/// and up to (outputs + inputs) block for each worker. Same bits for any number of threads.
/// pare::reference takes the steps as they are defined, in double.
template <Backend B, In<2> W, class H>
requires std::constructible_from<SecondMoments, const H&>
Armor<compute_t<scalar_of<W>>> armor(const B& backend, const W& w, const H& second_moments,
                                     const ArmorOptions& options = {}) {
  return detail::armor_views(on_any_executor(backend), as_const(to_view(w)),
                             SecondMoments(second_moments), options);
}

/// \overload
template <In<2> W, class H>
requires std::constructible_from<SecondMoments, const H&>
Armor<compute_t<scalar_of<W>>> armor(const W& w, const H& second_moments,
                                     const ArmorOptions& options = {}) {
  return armor(simd, w, second_moments, options);
}

PARE_REFUSE_CALLS(armor, "factor::armor",
                  "after the moments: wanted ArmorOptions such as {.block = 64}, members spelt and "
                  "ordered as declared",
                  (INPUT, (roles::Reads<2>), "w", "[outputs, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsSecondMoments>), "second_moments",
                   "a SecondMoments, a Covariance, or a vector in memory of mean squares"))

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
