// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which rows of a batch go to which expert, sorted by expert.
///
/// ```cpp
/// const Routes<float> routes = route(logits, TopK{.k = 2});          // ids and weights, [rows, 2]
/// const RoutePlan plan(routes.ids, experts);
/// plan.rows_of(3);                          // the rows that expert 3 works on, ascending
/// grouped_multiply(x, plan, layers, parts); // [plan.routed(), outputs], sorted like the plan
/// ```
///
/// `expected_experts(rows, k, experts)` says how many experts a batch reads, `capacity_of` what an
/// even share is.
///
/// A pair of a row and an expert has a place: pairs are sorted by expert, those of one expert by
/// row (a stable counting sort). Places of expert e are [offsets()[e], offsets()[e + 1]).
///
/// Sources: the routed layers of Sigma-MoE-Tiny, arXiv 2512.16248; FactorLLM, arXiv 2408.11855;
/// SPT, arXiv 2312.10365. Ours: rows beyond a capacity are dropped by their position.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::routing {

/// Options of RoutePlan.
struct RoutePlanOptions {
  /// Rows that an expert takes, at least 1: those behind are dropped. Left out: any number.
  std::optional<Index> capacity{};
};

PARE_ABI_BEGIN

/// Places of the pairs of rows and experts. Memory: four indices for each pair, one per expert.
class RoutePlan {
 public:
  /// No rows and no experts.
  RoutePlan() = default;

  /// \param ids     [rows, choices] of Index, any strides: experts from 0 to experts - 1, each at
  ///                most once in a row, or -1 for no expert
  /// \param experts at least 1
  /// \throws std::invalid_argument if an id is out of range or stands twice in a row, naming the
  ///         row, or an option is out of range
  ///
  /// Cost: some 5 ns per pair on one thread.
  RoutePlan(const TensorView<const Index, 2>& ids, Index experts,
            const RoutePlanOptions& options = {}) {
    assign(ids, experts, options);
  }

  /// \overload
  /// `ids` is any matrix of Index: of Eigen's, or a view.
  template <class I>
  requires(view_of<const I>::rank == 2 && std::is_same_v<scalar_of<I>, Index>)
  RoutePlan(const I& ids, Index experts, const RoutePlanOptions& options = {})
      : RoutePlan(as_const(to_view(ids)), experts, options) {}

  /// The same in the memory of this plan, which stays as it was if this throws for an argument.
  void assign(const TensorView<const Index, 2>& ids, Index experts,
              const RoutePlanOptions& options = {}) {
    check_ids(ids, experts, options);
    rows_ = ids.rows();
    choices_ = ids.cols();
    count(ids, experts, options);
    place(ids);
  }

  Index rows() const { return rows_; }
  /// Experts that a row may go to.
  Index choices() const { return choices_; }
  Index experts() const { return static_cast<Index>(offsets_.size()) - 1; }
  /// Pairs of a row and an expert, without those that were dropped.
  Index routed() const { return offsets_.back(); }
  /// Pairs that an expert had no capacity for.
  Index dropped() const { return dropped_; }
  /// Where the places of each expert begin, and the last ends: [experts + 1].
  std::span<const Index> offsets() const { return offsets_; }
  /// The row of each place, [routed].
  std::span<const Index> rows_by_place() const { return row_of_; }
  /// Which of its row's choices each place is, [routed].
  std::span<const Index> choice_by_place() const { return choice_of_; }

  /// Rows of an expert, ascending. \throws std::invalid_argument if there is no such expert
  std::span<const Index> rows_of(Index expert) const {
    check(expert >= 0 && expert < experts(), "routing::RoutePlan::rows_of", "expert", expert,
          Worded{"0 to below the experts, ", experts()});
    return std::span(row_of_).subspan(
        static_cast<std::size_t>(offset(expert)),
        static_cast<std::size_t>(offset(expert + 1) - offset(expert)));
  }

  /// Places of a row, by ascending expert. \throws std::invalid_argument if there is no such row
  std::span<const Index> places_of(Index row) const {
    check(row >= 0 && row < rows_, "routing::RoutePlan::places_of", "row", row,
          Worded{"0 to below the rows, ", rows_});
    const auto r = static_cast<std::size_t>(row);
    return std::span(places_).subspan(static_cast<std::size_t>(row * choices_),
                                      static_cast<std::size_t>(filled_[r]));
  }

 private:
  Index offset(Index expert) const { return offsets_[static_cast<std::size_t>(expert)]; }

  void check_ids(const TensorView<const Index, 2>& ids, Index experts,
                 const RoutePlanOptions& options) {
    constexpr const char* function = "routing::RoutePlan";
    check_view(function, "ids", ids);
    check(experts >= 1, function, "experts", experts, "at least 1");
    checked_count(function, "experts", experts, sizeof(Index));
    const Index most = std::max<Index>(ids.cols(), 1);  // rows are counted without choices too
    checked_count(function, "ids", checked_product(function, "ids", ids.rows(), most),
                  sizeof(Index));
    check(options.capacity.value_or(1) >= 1, function, "capacity", options.capacity.value_or(1),
          "at least 1");
    next_.assign(static_cast<std::size_t>(experts), -1);  // here the last row of each expert
    for (Index r = 0; r < ids.rows(); ++r)
      for (Index j = 0; j < ids.cols(); ++j) {
        const Index id = ids(r, j);
        if (id == -1) continue;
        const std::array<Index, 3> got{r, j, id};
        check(id >= 0 && id < experts, function, "ids", got,
              Worded{"[row, choice, id] with an id of -1, or from 0 to below the experts, ",
                     experts});
        Index& last = next_[static_cast<std::size_t>(id)];
        check(last != r, function, "ids", got, "[row, choice, id] with each expert once in a row");
        last = r;
      }
  }

