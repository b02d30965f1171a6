// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Losses of pairs, one of which is to come before the other: BPR of scores, DPO of
/// log-probabilities.
///
/// ```cpp
/// double loss = bpr(positive, negative, by_positive, by_negative);  // scores; gradients written
/// loss = dpo({winner, loser, ref_winner, ref_loser}, {.beta = 0.1}, by_winner, by_loser);
/// ```
///
///     BPR = mean of -ln sigma(s+ - s-)
///     DPO = mean of -ln sigma(beta m),   m = (ln p(w) - ln p_ref(w)) - (ln p(l) - ln p_ref(l))
///
/// with sigma(x) = 1 / (1 + e^-x). Gradients are those by the scores and by ln p; of DPO
/// d/d ln p(w) = -beta sigma(-beta m) / pairs, and for the loser the same with the other sign.
///
/// Inputs may be any finite numbers: differences of them that no double can hold do not overflow on
/// the way, and a margin, or a loss, beyond the largest double is taken as that. Losses and
/// gradients are always finite.
///
/// Sources: Rendle et al., UAI 2009; Rafailov et al., NeurIPS 2023. OneRec (arXiv 2502.18965) adds
/// lambda times DPO of its best and worst session to its loss; its lambda and beta are not public.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/retrieval/detail/pair_losses.hpp>

#include <cstddef>
#include <span>

namespace pare::retrieval {

/// Options of dpo.
struct DpoOptions {
  double beta = 0.1;  ///< above 0, finite; .1 is usual, that of OneRec not public
};

/// Log-probabilities of pairs of sequences, [pairs] each: numbers that are finite.
struct DpoPairs {
  std::span<const double> winner;            ///< ln p(w), of the model that learns
  std::span<const double> loser;             ///< ln p(l)
  std::span<const double> reference_winner;  ///< ln p_ref(w), of the one that it started as
  std::span<const double> reference_loser;   ///< ln p_ref(l)
};

PARE_ABI_BEGIN

/// BPR's loss of pairs of scores, whose gradients it writes.
///
/// \param positive,negative       [pairs] finite, at least one pair
/// \param by_positive,by_negative [pairs] written, apart from the scores and each other; or empty,
///                                both, for the loss alone
/// \throws std::invalid_argument if sizes differ, there is no pair, a score is not finite, or an
///         output overlaps. Nothing is written then.
inline double bpr(std::span<const double> positive, std::span<const double> negative,
                  std::span<double> by_positive = {}, std::span<double> by_negative = {}) {
  constexpr const char* function = "retrieval::bpr";
  detail::check_numbers(function, "positive", positive, positive.size());
  detail::check_numbers(function, "negative", negative, positive.size());
  detail::check_outputs(function, {{"by_positive", by_positive}, {"by_negative", by_negative}},
                        {{"positive", positive}, {"negative", negative}});
  return detail::pair_losses(
      positive.size(), 1,
      [&](std::size_t i) { return detail::scaled_margin(1, positive[i], negative[i], 0, 0); },
      by_positive, by_negative);
}

/// DPO's loss of pairs, whose gradients by the log-probabilities of the model that learns it
/// writes.
///
/// \param pairs              see DpoPairs, at least one. A pair whose sequences are the same has
///                           nothing to teach: leave it out
/// \param options            see DpoOptions
/// \param by_winner,by_loser [pairs] as bpr
/// \throws std::invalid_argument as bpr, or if beta is out of its range
inline double dpo(const DpoPairs& pairs, const DpoOptions& options = {},
                  std::span<double> by_winner = {}, std::span<double> by_loser = {}) {
  constexpr const char* function = "retrieval::dpo";
  check(options.beta > 0 && is_finite(options.beta), function, "beta", options.beta,
        "a finite number above 0");
  const std::size_t size = pairs.winner.size();
  detail::check_numbers(function, "winner", pairs.winner, size);
  detail::check_numbers(function, "loser", pairs.loser, size);
  detail::check_numbers(function, "reference_winner", pairs.reference_winner, size);
  detail::check_numbers(function, "reference_loser", pairs.reference_loser, size);
  detail::check_outputs(function, {{"by_winner", by_winner}, {"by_loser", by_loser}},
                        {{"winner", pairs.winner},
                         {"loser", pairs.loser},
                         {"reference_winner", pairs.reference_winner},
                         {"reference_loser", pairs.reference_loser}});
  return detail::pair_losses(
      size, options.beta,
      [&](std::size_t i) {
        return detail::scaled_margin(options.beta, pairs.winner[i], pairs.reference_winner[i],
                                     pairs.loser[i], pairs.reference_loser[i]);
      },
      by_winner, by_loser);
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
