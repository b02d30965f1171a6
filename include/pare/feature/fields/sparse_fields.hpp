// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Batches of fields that are at their default in most rows.
///
/// ```cpp
/// auto x = to_sparse(layout, matrix);             // [rows x dim], dense or Eigen::SparseMatrix
/// x.rows_of(3), x.values(3)                       // rows and values of the entries of field 3
/// x.entries()                                     // of all fields
/// to_dense(x, field_blocked(layout, buffer, x.rows()));
/// ```
///
/// For each field, only the rows that differ from its default are stored: their indices, in rising
/// order, and their values. Memory and the cost of the mix (mix_sparse.hpp) follow the number of
/// these entries, not the width of the batch.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::feature {

namespace detail {
PARE_ABI_BEGIN
template <ComputeScalar T>
struct SparseEntries;
PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Rows and values of the entries of every field, and the defaults of all other rows.
///
/// Field j has room for `capacity(j)` entries, of which `entries(j)` are in use, so that a batch
/// can be filled field by field, by several threads, and again without allocating.
template <ComputeScalar T>
class SparseFields {
 public:
  SparseFields() = default;

  /// A batch of defaults, 0.
  /// \throws std::invalid_argument if the layout has no field, or rows are negative or beyond 2^32
  SparseFields(FieldLayout layout, Index rows) : layout_(std::move(layout)), rows_(rows) {
    constexpr const char* function = "feature::SparseFields";
    check(layout_.fields() >= 1, function, "layout", "no field", "at least one");
    check(rows >= 0 && rows <= Index{0xffffffff}, function, "rows", rows, "a size in [0, 2^32)");
    checked_product(function, "layout", layout_.dim(), Index{sizeof(T)});
    defaults_.assign(static_cast<std::size_t>(layout_.dim()), T(0));
    reserve(std::vector<Index>(static_cast<std::size_t>(layout_.fields()), 0));
  }

  const FieldLayout& layout() const { return layout_; }
  Index rows() const { return rows_; }

  /// Rows of field j that are kept.
  /// \throws std::invalid_argument unless j is a field, as all that take one
  Index entries(Index j) const {
    check_field("feature::SparseFields::entries", j);
    return counts_[static_cast<std::size_t>(j)];
  }
  /// Rows of all fields that are kept.
  Index entries() const {
    Index sum = 0;
    for (const Index count : counts_) sum += count;
    return sum;
  }
  /// Entries that field j has room for.
  Index capacity(Index j) const {
    check_field("feature::SparseFields::capacity", j);
    return begin(j + 1) - begin(j);
  }

  /// The rows of field j's entries, rising.
  std::span<const std::uint32_t> rows_of(Index j) const {
    check_field("feature::SparseFields::rows_of", j);
    return {row_numbers_.data() + begin(j), static_cast<std::size_t>(entries(j))};
  }
  /// [entries x width] of field j.
  TensorView<const T, 2> values(Index j) const {
    check_field("feature::SparseFields::values", j);
    const Index width = layout_.width(j);
    return {values_.data() + value_begin(j), {entries(j), width}, {width, 1}};
  }
  TensorView<T, 2> values(Index j) {
    check_field("feature::SparseFields::values", j);
    const Index width = layout_.width(j);
    return {values_.data() + value_begin(j), {entries(j), width}, {width, 1}};
  }

  /// [dim] what field j has in all other rows, from offset(j) on.
  std::span<const T> defaults() const { return defaults_; }
  std::span<T> defaults() { return defaults_; }

