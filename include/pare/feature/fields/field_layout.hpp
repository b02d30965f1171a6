// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The fields of a batch: which columns belong together, and where they lie in memory.
///
/// ```cpp
/// const FieldLayout layout({1, 1, 64, 8});         // two scalars, two embeddings: dim() == 74
/// mix_forward(x, gates, donors, mixed);            // Eigen matrices [rows x dim], either order
/// mix_forward(field_blocked(layout, buffer, rows), gates, donors, mixed);
/// ```
///
/// A field is kept or dropped as a whole: a scalar, or all columns of an embedding.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::feature {

/// Where element (b, c) of field j, with columns [offset(j), offset(j + 1)), lies.
enum class Storage {
  RowMajor,      ///< data[b * stride + offset(j) + c]: what frameworks hand over
  ColumnMajor,   ///< data[b + (offset(j) + c) * stride]: Eigen's default
  FieldBlocked,  ///< data[rows * offset(j) + b * width(j) + c]: the fast one. Field j's block
                 ///< [rows x width] is contiguous and row-major; with widths of 1 it is the same
                 ///< as ColumnMajor
};

PARE_ABI_BEGIN

/// The widths of the fields, in the order of their columns. Copies are cheap: they share the
/// tables, which never change.
class FieldLayout {
 public:
  /// No field; refused by everything that takes a layout.
  FieldLayout() = default;

  /// Field j has widths[j] columns.
  ///
  /// \param widths at least one, each at least 1
  /// \param groups [fields] ids in [0, fields), or empty: each field by itself, groups[j] = j.
  ///               Fields with the same id take their values from the same row (donors.hpp):
  ///               columns that must move together, such as those of one multi-hot field.
  /// \throws std::invalid_argument if there is no width, one is below 1, their sum does not fit
  ///         Index, or groups have another length or an id out of range
  explicit FieldLayout(std::span<const Index> widths, std::span<const Index> groups = {})
      : tables_(tables_of(widths, groups)) {}

  /// \overload
  FieldLayout(std::initializer_list<Index> widths, std::initializer_list<Index> groups = {})
      : FieldLayout(std::span<const Index>(widths.begin(), widths.size()),
                    std::span<const Index>(groups.begin(), groups.size())) {}

  /// `fields` scalars.
  /// \throws std::invalid_argument if there is none
  static FieldLayout scalars(Index fields) { return uniform(fields, 1); }

  /// `fields` fields of the same width.
  /// \throws std::invalid_argument if there is none, or the width is below 1
  static FieldLayout uniform(Index fields, Index width) {
    check(fields >= 1, name, "fields", fields, "at least 1");
    checked_product(name, "fields", fields, Index{sizeof(Index)});
    return FieldLayout(std::vector<Index>(static_cast<std::size_t>(fields), width));
  }

  /// Field j has columns [offsets[j], offsets[j + 1]).
  ///
  /// \param offsets [fields + 1] from 0 to dim, rising
  /// \param dim     columns of the batch
  /// \throws std::invalid_argument if the offsets do not rise or do not cover [0, dim)
  static FieldLayout from_offsets(std::span<const Index> offsets, Index dim,
                                  std::span<const Index> groups = {}) {
    constexpr const char* function = "feature::FieldLayout::from_offsets";
    check(offsets.size() >= 2, function, "offsets", offsets.size(), "at least 2");
    check(offsets.front() == 0, function, "offsets", offsets.front(), "0 at the front");
    std::vector<Index> widths(offsets.size() - 1);
    for (std::size_t j = 0; j < widths.size(); ++j) {
      check(offsets[j] < offsets[j + 1], function, "offsets", offsets[j + 1],
            "more than the offset before, " + std::to_string(offsets[j]));
      widths[j] = offsets[j + 1] - offsets[j];
    }
    check(offsets.back() == dim, function, "offsets", offsets.back(),
          "the number of columns, " + std::to_string(dim) + ", at the back");
    return FieldLayout(widths, groups);
  }

  /// The number of fields, F.
  Index fields() const { return tables_ ? static_cast<Index>(tables_->groups.size()) : 0; }
  /// The number of columns, D: the sum of the widths.
  Index dim() const { return tables_ ? tables_->offsets.back() : 0; }
  /// The number of columns of field j, d_j.
  /// \throws std::invalid_argument unless j is a field
  Index width(Index j) const {
    check_field("feature::FieldLayout::width", j);
    return offset(j + 1) - offset(j);
  }
  /// The first column of field j; dim() for j = fields().
  /// \throws std::invalid_argument if j is neither
  Index offset(Index j) const {
    check(j >= 0 && j <= fields(), "feature::FieldLayout::offset", "j", j, "a field, or fields()");
    return tables_ ? tables_->offsets[static_cast<std::size_t>(j)] : 0;
  }
  /// The group of field j: fields of one group share their donors.
  /// \throws std::invalid_argument unless j is a field
  Index group(Index j) const {
    check_field("feature::FieldLayout::group", j);
    return tables_->groups[static_cast<std::size_t>(j)];
  }

