// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// From the rows of a block drafter to the table that a tree is built of: the likeliest tokens of
/// each row, one list for each depth, which all nodes of a depth share.
///
/// ```cpp
/// CandidateLists<float> lists;                              // memory kept between rounds
/// lists.fill(backend, head, rows, {.ranks = 7});            // any DraftHead; rows [depths, d]
/// build_best_first(backend, anchor, lists.table(), tree, {.budget = 16});
/// lists.table(15, 15);                                      // of the second sequence of a batch
/// eagle.expand(lists.tokens(), lists.log_probabilities());  // rows of a frontier, to an EagleTree
/// ```
///
/// The log-probability of a path is then the sum of those of its depths alone: a branch off the
/// likeliest token has the lists that follow that token. branch_correction.hpp conditions them.
///
/// Source: JetSpec, arXiv 2606.18394, its code (tree/baselines/accum_logp.py), whose width is 7.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/detail/head_argument.hpp>
#include <pare/draft/head.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/transition_table.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace pare::draft {

/// Options of CandidateLists.
struct CandidateOptions {
  Index ranks = 7;         ///< tokens of a list, at least 1; more than the head has: all of its
  double temperature = 1;  ///< of the drafter's law: finite, at least 0
};

PARE_ABI_BEGIN

/// Lists of rows of T, which own their numbers.
template <ComputeScalar T>
class CandidateLists {
 public:
  /// Lists of rows, those before are gone.
  /// \param backend left out: pare::simd
  /// \param rows    [depths, d], any strides
  /// \throws std::invalid_argument as the head's `reduce`, or if ranks is below 1. The lists are
  ///         then as before.
  /// Cost: that of head.top_k. Memory: 20 bytes and a T for each token of a list.
  template <Backend B, DraftHead H, In<2> X>
  requires std::same_as<typename H::scalar, T> && std::same_as<scalar_of<X>, T>
  void fill(const B& backend, const H& head, const X& rows, const CandidateOptions& options = {}) {
    constexpr const char* function = "draft::CandidateLists::fill";
    const auto x = as_const(to_view(rows));
    check(options.ranks >= 1, function, "ranks", options.ranks, "at least 1");
    check_extents<2>(function, "rows", x.extent, {x.rows(), head.inputs()});
    head.reduce(backend, x, {.k = options.ranks, .temperature = options.temperature}, summary_);
    log_probabilities_.resize(summary_.ids.size());
    for (Index r = 0; r < summary_.rows; ++r)
      for (Index i = 0; i < summary_.k; ++i)
        log_probabilities_[static_cast<std::size_t>(r * summary_.k + i)] =
            summary_.log_probability(r, i);
  }
  /// \overload
  template <DraftHead H, In<2> X>
  requires std::same_as<typename H::scalar, T> && std::same_as<scalar_of<X>, T>
  void fill(const H& head, const X& rows, const CandidateOptions& options = {}) {
    fill(simd, head, rows, options);
  }
  PARE_REFUSE_CALLS(fill, "draft::CandidateLists::fill",
                    "wanted a head and rows of the scalar of the lists, and CandidateOptions, "
                    "members spelt and ordered as declared",
                    (PLAIN, (roles::Takes<detail::IsHead>), "head", "a DraftHead"),
                    (INPUT, (roles::Reads<2>), "rows", "[depths, d]"))

  /// What the head said. A row that is no law has no token: a tree ends above it.
  const HeadSummary<T>& summary() const { return summary_; }

  /// [rows, k] the tokens of each row, best first, and their log-probabilities; good until the next
  /// `fill`.
  TensorView<const std::int32_t, 2> tokens() const { return view(summary_.ids.data()); }
  TensorView<const double, 2> log_probabilities() const { return view(log_probabilities_.data()); }

  /// The table of rows [first, first + depths), good until the next `fill`.
  /// \param depths left out: all from `first` on
  /// \throws std::invalid_argument if there are no such rows
  TransitionTable<double> table(Index first = 0, std::optional<Index> depths = {}) const {
    constexpr const char* function = "draft::CandidateLists::table";
    check(first >= 0 && first <= summary_.rows, function, "first", first,
          Worded{"0 to the ", summary_.rows, " rows"});
    const Index count = depths.value_or(summary_.rows - first);
    check(count >= 0 && count <= summary_.rows - first, function, "depths", count,
          Worded{"0 to the rows from the first on, ", summary_.rows - first});
    return shared_lists(rows_of(tokens(), first, count),
                        rows_of(log_probabilities(), first, count));
  }

 private:
  template <class V>
  TensorView<const V, 2> view(const V* data) const {
    return {data, {summary_.rows, summary_.k}, {summary_.k, 1}};
  }

  HeadSummary<T> summary_;
  std::vector<double> log_probabilities_;  ///< [rows x k]
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
