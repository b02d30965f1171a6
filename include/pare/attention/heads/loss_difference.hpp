// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// AttentionInfluence's score of a document: what a model's loss on it rises by when its retrieval
/// heads attend to all keys alike.
///
/// ```cpp
/// // losses -log p(token | those before it) of the tokens but the first; in `masked` the heads of
/// // retrieval_heads.hpp are uniform (head_modes.hpp)
/// const double score = document_score(losses_of(model, text), losses_of(masked, text));
/// const std::vector<Index> kept = top_documents(scores_of_domain, 0.2);
/// ```
///
///     score = (L_masked - L) / L,   L = mean cross-entropy of the tokens of the document
///
/// A high score says that the document asks the model to look back. It rewards repetition: remove
/// duplicates first, and compare within one domain only, since L is of another size elsewhere.
///
/// Source: Hua et al., "AttentionInfluence", arXiv 2505.07293, eq. 5 (their figure 3 divides by
/// L_masked, a slip). They keep the top 20 % of each domain.

#include <pare/core/macros_off.hpp>

#include <pare/attention/heads/detail/top_share.hpp>
#include <pare/core/check.hpp>

#include <span>
#include <vector>

namespace pare::attention {
PARE_ABI_BEGIN

/// (masked - base) / base.
///
/// \param base   the mean loss of the model as it is, above 0
/// \param masked the mean loss without some heads
/// \throws std::invalid_argument if either is not finite, or base is not above 0: nothing is
///         measured by a loss of nothing
inline double loss_difference(double base, double masked) {
  constexpr const char* function = "attention::loss_difference";
  check(is_finite(base) && base > 0, function, "base", base, "a finite loss above 0");
  check(is_finite(masked), function, "masked", masked, "a finite loss");
  return (masked - base) / base;
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// The mean of losses, summed in their order.
inline double mean_loss(const char* argument, std::span<const double> losses) {
  double sum = 0;
  for (const double loss : losses) {
    check(is_finite(loss), "attention::document_score", argument, loss, "finite losses");
    sum += loss;
  }
  return sum / static_cast<double>(losses.size());
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The score of a document from the losses of its tokens.
///
/// \param base   [tokens - 1] losses of the tokens but the first, by the model as it is
/// \param masked [tokens - 1] the same without some heads
/// \throws std::invalid_argument if there is no loss (a document of fewer than 2 tokens), the lists
///         differ in length, a loss is not finite, or the mean of `base` is not above 0
///
/// Cost: one pass. Sums are in double and in the order of the tokens.
inline double document_score(std::span<const double> base, std::span<const double> masked) {
  constexpr const char* function = "attention::document_score";
  check(!base.empty(), function, "base", "no losses", "a document of at least 2 tokens");
  check(base.size() == masked.size(), function, "masked", masked.size(),
        Worded{"as many losses as base: ", static_cast<Index>(base.size())});
  const double mean = detail::mean_loss("base", base);
  check(mean > 0 && is_finite(mean), function, "base", mean, "a finite mean loss above 0");
  return loss_difference(mean, detail::mean_loss("masked", masked));
}

/// The numbers of the documents of one domain that are kept, the highest score first; of equal ones
/// the earlier.
///
/// \param scores [documents]
/// \param share  that is kept, in (0, 1]: their number is rounded, and at least one. The paper: .2
/// \throws std::invalid_argument if there are no scores, one is NaN, or the share is out of its
///         range
inline std::vector<Index> top_documents(std::span<const double> scores, double share) {
  return detail::top_share("attention::top_documents", scores, share);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