  /// [fields + 1] the first column of each field, then dim(); empty without fields.
  std::span<const Index> offsets() const {
    return tables_ ? std::span<const Index>(tables_->offsets) : std::span<const Index>();
  }

  friend bool operator==(const FieldLayout& a, const FieldLayout& b) {
    if (a.tables_ == b.tables_) return true;
    return a.tables_ && b.tables_ && a.tables_->offsets == b.tables_->offsets &&
           a.tables_->groups == b.tables_->groups;
  }

 private:
  static constexpr const char* name = "feature::FieldLayout";

  void check_field(const char* function, Index j) const {
    check(j >= 0 && j < fields(), function, "j", j, "a field of the layout");
  }

  struct Tables {
    std::vector<Index> offsets, groups;
  };

  static std::shared_ptr<const Tables> tables_of(std::span<const Index> widths,
                                                 std::span<const Index> groups) {
    check(!widths.empty(), name, "widths", "no field", "at least one");
    check(groups.empty() || groups.size() == widths.size(), name, "groups", groups.size(),
          "one id for each of " + std::to_string(widths.size()) + " fields");
    Tables tables{{0}, {groups.begin(), groups.end()}};
    tables.offsets.reserve(widths.size() + 1);
    for (const Index width : widths) {
      check(width >= 1, name, "widths", width, "at least 1");
      check(width <= std::numeric_limits<Index>::max() - tables.offsets.back(), name, "widths",
            width, "a sum that fits 63 bits");
      tables.offsets.push_back(tables.offsets.back() + width);
    }
    const auto fields = static_cast<Index>(widths.size());
    for (const Index group : tables.groups)
      check(group >= 0 && group < fields, name, "groups", group,
            "ids in [0, " + std::to_string(fields) + ")");
    if (tables.groups.empty()) {
      tables.groups.resize(widths.size());
      std::iota(tables.groups.begin(), tables.groups.end(), Index{0});
    }
    return std::make_shared<const Tables>(std::move(tables));
  }

  std::shared_ptr<const Tables> tables_;
};

/// A batch of rows that lies in someone else's memory; it points to its layout too.
template <class T>
struct FieldBatch {
  using scalar = T;

  T* data = nullptr;
  Index rows = 0;
  const FieldLayout* layout = nullptr;
  Storage storage = Storage::RowMajor;
  Index stride = 0;  ///< between rows (RowMajor) or columns (ColumnMajor)

  /// Field j [rows x width].
  TensorView<T, 2> block(Index j) const {
    const Index offset = layout->offset(j), width = layout->width(j);
    switch (storage) {
      case Storage::ColumnMajor:
        return {data + offset * stride, {rows, width}, {1, stride}};
      case Storage::FieldBlocked:
        return {data + rows * offset, {rows, width}, {width, 1}};
      case Storage::RowMajor:
        break;
    }
    return {data + offset, {rows, width}, {stride, 1}};
  }

  operator FieldBatch<const T>() const
  requires(!std::is_const_v<T>)
  {
    return {data, rows, layout, storage, stride};
  }
};

PARE_ABI_END

namespace detail {

template <class X>
inline constexpr bool is_field_batch = false;
template <class T>
inline constexpr bool is_field_batch<FieldBatch<T>> = true;

/// Has no type for an argument that is no batch, so that overloads for other storage are
/// considered.
template <class X>
struct batch_scalar {};
template <class X>
requires requires { typename view_of<X>; }
struct batch_scalar<X> {
  using type = typename view_of<X>::scalar;
};
template <class T>
struct batch_scalar<FieldBatch<T>> {
  using type = T;
};
template <class T>
struct batch_scalar<const FieldBatch<T>> {
  using type = T;
};

}  // namespace detail

/// What is read: a FieldBatch, or a matrix [rows x dim] of float or double.
template <class X>
concept FieldsIn =
    detail::is_field_batch<std::remove_cvref_t<X>> || (In<X, 2> && ComputeScalar<scalar_of<X>>);

/// What is written, no temporary that owns its elements.
template <class X>
concept FieldsOut =
    FieldsIn<X> && !pare::detail::OwningRvalue<X> &&
    !std::is_const_v<typename detail::batch_scalar<std::remove_reference_t<X>>::type>;

/// The scalar of a batch, without const.
template <class X>
using field_scalar_of =
    std::remove_const_t<typename detail::batch_scalar<const std::remove_reference_t<X>>::type>;

