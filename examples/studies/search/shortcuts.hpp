// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Candidate pruning and early exit beside the rerank of all candidates: what they save and lose.

#include "common/mean.hpp"
#include "search/claims.hpp"
#include "search/collection.hpp"
#include "search/first_stages.hpp"
#include "search/rankings.hpp"
#include "search/report.hpp"
#include "search/savings.hpp"
#include "search/two_stages.hpp"

#include <pare/retrieval/rerank.hpp>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace search {

/// A way to leave candidates out, by published values.
struct Shortcut {
  const char* name;
  std::optional<double> prune;
  std::optional<Index> patience;
};
inline constexpr Shortcut shortcuts[] = {
    {"CP .05", 0.05, {}},         {"EE 4", {}, 4},
    {"CP .05 + EE 4", 0.05, 4},   {"CP .05 + EE 2", 0.05, 2},
    {"CP .015 + EE 4", 0.015, 4}, {"CP .015 + EE 2", 0.015, 2}};
inline constexpr Index shortcut_depth = 50;  ///< the most candidates of those values

/// The time is the least of several passes.
template <class B>
Ranked timed_rerank(const B& backend, const Collection& c, const Ranked& candidates,
                    const std::string& name, const RerankOptions& options) {
  Ranked best = rerank_all(backend, c, candidates, name, options);
  for (int pass = 1; pass < 3; ++pass)
    best.milliseconds =
        std::min(best.milliseconds, rerank_all(backend, c, candidates, name, options).milliseconds);
  return best;
}

/// Prints a row for each and returns what they say of the claim.
template <class B>
std::vector<Claim> compare_shortcuts(const B& backend, const Collection& c, const FirstStage& stage,
                                     Index count) {
  const Ranked& candidates = stage.at(shortcut_depth);
  const auto relevant = relevant_of(c);
  const auto ndcg = [&](const Ranked& ranked) { return ndcg_of(ranked, relevant); };
  const std::string name = stage.name + ", " + std::to_string(shortcut_depth);
  std::printf("time of the second stage alone, after %.3f ms of the first:\n",
              candidates.milliseconds);
  const Ranked full = timed_rerank(backend, c, candidates, name + " by MaxSim", {.count = count});
  print_row(full, relevant);
  const models::Mean worth = paired(ndcg(full), ndcg(stage.at(count)));
  std::printf("  (nDCG %s over that of the first stage)\n", shown(worth).c_str());
  std::vector<Saving> savings;
  for (const Shortcut& way : shortcuts) {
    const Ranked some =
        timed_rerank(backend, c, candidates, name + ", " + way.name,
                     {.count = count, .prune = way.prune, .patience = way.patience});
    print_row(some, relevant);
    const Saving saving{way.name, full.milliseconds / some.milliseconds,
                        (full.milliseconds + candidates.milliseconds) /
                            (some.milliseconds + candidates.milliseconds),
                        paired(ndcg(some), ndcg(full))};
    std::printf("  (%.2f x, %.2f x with the first stage; nDCG %s)\n", saving.second, saving.whole,
                shown(saving.gain).c_str());
    if (way.prune && way.patience) savings.push_back(saving);
  }
  const std::string claim = "CP + EE are 1.8 x faster without loss, of " + name + " candidates, ";
  std::vector<Claim> claims{claim_of(claim + "second stage", savings, &Saving::second),
                            claim_of(claim + "both stages", savings, &Saving::whole)};
  // Where the second stage gains nothing, less of it loses nothing.
  for (Claim& of_stage : claims) {
    of_stage.outcome = given(is_better(worth), of_stage.outcome);
    of_stage.numbers += "; all candidates gain " + shown(worth) + " over the first stage";
  }
  return claims;
}

}  // namespace search
