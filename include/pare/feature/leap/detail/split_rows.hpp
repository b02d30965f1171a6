// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A table cut into training and held-out rows, in random order, with columns of mean 0
/// and unit deviation.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/check.hpp>
#include <pare/core/permutation.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/model/detail/labelled_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Row numbers of the two parts.
struct RowSplit {
  std::vector<Index> training, holdout;
};

/// Of each class the share `holdout`, rounded, at least two rows and leaving two.
template <class T>
RowSplit split_by_class(const char* function, std::span<const T> labels, double holdout,
                        std::uint64_t seed) {
  check(holdout > 0 && holdout < 1, function, "holdout", holdout, "a share in (0, 1)");
  const auto rows = static_cast<Index>(labels.size());
  const Permutation order = Permutation::random(rows, seed, 0);
  RowSplit split;
  for (const T label : {T(0), T(1)}) {
    std::vector<Index> of_class;
    for (Index i = 0; i < rows; ++i)
      if (labels[order[i]] == label) of_class.push_back(static_cast<Index>(order[i]));
    const auto size = static_cast<Index>(of_class.size());
    check(size >= 4, function, "labels", size, "at least 4 rows of each class");
    const auto share = static_cast<Index>(std::llround(holdout * static_cast<double>(size)));
    const Index count = std::clamp<Index>(share, 2, size - 2);
    split.holdout.insert(split.holdout.end(), of_class.begin(), of_class.begin() + count);
    split.training.insert(split.training.end(), of_class.begin() + count, of_class.end());
  }
  return split;
}

