// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many nodes of a draft tree to verify, from what a call of the target costs by the number of
/// its rows.
///
///     nodes = argmin over B of (t_draft + t_verify(B)) / A(B),
///     A(B)  = 1 + sum_{0 < i < B} e^(s_i)
///
/// ```cpp
/// build_best_first(last_token, table, tree, {.budget = 64});
/// expected_tokens(tree, expected);                           // A(1), ..., A(64), in one pass
/// const MeasuredCost cost({{1, 0.020}, {8, 0.022}, {16, 0.031}, {64, 0.100}});  // seconds
/// tree.truncate(choose_budget(expected, cost, draft_seconds).nodes);
/// ```
///
/// The first B nodes of a best-first tree are the tree of budget B, so that one build says what all
/// budgets are worth. s is over-confident as a rule: give an AcceptanceCalibration
/// (calibration.hpp) before trusting A.
///
/// On a processor a call of B rows takes about max(bytes / bandwidth, flops B / rate): flat up to
/// the knee, B = (bytes / bandwidth) / (flops / rate) rows, and then in proportion. For bf16
/// weights without matrix units that is about 6 to 13 rows; budgets of 128 and more are for GPUs.
///
/// Source: the rule is Sequoia's (2024, section 4.3), with the scores of the tree at hand in place
/// of fixed rates. Ours: A from the tree, and costs by measured points.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/draft/calibration.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::draft {

/// A measured call of the target.
struct CallTime {
  Index rows = 0;
  double seconds = 0;
};

/// What a budget gives.
struct BudgetChoice {
  Index nodes = 1;
  double tokens = 1;   ///< expected of a round
  double seconds = 0;  ///< of a round, drafting included
};

PARE_ABI_BEGIN

/// Seconds of a call by its rows: straight lines between measured points, flat before the first,
/// and on along the last line.
class MeasuredCost {
 public:
  /// \param points rows ascending from at least 1, seconds above 0; at least one
  /// \throws std::invalid_argument if they are not
  explicit MeasuredCost(std::vector<CallTime> points) : points_(std::move(points)) {
    constexpr const char* function = "draft::MeasuredCost";
    check(!points_.empty(), function, "points", "none", "at least one");
    Index before = 0;
    for (const CallTime& p : points_) {
      check(p.rows > before, function, "points", p.rows, "rows that ascend from at least 1");
      check(is_finite(p.seconds) && p.seconds > 0, function, "points", p.seconds,
            "finite seconds above 0");
      before = p.rows;
    }
  }

  /// Never below the seconds of fewer rows that were measured last.
  double operator()(Index rows) const {
    const auto after = std::find_if(points_.begin(), points_.end(),
                                    [&](const CallTime& p) { return p.rows >= rows; });
    if (after == points_.begin() || points_.size() == 1) return points_.front().seconds;
    const auto right = after == points_.end() ? after - 1 : after;
    const CallTime a = *(right - 1), b = *right;
    const double slope = (b.seconds - a.seconds) / static_cast<double>(b.rows - a.rows);
    const double line = a.seconds + slope * static_cast<double>(rows - a.rows);
    return after == points_.end() ? std::max(line, b.seconds) : line;
  }

 private:
  std::vector<CallTime> points_;
};

/// Seconds of a call by what binds: reading the weights, or multiplying with them.
struct RooflineCost {
  double bytes = 0;          ///< read by a call, whatever its rows; above 0
  double bandwidth = 0;      ///< bytes a second; above 0
  double flops_per_row = 0;  ///< above 0
  double flop_rate = 0;      ///< flops a second; above 0

  double operator()(Index rows) const {
    return std::max(bytes / bandwidth, flops_per_row * static_cast<double>(rows) / flop_rate);
  }
  /// The rows up to which a call takes as long as one of one row.
  double knee() const { return bytes / bandwidth / (flops_per_row / flop_rate); }
};

/// A(1), ..., A(size): the expected tokens of a round for the first B nodes of a tree.
/// \param tree     at least the root
/// \param expected [nodes] written; its memory is kept
/// \param calibration gives the acceptance of each node after its parent; null: the draft's q
/// \throws std::invalid_argument if the tree is empty
/// Cost: an exponential for each node.
inline void expected_tokens(const DraftTree& tree, std::vector<double>& expected,
                            const AcceptanceCalibration* calibration = nullptr) {
  check(tree.size() >= 1, "draft::expected_tokens", "tree", "no node", "at least the root");
  const auto n = static_cast<std::size_t>(tree.size());
  expected.resize(n);
  expected[0] = 1;
  // First each node's probability of being reached, then their running sum.
  for (std::size_t i = 1; i < n; ++i) {
    const auto v = static_cast<Index>(i);
    if (calibration == nullptr) {
      expected[i] = std::exp(tree.log_probability(v));
      continue;
    }
    expected[i] = expected[static_cast<std::size_t>(tree.parent(v))] *
                  calibration->acceptance(tree.depth(v), tree.own_log_probability(v));
  }
  for (std::size_t i = 1; i < n; ++i) expected[i] += expected[i - 1];
}

/// The number of nodes by which a token takes the least time.
/// \param expected      A(1), A(2), ..., each above 0
/// \param verify_seconds a function of the number of nodes, such as MeasuredCost: above 0
/// \param draft_seconds of a round, at least 0
/// \returns the least such budget
/// \throws std::invalid_argument if there is none, or a number is not finite and as above
template <class Seconds>
BudgetChoice choose_budget(std::span<const double> expected, const Seconds& verify_seconds,
                           double draft_seconds) {
  constexpr const char* function = "draft::choose_budget";
  check(!expected.empty(), function, "expected", "none", "at least one");
  check(is_finite(draft_seconds) && draft_seconds >= 0, function, "draft_seconds", draft_seconds,
        "a finite number of at least 0");
  BudgetChoice best{.seconds = std::numeric_limits<double>::infinity()};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto nodes = static_cast<Index>(i) + 1;
    const double call = verify_seconds(nodes);
    check(is_finite(expected[i]) && expected[i] > 0, function, "expected", expected[i],
          "finite numbers above 0");
    check(is_finite(call) && call > 0, function, "verify_seconds", call, "a finite number above 0");
    const double seconds = draft_seconds + call;
    if (seconds * best.tokens < best.seconds * expected[i]) best = {nodes, expected[i], seconds};
  }
  return best;
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
