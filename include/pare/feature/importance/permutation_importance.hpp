// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Permutation importance: how much worse a fitted model scores when one field is permuted.
///
/// ```cpp
/// auto importance = permutation_importance(layout, x, [&](auto rows) { return accuracy(rows); });
/// auto exact      = permutation_importance(model, layout, x, labels, {.repeats = 5});
/// auto quick      = permutation_importance(model, layout, x, labels,
///                                          {.passes = PermutationPasses::Incremental});
/// Ranking ranking = exact.ranking();
/// ```
///
/// importance = score(x) - score(x with the field permuted), as in scikit-learn: mean, standard
/// deviation and all repeats. With one repeat it is what others call the shuffle score. It costs
/// fields * repeats passes of the model, which LeAP avoids (score.hpp). Correlated fields share
/// their credit, and look less important than they are.
///
/// Source: Breiman, "Random forests", Machine Learning 45 (2001); scikit-learn's
/// `permutation_importance` for options and results.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/importance/detail/permuted_passes.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// How the permuted rows pass a model.
enum class PermutationPasses {
  Full,     ///< all rows through the whole model, once per field and repeat: the definition
  Blocked,  ///< the same work, a block of rows at a time through all its repeats while the block
            ///< is in cache; the same bits as Full
  Incremental,  ///< only the change of the field's columns meets the first layer, rows times its
                ///< width instead of the input's; the same but for rounding. IncrementalModel only
};

/// Options of permutation importance.
struct PermutationOptions {
  Index repeats = 5;  ///< at least 1
  std::uint64_t seed = 0;
  PermutationPasses passes = PermutationPasses::Full;
  Index block_rows = 256;  ///< of Blocked and Incremental, at least 1
};

PARE_ABI_BEGIN

/// Area under the ROC curve of logits, as a score.
struct RocAucScore {
  template <class T>
  double operator()(std::span<const T> labels, std::span<const T> logits) const {
    return roc_auc(labels, logits);
  }
};

/// Minus the mean logistic loss, as a score: its importance is the rise of the loss.
struct LogisticScore {
  template <class T>
  double operator()(std::span<const T> labels, std::span<const T> logits) const {
    return -logistic_loss(labels, logits);
  }
};

/// Importance of each field; higher is better.
struct PermutationImportance {
  double baseline = 0;      ///< the score of the rows as they are
  Eigen::VectorXd mean;     ///< [fields]
  Eigen::VectorXd std;      ///< [fields] of the repeats, divided by their number
  Eigen::MatrixXd repeats;  ///< [fields x repeats]
  Index row_passes = 0;     ///< rows that passed the model, whole or behind the first layer

