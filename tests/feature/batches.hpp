// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Batches of fields in every storage, and the mix as its formula says, in double.

#include <pare/core/aligned_buffer.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace pare::testing {

using feature::Donors;
using feature::FieldBatch;
using feature::FieldLayout;
using feature::Storage;

inline constexpr Storage storages[] = {Storage::RowMajor, Storage::ColumnMajor,
                                       Storage::FieldBlocked};

/// A batch with memory of its own; lines of RowMajor and ColumnMajor have a gap between them.
template <class T>
class OwnedBatch {
 public:
  OwnedBatch(const FieldLayout& layout, Index rows, Storage storage, Index gap = 3)
      : layout_(layout) {
    const Index dim = layout.dim();
    const bool blocked = storage == Storage::FieldBlocked, by_rows = storage == Storage::RowMajor;
    const Index stride = blocked ? 0 : (by_rows ? dim : rows) + gap;
    size_ = static_cast<std::size_t>(blocked ? rows * dim : stride * (by_rows ? rows : dim));
    std::fill_n(values_.resize(size_), size_, filler());
    batch_ = {values_.data(), rows, &layout_, storage, stride};
  }
  OwnedBatch(const OwnedBatch&) = delete;
  OwnedBatch& operator=(const OwnedBatch&) = delete;

  const FieldBatch<T>& batch() const { return batch_; }
  FieldBatch<const T> read() const { return batch_; }

  void set(const Eigen::MatrixXd& m) {
    for (Index j = 0; j < layout_.fields(); ++j) {
      const auto block = batch_.block(j);
      for (Index c = 0; c < layout_.width(j); ++c)
        for (Index b = 0; b < batch_.rows; ++b)
          block(b, c) = static_cast<T>(m(b, layout_.offset(j) + c));
    }
  }
  Eigen::MatrixXd get() const {
    Eigen::MatrixXd m(batch_.rows, layout_.dim());
    for (Index j = 0; j < layout_.fields(); ++j) {
      const auto block = batch_.block(j);
      for (Index c = 0; c < layout_.width(j); ++c)
        for (Index b = 0; b < batch_.rows; ++b)
          m(b, layout_.offset(j) + c) = static_cast<double>(block(b, c));
    }
    return m;
  }
  /// Scalars that still hold what they were created with.
  std::size_t untouched() const {
    return static_cast<std::size_t>(std::count(values_.data(), values_.data() + size_, filler()));
  }
  std::size_t size() const { return size_; }
  std::size_t gaps() const { return size_ - static_cast<std::size_t>(batch_.rows * layout_.dim()); }

 private:
  static T filler() { return T(-12345.5); }

  FieldLayout layout_;
  AlignedBuffer<T> values_;
  std::size_t size_ = 0;
  FieldBatch<T> batch_;
};

/// Normal numbers that T represents. Large ones are kept: tests ask for them once per storage.
template <class T>
Eigen::MatrixXd normal_batch(Index rows, Index cols, std::uint64_t seed) {
  static std::map<std::array<std::int64_t, 3>, Eigen::MatrixXd> kept;
  const auto draw = [&] {
    Engine random(seed);
    Eigen::MatrixXd m(rows, cols);
    for (Index b = 0; b < rows; ++b)
      for (Index c = 0; c < cols; ++c)
        m(b, c) = static_cast<double>(static_cast<T>(normal(random)));
    return m;
  };
  if (rows * cols < 10000) return draw();
  const auto [at, is_new] = kept.try_emplace({rows, cols, static_cast<std::int64_t>(seed)});
  if (is_new) at->second = draw();
  return at->second;
}

/// Gates in (0, 1), and 0, 1 and 1/2 among them.
inline std::vector<double> some_gates(Index fields, std::uint64_t seed) {
  Engine random(seed);
  std::vector<double> gates(static_cast<std::size_t>(fields));
  for (std::size_t j = 0; j < gates.size(); ++j) {
    const double u = 0.5 + 0.499 * uniform(random);
    gates[j] = j % 7 == 3 ? 1 : j % 7 == 5 ? 0 : j % 7 == 6 ? 0.5 : u;
  }
  return gates;
}

/// Row b holds the rows that give each column to row b.
inline Eigen::MatrixXd permuted(const Eigen::MatrixXd& x, const Donors& donors) {
  const FieldLayout& layout = donors.layout();
  Eigen::MatrixXd t(x.rows(), x.cols());
  for (Index j = 0; j < layout.fields(); ++j) {
    const Permutation p = donors.permutation(j);
    for (Index c = layout.offset(j); c < layout.offset(j + 1); ++c)
      for (Index b = 0; b < x.rows(); ++b) t(b, c) = x(static_cast<Index>(p[b]), c);
  }
  return t;
}

/// A gate for each column.
inline Eigen::RowVectorXd column_gates(const FieldLayout& layout,
                                       const std::vector<double>& gates) {
  Eigen::RowVectorXd g(layout.dim());
  for (Index j = 0; j < layout.fields(); ++j)
    g.segment(layout.offset(j), layout.width(j)).setConstant(gates[static_cast<std::size_t>(j)]);
  return g;
}

/// g x + (1 - g) t.
inline Eigen::MatrixXd mixed_by_formula(const Eigen::MatrixXd& x, const Donors& donors,
                                        const std::vector<double>& gates) {
  const Eigen::RowVectorXd g = column_gates(donors.layout(), gates);
  const Eigen::RowVectorXd rest = Eigen::RowVectorXd::Ones(g.size()) - g;
  return x * g.asDiagonal() + permuted(x, donors) * rest.asDiagonal();
}

/// Sums of a T rounded like those of the kernels: a difference, a product, at most 64 additions to
/// a lane, two lanes sets and at most 16 lanes added, the rest of `terms` in double.
template <class T>
double sum_bound(double terms) {
  return Tolerance<T>::gamma(84) + Tolerance<double>::gamma(terms + 84);
}

}  // namespace pare::testing
