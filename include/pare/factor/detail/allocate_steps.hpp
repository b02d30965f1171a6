// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The greedy allocation itself: layers with ranks, costs and energies, and a heap of their next
/// steps. What a step is worth is the caller's.

#include <pare/core/check.hpp>

#include <cstddef>
#include <optional>
#include <queue>
#include <span>
#include <vector>

namespace pare::factor::detail {

PARE_ABI_BEGIN

/// A layer as allocation sees it. A rank of 0 stands for the dense matrix.
struct RankedLayer {
  Index least = 1;  ///< rank that it starts at; 0: it is dense whatever the budget
  Index most = 1;   ///< largest rank of factors, a multiple above `least`
  Index multiple = 1;
  Index rank_cost = 1;
  Index dense_cost = 1;
  bool may_be_dense = false;
  double weight = 1;
  std::vector<double> squares;  ///< of the singular values
  std::vector<double> tails;    ///< [k]: energy that rank k leaves out

  Index cost(Index rank) const { return rank == 0 ? dense_cost : rank * rank_cost; }
};

/// From one rank of a layer to a larger one, or to 0: dense.
struct RankStep {
  std::size_t layer = 0;
  Index from = 0, to = 0;
  Index cost = 0;  ///< above 0
  double score =
      0;  ///< of all layers' steps the greatest is taken, of equal ones the first layer's

  friend bool operator<(const RankStep& a, const RankStep& b) {
    return a.score != b.score ? a.score < b.score : a.layer > b.layer;
  }
};

/// Energy that the step captures. Summed from the squares: a difference of tails would cancel, and
/// equal directions would no longer score the same.
inline double gain(const RankedLayer& layer, const RankStep& step) {
  if (step.to == 0) return layer.tails[static_cast<std::size_t>(step.from)];
  double sum = 0;
  for (Index k = step.from; k < step.to; ++k) sum += layer.squares[static_cast<std::size_t>(k)];
  return sum;
}

/// Raises ranks while a step of some layer fits the budget.
template <class Score>
class RankRaiser {
 public:
  /// \param budget  of all ranks together; the least ranks must fit it
  /// \param foresee offers the step to the dense matrix at each rank, not only at the last
  /// \param score   double(const RankedLayer&, const RankStep&)
  RankRaiser(std::span<const RankedLayer> layers, Index budget, bool foresee, Score score)
      : layers_(layers), left_(budget), foresee_(foresee), score_(score) {
    for (const RankedLayer& layer : layers_) {
      ranks_.push_back(layer.least);
      left_ -= layer.cost(layer.least);
    }
  }

  std::vector<Index> run() {
    for (std::size_t i = 0; i < layers_.size(); ++i) enqueue(i);
    while (!queue_.empty()) {
      const RankStep step = queue_.top();
      queue_.pop();
      if (step.cost <= left_) {
        ranks_[step.layer] = step.to;
        left_ -= step.cost;
      }
      enqueue(step.layer);  // after a step that no longer fits: a cheaper one, if there is any
    }
    return ranks_;
  }

 private:
  void enqueue(std::size_t i) {
    const RankedLayer& layer = layers_[i];
    const Index rank = ranks_[i];
    if (rank == 0) return;
    std::optional<RankStep> best;
    const auto offer = [&](Index to) {
      RankStep step{i, rank, to, layer.cost(to) - layer.cost(rank)};
      if (step.cost > left_) return;
      step.score = score_(layer, step);
      if (!best || step.score > best->score) best = step;
    };
    const bool is_last = layer.most - rank < layer.multiple;
    if (!is_last) offer(rank + layer.multiple);
    if (layer.may_be_dense && (is_last || foresee_)) offer(0);
    if (best) queue_.push(*best);
  }

  std::span<const RankedLayer> layers_;
  Index left_;
  bool foresee_;
  Score score_;
  std::vector<Index> ranks_;
  std::priority_queue<RankStep> queue_;
};

PARE_ABI_END
}  // namespace pare::factor::detail
