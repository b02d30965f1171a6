// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// All methods on one collection, their table, and what it says of the claims.

#include "common/mean.hpp"
#include "search/arguments.hpp"
#include "search/claims.hpp"
#include "search/coded_documents.hpp"
#include "search/collection.hpp"
#include "search/first_stages.hpp"
#include "search/fusion.hpp"
#include "search/proved.hpp"
#include "search/rankings.hpp"
#include "search/report.hpp"
#include "search/shortcuts.hpp"
#include "search/two_stages.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>
#include <pare/retrieval/rank_fusion.hpp>
#include <pare/retrieval/residual_codec.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace search {

class Study {
 public:
  Study(const Arguments& arguments, const Collection& collection)
      : arguments_(arguments), c_(collection) {}

  void run() {
    print_heading();
    whole_collection();
    codes();
    two_stages();
    const FirstStage fused = fused_stage();
    for (const FirstStage* stage :
         std::initializer_list<const FirstStage*>{&words_, &vectors_, &fused})
      for (Claim& claim : compare_shortcuts(one_, c_, *stage, judged_ranks))
        claims_.push_back(std::move(claim));
    fusions();
    std::printf("\n");
    for (const Claim& claim : claims_) print_claim(claim);
  }

 private:
  auto relevant() const { return relevant_of(c_); }
  std::vector<double> ndcg(const Ranked& ranked) const { return ndcg_of(ranked, relevant()); }
  void show(const Ranked& ranked) const { print_row(ranked, relevant()); }
  void show_beside_exact(const Ranked& ranked) const {
    const models::Mean overlap = models::mean_of(overlaps(ranked, exact_));
    print_row(ranked, relevant(), &overlap);
  }

  /// What vstash asks of each list.
  Index pool() const { return pare::retrieval::fusion_pool(judged_ranks, c_.documents()); }

  void whole_collection() {
    const std::vector<Index> depths{judged_ranks, shortcut_depth, 100, whole_depth, pool()};
    words_ = first_stage("BM25", c_, depths,
                         [&](Index query, Index depth) { return by_words(c_, query, depth); });
    show(words_.at(judged_ranks));
    vectors_ = first_stage("one vector", c_, depths, [&](Index query, Index depth) {
      return by_vector(one_, c_, query, depth);
    });
    show(vectors_.at(judged_ranks));
    exact_ = rank_all("MaxSim, bf16", c_.queries(),
                      [&](Index query) { return by_tokens(one_, c_, query, judged_ranks); });
    exact_.scored = static_cast<double>(c_.documents());
    show(exact_);
    if (arguments_.threads > 1) show_threads();
    const models::Mean gain = paired(ndcg(exact_), ndcg(vectors_.at(judged_ranks)));
    claims_.push_back(
        {"MaxSim ranks better than one vector (ColBERT; this encoder was not trained "
         "for it)",
         shown(gain), is_better(gain)});
  }

  void show_threads() const {
    const Index some = std::min<Index>(c_.queries(), 20);
    const auto show_wall = [&](const char* name, const auto& search) {
      const double alone =
          wall_milliseconds(some, [&](Index query) { return search(one_, query); });
      const double shared =
          wall_milliseconds(some, [&](Index query) { return search(all_, query); });
      std::printf("  (%s, %td queries by the clock on the wall: %.3f ms, on %d threads %.3f)\n",
                  name, some, alone, arguments_.threads, shared);
    };
    show_wall("one vector", [&](const auto& backend, Index query) {
      return by_vector(backend, c_, query, judged_ranks);
    });
    show_wall("MaxSim", [&](const auto& backend, Index query) {
      return by_tokens(backend, c_, query, judged_ranks);
    });
  }

  void codes() {
    using pare::retrieval::ResidualBuckets;
    const Matrix sample = sample_of(c_.vectors().tokens, arguments_.sample, arguments_.seed);
    const auto coded_with = [&](int bits, ResidualBuckets buckets) {
      return CodedDocuments(all_, c_.vectors(), sample,
                            {.bits = bits, .centroids = arguments_.centroids, .buckets = buckets});
    };
    rank_codes(coded_with(4, ResidualBuckets::Quantiles), "4 bit, quantiles");
    const CodedDocuments four = coded_with(4, ResidualBuckets::LeastSquares);
    rank_codes(four, "4 bit, least squares");
    rank_codes(coded_with(2, ResidualBuckets::LeastSquares), "2 bit, least squares");
    const Proved proved = proved_best(one_, c_, four, "4 bit, then bf16 by bounds", 1000);
    show_beside_exact(proved.ranked);
    std::printf("  (proved to be the ten best of all documents: %.3f of the queries)\n",
                proved.share);
  }

