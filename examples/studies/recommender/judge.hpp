// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well a model ranks what it was not trained on.

#include "recommender/factors.hpp"
#include "recommender/interactions.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/retrieval/metrics.hpp>

#include <cstddef>
#include <vector>

namespace recommender {

inline constexpr Index ranks = 20;

/// Recall and NDCG at 20, means over users.
struct Quality {
  double recall = 0, ndcg = 0;
};

enum class Part { Validation, Test };

/// Of scores [users, items]. What a user was trained on is not ranked, nor, for test, what was
/// chosen by.
inline Quality judge_scores(const Rows& scores, const Split& split, Part part) {
  const bool test = part == Part::Test;
  const auto mean = pare::retrieval::evaluate_rankings(
      scores, test ? split.test.lists() : split.validation.lists(),
      test ? split.seen.lists() : split.train.lists(), ranks);
  return {mean.metrics.recall, mean.metrics.ndcg};
}

/// By products of the rows, or by cosines: those of a user do not depend on its own length.
inline Rows scores_of(Factors& factors, bool by_cosine) {
  const auto users = factors.users();
  Rows items = factors.items(), scores(users.rows(), items.rows());
  if (by_cosine) items.rowwise().normalize();
  pare::linalg::multiply(pare::simd, pare::as_const(pare::to_view(users)),
                         pare::transpose(pare::as_const(pare::to_view(items))),
                         pare::to_view(scores));
  return scores;
}

/// The same items for all: those that most users have in training.
inline Quality judge_popularity(const Split& split, Part part) {
  Rows scores = Rows::Zero(split.users, split.items);
  for (const Index item : split.train.items) scores.col(item).array() += 1;
  return judge_scores(scores, split, part);
}

}  // namespace recommender
