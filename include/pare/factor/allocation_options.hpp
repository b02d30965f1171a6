// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Layers to allocate ranks to (allocate_ranks.hpp), and how it is done.
///
/// ```cpp
/// const LayerSpectrum layer{.out = 4096, .in = 1024, .singular_values = lowrank.singular_values,
///                           .total_energy = lowrank.total_energy};
/// auto equal = allocate_ranks(layers, budget, {.score = RankScore::UniformShare});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

#include <optional>

namespace pare::factor {

/// The score of a step of a layer from rank k to k'. With s its singular values and E its total
/// energy, tail(k) is E minus the squares of the first k, gain the squares that the step captures,
/// cost that of the step, and w the layer's importance.
///
/// A lower sum of errors need not be a better model: try UniformShare first. On all-MiniLM-L6-v2,
/// in the covariance metric at half of the parameters, the mean cosine between embeddings by the
/// factored and by the whole model is .843 for UniformShare, .780 for EnergyShare, .781 for
/// NormalizedEnergy and .703 for AbsoluteEnergy (bench/minilm_compress).
enum class RankScore {
  /// w gain / E / cost: minimises the sum of w tail / E, the layers' relative squared errors. The
  /// minimum is exact if steps cost the same and no layer becomes dense; with Never and Foreseen
  /// also for other costs, up to the last steps that do not fit.
  NormalizedEnergy,

  /// w gain / cost: minimises the sum of w tail in the same way. For spectra in one metric, whose
  /// squared errors can be added up.
  AbsoluteEnergy,

  /// w tail(k) / E: gives the step to the layer that has lost the most. All layers then capture the
  /// same share of their energy, as large as fits (with importance: the same w tail / E).
  EnergyShare,

  /// Minus (the layer's cost after the step) / (out in): every layer keeps the same share of its
  /// parameters. Reads no spectra.
  UniformShare,

  /// w gain / tail(k) / cost: eq. 1 of the paper. It does not see the scale of the tail, and so
  /// favours the layers whose spectra fall fastest until they are full: for s_m = q^m the score is
  /// the same at each rank. In the paper's own tables it is often worse than uniform ranks.
  CareResidualRatio,

  /// What the paper's code does: w gain / E / cost, divided by max(tail(k) / E, 1e-12) and by
  /// sqrt(k / least rank), times sqrt((L - l) / ((L + 1) / 2)) for layer l = 0, 1, ... of L. The
  /// paper's code bounds ranks to half and twice their mean; here RankBounds does.
  CareCode,
};

/// When a layer stays dense.
enum class DenseLayers {
  /// A layer never stays dense: ranks go up to max_rank, also where factors are larger than W.
  Never,

  /// A layer becomes dense when its rank would pass the largest at which factors are smaller than
  /// W. That step is the last, and scores what the rest of W does. The sum of errors is not minimal
  /// where spectra fall slowly. Measured on the 36 linear layers of all-MiniLM-L6-v2, in the
  /// covariance metric at half of the parameters: 7 % (NormalizedEnergy) and 13 % (AbsoluteEnergy)
  /// above a lower bound, that of the Lagrangian, where Foreseen is .1 % above it
  /// (bench/minilm_compress).
  AtBreakEven,

  /// A layer may become dense from any lower rank too, if that step scores more than the next rank
  /// does: the objective includes the break at the dense matrix. Of layers whose spectra fall
  /// slowly some are then dense and others low. The sum of errors is close to its minimum, which
  /// need not be the best model (RankScore). For EnergyShare and UniformShare, whose steps have no
  /// such order, this is the same as AtBreakEven.
  Foreseen,
};

/// Ranks that a layer may have.
struct RankBounds {
  Index min_rank = 1;               ///< at least 1
  std::optional<Index> max_rank{};  ///< at least min_rank; left out: the most there are
  Index multiple = 1;               ///< ranks are multiples of it, which kernels like
};

PARE_ABI_BEGIN

/// A weight W [out x in] to allocate a rank to.
struct LayerSpectrum {
  Index out = 0, in = 0;

  /// Not increasing, in the metric of the factorization. The smallest may be left out: no rank
  /// passes their number. Not read by UniformShare, nor where bounds leave only the dense matrix.
  Eigen::VectorXd singular_values{};

  /// Squared norm of W in the metric; left out: that of the singular values.
  std::optional<double> total_energy{};

  double importance = 1;     ///< of its error beside that of others, at least 0
  Index parameter_cost = 1;  ///< of one number in units of the budget: 1 counts numbers, 2 bytes of
                             ///< bf16, 4 bits of 4-bit storage
  RankBounds bounds{};

  /// What factors of the rank take of the budget; 0: what W itself does.
  Index cost(Index rank) const {
    return (rank == 0 ? out * in : rank * (out + in)) * parameter_cost;
  }
};

PARE_ABI_END

/// How ranks are allocated.
struct AllocationOptions {
  RankScore score = RankScore::NormalizedEnergy;
  DenseLayers dense = DenseLayers::AtBreakEven;
};

}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