namespace detail {

template <class X>
using IsFieldsIn = std::bool_constant<FieldsIn<X>>;
/// An argument that is no batch, such as sparse fields: other overloads take it.
template <class X>
using IsNoMatrix =
    std::bool_constant<!FieldsIn<X> && !requires { std::remove_cvref_t<X>::IsRowMajor; }>;
template <class X>
using IsFieldsOut = std::bool_constant<FieldsOut<X>>;

PARE_ABI_BEGIN

/// A matrix view as a batch. Of a matrix with one column (or row) either order will do.
template <class T>
FieldBatch<T> matrix_batch(const char* function, const char* argument, const FieldLayout& layout,
                           TensorView<T, 2> m) {
  check_view(function, argument, m);
  check(m.cols() == layout.dim(), function, argument, m.extent,
        std::to_string(layout.dim()) + " columns");
  const bool by_rows = m.stride[1] == 1 || m.cols() == 1;
  check(by_rows || m.stride[0] == 1 || m.rows() <= 1, function, argument, m.stride,
        "strides with rows or columns contiguous");
  if (by_rows && !(m.cols() == 1 && m.stride[0] == 1))
    return {m.data, m.rows(), &layout, Storage::RowMajor, m.stride[0]};
  return {m.data, m.rows(), &layout, Storage::ColumnMajor, m.stride[1]};
}

/// Everything a batch touches, as a view whose byte range is that of the batch.
template <class T>
TensorView<T, 2> whole_batch(const FieldBatch<T>& x) {
  const Index dim = x.layout->dim();
  if (x.storage == Storage::RowMajor) return {x.data, {x.rows, dim}, {x.stride, 1}};
  if (x.storage == Storage::ColumnMajor) return {x.data, {x.rows, dim}, {1, x.stride}};
  return {x.data, {1, x.rows * dim}, {x.rows * dim, 1}};
}

/// Checks a batch that was made by hand, which has its layout already.
template <class T>
void check_field_batch(const char* function, const char* argument, const FieldBatch<T>& x) {
  check_enumerator(function, argument, x.storage, Storage::FieldBlocked);
  check(x.rows >= 0, function, argument, x.rows, "at least 0 rows");
  checked_product(function, argument, x.rows, x.layout->dim());
  check_view(function, argument, whole_batch(x));
}

/// Anything that is a batch of this layout.
template <class X>
auto to_batch(const char* function, const char* argument, const FieldLayout& layout, X& x) {
  if constexpr (is_field_batch<std::remove_cvref_t<X>>) {
    check(x.layout != nullptr && *x.layout == layout, function, argument,
          x.layout == nullptr ? Index{0} : x.layout->dim(),
          "the layout of the call, of " + std::to_string(layout.dim()) + " columns");
    auto batch = x;
    batch.layout = &layout;
    check_field_batch(function, argument, batch);
    return batch;
  } else {
    return matrix_batch(function, argument, layout, to_view(x));
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A matrix [rows x dim] as a batch, row- or column-major, with an outer stride or without.
/// \throws std::invalid_argument if the columns are not those of the layout, or neither rows nor
///         columns are contiguous
template <In<2> X>
requires ComputeScalar<scalar_of<X>>
auto field_batch(const FieldLayout& layout, X&& matrix) {
  return detail::matrix_batch("feature::field_batch", "matrix", layout, to_view(matrix));
}
template <class X>
void field_batch(const FieldLayout&&, X&&) = delete;

/// A buffer of rows * dim scalars (a range or a vector) in FieldBlocked storage.
/// \throws std::invalid_argument if its size is another, or rows is negative
template <class X>
auto field_blocked(const FieldLayout& layout, X&& buffer, Index rows) {
  constexpr const char* function = "feature::field_blocked";
  const auto view = to_vector_view(buffer);
  using T = typename decltype(view)::scalar;
  check(rows >= 0, function, "rows", rows, "at least 0");
  check_extents<1>(function, "buffer", view.extent,
                   {checked_product(function, "buffer", rows, layout.dim())});
  check(view.stride[0] == 1 || view.extent[0] <= 1, function, "buffer", view.stride[0],
        "a stride of 1");
  return FieldBatch<T>{view.data, rows, &layout, Storage::FieldBlocked, 0};
}
template <class X>
void field_blocked(const FieldLayout&&, X&&, Index) = delete;

/// Copies a batch from any storage to any other.
/// \throws std::invalid_argument if layouts or rows differ, the two overlap, or rows or columns of
///         `to` overlap each other
template <ComputeScalar T>
void copy_batch(const FieldBatch<const T>& from, const FieldBatch<T>& to) {
  constexpr const char* function = "feature::copy_batch";
  check(from.layout != nullptr && to.layout != nullptr && *from.layout == *to.layout, function,
        "to", "another layout", "the layout of from");
  check(to.rows == from.rows, function, "to", to.rows, from.rows);
  detail::check_field_batch(function, "from", from);
  detail::check_field_batch(function, "to", to);
  check_writable(function, "to", detail::whole_batch(to));
  check_no_overlap(function, "to", detail::whole_batch(to), "from", detail::whole_batch(from));
  for (Index j = 0; j < from.layout->fields(); ++j) {
    const auto source = from.block(j);
    const auto target = to.block(j);
    for (Index b = 0; b < source.rows(); ++b)
      for (Index c = 0; c < source.cols(); ++c) target(b, c) = source(b, c);
  }
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
