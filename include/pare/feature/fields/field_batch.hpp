// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A batch of fields: where its rows lie in memory, and what is taken for one.
///
/// ```cpp
/// mix_forward(x, gates, donors, mixed);            // Eigen matrices [rows x dim], either order
/// mix_forward(field_blocked(layout, buffer, rows), gates, donors, mixed);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/field_layout.hpp>

#include <string>
#include <type_traits>

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