  /// \throws std::invalid_argument if a score was not finite
  PARE_ALWAYS_INLINE Ranking ranking() const {
    return rank_fields({mean.data(), static_cast<std::size_t>(mean.size())});
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

inline void check_permutation(const char* function, const FieldLayout& layout, Index rows,
                              Index cols, const PermutationOptions& options) {
  check(layout.fields() >= 1, function, "layout", layout.fields(), "at least one field");
  check(cols == layout.dim(), function, "x", cols, std::to_string(layout.dim()) + " columns");
  check(rows >= 2, function, "x", rows, "at least 2 rows");
  check(options.repeats >= 1, function, "repeats", options.repeats, "at least 1");
  check_enumerator(function, "passes", options.passes, PermutationPasses::Incremental);
  check(options.block_rows >= 1, function, "block_rows", options.block_rows, "at least 1");
  // Scores in bytes, rows that pass, and lists of logits are counted by products of these.
  const Index scores = checked_product(function, "repeats",
                                       std::max<Index>(layout.fields(), 32) + 1, options.repeats);
  checked_product(function, "repeats", scores, std::max<Index>(rows, sizeof(double)));
}

inline PermutationImportance empty_importance(const FieldLayout& layout, double baseline,
                                              Index repeats) {
  const auto zeros = Eigen::VectorXd::Zero(layout.fields());
  return {baseline, zeros, zeros, Eigen::MatrixXd::Zero(layout.fields(), repeats), 0};
}

/// Mean and deviation of the repeats.
inline void summarize(PermutationImportance& importance) {
  importance.mean = importance.repeats.rowwise().mean();
  importance.std = ((importance.repeats.colwise() - importance.mean).rowwise().squaredNorm() /
                    static_cast<double>(importance.repeats.cols()))
                       .cwiseSqrt();
}

/// The permutation of a field in a repeat.
inline Permutation field_permutation(Index rows, const PermutationOptions& options, Index field,
                                     Index repeat) {
  return Permutation::random(rows, options.seed,
                             static_cast<std::uint64_t>(field * options.repeats + repeat));
}

template <class M, class T, class S>
PermutationImportance model_importance(M& model, const FieldLayout& layout,
                                       TensorView<const T, 2> x, std::span<const T> labels,
                                       const PermutationOptions& options, const S& score) {
  std::vector<T> logits(labels.size());
  model.forward(x, logits);
  PermutationImportance importance =
      empty_importance(layout, score(labels, std::span<const T>(logits)), options.repeats);
  const auto fill = [&](auto&& passes) {
    const Index step = passes.fields_at_a_time();
    for (Index begin = 0; begin < layout.fields(); begin += step) {
      const Index fields = std::min(step, layout.fields() - begin);
      std::vector<Permutation> permutations;
      for (Index j = begin; j < begin + fields; ++j)
        for (Index r = 0; r < options.repeats; ++r)
          permutations.push_back(field_permutation(x.rows(), options, j, r));
      const LogitLists<T>& permuted = passes.run(begin, fields, permutations);
      for (std::size_t at = 0; at < permutations.size(); ++at) {
        const auto i = static_cast<Index>(at);
        importance.repeats(begin + i / options.repeats, i % options.repeats) =
            importance.baseline - score(labels, std::span<const T>(permuted[at]));
      }
    }
  };
  switch (options.passes) {
    case PermutationPasses::Full:
      fill(WholePasses<M>(model, layout, x, x.rows(), options.repeats));
      break;
    case PermutationPasses::Blocked:
      fill(WholePasses<M>(model, layout, x, options.block_rows, options.repeats));
      break;
    case PermutationPasses::Incremental:
      if constexpr (IncrementalModel<M>)
        fill(IncrementalPasses<M>(model, layout, x, options.block_rows, options.repeats));
      break;
  }
  importance.row_passes = x.rows() * (1 + layout.fields() * options.repeats);
  summarize(importance);
  return importance;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Permutation importance of any fitted model.
///
/// \param layout  the fields, whose columns are permuted together
/// \param x       [rows x dim] float or double, at least 2 rows; not changed
/// \param score   called with a row-major TensorView<const T, 2> [rows x dim]; higher is better
/// \param options `passes` and `block_rows` are not read
/// \throws std::invalid_argument if shapes do not fit, rows < 2, or repeats < 1
///
/// Cost: 1 + fields * repeats calls; beside them one copy of x.
template <RowsIn X, std::invocable<TensorView<const scalar_of<X>, 2>> Score>
PermutationImportance permutation_importance(const FieldLayout& layout, const X& x, Score&& score,
                                             const PermutationOptions& options = {}) {
  using T = scalar_of<X>;
  const TensorView<const T, 2> rows = as_const(to_view(x));
  check_view("feature::permutation_importance", "x", rows);
  detail::check_permutation("feature::permutation_importance", layout, rows.rows(), rows.cols(),
                            options);
  detail::PermutedRows<T> permuted(layout, rows);
  permuted.load(0, rows.rows());
  const auto score_now = [&] {
    return static_cast<double>(std::invoke(score, as_const(permuted.view())));
  };
  PermutationImportance importance = detail::empty_importance(layout, score_now(), options.repeats);
  for (Index j = 0; j < layout.fields(); ++j) {
    for (Index r = 0; r < options.repeats; ++r) {
      permuted.permute(j, detail::field_permutation(rows.rows(), options, j, r));
      importance.repeats(j, r) = importance.baseline - score_now();
    }
    permuted.restore(j);
  }
  importance.row_passes = rows.rows() * (1 + layout.fields() * options.repeats);
  detail::summarize(importance);
  return importance;
}

/// Permutation importance of a model of the scorers.
///
/// \param backend of the passes of the model (model.hpp); left out: pare::simd
/// \param model   fitted; its parameters are not changed
/// \param layout  the fields
/// \param x       [rows x dim] of the model's scalar, at least 2 rows, rows or columns contiguous
/// \param labels  [rows] 0 or 1
/// \param options see PermutationOptions
/// \param score   called with spans of labels and logits: RocAucScore, LogisticScore, or the
///                user's; higher is better
/// \throws std::invalid_argument if shapes do not fit, rows < 2, a label is another, an option is
///         out of its range, or Incremental is asked of a model without it
///
/// A field that the model ignores scores exactly 0 with Full and Blocked, for any labels.
///
/// Cost: rows * (1 + fields * repeats) rows of a forward pass with Full and Blocked; with
/// Incremental one such row costs width * state_width multiply-adds and what lies behind the first
/// layer. Memory: a copy of x (Full), of block_rows of it (Blocked), the state (Incremental), and
/// `repeats` lists of logits.
template <Backend B, Model M, RowsOf<M> X, NumberList Y, class Score = RocAucScore>
PermutationImportance permutation_importance(const B& backend, M& model, const FieldLayout& layout,
                                             const X& x, const Y& labels,
                                             const PermutationOptions& options = {},
                                             const Score& score = {}) {
  constexpr const char* function = "feature::permutation_importance";
  using T = typename M::scalar;
  const TensorView<const T, 2> rows = as_const(to_view(x));
  check_view(function, "x", rows);
  detail::check_permutation(function, layout, rows.rows(), rows.cols(), options);
  check(model.dim() == layout.dim(), function, "model", model.dim(), layout.dim());
  const std::vector<T> y = detail::labels_of_rows<T>(function, labels, rows.rows());
  check(IncrementalModel<M> || options.passes != PermutationPasses::Incremental, function, "passes",
        "Incremental", "Full or Blocked: the model is no IncrementalModel");
  detail::ModelOn<B, M> on(backend, model);
  return detail::model_importance(on, layout, rows, std::span<const T>(y), options, score);
}

/// \overload
template <Model M, RowsOf<M> X, NumberList Y, class Score = RocAucScore>
PermutationImportance permutation_importance(M& model, const FieldLayout& layout, const X& x,
                                             const Y& labels,
                                             const PermutationOptions& options = {},
                                             const Score& score = {}) {
  return permutation_importance(simd, model, layout, x, labels, options, score);
}

PARE_REFUSE_CALLS(permutation_importance, "feature::permutation_importance",
                  "after labels: wanted PermutationOptions, members spelt and ordered as declared",
                  (PLAIN, (roles::TakesScalar), "model", "a Model"),
                  (ANY, (roles::TakesAny), "layout", "a FieldLayout"),
                  (INPUT, (roles::ReadsSame<2>), "x", "[rows, layout.dim()]"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
