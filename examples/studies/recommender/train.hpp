// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Trains by one objective, until validation gets no better.

#include "recommender/factors.hpp"
#include "recommender/interactions.hpp"
#include "recommender/judge.hpp"
#include "recommender/objectives.hpp"

#include <pare/core/backend.hpp>
#include <pare/graph/normalized_adjacency.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace recommender {

/// Objectives, and two of them with rows smoothed over the graph of training (LightGCN, three
/// steps).
enum class Method { DirectAu, Bpr, SampledSoftmax, DirectAuLightGcn, BprLightGcn };

inline bool is_smoothed(Method method) {
  return method == Method::DirectAuLightGcn || method == Method::BprLightGcn;
}
inline bool is_direct_au(Method method) {
  return method == Method::DirectAu || method == Method::DirectAuLightGcn;
}
inline bool is_bpr(Method method) { return method == Method::Bpr || method == Method::BprLightGcn; }

/// What is chosen: the rate, and the one option that a method of these depends on most.
struct Choice {
  double learning_rate = 1e-3;
  double option = 1;  ///< gamma of DirectAU, weight decay of BPR, temperature of the softmax
};

struct TrainOptions {
  Index dim = 64;
  std::size_t batch = 1024;
  int epochs = 120;
  int threads = 1;
};

inline constexpr int epochs_between = 4;     ///< judgements
inline constexpr int patience = 6;           ///< judgements without a better one
inline constexpr double small_decay = 1e-6;  ///< that of DirectAU's code, where decay is not chosen

/// The best model of a run, as validation sees it.
struct Run {
  Quality validation, test;
  bool by_cosine = false;
  int best_epoch = 0, epochs = 0;
  double seconds = 0;  ///< of training
};

namespace detail {

/// All pairs in another order for each epoch, cut into steps of about the same size.
class Epochs {
 public:
  Epochs(const Split& split, std::size_t batch, std::uint64_t seed) : random_(seed) {
    for (Index u = 0; u < split.users; ++u)
      for (const Index item : split.train.lists().of(u)) pairs_.emplace_back(u, item);
    steps_ = (pairs_.size() + batch - 1) / batch;
  }

  template <class Step>
  void each(const Step& step) {
    for (std::size_t i = pairs_.size(); i > 1; --i) std::swap(pairs_[i - 1], pairs_[random_() % i]);
    Batch batch;
    for (std::size_t s = 0; s < steps_; ++s) {
      batch.users.clear();
      batch.items.clear();
      for (std::size_t i = s * pairs_.size() / steps_; i < (s + 1) * pairs_.size() / steps_; ++i) {
        batch.users.push_back(pairs_[i].first);
        batch.items.push_back(pairs_[i].second);
      }
      step(batch);
    }
  }

 private:
  std::mt19937_64 random_;
  std::vector<std::pair<Index, Index>> pairs_;
  std::size_t steps_ = 0;
};

/// The pairs of training as a graph, divided symmetrically by degrees.
inline Graph training_graph(const Split& split) {
  std::vector<Eigen::Triplet<float>> pairs;
  for (Index u = 0; u < split.users; ++u)
    for (const Index item : split.train.lists().of(u))
      pairs.emplace_back(static_cast<int>(u), static_cast<int>(item), 1.0f);
  Graph between(split.users, split.items);
  between.setFromTriplets(pairs.begin(), pairs.end());
  return pare::graph::normalized_adjacency(pare::graph::bipartite_adjacency(between));
}

/// Keeps the better of both ways to score, if it is the best so far.
inline bool keep_better(Factors& factors, const Split& split, int epoch, Run& run) {
  bool better = false;
  for (const bool by_cosine : {false, true}) {
    const Rows scores = scores_of(factors, by_cosine);
    const Quality validation = judge_scores(scores, split, Part::Validation);
    if (validation.ndcg <= run.validation.ndcg) continue;
    run.validation = validation;
    run.test = judge_scores(scores, split, Part::Test);
    run.by_cosine = by_cosine;
    run.best_epoch = epoch;
    better = true;
  }
  return better;
}

template <class Objective>
Run train(Objective objective, bool smoothed, double weight_decay, const Split& split,
          double learning_rate, const TrainOptions& limits, std::uint64_t seed) {
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(limits.threads).with(workspace);
  Factors factors(split.users, split.items, limits.dim, learning_rate, seed);
  if (smoothed) factors.smooth_over(training_graph(split));
  factors.make_rows(backend);
  Epochs epochs(split, limits.batch, seed + 1);
  Run run;
  for (int waited = 0; waited < patience && run.epochs < limits.epochs;) {
    const auto start = std::chrono::steady_clock::now();
    epochs.each([&](const Batch& batch) {
      objective.add_gradients(backend, batch, split, factors);
      factors.move(backend, weight_decay);
      factors.make_rows(backend);
    });
    run.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (++run.epochs % epochs_between == 0)
      waited = keep_better(factors, split, run.epochs, run) ? 0 : waited + 1;
  }
  return run;
}

}  // namespace detail

/// One run. Seeds of start, order and draws are made of `seed`.
inline Run train(Method method, const Choice& choice, const Split& split,
                 const TrainOptions& options, std::uint64_t seed) {
  const auto go = [&](auto objective, double decay) {
    return detail::train(std::move(objective), is_smoothed(method), decay, split,
                         choice.learning_rate, options, 10 * seed);
  };
  if (is_direct_au(method)) return go(ByDirectAu{choice.option, {}, {}, {}, {}}, small_decay);
  if (is_bpr(method)) return go(ByBpr(10 * seed + 2), choice.option);
  return go(BySampledSoftmax(choice.option, split.items, static_cast<Index>(options.batch),
                             10 * seed + 2),
            small_decay);
}

/// Eight choices of each method.
inline std::vector<Choice> grid_of(Method method) {
  std::vector<Choice> grid;
  const std::vector<double> options = is_direct_au(method) ? std::vector<double>{.1, .3, 1, 3}
                                      : is_bpr(method) ? std::vector<double>{1e-6, 1e-5, 1e-4, 1e-3}
                                                       : std::vector<double>{.07, .1, .2, .4};
  for (const double rate : {3e-3, 1e-2})
    for (const double option : options) grid.push_back({rate, option});
  return grid;
}

}  // namespace recommender
