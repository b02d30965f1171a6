// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The tables of the study.

#include "common/mean.hpp"
#include "search/claims.hpp"
#include "search/rankings.hpp"

#include <cstdio>
#include <string>
#include <vector>

namespace search {

inline void print_heading() {
  std::printf("\n%-34s %15s %9s %6s %9s %7s %8s\n", "", "nDCG@10", "Recall@10", "MRR@10",
              "ms/query", "scored", "overlap");
}

/// A row of the table; `overlap` with the ten best of exact MaxSim, where that is asked for.
template <class Relevant>
void print_row(const Ranked& ranked, const Relevant& relevant,
               const models::Mean* overlap = nullptr) {
  const auto all = judge(ranked, relevant);
  double recall = 0, reciprocal = 0;
  for (const auto& metrics : all) {
    recall += metrics.recall / static_cast<double>(all.size());
    reciprocal += metrics.reciprocal_rank / static_cast<double>(all.size());
  }
  const models::Mean ndcg = models::mean_of(ndcg_of(ranked, relevant));
  std::printf("%-34s %6.4f +- %5.4f %9.3f %6.3f %9.3f", ranked.name.c_str(), ndcg.value, ndcg.error,
              recall, reciprocal, ranked.milliseconds);
  if (ranked.scored > 0 || overlap != nullptr)
    std::printf(ranked.scored > 0 ? " %7.1f" : "        ", ranked.scored);
  if (overlap != nullptr) std::printf(" %8.3f", overlap->value);
  std::printf("\n");
  std::fflush(stdout);
}

inline void print_claim(const Claim& claim) {
  std::printf("%-10s %s: %s\n", word_of(claim.outcome), claim.text.c_str(), claim.numbers.c_str());
  std::fflush(stdout);
}

/// "+.0123 +- .0045".
inline std::string shown(const models::Mean& gain) {
  char text[64];
  std::snprintf(text, sizeof text, "%+.4f +- %.4f", gain.value, gain.error);
  return text;
}

}  // namespace search
