// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options of Leap (leap.hpp).
///
/// ```cpp
/// LeapOptions options{.alpha_per_field = 1e-3, .learning_rate = 1e-2, .seed = 3};
/// options.gate.kind = optim::GateKind::HardConcrete;
/// Leap<float> leap(layout, options);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/leap/divergence.hpp>
#include <pare/optim/gate.hpp>

#include <cstdint>

namespace pare::feature {

/// What Leap::evaluate does to a batch.
enum class EvalMode {
  Shuffle,  ///< mixes by the gates without noise, as the released code does
  Hard,     ///< keeps fields with a gate above 1/2 and permutes the others
  Off,      ///< passes the batch on
};

/// Options of Leap.
struct LeapOptions {
  /// What an open gate of average divergence costs, at least 0. With a linear model and squared
  /// error, such a field stays if dropping it would raise the loss by more than half of this
  /// (derived). Gates that learn from n held-out rows cannot resolve less than about 3 / n
  /// (measured). The authors give the penalty as a total of all fields; per field, theirs come to
  /// 0.011 (MovieLens-1M, 9 fields), 0.0005 (Criteo, 39), 0.00023 (Avazu, 22) and 0.00005 (AliCCP,
  /// 23).
  double alpha_per_field = 1e-3;

  /// How the penalty differs between gates; Uniform is the released code's.
  Penalty penalty = Penalty::Rms;

  /// The least lambda_j, at least 0. Above 0, fields that never move close too.
  double penalty_floor = 0;

  optim::GateOptions gate{};

  /// How donors are drawn. Uniform is the source's. BaseShift draws as evenly for any order of the
  /// rows, never gives a row its own value, and is several times cheaper.
  DonorPolicy donors = DonorPolicy::BaseShift;

  /// Which rows of sparse batches exchange what they hold (donors.hpp). With anything but Rows a
  /// dense batch is refused, since nobody knows which of its rows are at a default. Ours.
  SparseExchange exchange = SparseExchange::Rows;

  /// Whether donors' values count as constants in gradients by x, as in the source.
  bool detach = true;

  /// Rate of Adam on theta, above 0. From theta = 1 a gate needs about 1 / learning_rate steps to
  /// close: take learning_rate * steps >= 3, with 1e-2 for small data.
  double learning_rate = 1e-3;

  /// Whether Adam leaves a gate alone while its field does not move in a batch. In the source, Adam
  /// moves it on by its momentum.
  bool lazy = false;

  /// Steps over which the penalty grows from 0 to alpha_per_field, at least 0.
  Index warmup_steps = 0;

  EvalMode eval_mode = EvalMode::Shuffle;

  /// Batches in which a field must have moved for its score to count as determined, at least 0.
  Index min_active = 200;

  /// Seed of donors and gate noise.
  std::uint64_t seed = 0;
};

PARE_ABI_BEGIN
/// Checks the options; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range
inline void validate(const char* function, const LeapOptions& o) {
  check(is_finite(o.alpha_per_field) && o.alpha_per_field >= 0, function, "alpha_per_field",
        o.alpha_per_field, "a number of at least 0");
  validate(function, o.penalty);
  validate(function, o.donors);
  validate(function, o.exchange);
  check_enumerator(function, "eval_mode", o.eval_mode, EvalMode::Off);
  check(is_finite(o.penalty_floor) && o.penalty_floor >= 0, function, "penalty_floor",
        o.penalty_floor, "a number of at least 0");
  validate(function, o.gate);
  check(is_finite(o.learning_rate) && o.learning_rate > 0, function, "learning_rate",
        o.learning_rate, "a number above 0");
  check(o.warmup_steps >= 0, function, "warmup_steps", o.warmup_steps, "at least 0");
  check(o.min_active >= 0, function, "min_active", o.min_active, "at least 0");
}
PARE_ABI_END

}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
