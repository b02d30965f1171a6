// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One block of outputs: codes and atoms in turn, no half-step of which raises the loss.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/structured/detail/dictionary.hpp>
#include <pare/factor/structured/detail/sparse_codes.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Atoms and codes to start from; `codes` may have no rows, with atoms alone.
struct BlockStart {
  RowMatrix<double> atoms;
  SparseCodes codes;
};

struct BlockFit {
  RowMatrix<double> atoms;
  SparseCodes codes;
  std::vector<double> losses;  ///< at the start and after each sweep
  double energy = 0;
};

struct BlockSettings {
  Index nonzeros = 1;
  int sweeps = 0;
  double tolerance = 0;
  double ridge = 0;
};

/// Squared norms of rows in the metric.
template <class B>
Eigen::VectorXd row_energies(const B& backend, const RowMatrix<double>& w,
                             const RowMatrix<double>* covariance) {
  if (covariance == nullptr) return w.rowwise().squaredNorm();
  const RowMatrix<double> dual = product(backend, const_view(w), const_view(*covariance));
  Eigen::VectorXd energies(w.rows());
  for (Index o = 0; o < w.rows(); ++o) energies(o) = std::max(w.row(o).dot(dual.row(o)), 0.0);
  return energies;
}

/// The fit of a block of outputs w [block x inputs], in the metric of a covariance if there is one.
template <class B>
class BlockFitter {
 public:
  BlockFitter(const B& backend, const RowMatrix<double>& w, const RowMatrix<double>* covariance,
              const BlockSettings& settings)
      : backend_(backend), w_(w), covariance_(covariance), settings_(settings) {}

  BlockFit run(BlockStart start) {
    const Eigen::VectorXd energies = row_energies(backend_, w_, covariance_);
    Dictionary dictionary =
        dictionary_of(backend_, w_, covariance_, energies, std::move(start.atoms));
    BlockFit fit;
    fit.energy = energies.sum();
    fit.codes = std::move(start.codes);
    const bool warm = fit.codes.values.rows() == w_.rows();
    if (warm)
      carry_codes(dictionary, fit.codes);
    else
      clear_codes(fit.codes);
    if (settings_.sweeps == 0 || !warm) find_codes(backend_, dictionary.problem, warm, fit.codes);
    fit.losses.push_back(fit.codes.errors.sum());
    for (int sweep = 0; sweep < settings_.sweeps; ++sweep)
      if (!improve(energies, dictionary, fit)) break;
    fit.atoms = std::move(dictionary.atoms);
    return fit;
  }

 private:
  void clear_codes(SparseCodes& codes) const {
    codes.values = RowMatrix<double>::Zero(w_.rows(), settings_.nonzeros);
    codes.places = RowMatrix<std::int32_t>::Zero(w_.rows(), settings_.nonzeros);
    codes.errors = Eigen::VectorXd::Zero(w_.rows());
  }

  /// Codes of atoms that have been scaled, and their errors.
  static void carry_codes(const Dictionary& dictionary, SparseCodes& codes) {
    for (Index e = 0; e < codes.values.size(); ++e)
      codes.values.data()[e] *= dictionary.norms(codes.places.data()[e]);
    codes.errors.resize(codes.values.rows());
    for (Index row = 0; row < codes.values.rows(); ++row)
      codes.errors(row) = code_error(dictionary.problem, codes, row);
  }

  /// A sweep: atoms for the codes, then codes for the atoms. Atoms that would raise the loss, by
  /// rounding or by the ridge, are not taken. False if the sweeps are at their end.
  bool improve(const Eigen::VectorXd& energies, Dictionary& dictionary, BlockFit& fit) const {
    const double before = fit.losses.back();
    if (!(before > 0) || fit.codes.values.isZero(0)) return false;
    Dictionary next = dictionary_of(
        backend_, w_, covariance_, energies,
        fitted_atoms(backend_, w_, fit.codes, dictionary.atoms.rows(), settings_.ridge));
    SparseCodes carried = fit.codes;
    carry_codes(next, carried);
    if (carried.errors.sum() <= before) {
      dictionary = std::move(next);
      fit.codes = std::move(carried);
    }
    find_codes(backend_, dictionary.problem, true, fit.codes);
    const double after = std::min(fit.codes.errors.sum(), before);
    fit.losses.push_back(after);
    return before - after > settings_.tolerance * before;
  }

  const B& backend_;
  const RowMatrix<double>& w_;
  const RowMatrix<double>* covariance_;
  BlockSettings settings_;
};

PARE_ABI_END
}  // namespace pare::factor::detail

#include <pare/core/macros_on.hpp>