/// The rows in random order: classes came one after the other.
inline std::vector<Index> shuffled(const std::vector<Index>& rows, std::uint64_t seed,
                                   std::uint64_t stream) {
  const Permutation order = Permutation::random(static_cast<Index>(rows.size()), seed, stream);
  std::vector<Index> out(rows.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = rows[order[static_cast<Index>(i)]];
  return out;
}

/// A copy of some rows, by rows or by columns, and of their labels.
template <class T>
class RowCopy {
 public:
  RowCopy(TensorView<const T, 2> x, std::span<const T> labels, const std::vector<Index>& rows,
          bool by_columns)
      : memory_(rows.size() * static_cast<std::size_t>(x.cols())) {
    const auto count = static_cast<Index>(rows.size());
    view_ = {
        memory_.data(), {count, x.cols()}, {by_columns ? 1 : x.cols(), by_columns ? count : 1}};
    // Lines of what is read and written are used in full: columns one by one where both lie so.
    const Index block = by_columns && x.stride[0] == 1 ? 1 : 64;
    for (Index begin = 0; begin < x.cols(); begin += block)
      for (Index b = 0; b < count; ++b)
        for (Index i = begin; i < std::min(begin + block, x.cols()); ++i)
          view_(b, i) = x(rows[static_cast<std::size_t>(b)], i);
    for (const Index row : rows) labels_.push_back(labels[static_cast<std::size_t>(row)]);
  }

  TensorView<T, 2> view() const { return view_; }
  LabelledRows<T> rows() const { return {as_const(view_), labels_}; }

 private:
  AlignedBuffer<T> memory_;
  TensorView<T, 2> view_;
  std::vector<T> labels_;
};

/// Where a column lies, once multiplied by `unit`: what is subtracted from it, and what the rest is
/// divided by.
struct ColumnScale {
  double mean = 0, deviation = 1, unit = 1;
};

/// The power of two by which a column is multiplied so that squares of its differences, half as
/// large as `half` and more, neither overflow nor vanish: 1 but at the ends of the range of double.
inline double column_unit(double half) {
  if (half == 0 || (half > 0x1p-450 && half < 0x1p450)) return 1;
  int exponent = 0;
  std::frexp(half, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
}

/// Half the distance between a column's least and greatest number; refused unless all are finite.
template <class T>
double half_range(const char* function, TensorView<const T, 2> x, Index i) {
  double least = std::numeric_limits<double>::max(), most = -least;
  for (Index b = 0; b < x.rows(); ++b) {
    const auto value = static_cast<double>(x(b, i));
    check(is_finite(value), function, "x", value, "finite numbers");
    least = std::min(least, value);
    most = std::max(most, value);
  }
  return most > least ? std::max(most / 2 - least / 2, std::numeric_limits<double>::denorm_min())
                      : 0;
}

/// Mean and deviation of each column, a deviation of 1 where it is 0; refused unless all numbers
/// are finite.
template <class T>
std::vector<ColumnScale> column_scales(const char* function, TensorView<const T, 2> x) {
  std::vector<ColumnScale> scales;
  const auto rows = static_cast<double>(x.rows());
  for (Index i = 0; i < x.cols(); ++i) {
    const double unit = column_unit(half_range(function, x, i));
    // Sums of differences from the first row: no digits are lost far from zero.
    const double first = static_cast<double>(x(0, i)) * unit;
    double sum = 0, squares = 0;
    for (Index b = 0; b < x.rows(); ++b) {
      const double value = static_cast<double>(x(b, i)) * unit - first;
      sum += value;
      squares += value * value;
    }
    const double variance = squares / rows - sum / rows * (sum / rows);
    scales.push_back({first + sum / rows, variance > 0 ? std::sqrt(variance) : 1.0, unit});
  }
  return scales;
}

template <class T>
void check_finite(const char* function, TensorView<const T, 2> x) {
  for (Index i = 0; i < x.cols(); ++i) half_range(function, x, i);
}

/// What is done to the columns of a table.
struct ColumnTreatment {
  bool center = true;  ///< subtracts the mean of the training rows
  bool scale = true;   ///< divides by their deviation
};

/// Refused where a number behind it is one whose products with others of its size overflow.
template <class T>
void treat_columns(const char* function, TensorView<T, 2> x, const std::vector<ColumnScale>& scales,
                   ColumnTreatment treatment) {
  constexpr double most = std::is_same_v<T, float> ? 0x1p60 : 0x1p500;
  for (Index i = 0; i < x.cols(); ++i) {
    const ColumnScale& scale = scales[static_cast<std::size_t>(i)];
    const double mean = treatment.center ? scale.mean : 0;
    const double factor = 1 / (treatment.scale ? scale.deviation : scale.unit);
    for (Index b = 0; b < x.rows(); ++b) {
      const double value = (static_cast<double>(x(b, i)) * scale.unit - mean) * factor;
      check(std::abs(value) <= most, function, "x", value,
            "numbers of at most 2^60 (float) or 2^500 (double), once columns are centred and "
            "scaled as the options say");
      x(b, i) = static_cast<T>(value);
    }
  }
}

/// Both parts of a table.
template <class T>
struct SplitRows {
  SplitRows(const char* function, TensorView<const T, 2> x, std::span<const T> labels, double share,
            ColumnTreatment treatment, bool by_columns, std::uint64_t seed)
      : SplitRows(x, labels, split_by_class(function, labels, share, seed), by_columns, seed) {
    const auto scales = column_scales(function, training.x);
    check_finite(function, holdout.x);
    treat_columns(function, training_copy_.view(), scales, treatment);
    treat_columns(function, holdout_copy_.view(), scales, treatment);
  }

  /// Columns [offset, offset + width) are 0 from here on, and with them say nothing.
  void clear_columns(Index offset, Index width) {
    for (const TensorView<T, 2> x : {training_copy_.view(), holdout_copy_.view()})
      for (Index c = offset; c < offset + width; ++c)
        for (Index b = 0; b < x.rows(); ++b) x(b, c) = T(0);
  }

 private:
  SplitRows(TensorView<const T, 2> x, std::span<const T> labels, const RowSplit& split,
            bool by_columns, std::uint64_t seed)
      : training_copy_(x, labels, shuffled(split.training, seed, 1), by_columns),
        holdout_copy_(x, labels, shuffled(split.holdout, seed, 2), by_columns),
        training(training_copy_.rows()),
        holdout(holdout_copy_.rows()) {}

  RowCopy<T> training_copy_, holdout_copy_;

 public:
  LabelledRows<T> training, holdout;
};

PARE_ABI_END
}  // namespace pare::feature::detail