  void rank_codes(const CodedDocuments& coded, const std::string& kind) {
    const Ranked ranked = rank_all("MaxSim, " + kind, c_.queries(), [&](Index query) {
      return by_codes(one_, c_, coded, query, judged_ranks);
    });
    show_beside_exact(ranked);
    if (coded.bits() != 4) return;
    const models::Mean overlap = models::mean_of(overlaps(ranked, exact_));
    claims_.push_back({"codes of " + kind + ", " + std::to_string(coded.centroids()) +
                           " centroids find .98 of the ten best of exact MaxSim",
                       shown(overlap), reaches(overlap, .98)});
  }

  void two_stages() {
    for (const FirstStage* stage : {&words_, &vectors_})
      for (const Index depth : {Index{100}, whole_depth}) {
        Ranked ranked = rerank_all(one_, c_, stage->at(depth),
                                   stage->name + ", " + std::to_string(depth) + " by MaxSim",
                                   {.count = judged_ranks});
        ranked.milliseconds += stage->at(depth).milliseconds;
        show_beside_exact(ranked);
        if (depth != whole_depth) continue;
        const models::Mean gain = paired(ndcg(ranked), ndcg(exact_));
        claims_.push_back({"MaxSim of " + std::to_string(depth) + " candidates by " + stage->name +
                               " loses nothing to MaxSim of all documents",
                           shown(gain), loses_nothing(gain, loss_margin)});
      }
  }

  Fusion fusion() const { return {c_, words_.at(pool()), vectors_.at(pool())}; }
  Ranked with_lists(Ranked fused) const {
    fused.milliseconds += words_.at(pool()).milliseconds + vectors_.at(pool()).milliseconds;
    return fused;
  }

  /// RRF of both first stages as another.
  FirstStage fused_stage() const {
    FirstStage stage{"RRF", {}};
    for (const Index depth : {judged_ranks, shortcut_depth})
      stage.depths.emplace_back(depth, with_lists(fusion().reciprocal(depth)));
    return stage;
  }

  void fusions() {
    const Fusion fusion = this->fusion();
    const auto total = [&](Ranked fused) {
      fused = with_lists(std::move(fused));
      show(fused);
      return fused;
    };
    const Ranked reciprocal = total(fusion.reciprocal(judged_ranks));
    const Ranked fixed = total(fusion.weighted(
        "vstash, fixed weights", [](Index) { return pare::retrieval::FusionWeights{}; }));
    const Ranked adaptive = total(fusion.weighted(
        "vstash, weights by idf", [&](Index query) { return fusion.adaptive(query); }));
    const models::Mean gain = paired(ndcg(adaptive), ndcg(fixed));
    claims_.push_back(
        {"weights by idf fuse better than fixed ones (vstash)", shown(gain), is_better(gain)});
    const models::Mean of_rrf = paired(ndcg(reciprocal), ndcg(vectors_.at(judged_ranks)));
    claims_.push_back(
        {"fusion ranks better than one vector alone (RRF)", shown(of_rrf), is_better(of_rrf)});
    const models::Mean over_rrf = paired(ndcg(adaptive), ndcg(reciprocal));
    claims_.push_back(
        {"weights by idf fuse better than RRF", shown(over_rrf), is_better(over_rrf)});
  }

  static constexpr Index whole_depth = 1000;

  const Arguments& arguments_;
  const Collection& c_;
  pare::Workspace workspace_{};
  const decltype(pare::simd.threads(1)) one_ = pare::simd.threads(1).with(workspace_);
  const decltype(pare::simd.threads(1)) all_ = pare::simd.threads(arguments_.threads);
  FirstStage words_{}, vectors_{};
  Ranked exact_{};
  std::vector<Claim> claims_{};
};

}  // namespace search
