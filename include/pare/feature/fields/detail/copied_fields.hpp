// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which fields of a table are copies of others, number for number.

#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/detail/split_rows.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <unordered_map>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Whether two fields, by their first columns, hold the same numbers.
template <class T>
bool same_columns(TensorView<const T, 2> x, Index first, Index second, Index width) {
  for (Index c = 0; c < width; ++c)
    for (Index b = 0; b < x.rows(); ++b)
      if (x(b, first + c) != x(b, second + c)) return false;
  return true;
}

template <class T>
bool is_constant(TensorView<const T, 2> x, Index offset, Index width) {
  for (Index c = 0; c < width; ++c)
    for (Index b = 1; b < x.rows(); ++b)
      if (x(b, offset + c) != x(0, offset + c)) return false;
  return true;
}

/// FNV-1a over the numbers of a field, by which candidates are found.
template <class T>
std::uint64_t hash_columns(TensorView<const T, 2> x, Index offset, Index width) {
  std::uint64_t hash = 14695981039346656037u ^ static_cast<std::uint64_t>(width);
  for (Index c = 0; c < width; ++c)
    for (Index b = 0; b < x.rows(); ++b) {
      const T value = x(b, offset + c) + T(0);  // -0 equals 0
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof value);
      hash = (hash ^ bits) * 1099511628211u;
    }
  return hash;
}

/// By field: the first field with the same width and numbers in both parts, if there is one before
/// it. Constant fields are no copies: they say nothing anyway. Cost: one pass over the table.
template <class T>
std::vector<std::optional<Index>> copied_fields(const FieldLayout& layout,
                                                const SplitRows<T>& rows) {
  std::vector<std::optional<Index>> copy_of(static_cast<std::size_t>(layout.fields()));
  std::unordered_multimap<std::uint64_t, Index> firsts;
  for (Index j = 0; j < layout.fields(); ++j) {
    const Index offset = layout.offset(j), width = layout.width(j);
    if (is_constant(rows.training.x, offset, width)) continue;
    const std::uint64_t hash = hash_columns(rows.training.x, offset, width);
    std::optional<Index>& copied = copy_of[static_cast<std::size_t>(j)];
    const auto [begin, end] = firsts.equal_range(hash);
    for (auto it = begin; it != end && !copied; ++it) {
      const Index other = layout.offset(it->second);
      if (layout.width(it->second) == width &&
          same_columns(rows.training.x, other, offset, width) &&
          same_columns(rows.holdout.x, other, offset, width))
        copied = it->second;
    }
    if (!copied) firsts.emplace(hash, j);
  }
  return copy_of;
}

/// Clears the columns of fields that are copies of others, and says of which.
template <class T>
std::vector<std::optional<Index>> drop_copies(const FieldLayout& layout, SplitRows<T>& rows) {
  std::vector<std::optional<Index>> copy_of = copied_fields(layout, rows);
  for (Index j = 0; j < layout.fields(); ++j)
    if (copy_of[static_cast<std::size_t>(j)]) rows.clear_columns(layout.offset(j), layout.width(j));
  return copy_of;
}

PARE_ABI_END
}  // namespace pare::feature::detail
