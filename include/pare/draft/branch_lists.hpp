// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The transition table of TreeFlash: for each depth one list of tokens for each of the m likeliest
/// tokens of the depth before, by a BranchCorrection.
///
/// ```cpp
/// BranchLists<float> lists;                                       // memory kept between rounds
/// block.draft_plain(backend, embeddings, cache, plain);           // [depths, d]
/// lists.fill(backend, correct, head, plain, block.weights().final_norm, embeddings.row(0),
///            [&](std::int32_t token, std::span<float> row) { ... },   // writes E[token]
///            {.previous = 16, .ranks = 16});
/// build_best_first(backend, anchor, lists.table(), tree, {.budget = 64});
/// ```
///
/// 1. The m likeliest tokens of each depth but the last, by the head of the rows as they are.
/// 2. The row of each depth after each of the m tokens of the depth before, corrected; of the first
///    depth after the anchor.
/// 3. The head's best tokens of all these rows, (depths - 1) m + 1 of them. A token that is among
///    the m of its depth has the list of the next that is conditioned on it; another is a leaf.
///
/// Source: TreeFlash, arXiv 2606.03819, its code (get_candidate_trees): m = k = 16, temperature 1.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/branch_correction.hpp>
#include <pare/draft/detail/head_argument.hpp>
#include <pare/draft/head.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/transformer/linear.hpp>
#include <pare/transformer/norms.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::draft {

/// Options of BranchLists.
struct BranchListOptions {
  Index previous = 16;         ///< m, tokens of a depth that are followed, at least 1
  Index ranks = 16;            ///< tokens of a list, at least 1
  double temperature = 1;      ///< of the drafter's law: finite, at least 0
  double norm_epsilon = 1e-6;  ///< of the drafter's last norm
};

namespace detail {
template <class X>
using IsCorrectionArgument = IsCorrection<std::remove_cvref_t<X>>;
}  // namespace detail

PARE_ABI_BEGIN

/// Lists of rows of T, which own their numbers.
template <ComputeScalar T>
class BranchLists {
 public:
  /// Lists of the rows of a block, those before are gone.
  /// \param backend    left out: pare::simd
  /// \param plain      [depths, d], at least one, before the drafter's last norm
  /// \param final_norm [d], the gain of that
  /// \param anchor     [1, d], the embedding of the anchor
  /// \param embed      embed(token, row) writes the embedding of a token of the head, [d]
  /// \throws std::invalid_argument if a shape or an option does not fit. `table` is then that of
  ///         before.
  /// Cost: that of the head for (depths - 1) m + 1 rows, and of the correction. Memory: 3 d numbers
  /// for each of these rows, 16 bytes for each token of a list.
  template <Backend B, class L, DraftHead H, In<2> X, In<2> A, class Embed>
  requires std::same_as<typename H::scalar, T> && SameScalar<X, A> &&
           std::same_as<scalar_of<X>, T> && std::same_as<transformer::linear_scalar<L>, T> &&
           std::invocable<const Embed&, std::int32_t, std::span<T>>
  void fill(const B& backend, const BranchCorrection<L>& correct, const H& head, const X& plain,
            const std::vector<T>& final_norm, const A& anchor, const Embed& embed,
            const BranchListOptions& options = {}) {
    const auto h = as_const(to_view(plain));
    const auto a = as_const(to_view(anchor));
    check_call(correct.width(), head.inputs(), h, final_norm, a, options);
    const TensorView<T, 2> normed = matrix_in(normed_, h.rows(), h.cols());
    transformer::rms_norm(backend, h, final_norm, normed, {.epsilon = options.norm_epsilon});
    head.reduce(backend, rows_of(as_const(normed), 0, h.rows() - 1), {.k = options.previous},
                regular_);
    const TensorView<T, 2> previous = embed_previous(a, embed, h.rows());
    const TensorView<T, 2> rows = matrix_in(rows_, previous.rows(), h.cols());
    correct.apply(backend, h, as_const(normed), as_const(previous), depth_of_, rows);
    transformer::rms_norm(backend, rows, final_norm, rows, {.epsilon = options.norm_epsilon});
    head.reduce(backend, as_const(rows), {.k = options.ranks, .temperature = options.temperature},
                branches_);
    set_table(h.rows());
  }
  /// \overload
  template <class L, DraftHead H, In<2> X, In<2> A, class Embed>
  requires std::same_as<typename H::scalar, T> && SameScalar<X, A> &&
           std::same_as<scalar_of<X>, T> && std::same_as<transformer::linear_scalar<L>, T> &&
           std::invocable<const Embed&, std::int32_t, std::span<T>>
  void fill(const BranchCorrection<L>& correct, const H& head, const X& plain,
            const std::vector<T>& final_norm, const A& anchor, const Embed& embed,
            const BranchListOptions& options = {}) {
    fill(simd, correct, head, plain, final_norm, anchor, embed, options);
  }
  PARE_REFUSE_CALLS(fill, "draft::BranchLists::fill",
                    "wanted a correction, a head, plain, final_norm (a std::vector) and anchor of "
                    "the scalar of the lists, embed(std::int32_t token, std::span row), and "
                    "BranchListOptions, members spelt and ordered as declared",
                    (PLAIN, (roles::Takes<detail::IsCorrectionArgument>), "correct",
                     "a BranchCorrection"),
                    (PLAIN, (roles::Takes<detail::IsHead>), "head", "a DraftHead"),
                    (INPUT, (roles::Reads<2>), "plain", "[depths, d]"),
                    (ANY, (roles::TakesAny), "final_norm", "[d]"),
                    (INPUT, (roles::ReadsSame<2>), "anchor", "[1, d]"),
                    (ANY, (roles::TakesAny), "embed", "a function"))

