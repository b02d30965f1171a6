// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows as sums of a few atoms: orthogonal matching pursuit by Gram matrix (batch OMP).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/kernel/pursuit.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Codes of rows, places ascending, and what they leave of each row's squared norm.
struct SparseCodes {
  RowMatrix<double> values;        ///< [rows x nonzeros]
  RowMatrix<std::int32_t> places;  ///< [rows x nonzeros]
  Eigen::VectorXd errors;          ///< [rows]
};

/// What a pursuit reads: atoms of unit norm, or of norm 0.
struct PursuitProblem {
  RowMatrix<double> gram;          ///< [atoms x atoms]
  RowMatrix<double> correlations;  ///< [rows x atoms], of rows and atoms
  Eigen::VectorXd energies;        ///< [rows], squared norms
};

/// An atom is taken for a sum of those chosen before if less than this is left of its squared norm.
inline constexpr double least_pivot = 1e-10;
/// Correlations below this of a row's norm are rounding.
inline constexpr double least_correlation = 1e-13;

/// A code in the order of its choices.
struct ChosenAtoms {
  std::vector<Index> atoms;
  std::vector<double> values;
};

/// Sorted by place; unused entries are zeros at the first atoms that are not in use.
inline void write_code(const ChosenAtoms& chosen, std::vector<std::pair<Index, double>>& sorted,
                       Index nonzeros, std::int32_t* places, double* values) {
  sorted.clear();
  for (std::size_t i = 0; i < chosen.atoms.size(); ++i)
    sorted.emplace_back(chosen.atoms[i], chosen.values[i]);
  std::sort(sorted.begin(), sorted.end());
  const std::size_t used = sorted.size();
  for (Index atom = 0, i = 0; static_cast<Index>(sorted.size()) < nonzeros; ++atom) {
    const auto at = static_cast<std::size_t>(i);
    if (at < used && sorted[at].first == atom)
      ++i;
    else
      sorted.emplace_back(atom, 0.0);
  }
  std::sort(sorted.begin(), sorted.end());
  for (const auto& [atom, value] : sorted) {
    *places++ = static_cast<std::int32_t>(atom);
    *values++ = value;
  }
}

/// The pursuit of one row after the other, each step by the kernel.
template <class B>
class Pursuit {
 public:
  Pursuit(const B& backend, const PursuitProblem& problem, Index nonzeros)
      : backend_(backend),
        problem_(problem),
        nonzeros_(nonzeros),
        rows_(nonzeros, problem.gram.cols()),
        correlations_(problem.gram.cols()) {}

  /// Chooses for a row; returns what is left of its squared norm.
  double run(Index row) {
    const Index atoms = problem_.gram.cols();
    correlations_ = problem_.correlations.row(row);
    chosen.atoms.clear();
    closed_.clear();
    shares_.clear();
    pivots_.clear();
    const double energy = problem_.energies(row);
    const double least = least_correlation * std::sqrt(energy);
    double kept = 0;
    while (static_cast<Index>(chosen.atoms.size()) < nonzeros_) {
      Index atom = 0;
      launch(backend_, kernel::LargestSize<double>{correlations_.data(), atoms, &atom});
      if (!(std::abs(correlations_(atom)) > least)) break;
      kept += add(atom);
    }
    solve();
    return std::max(energy - kept, 0.0);
  }

  ChosenAtoms chosen;

 private:
  /// Adds an atom, if it is no sum of those before; returns what it takes from the squared norm.
  double add(Index atom) {
    const auto count = static_cast<Index>(chosen.atoms.size());
    factors_.resize(static_cast<std::size_t>(nonzeros_));
    double pivot = problem_.gram(atom, atom);
    for (Index j = 0; j < count; ++j) {
      const double factor = rows_(j, atom);
      factors_[static_cast<std::size_t>(j)] = factor;
      pivot -= factor * factor;
    }
    closed_.push_back(atom);
    double share = 0;
    if (pivot > least_pivot) {
      pivot = std::sqrt(pivot);
      share = correlations_(atom) / pivot;
      const Index atoms = problem_.gram.cols();
      launch(backend_,
             kernel::PursuitStep<double>{&problem_.gram(atom, 0), rows_.data(), atoms,
                                         factors_.data(), count, atoms, pivot, share,
                                         rows_.data() + count * atoms, correlations_.data()});
      chosen.atoms.push_back(atom);
      shares_.push_back(share);
      pivots_.push_back(pivot);
    }
    for (const Index other : closed_) correlations_(other) = 0;
    return share * share;
  }

  /// Values of the chosen atoms: L^T c = shares.
  void solve() {
    chosen.values = shares_;
    for (std::size_t j = chosen.values.size(); j-- > 0;) {
      double& value = chosen.values[j];
      for (std::size_t i = j + 1; i < chosen.values.size(); ++i)
        value -= rows_(static_cast<Index>(j), chosen.atoms[i]) * chosen.values[i];
      value /= pivots_[j];
    }
  }

  const B& backend_;
  const PursuitProblem& problem_;
  Index nonzeros_;
  RowMatrix<double> rows_;  ///< of L^-1 G_I
  Eigen::RowVectorXd correlations_;
  std::vector<Index> closed_;
  std::vector<double> factors_, shares_, pivots_;
};

