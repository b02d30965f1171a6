// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a draft head is asked for, and what it answers: of each row of hidden states the k largest
/// logits, their log-sum-exp and a draw, without a row of logits in memory.
///
/// ```cpp
/// HeadSummary<float> top;                                  // memory kept between calls
/// head.reduce(pare::simd, hidden, {.k = 8, .temperature = 0.7}, top);  // hidden [rows, inputs]
/// top.id(0, 0);                                            // the likeliest token of row 0
/// top.log_probability(0, 0);                               // log softmax(z / 0.7) of it
/// top.status[0] == RowStatus::Sound;                       // row 0 is a law of probability
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/gumbel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/draft/sampling_options.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace pare::draft {

/// Whether a row of logits is a law of probability.
enum class RowStatus : std::uint8_t {
  Sound,      ///< some logit is finite, and none is NaN or +infinity
  NoMass,     ///< all logits are -infinity
  NotFinite,  ///< a logit is NaN or +infinity, or the largest over the temperature is beyond double
};

/// What is wanted of each row of logits z [outputs].
struct HeadRequest {
  /// The k largest logits, at least 0; more than the head has outputs: all of them.
  Index k = 0;

  /// T of softmax(z / T): finite, at least 0. Below 1e-5 a draw is the largest logit, of equal ones
  /// that of the lowest id, and log-sum-exp is that of T = 1.
  double temperature = 1;

  /// A draw of the law softmax(z / T): the i of the largest z_i / T + G_i with this noise. Left
  /// out: none.
  std::optional<GumbelNoise> noise{};

  /// [rows] the position of each row's noise, with noise; rows of one position share theirs.
  std::span<const Index> positions{};
};

PARE_ABI_BEGIN

/// The answer. Calls reuse its memory.
///
/// A row that is not Sound has ids -1, values and log-sum-exp NaN (NotFinite) or -infinity
/// (NoMass), and draws -1.
template <ComputeScalar T>
struct HeadSummary {
  Index rows = 0;
  Index k = 0;             ///< at most the head's outputs
  double temperature = 1;  ///< of log_sum_exp
  std::vector<T> values;   ///< [rows x k] logits z: falling, of equal ones the lower id first
  std::vector<std::int32_t> ids;    ///< [rows x k] their tokens
  std::vector<double> log_sum_exp;  ///< [rows] log sum_i e^(z_i / T) over all outputs
  std::vector<double> maximum;      ///< [rows] the largest logit
  std::vector<std::int32_t> drawn;  ///< [rows] if a draw was asked for
  std::vector<RowStatus> status;    ///< [rows]

  T value(Index row, Index rank) const { return values[at(row, rank)]; }
  std::int32_t id(Index row, Index rank) const { return ids[at(row, rank)]; }
  /// log softmax(z / T) of the token of a rank.
  double log_probability(Index row, Index rank) const {
    return static_cast<double>(value(row, rank)) / temperature -
           log_sum_exp[static_cast<std::size_t>(row)];
  }

 private:
  std::size_t at(Index row, Index rank) const { return static_cast<std::size_t>(row * k + rank); }
};

/// \throws std::invalid_argument if k is negative, the temperature is negative or not finite, or
///         there are positions for another number of rows.
inline void validate(const char* function, const HeadRequest& request, Index rows) {
  check(request.k >= 0, function, "k", request.k, "at least 0");
  check(is_finite(request.temperature) && request.temperature >= 0, function, "temperature",
        request.temperature, "a finite number of at least 0");
  if (request.noise)
    check(static_cast<Index>(request.positions.size()) == rows, function, "positions",
          request.positions.size(), Worded{"one for each of ", rows, " rows"});
  else
    check(request.positions.empty(), function, "positions", request.positions.size(),
          "none without noise");
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
