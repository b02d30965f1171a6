// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One step of a beam search over a trie: log-probabilities of children, and the best of all.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/retrieval/semantic/beam.hpp>
#include <pare/retrieval/semantic/id_trie.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Higher scores first, of equal ones the earlier parent, then the lower token.
struct StepsBefore {
  bool operator()(const BeamStep& a, const BeamStep& b) const {
    if (a.score != b.score) return a.score > b.score;
    return a.parent != b.parent ? a.parent < b.parent : a.token < b.token;
  }
};

/// The best `width` of many steps, of which it keeps a few times as many at most.
class BestSteps {
 public:
  explicit BestSteps(Index width) : width_(static_cast<std::size_t>(width)) {}

  void offer(const BeamStep& step) {
    if (full_ && !StepsBefore{}(step, steps_[width_ - 1])) return;
    steps_.push_back(step);
    if (steps_.size() > width_ && steps_.size() - width_ >= width_ + slack) drop_worst();
  }

  std::vector<BeamStep> sorted() {
    if (steps_.size() > width_) drop_worst();
    std::sort(steps_.begin(), steps_.end(), StepsBefore{});
    return std::move(steps_);
  }

 private:
  static constexpr std::size_t slack = 1024;

  /// The worst of those that stay is the last of them.
  void drop_worst() {
    std::nth_element(steps_.begin(), steps_.begin() + static_cast<std::ptrdiff_t>(width_ - 1),
                     steps_.end(), StepsBefore{});
    steps_.resize(width_);
    full_ = true;
  }

  std::vector<BeamStep> steps_;
  std::size_t width_;
  bool full_ = false;
};

/// ln softmax of numbers in place: NaN counts as -infinity, numbers of +infinity share all mass.
inline void log_softmax(std::vector<double>& x) {
  constexpr double none = -std::numeric_limits<double>::infinity();
  double largest = none;
  for (double& l : x) {
    if (is_nan(l)) l = none;
    largest = std::max(largest, l);
  }
  if (largest == none) return;
  if (largest == -none) {
    for (double& l : x) l = l == -none ? 0 : none;
    largest = 0;
  }
  double sum = 0;
  for (const double l : x) sum += std::exp(l - largest);
  const double shift = largest + std::log(sum);
  for (double& l : x) l -= shift;
}

/// The best steps. logit(parent, i, token) is that of child i of a parent's node; allowed(parent,
/// node) says whether a path may go there. What has no probability is no step.
template <class Logit, class Allowed>
std::vector<BeamStep> best_steps(const IdTrie& trie, std::span<const Beam> parents, Index width,
                                 const Logit& logit, const Allowed& allowed) {
  BestSteps best(width);
  std::vector<double> logs;
  for (std::size_t p = 0; p < parents.size(); ++p) {
    const auto parent = static_cast<Index>(p);
    const IdTrie::Node first = trie.children(parents[p].node).first;
    const std::span<const std::int32_t> tokens = trie.tokens(parents[p].node);
    logs.clear();
    for (std::size_t i = 0; i < tokens.size(); ++i)
      logs.push_back(allowed(parent, first + static_cast<IdTrie::Node>(i))
                         ? static_cast<double>(logit(parent, static_cast<Index>(i), tokens[i]))
                         : -std::numeric_limits<double>::infinity());
    log_softmax(logs);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (const double score = parents[p].score + logs[i];
          score > -std::numeric_limits<double>::infinity())
        best.offer({score, first + static_cast<IdTrie::Node>(i), parent, tokens[i]});
  }
  return best.sorted();
}

/// Throws unless nodes have children and scores are numbers.
inline void check_beams(const char* function, const char* argument, const IdTrie& trie,
                        std::span<const Beam> beams) {
  for (const Beam& beam : beams) {
    check(is_finite(beam.score), function, argument, beam.score, "scores that are finite");
    check(beam.node >= 0 && beam.node < trie.nodes() && !trie.is_leaf(beam.node), function,
          argument, beam.node, "nodes of the trie that have children");
  }
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