/// The definition: after each choice the values of all chosen atoms are solved for anew, by a
/// Cholesky decomposition of their Gram matrix, and all correlations computed from them.
class ReferencePursuit {
 public:
  ReferencePursuit(const PursuitProblem& problem, Index nonzeros)
      : problem_(problem), nonzeros_(nonzeros) {}

  double run(Index row) {
    const Index atoms = problem_.gram.cols();
    chosen = {};
    std::vector<bool> closed(static_cast<std::size_t>(atoms), false);
    Eigen::RowVectorXd left = problem_.correlations.row(row);
    const double energy = problem_.energies(row);
    while (static_cast<Index>(chosen.atoms.size()) < nonzeros_) {
      Index best = -1;
      for (Index a = 0; a < atoms; ++a)
        if (!closed[static_cast<std::size_t>(a)] &&
            (best < 0 || std::abs(left(a)) > std::abs(left(best))))
          best = a;
      if (best < 0 || !(std::abs(left(best)) > least_correlation * std::sqrt(energy))) break;
      closed[static_cast<std::size_t>(best)] = true;
      chosen.atoms.push_back(best);
      if (!solve(row)) {
        chosen.atoms.pop_back();
        continue;
      }
      left = problem_.correlations.row(row);
      for (std::size_t i = 0; i < chosen.atoms.size(); ++i)
        left -= chosen.values[i] * problem_.gram.row(chosen.atoms[i]);
    }
    double kept = 0;
    for (std::size_t i = 0; i < chosen.atoms.size(); ++i)
      kept += chosen.values[i] * problem_.correlations(row, chosen.atoms[i]);
    return std::max(energy - kept, 0.0);
  }

  ChosenAtoms chosen;

 private:
  /// Values for the chosen atoms; false, and the values before, if the last is a sum of the others.
  bool solve(Index row) {
    const auto n = static_cast<Index>(chosen.atoms.size());
    const auto atom = [&](Index i) { return chosen.atoms[static_cast<std::size_t>(i)]; };
    RowMatrix<double> l(n, n);
    Eigen::VectorXd x(n);
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j <= i; ++j) {
        double rest = problem_.gram(atom(i), atom(j));
        for (Index k = 0; k < j; ++k) rest -= l(i, k) * l(j, k);
        if (i == j && !(rest > least_pivot)) return false;
        l(i, j) = i == j ? std::sqrt(rest) : rest / l(j, j);
      }
      x(i) = problem_.correlations(row, atom(i));
      for (Index k = 0; k < i; ++k) x(i) -= l(i, k) * x(k);
      x(i) /= l(i, i);
    }
    for (Index i = n; i-- > 0;) {
      for (Index k = i + 1; k < n; ++k) x(i) -= l(k, i) * x(k);
      x(i) /= l(i, i);
    }
    chosen.values.assign(x.data(), x.data() + n);
    return true;
  }

  const PursuitProblem& problem_;
  Index nonzeros_;
};

/// What a code leaves of its row's squared norm: e - 2 c^T a + c^T G c.
inline double code_error(const PursuitProblem& problem, const SparseCodes& codes, Index row) {
  double error = problem.energies(row);
  for (Index k = 0; k < codes.values.cols(); ++k) {
    double product = 0;
    for (Index j = 0; j < codes.values.cols(); ++j)
      product += codes.values(row, j) * problem.gram(codes.places(row, k), codes.places(row, j));
    error += codes.values(row, k) * (product - 2 * problem.correlations(row, codes.places(row, k)));
  }
  return std::max(error, 0.0);
}

/// Rows that one worker codes before it asks for more.
inline constexpr Index coded_rows = 16;

/// Codes of all rows. A row that has a code with its error, `keeps`, gets another only if that
/// leaves less.
template <class B>
void find_codes(const B& backend, const PursuitProblem& problem, bool keeps, SparseCodes& codes) {
  const Index rows = problem.correlations.rows(), nonzeros = codes.values.cols();
  const auto code_rows = [&](auto& pursuit, std::vector<std::pair<Index, double>>& sorted,
                             Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const double error = pursuit.run(row);
      if (keeps && !(error < codes.errors(row))) continue;
      write_code(pursuit.chosen, sorted, nonzeros, &codes.places(row, 0), &codes.values(row, 0));
      codes.errors(row) = error;
    }
  };
  if constexpr (KernelBackend<B>) {
    const Index items = ceil_div(rows, coded_rows);
    const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
    std::vector<Pursuit<B>> pursuits(workers, Pursuit<B>(backend, problem, nonzeros));
    std::vector<std::vector<std::pair<Index, double>>> sorted(workers);
    parallel_for(backend.executor, items, [&](Index item, int worker) {
      const auto w = static_cast<std::size_t>(worker);
      code_rows(pursuits[w], sorted[w], item * coded_rows, std::min(rows, (item + 1) * coded_rows));
    });
  } else {
    ReferencePursuit pursuit(problem, nonzeros);
    std::vector<std::pair<Index, double>> sorted;
    code_rows(pursuit, sorted, 0, rows);
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail

#include <pare/core/macros_on.hpp>