  /// Makes room for capacities[j] entries of each field j and drops all entries. Defaults stay.
  /// Memory: 4 + width sizeof(T) bytes per entry.
  /// \throws std::invalid_argument unless there is a number in [0, rows] for each field
  void reserve(const std::vector<Index>& capacities) {
    constexpr const char* function = "feature::SparseFields::reserve";
    check(static_cast<Index>(capacities.size()) == layout_.fields(), function, "capacities",
          capacities.size(), layout_.fields());
    Index rows = 0, scalars = 0;
    for (std::size_t j = 0; j < capacities.size(); ++j) {
      const Index capacity = capacities[j];
      check(capacity >= 0 && capacity <= rows_, function, "capacities", capacity,
            "0 to " + std::to_string(rows_));
      const Index more =
          checked_product(function, "capacities", capacity, layout_.width(static_cast<Index>(j)));
      check(more <= std::numeric_limits<Index>::max() / Index{sizeof(T)} - scalars, function,
            "capacities", capacity, "a batch whose bytes fit 63 bits");
      rows += capacity;
      scalars += more;
    }
    make_room(capacities.size(), rows, scalars);
    begins_.assign(1, 0);
    value_begins_.assign(1, 0);
    for (std::size_t j = 0; j < capacities.size(); ++j) {
      begins_.push_back(begins_.back() + capacities[j]);
      value_begins_.push_back(value_begins_.back() +
                              capacities[j] * layout_.width(static_cast<Index>(j)));
    }
    counts_.assign(capacities.size(), 0);
    row_numbers_.resize(static_cast<std::size_t>(rows));
    values_.resize(static_cast<std::size_t>(scalars));
  }

  /// Gives field j the entries of these rows, with values to be written by the caller.
  /// \throws std::invalid_argument if there is no room, or rows do not rise or are not the batch's
  void set_rows(Index j, std::span<const std::uint32_t> rows) {
    constexpr const char* function = "feature::SparseFields::set_rows";
    check(j >= 0 && j < layout_.fields(), function, "j", j, "a field");
    check(static_cast<Index>(rows.size()) <= capacity(j), function, "rows", rows.size(),
          "at most " + std::to_string(capacity(j)) + ", the capacity");
    for (std::size_t i = 0; i < rows.size(); ++i)
      check(static_cast<Index>(rows[i]) < rows_ && (i == 0 || rows[i - 1] < rows[i]), function,
            "rows", rows[i], "rising rows of the batch");
    std::copy(rows.begin(), rows.end(), row_numbers_.begin() + begin(j));
    counts_[static_cast<std::size_t>(j)] = static_cast<Index>(rows.size());
  }

  /// Takes rows, layout, defaults and entries of another batch, but not their values.
  void assume_pattern(const SparseFields& other) {
    layout_ = other.layout_;
    rows_ = other.rows_;
    defaults_ = other.defaults_;
    begins_ = other.begins_;
    value_begins_ = other.value_begins_;
    counts_ = other.counts_;
    row_numbers_ = other.row_numbers_;
    values_.resize(other.values_.size());
  }

  /// Whether rows, layout and entries are those of another batch.
  bool same_pattern(const SparseFields& other) const {
    if (rows_ != other.rows_ || !(layout_ == other.layout_) || counts_ != other.counts_)
      return false;
    for (Index j = 0; j < layout_.fields(); ++j) {
      const auto a = rows_of(j), b = other.rows_of(j);
      if (!std::equal(a.begin(), a.end(), b.begin())) return false;
    }
    return true;
  }

 private:
  friend struct detail::SparseEntries<T>;

  /// All that can fail for want of memory, before anything changes.
  void make_room(std::size_t fields, Index rows, Index scalars) {
    begins_.reserve(fields + 1);
    value_begins_.reserve(fields + 1);
    counts_.reserve(fields);
    row_numbers_.reserve(static_cast<std::size_t>(rows));
    values_.reserve(static_cast<std::size_t>(scalars));
  }

  void check_field(const char* function, Index j) const {
    check(j >= 0 && j < static_cast<Index>(counts_.size()), function, "j", j,
          "a field of the batch");
  }

  Index begin(Index j) const { return begins_[static_cast<std::size_t>(j)]; }
  Index value_begin(Index j) const { return value_begins_[static_cast<std::size_t>(j)]; }

