// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How often draft tokens are accepted, by what the drafter thought of them: isotonic regression of
/// acceptance on the draft's probability, for each depth.
///
/// ```cpp
/// AcceptanceCalibration calibration;
/// calibration.observe(tree, round);            // after each round
/// calibration.fit();                           // now and then
/// calibration.acceptance(1, std::log(0.6));    // of a node at depth 1 with q = 0.6: say 0.45
/// ```
///
/// Only children of accepted nodes are judged: of all others nobody knows. Observations are counted
/// in 64 bins of equal width in q; `fit` makes acceptance increase with q by pooling neighbours
/// that do not (pool adjacent violators). Bins that were never met take the value of the next one
/// below that was, or of the first above. A depth of fewer than 32 observations, and one beyond
/// the last that was observed, is that of the depth before; without any, acceptance is q itself.
///
/// Source: Ayer et al., 1955 (pool adjacent violators). Ours: bins, and what is done without
/// observations.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/draft/tree.hpp>
#include <pare/draft/verify.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// Acceptance of draft tokens, as observed.
class AcceptanceCalibration {
 public:
  /// One judged node.
  /// \param depth           of the node, from 1 to 4096
  /// \param log_probability log q of the node after its parent, at most 0
  /// \throws std::invalid_argument if a number is out of its range
  void observe(Index depth, double log_probability, bool accepted) {
    constexpr const char* function = "draft::AcceptanceCalibration::observe";
    check_node(function, depth, log_probability);
    if (depth > static_cast<Index>(depths_.size())) depths_.resize(static_cast<std::size_t>(depth));
    Depth& d = depths_[static_cast<std::size_t>(depth - 1)];
    Bin& bin = d.bins[bin_of(log_probability)];
    bin.seen += 1;
    bin.accepted += accepted ? 1 : 0;
  }

  /// All judged nodes of a round: the children of accepted nodes.
  /// \throws std::invalid_argument if a node of the path is none of the tree
  void observe(const DraftTree& tree, const Verified& round) {
    for (const Index node : round.path)
      tree.check_node("draft::AcceptanceCalibration::observe", "path", node);
    for (std::size_t d = 0; d < round.path.size(); ++d) {
      const Index node = round.path[d];
      const Index next = d + 1 < round.path.size() ? round.path[d + 1] : -1;
      for (Index c = tree.first_child(node); c >= 0; c = tree.next_sibling(c))
        observe(tree.depth(c), tree.own_log_probability(c), c == next);
    }
  }

  /// Makes acceptances of what was observed so far. Cost: a pass over the bins of each depth.
  void fit() {
    const Depth* before = nullptr;
    for (Depth& d : depths_) {
      double seen = 0;
      for (const Bin& bin : d.bins) seen += bin.seen;
      d.fitted = seen >= least_observations;
      if (d.fitted)
        pool(d);
      else if (before != nullptr)
        copy_fit(*before, d);
      if (d.fitted) before = &d;
    }
  }

  /// The share of such nodes that are accepted once their parent is, as last fitted.
  /// \throws std::invalid_argument as observe
  double acceptance(Index depth, double log_probability) const {
    check_node("draft::AcceptanceCalibration::acceptance", depth, log_probability);
    const Index last = std::min(depth, static_cast<Index>(depths_.size()));
    if (last == 0 || !depths_[static_cast<std::size_t>(last - 1)].fitted)
      return std::exp(log_probability);
    return depths_[static_cast<std::size_t>(last - 1)].acceptance[bin_of(log_probability)];
  }

 private:
  static constexpr std::size_t count_of_bins = 64;
  static constexpr double least_observations = 32;

  struct Bin {
    double seen = 0, accepted = 0;
  };
  struct Depth {
    std::array<Bin, count_of_bins> bins{};
    std::array<double, count_of_bins> acceptance{};
    bool fitted = false;
  };

  static void check_node(const char* function, Index depth, double log_probability) {
    check(depth >= 1 && depth <= most_nodes, function, "depth", depth,
          Worded{"from 1 to ", most_nodes});
    check(log_probability <= 0, function, "log_probability", log_probability, "at most 0");
  }

  static std::size_t bin_of(double log_probability) {
    const double q = std::exp(log_probability);
    return std::min(count_of_bins - 1,
                    static_cast<std::size_t>(q * static_cast<double>(count_of_bins)));
  }

  static void copy_fit(const Depth& from, Depth& to) {
    to.acceptance = from.acceptance;
    to.fitted = true;
  }

  /// Blocks of bins whose acceptances increase.
  static void pool(Depth& d) {
    struct Block {
      Bin sum;
      std::size_t end;
    };
    std::array<Block, count_of_bins> blocks;
    std::size_t count = 0;
    const auto share = [](const Bin& b) { return b.accepted / b.seen; };
    for (std::size_t i = 0; i < count_of_bins; ++i) {
      if (d.bins[i].seen == 0) {
        if (count > 0) blocks[count - 1].end = i + 1;
        continue;
      }
      blocks[count++] = {d.bins[i], i + 1};
      while (count > 1 && share(blocks[count - 2].sum) >= share(blocks[count - 1].sum)) {
        Block& left = blocks[count - 2];
        left.sum.seen += blocks[count - 1].sum.seen;
        left.sum.accepted += blocks[count - 1].sum.accepted;
        left.end = blocks[count - 1].end;
        --count;
      }
    }
    for (std::size_t i = 0, block = 0; i < count_of_bins; ++i) {
      if (i == blocks[block].end && block + 1 < count) ++block;
      d.acceptance[i] = share(blocks[block].sum);
    }
  }

  std::vector<Depth> depths_{};
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
