// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Chooses, trains and prints: the tables of the study.

#include "common/mean.hpp"
#include "recommender/judge.hpp"
#include "recommender/train.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace recommender {

struct Named {
  Method method;
  const char* name;
  const char* option;
};

inline constexpr Named methods[] = {
    {Method::DirectAu, "DirectAU", "gamma"},
    {Method::Bpr, "BPR", "weight decay"},
    {Method::SampledSoftmax, "sampled softmax", "temperature"},
    {Method::DirectAuLightGcn, "DirectAU, LightGCN", "gamma"},
    {Method::BprLightGcn, "BPR, LightGCN", "weight decay"},
};

/// Qualities of a method on all splits, and its seconds per epoch.
struct Results {
  std::string name;
  std::vector<double> recall, ndcg;
  double seconds = 0, epochs = 0;

  void add(const Quality& quality) {
    recall.push_back(quality.recall);
    ndcg.push_back(quality.ndcg);
  }
};

/// The choice of the grid that ranks validation best, printed.
inline Choice choose(const Named& named, const Split& split, const TrainOptions& options,
                     std::uint64_t seed) {
  const auto grid = grid_of(named.method);
  Choice best;
  Run best_run;
  for (const Choice& choice : grid) {
    const Run run = train(named.method, choice, split, options, seed);
    if (run.validation.ndcg <= best_run.validation.ndcg) continue;
    best = choice;
    best_run = run;
  }
  std::printf("%-18s rate %g, %s %g (of %zu choices): validation NDCG@20 %.4f, by %s, epoch %d\n",
              named.name, best.learning_rate, named.option, best.option, grid.size(),
              best_run.validation.ndcg, best_run.by_cosine ? "cosines" : "products",
              best_run.best_epoch);
  std::fflush(stdout);
  return best;
}

/// The spread of values about their mean.
inline double deviation(const std::vector<double>& values) {
  return models::mean_of(values).error * std::sqrt(static_cast<double>(values.size()));
}

inline void print_results(const std::vector<Results>& all) {
  std::printf("\n%-18s %-20s %-20s %12s %8s\n", "", "Recall@20", "NDCG@20", "s per epoch",
              "epochs");
  for (const Results& r : all) {
    std::printf("%-18s %.4f +- %.4f     %.4f +- %.4f", r.name.c_str(),
                models::mean_of(r.recall).value, deviation(r.recall), models::mean_of(r.ndcg).value,
                deviation(r.ndcg));
    if (r.epochs > 0)
      std::printf("     %11.3f %8.0f", r.seconds / r.epochs,
                  r.epochs / static_cast<double>(r.ndcg.size()));
    std::printf("\n");
  }
}

/// The mean of the differences on each split, its standard error, and on how many a is better.
inline void print_difference(const Results& a, const Results& b) {
  std::vector<double> difference;
  int wins = 0;
  for (std::size_t i = 0; i < a.ndcg.size(); ++i) {
    difference.push_back(a.ndcg[i] - b.ndcg[i]);
    wins += difference.back() > 0 ? 1 : 0;
  }
  const models::Mean mean = models::mean_of(difference);
  std::printf("%s over %s: NDCG@20 %+.4f +- %.4f, better on %d of %zu splits\n", a.name.c_str(),
              b.name.c_str(), mean.value, mean.error, wins, difference.size());
}

}  // namespace recommender