  FieldLayout layout_;
  Index rows_ = 0;
  std::vector<T> defaults_;
  std::vector<Index> begins_, value_begins_;  ///< [fields + 1]
  std::vector<Index> counts_;                 ///< [fields]
  std::vector<std::uint32_t> row_numbers_;
  std::vector<T> values_;
};

PARE_ABI_END

namespace detail {

PARE_ABI_BEGIN

/// Entries as the mix writes them: rising by construction.
template <ComputeScalar T>
struct SparseEntries {
  static std::uint32_t* rows(SparseFields<T>& fields, Index j) {
    return fields.row_numbers_.data() + fields.begin(j);
  }
  static void set_count(SparseFields<T>& fields, Index j, std::size_t count) {
    fields.counts_[static_cast<std::size_t>(j)] = static_cast<Index>(count);
  }
};

/// The rows of field j in which a scalar differs from its default. A NaN differs from everything.
template <class T>
std::vector<std::uint32_t> active_rows(TensorView<const T, 2> block, const T* defaults) {
  std::vector<std::uint32_t> rows;
  for (Index b = 0; b < block.rows(); ++b)
    for (Index c = 0; c < block.cols(); ++c)
      if (!(block(b, c) == defaults[c])) {
        rows.push_back(static_cast<std::uint32_t>(b));
        break;
      }
  return rows;
}

template <class T, class U>
void check_same_shape(const char* function, const SparseFields<T>& sparse,
                      const FieldBatch<U>& dense) {
  check(dense.layout != nullptr && *dense.layout == sparse.layout(), function, "dense",
        "another layout", "the layout of the entries");
  check(dense.rows == sparse.rows(), function, "dense", dense.rows, sparse.rows());
  check_field_batch(function, "dense", dense);
  if constexpr (!std::is_const_v<U>) check_writable(function, "dense", whole_batch(dense));
}

/// Calls f(scalar of an entry, its place in the dense batch) for all.
template <class S, class U, class F>
void for_entries(S& sparse, const FieldBatch<U>& dense, const F& f) {
  for (Index j = 0; j < sparse.layout().fields(); ++j) {
    const auto values = sparse.values(j);
    const auto rows = sparse.rows_of(j);
    const auto block = dense.block(j);
    for (Index i = 0; i < values.rows(); ++i)
      for (Index c = 0; c < values.cols(); ++c)
        f(values(i, c), block(static_cast<Index>(rows[static_cast<std::size_t>(i)]), c));
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Keeps the rows of a dense batch that differ from the defaults.
///
/// \param x        [rows x dim]
/// \param defaults [dim], or empty: 0
/// \throws std::invalid_argument if columns or the number of defaults are not the layout's
/// Cost: x is read once, and what is kept once more.
template <FieldsIn X>
SparseFields<field_scalar_of<X>> to_sparse(const FieldLayout& layout, const X& x,
                                           std::span<const field_scalar_of<X>> defaults = {}) {
  using T = field_scalar_of<X>;
  constexpr const char* function = "feature::to_sparse";
  const FieldBatch<const T> batch = detail::to_batch(function, "x", layout, x);
  check(defaults.empty() || static_cast<Index>(defaults.size()) == layout.dim(), function,
        "defaults", defaults.size(), layout.dim());
  SparseFields<T> sparse(layout, batch.rows);
  if (!defaults.empty()) std::copy(defaults.begin(), defaults.end(), sparse.defaults().begin());
  std::vector<std::vector<std::uint32_t>> rows;
  std::vector<Index> counts;
  for (Index j = 0; j < layout.fields(); ++j) {
    const T* own = sparse.defaults().data() + layout.offset(j);
    rows.push_back(detail::active_rows(batch.block(j), own));
    counts.push_back(static_cast<Index>(rows.back().size()));
  }
  sparse.reserve(counts);
  for (Index j = 0; j < layout.fields(); ++j) sparse.set_rows(j, rows[static_cast<std::size_t>(j)]);
  detail::for_entries(sparse, batch, [](T& value, const T& place) { value = place; });
  return sparse;
}

/// The entries of an Eigen::SparseMatrix [rows x dim] of either order; the default is 0. A row in
/// which a field has any stored scalar is kept. Scalars stored twice add up.
/// \throws std::invalid_argument if the columns are not the layout's or the storage is damaged
/// Cost: two passes over the stored scalars, a sort of each field's rows, a search per scalar.
template <SparseIn S>
SparseFields<sparse_scalar_of<S>> to_sparse(const FieldLayout& layout, const S& x) {
  using T = sparse_scalar_of<S>;
  constexpr const char* function = "feature::to_sparse";
  constexpr bool by_rows = bool(S::IsRowMajor);
  check(static_cast<Index>(x.cols()) == layout.dim(), function, "x", static_cast<Index>(x.cols()),
        std::to_string(layout.dim()) + " columns");
  const auto lines = to_compressed(x);
  check_compressed(function, "x", lines);
  SparseFields<T> sparse(layout, static_cast<Index>(x.rows()));
  std::vector<std::uint32_t> field_of(static_cast<std::size_t>(layout.dim()));
  for (Index j = 0; j < layout.fields(); ++j)
    std::fill(field_of.begin() + layout.offset(j), field_of.begin() + layout.offset(j + 1),
              static_cast<std::uint32_t>(j));
  const auto for_entries = [&](const auto& f) {
    for (Index u = 0; u < lines.outer_size; ++u)
      for (Index e = lines.begin(u); e < lines.end(u); ++e) {
        const auto inner = static_cast<Index>(lines.inner[e]);
        f(by_rows ? u : inner, by_rows ? inner : u, lines.values[e]);
      }
  };
  std::vector<std::vector<std::uint32_t>> rows(static_cast<std::size_t>(layout.fields()));
  for_entries([&](Index b, Index c, T) {
    rows[field_of[static_cast<std::size_t>(c)]].push_back(static_cast<std::uint32_t>(b));
  });
  std::vector<Index> counts;
  for (auto& list : rows) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
    counts.push_back(static_cast<Index>(list.size()));
  }
  sparse.reserve(counts);
  for (Index j = 0; j < layout.fields(); ++j) {
    sparse.set_rows(j, rows[static_cast<std::size_t>(j)]);
    const auto values = sparse.values(j);
    std::fill_n(values.data, values.rows() * values.cols(), T(0));
  }
  for_entries([&](Index b, Index c, T value) {
    const auto j = static_cast<Index>(field_of[static_cast<std::size_t>(c)]);
    const auto list = sparse.rows_of(j);
    const Index i =
        std::lower_bound(list.begin(), list.end(), static_cast<std::uint32_t>(b)) - list.begin();
    sparse.values(j)(i, c - layout.offset(j)) += value;
  });
  return sparse;
}

/// dense(b, field j) = the entry's value for every entry of a sparse batch; other rows stay. On a
/// dense batch that holds x this is the mix in place: only rows that the mix changes are written.
/// \throws std::invalid_argument if layout or rows differ, or elements of `dense` overlap
template <ComputeScalar T>
void write_entries(const SparseFields<T>& sparse, const FieldBatch<T>& dense) {
  constexpr const char* function = "feature::write_entries";
  detail::check_same_shape(function, sparse, dense);
  detail::for_entries(sparse, dense, [](const T& value, T& place) { place = value; });
}

/// The entry's value = dense(b, field j), for every entry of a sparse batch.
/// \throws std::invalid_argument if layout or rows differ
template <ComputeScalar T>
void read_entries(const FieldBatch<const T>& dense, SparseFields<T>& sparse) {
  constexpr const char* function = "feature::read_entries";
  detail::check_same_shape(function, sparse, dense);
  detail::for_entries(sparse, dense, [](T& value, const T& place) { value = place; });
}

/// Entries and defaults as a dense batch.
/// \throws std::invalid_argument if layout or rows differ, or elements of `dense` overlap
template <ComputeScalar T>
void to_dense(const SparseFields<T>& sparse, const FieldBatch<T>& dense) {
  constexpr const char* function = "feature::to_dense";
  detail::check_same_shape(function, sparse, dense);
  for (Index j = 0; j < sparse.layout().fields(); ++j) {
    const auto block = dense.block(j);
    for (Index b = 0; b < block.rows(); ++b)
      for (Index c = 0; c < block.cols(); ++c)
        block(b, c) = sparse.defaults()[static_cast<std::size_t>(sparse.layout().offset(j) + c)];
  }
  write_entries(sparse, dense);
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
