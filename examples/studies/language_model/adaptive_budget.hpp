// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many nodes a round of speculative decoding drafts and judges, from what was measured: the
/// seconds of a pass by its rows, those of the draft, and how often drafts like these were taken.
///
/// ```cpp
/// AdaptiveBudget budget(pass_cost(llama, backend, kv, 128), alone, {.most = 64});
/// speculate(llama, backend, cache, prompt, 256, sampling, drafter, budget, take);
/// ```
///
/// Of each tree the first B nodes are judged that pare::draft::choose_budget takes, by calibrated
/// acceptance. If drafting is foretold to take longer than the same tokens one by one, in the mean
/// of some 8 rounds, rounds draft nothing for a while: 4 of them, then 8, up to 64. Ours: these
/// pauses, and drafts whose every node takes time get twice the nodes that were last worth it.

#include <pare/core/tensor_view.hpp>
#include <pare/draft/budget.hpp>
#include <pare/draft/calibration.hpp>
#include <pare/draft/tree.hpp>
#include <pare/draft/verify.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace language_model {

using pare::Index;

/// What an AdaptiveBudget knows of a drafter.
struct AdaptiveOptions {
  Index most = 64;              ///< nodes, at least 1
  bool costs_per_node = false;  ///< a draft takes time for each of its nodes, as an early exit does
};

class AdaptiveBudget {
 public:
  /// \param model_seconds of the pass that judges a draft, by its nodes
  /// \param alone         seconds of a token without draft
  AdaptiveBudget(pare::draft::MeasuredCost model_seconds, double alone,
                 const AdaptiveOptions& options = {})
      : model_seconds_(std::move(model_seconds)),
        alone_(alone),
        options_(options),
        offered_(options.most) {}

  /// Nodes that the next round may draft; 1: it is not to draft.
  Index offered() const { return pause_ > 0 ? 1 : offered_; }

  /// Cuts a tree to the nodes that are worth being judged.
  /// \param draft_seconds that the tree took
  /// \returns the tokens that are expected of the round
  double cut(pare::draft::DraftTree& tree, double draft_seconds) {
    if (tree.budget() == 1) {
      pause_ = std::max(Index{0}, pause_ - 1);
      return 1;
    }
    expected_tokens(tree, expected_, &calibration_);
    const double node =
        options_.costs_per_node ? draft_seconds / static_cast<double>(tree.size()) : 0;
    const pare::draft::BudgetChoice choice = pare::draft::choose_budget(
        expected_,
        [&](Index nodes) { return model_seconds_(nodes) + node * static_cast<double>(nodes); },
        options_.costs_per_node ? 0 : draft_seconds);
    tree.truncate(choice.nodes);
    if (options_.costs_per_node) offered_ = std::clamp(2 * choice.nodes, Index{2}, options_.most);
    weigh(choice.tokens * alone_ - draft_seconds - model_seconds_(choice.nodes));
    return choice.tokens;
  }

  /// Learns from a round.
  void observe(const pare::draft::DraftTree& tree, const pare::draft::Verified& round) {
    if (tree.size() == 1) return;
    calibration_.observe(tree, round);
    if (++observed_ % 8 == 0) calibration_.fit();
  }

 private:
  static constexpr Index shortest_pause = 4, longest_pause = 64;

  /// \param gain seconds that a round is foretold to save
  void weigh(double gain) {
    gain_ += (gain - gain_) / 8;
    if (gain_ >= -0.01 * alone_) {  // drafts that cost next to nothing go on
      next_pause_ = shortest_pause;
      return;
    }
    pause_ = next_pause_;
    next_pause_ = std::min(2 * next_pause_, longest_pause);
  }

  pare::draft::MeasuredCost model_seconds_;
  double alone_;
  AdaptiveOptions options_;
  pare::draft::AcceptanceCalibration calibration_;
  std::vector<double> expected_;
  Index offered_, observed_ = 0, pause_ = 0, next_pause_ = shortest_pause;
  double gain_ = 0;  ///< a running mean
};

}  // namespace language_model