  /// Offsets, and how many pairs are dropped.
  void count(const TensorView<const Index, 2>& ids, Index experts,
             const RoutePlanOptions& options) {
    offsets_.assign(static_cast<std::size_t>(experts) + 1, 0);
    for (Index r = 0; r < rows_; ++r)
      for (Index j = 0; j < choices_; ++j)
        if (ids(r, j) >= 0) ++offsets_[static_cast<std::size_t>(ids(r, j)) + 1];
    dropped_ = 0;
    for (Index& each : offsets_)
      if (options.capacity && each > *options.capacity) {
        dropped_ += each - *options.capacity;
        each = *options.capacity;
      }
    std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  }

  /// Rows in order take the next place of their experts; then experts in order give each row its
  /// places.
  void place(const TensorView<const Index, 2>& ids) {
    const auto size = static_cast<std::size_t>(routed());
    row_of_.resize(size);
    choice_of_.resize(size);
    next_.assign(offsets_.begin(), offsets_.end() - 1);
    for (Index r = 0; r < rows_; ++r)
      for (Index j = 0; j < choices_; ++j) {
        const Index id = ids(r, j);
        if (id < 0) continue;
        Index& next = next_[static_cast<std::size_t>(id)];
        if (next == offset(id + 1)) continue;
        row_of_[static_cast<std::size_t>(next)] = r;
        choice_of_[static_cast<std::size_t>(next)] = j;
        ++next;
      }
    places_.resize(static_cast<std::size_t>(rows_ * choices_));
    filled_.assign(static_cast<std::size_t>(rows_), 0);
    for (std::size_t p = 0; p < size; ++p) {
      Index& filled = filled_[static_cast<std::size_t>(row_of_[p])];
      places_[static_cast<std::size_t>(row_of_[p] * choices_ + filled)] = static_cast<Index>(p);
      ++filled;
    }
  }

  Index rows_ = 0, choices_ = 0, dropped_ = 0;
  std::vector<Index> offsets_{0};   ///< [experts + 1]
  std::vector<Index> row_of_{};     ///< [routed]
  std::vector<Index> choice_of_{};  ///< [routed]
  std::vector<Index> places_{};     ///< [rows x choices], of a row by ascending expert
  std::vector<Index> filled_{};     ///< [rows] places of a row
  std::vector<Index> next_{};       ///< [experts], of use only within assign
};

/// ceil(rows choices / experts factor): the capacity that leaves each expert `factor` times its
/// even share.
/// \param factor at least 1 by convention; finite, above 0
/// \throws std::invalid_argument if a count is below 1 (rows: 0), or the factor is out of range
inline Index capacity_of(Index rows, Index choices, Index experts, double factor) {
  constexpr const char* function = "routing::capacity_of";
  check(rows >= 0, function, "rows", rows, "at least 0");
  check(choices >= 1, function, "choices", choices, "at least 1");
  check(experts >= 1, function, "experts", experts, "at least 1");
  check(factor > 0 && is_finite(factor), function, "factor", factor, "a finite number above 0");
  const double pairs = static_cast<double>(checked_product(function, "rows", rows, choices));
  const double share = std::ceil(pairs / static_cast<double>(experts) * factor);
  check(share < 0x1p62, function, "factor", factor, "one whose capacity is an Index");
  return share < 1 ? 1 : static_cast<Index>(share);
}

/// experts (1 - (1 - choices / experts)^rows): how many different experts rows choose together, on
/// average, if each chooses at random. A batch reads the weights of so many, so that a tree of 8
/// draft tokens reads 7.7 times those of one token on a top-1 layer of 96.
/// \param choices 1 to the experts
/// \throws std::invalid_argument if a count is out of range (rows: below 0)
inline double expected_experts(Index rows, Index choices, Index experts) {
  constexpr const char* function = "routing::expected_experts";
  check(rows >= 0, function, "rows", rows, "at least 0");
  check(experts >= 1, function, "experts", experts, "at least 1");
  check(choices >= 1 && choices <= experts, function, "choices", choices,
        Worded{"1 to the experts, ", experts});
  if (rows == 0) return 0;
  const auto count = static_cast<double>(experts);
  // Of many experts 1 - choices / experts would round to 1.
  const double left_out = std::log1p(-static_cast<double>(choices) / count);
  return -count * std::expm1(static_cast<double>(rows) * left_out);
}

PARE_ABI_END

namespace detail {
template <class X>
using IsPlan = std::is_same<std::remove_cvref_t<X>, RoutePlan>;
}  // namespace detail
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
