// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Distributions that negative items are drawn from, with the logarithms that correct for them.
///
/// ```cpp
/// const auto proposal = Proposal::log_uniform(items);     // items sorted by falling frequency
/// std::vector<pare::Index> negatives(1024);
/// proposal.draw(negatives, {.seed = 7, .step = step});    // the same in any order of steps
/// proposal.log_probabilities();                           // [items] ln q, for sampled_softmax
/// ```
///
///     uniform      q_i = 1 / items
///     log-uniform  q_i = ln((i + 2) / (i + 1)) / ln(items + 1)
///     of(weights)  q_i = w_i / sum of w, such as counts to the power of .75
///
/// The log-uniform one is that of TensorFlow's log_uniform_candidate_sampler, close to Zipf's law.
/// Draws are with replacement.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval {

/// Which numbers of the sequence a draw takes.
struct DrawOptions {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;  ///< another one for each draw of a training run
};

PARE_ABI_BEGIN

/// A distribution over items. Memory: 16 bytes per item.
class Proposal {
 public:
  /// Every item alike. \throws std::invalid_argument if items is below 1
  static Proposal uniform(Index items) {
    check_items("retrieval::Proposal::uniform", items);
    return Proposal(std::vector<double>(static_cast<std::size_t>(items), 1.0));
  }

  /// Items by rank, the most frequent first. \throws std::invalid_argument if items is below 1
  static Proposal log_uniform(Index items) {
    check_items("retrieval::Proposal::log_uniform", items);
    std::vector<double> weights(static_cast<std::size_t>(items));
    for (std::size_t i = 0; i < weights.size(); ++i)
      weights[i] = std::log1p(1 / (static_cast<double>(i) + 1));
    return Proposal(std::move(weights));
  }

  /// By weights [items].
  /// \throws std::invalid_argument if there are none, one is negative or not finite, or their sum
  ///         is 0 or not finite
  static Proposal of(std::span<const double> weights) {
    constexpr const char* function = "retrieval::Proposal::of";
    check(!weights.empty(), function, "weights", "nothing", "at least one weight");
    double sum = 0;
    for (const double w : weights) {
      check(w >= 0 && is_finite(w), function, "weights", w, "finite weights of at least 0");
      sum += w;
    }
    check(sum > 0 && is_finite(sum), function, "weights", sum, "a finite sum above 0");
    return Proposal({weights.begin(), weights.end()});
  }

  Index items() const { return static_cast<Index>(cumulative_.size()); }

  /// ln q of each item, [items]; -infinity of one that is never drawn.
  std::span<const double> log_probabilities() const { return log_probabilities_; }

  /// Draws an item for each element of `out`, with replacement: a function of seed, step and place.
  /// Cost: a block of Philox and a binary search for each.
  void draw(std::span<Index> out, const DrawOptions& options = {}) const {
    const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    const PhiloxKey key(options.seed);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::uint64_t place = i;
      const PhiloxCounter words =
          philox({low(place), low(place >> 32), low(options.step), low(options.step >> 32)}, key);
      const double at = to_unit_double(words[0], words[1]) * cumulative_.back();
      const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), at);
      out[i] = std::min(static_cast<Index>(found - cumulative_.begin()), last_);
    }
  }

 private:
  static void check_items(const char* function, Index items) {
    check(items >= 1, function, "items", items, "at least 1");
    checked_count(function, "items", items, sizeof(double));
  }

  explicit Proposal(std::vector<double> weights)
      : cumulative_(std::move(weights)), log_probabilities_(cumulative_.size()) {
    double sum = 0;
    for (std::size_t i = 0; i < cumulative_.size(); ++i) {
      const double weight = cumulative_[i];
      if (weight > 0) last_ = static_cast<Index>(i);
      log_probabilities_[i] = weight;
      cumulative_[i] = sum += weight;
    }
    for (double& p : log_probabilities_)
      p = p > 0 ? std::log(p) - std::log(sum) : -std::numeric_limits<double>::infinity();
  }

  std::vector<double> cumulative_;         ///< sums of the weights up to and with each item
  std::vector<double> log_probabilities_;  ///< the weights, while they are summed
  Index last_ = 0;  ///< the last item that is drawn, should rounding reach the whole sum
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
