// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows with one field permuted, and the ways in which they pass a model.

#include <pare/core/permutation.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/detail/field_columns.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/model/detail/first_layer.hpp>
#include <pare/feature/model/detail/labelled_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

template <class T>
void copy_elements(TensorView<const T, 2> from, TensorView<T, 2> to) {
  for (Index b = 0; b < to.rows(); ++b)
    for (Index i = 0; i < to.cols(); ++i) to(b, i) = from(b, i);
}

/// A row-major copy of some rows in which a field can be permuted and put back.
template <class T>
class PermutedRows {
 public:
  PermutedRows(const FieldLayout& layout, TensorView<const T, 2> x) : layout_(layout), x_(x) {}

  /// Copies rows [begin, begin + count).
  void load(Index begin, Index count) {
    begin_ = begin;
    if (rows_.rows() != count) rows_.resize(count, x_.cols());
    copy_elements(row_range(x_, begin, count), view());
  }

  /// The rows take the field from the rows that the permutation of all of x names.
  void permute(Index field, const Permutation& permutation) {
    const TensorView<const T, 2> from = field_columns(layout_, x_, field);
    const TensorView<T, 2> to = field_columns(layout_, view(), field);
    for (Index b = 0; b < to.rows(); ++b) {
      const auto donor = static_cast<Index>(permutation[begin_ + b]);
      for (Index k = 0; k < to.cols(); ++k) to(b, k) = from(donor, k);
    }
  }

  void restore(Index field) {
    copy_elements(row_range(field_columns(layout_, x_, field), begin_, rows_.rows()),
                  field_columns(layout_, view(), field));
  }

  TensorView<T, 2> view() { return to_view(rows_); }

 private:
  const FieldLayout& layout_;
  TensorView<const T, 2> x_;
  RowMatrix<T> rows_;
  Index begin_ = 0;
};

/// Lists of logits, one for each field and repeat that are taken at a time.
template <class T>
using LogitLists = std::vector<std::vector<T>>;

template <class T>
LogitLists<T> logit_lists(Index lists, Index rows) {
  return LogitLists<T>(static_cast<std::size_t>(lists),
                       std::vector<T>(static_cast<std::size_t>(rows)));
}

/// Rows [begin, begin + count) of list `at`.
template <class T>
std::span<T> logit_range(LogitLists<T>& lists, std::size_t at, Index begin, Index count) {
  return std::span(lists[at]).subspan(static_cast<std::size_t>(begin),
                                      static_cast<std::size_t>(count));
}

/// Permuted rows through the whole model, `block` of them at a time.
template <class M>
class WholePasses {
 public:
  using T = typename M::scalar;

  /// Of so many, each block of rows is copied once.
  Index fields_at_a_time() const { return block_ < x_.rows() ? 32 : 1; }

  WholePasses(M& model, const FieldLayout& layout, TensorView<const T, 2> x, Index block,
              Index repeats)
      : model_(model),
        x_(x),
        block_(std::min(block, x.rows())),
        repeats_(repeats),
        rows_(layout, x),
        logits_(logit_lists<T>(fields_at_a_time() * repeats, x.rows())) {}

  /// The logits of fields [field, field + fields) with each permutation, of which a field has
  /// `repeats`.
  LogitLists<T>& run(Index field, Index fields, std::span<const Permutation> permutations) {
    for (Index begin = 0; begin < x_.rows(); begin += block_) {
      const Index count = std::min(block_, x_.rows() - begin);
      if (!is_loaded_ || block_ < x_.rows()) rows_.load(begin, count);
      is_loaded_ = true;
      for (Index j = 0; j < fields; ++j) {
        for (Index r = 0; r < repeats_; ++r) {
          const auto at = static_cast<std::size_t>(j * repeats_ + r);
          rows_.permute(field + j, permutations[at]);
          model_.forward(as_const(rows_.view()), logit_range(logits_, at, begin, count));
        }
        rows_.restore(field + j);
      }
    }
    return logits_;
  }

 private:
  M& model_;
  TensorView<const T, 2> x_;
  Index block_, repeats_;
  PermutedRows<T> rows_;
  bool is_loaded_ = false;
  LogitLists<T> logits_;
};

/// Permuted rows from the state behind the first layer on, `block` of them at a time.
template <class M>
class IncrementalPasses {
 public:
  using T = typename M::scalar;

  Index fields_at_a_time() const { return 1; }

  IncrementalPasses(M& model, const FieldLayout& layout, TensorView<const T, 2> x, Index block,
                    Index repeats)
      : model_(model),
        layout_(layout),
        x_(x),
        block_(std::min(block, x.rows())),
        state_(x.rows(), model.state_width()),
        logits_(logit_lists<T>(repeats, x.rows())) {
    model_.enter(x, to_view(state_));
  }

  /// The logits of a field with each permutation.
  LogitLists<T>& run(Index field, Index, std::span<const Permutation> permutations) {
    const TensorView<const T, 2> from = field_columns(layout_, x_, field);
    for (Index begin = 0; begin < x_.rows(); begin += block_) {
      const Index count = std::min(block_, x_.rows() - begin);
      for (std::size_t r = 0; r < permutations.size(); ++r) {
        moved_ = state_.middleRows(begin, count);
        gather(from, permutations[r], begin, count);
        model_.replace(layout_.offset(field), row_range(from, begin, count),
                       as_const(to_view(permuted_)), to_view(moved_));
        model_.leave(as_const(to_view(moved_)), logit_range(logits_, r, begin, count));
      }
    }
    return logits_;
  }

 private:
  void gather(TensorView<const T, 2> from, const Permutation& permutation, Index begin,
              Index count) {
    permuted_.resize(count, from.cols());
    for (Index b = 0; b < count; ++b)
      for (Index k = 0; k < from.cols(); ++k)
        permuted_(b, k) = from(static_cast<Index>(permutation[begin + b]), k);
  }

  M& model_;
  const FieldLayout& layout_;
  TensorView<const T, 2> x_;
  Index block_;
  RowMatrix<T> state_, moved_, permuted_;
  LogitLists<T> logits_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
