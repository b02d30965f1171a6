// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Keys and values of heads that share pages: page p of column c is virtual page p group + c.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/latent/detail/paged_rows.hpp>
#include <pare/latent/page_types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace pare::latent::detail {
PARE_ABI_BEGIN

template <StorageScalar S>
class HeadRows {
 public:
  HeadRows(const char* function, Index pages, Index group, Index page_size, Index key_dim,
           Index value_dim)
      : group_(group),
        keys_(function, checked_virtual_pages(function, pages, group), page_size, key_dim),
        values_(function, pages * group, page_size, value_dim) {}

  const PagedRows<S>& keys() const { return keys_; }
  const PagedRows<S>& values() const { return values_; }

  /// A row of a page, of the head in a column.
  PARE_ALWAYS_INLINE PageRow of_column(PageRow row, Index column) const {
    return {row.page * group_ + column, row.row};
  }

  /// Copies a page of all columns.
  void copy(const PageCopy& page) const {
    for (Index c = 0; c < group_; ++c) {
      keys_.copy({page.from * group_ + c, page.to * group_ + c, page.rows});
      values_.copy({page.from * group_ + c, page.to * group_ + c, page.rows});
    }
  }
  /// Copies the rows of a column from one place to another, which may be the same.
  void move(Index column, PageRow to, PageRow from) const {
    if (to.page == from.page && to.row == from.row) return;
    const PageRow a = of_column(to, column), b = of_column(from, column);
    std::copy_n(keys_.row(b), keys_.width(), keys_.row(a));
    std::copy_n(values_.row(b), values_.width(), values_.row(a));
  }
  /// Writes token t of head h of keys and values [heads, tokens, dim].
  template <class K, class V>
  void store(const TensorView<const K, 3>& keys, const TensorView<const V, 3>& values, Index h,
             Index t, PageRow to) const {
    store_rows(simd, token_row(keys, h, t), keys_.row(to), 0);
    store_rows(simd, token_row(values, h, t), values_.row(to), 0);
  }

  /// Throws unless keys and values are sound views [heads, tokens, dim] of as many heads and
  /// tokens, apart from the rows.
  template <class K, class V>
  void check_given(const char* function, const TensorView<const K, 3>& keys,
                   const TensorView<const V, 3>& values) const {
    check_view(function, "keys", keys);
    check_view(function, "values", values);
    const Index heads = keys.extent[0], tokens = keys.extent[1];
    check_extents<3>(function, "keys", keys.extent, {heads, tokens, keys_.width()});
    check_extents<3>(function, "values", values.extent, {heads, tokens, values_.width()});
    check_apart(function, "keys", keys);
    check_apart(function, "values", values);
  }
  template <class O, std::size_t Rank>
  void check_apart(const char* function, const char* output, const TensorView<O, Rank>& out) const {
    check_no_overlap(function, output, out, "cache", keys_.all());
    check_no_overlap(function, output, out, "cache", values_.all());
  }

 private:
  /// Tables of pages count in 32 bits.
  static Index checked_virtual_pages(const char* function, Index pages, Index group) {
    const Index all = checked_product(function, "pages", pages, group);
    check(all <= std::numeric_limits<std::int32_t>::max(), function, "pages", pages,
          Worded{"fewer than 2^31 pages times the ", group, " heads of a group"});
    return all;
  }

  template <class X>
  static TensorView<const X, 2> token_row(const TensorView<const X, 3>& x, Index h, Index t) {
    return {x.data + h * x.stride[0] + t * x.stride[1], {1, x.extent[2]}, {0, x.stride[2]}};
  }

  Index group_;
  PagedRows<S> keys_, values_;
};

/// Throws unless a row of tokens is ascending, of numbers below `length`.
inline void check_ascending(const char* function, const TensorView<const Index, 2>& tokens,
                            Index row, Index length) {
  for (Index i = 0, least = 0; i < tokens.extent[1]; ++i) {
    const Index t = tokens(row, i);
    check(t >= least && t < length, function, "tokens", t,
          Worded{"ascending numbers below the ", length, " tokens of the group"});
    least = t + 1;
  }
}

PARE_ABI_END
}  // namespace pare::latent::detail