  /// Good until the next `fill`; empty before the first.
  TransitionTable<double> table() const {
    return {view(tokens_.data()), view(log_probabilities_.data()), view(next_.data())};
  }

  /// The tokens that are followed, [depths - 1 x m].
  const HeadSummary<T>& followed() const { return regular_; }

 private:
  static void check_call(Index width, Index inputs, TensorView<const T, 2> h,
                         const std::vector<T>& final_norm, TensorView<const T, 2> a,
                         const BranchListOptions& options) {
    constexpr const char* function = "draft::BranchLists::fill";
    check(inputs == width, function, "head", inputs, Worded{"", width, " inputs"});
    check_view(function, "plain", h);
    check(h.rows() >= 1, function, "plain", h.extent, "at least one row");
    check_extents<2>(function, "plain", h.extent, {h.rows(), width});
    check(static_cast<Index>(final_norm.size()) == width, function, "final_norm", final_norm.size(),
          width);
    check_view(function, "anchor", a);
    check_extents<2>(function, "anchor", a.extent, {1, width});
    check(options.previous >= 1, function, "previous", options.previous, "at least 1");
    check(options.ranks >= 1, function, "ranks", options.ranks, "at least 1");
    check(is_finite(options.temperature) && options.temperature >= 0, function, "temperature",
          options.temperature, "a finite number of at least 0");
    check(is_finite(options.norm_epsilon) && options.norm_epsilon >= 0, function, "norm_epsilon",
          options.norm_epsilon, "a finite number of at least 0");
  }

  /// Embeddings of the anchor and of the tokens that are followed, and the depths behind them.
  template <class Embed>
  TensorView<T, 2> embed_previous(TensorView<const T, 2> anchor, const Embed& embed, Index depths) {
    const Index m = regular_.k;
    const TensorView<T, 2> to = matrix_in(previous_, 1 + (depths - 1) * m, anchor.cols());
    depth_of_.assign(1, 0);
    for (Index j = 0; j < anchor.cols(); ++j) to(0, j) = anchor(0, j);
    for (Index d = 1; d < depths; ++d)
      for (Index i = 0; i < m; ++i) {
        const std::span<T> row(&to(static_cast<Index>(depth_of_.size()), 0),
                               static_cast<std::size_t>(to.cols()));
        depth_of_.push_back(d);
        // A row that is no law has no tokens: nothing leads to what would follow.
        if (const std::int32_t token = regular_.id(d - 1, i); token >= 0)
          embed(token, row);
        else
          std::fill(row.begin(), row.end(), T(0));
      }
    return to;
  }

  void set_table(Index depths) {
    extent_ = {depths, std::max<Index>(1, depths > 1 ? regular_.k : 1), branches_.k};
    const auto size = static_cast<std::size_t>(extent_[0] * extent_[1] * extent_[2]);
    tokens_.assign(size, -1);
    next_.assign(size, -1);
    log_probabilities_.assign(size, -std::numeric_limits<double>::infinity());
    Index row = 0;
    for (Index d = 0; d < depths; ++d)
      for (Index m = 0; m < (d == 0 ? 1 : extent_[1]); ++m, ++row)
        for (Index r = 0; r < branches_.k; ++r) {
          const auto at = static_cast<std::size_t>((d * extent_[1] + m) * extent_[2] + r);
          tokens_[at] = branches_.id(row, r);
          log_probabilities_[at] = branches_.log_probability(row, r);
          if (d + 1 < depths) next_[at] = list_after(d, tokens_[at]);
        }
  }

  /// Which of the followed tokens of a depth a token is, or -1.
  std::int32_t list_after(Index depth, std::int32_t token) const {
    for (Index i = 0; i < regular_.k; ++i)
      if (token >= 0 && regular_.id(depth, i) == token) return static_cast<std::int32_t>(i);
    return -1;
  }

  template <class V>
  TensorView<const V, 3> view(const V* data) const {
    return {data, extent_, {extent_[1] * extent_[2], extent_[2], 1}};
  }

  AlignedBuffer<T> normed_, previous_, rows_;
  HeadSummary<T> regular_, branches_;
  std::vector<Index> depth_of_;
  std::array<Index, 3> extent_{};
  std::vector<std::int32_t> tokens_, next_;
  std::vector<double> log_probabilities_;
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
