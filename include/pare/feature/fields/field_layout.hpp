// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The fields of a batch: which columns belong together.
///
/// ```cpp
/// const FieldLayout layout({1, 1, 64, 8});         // two scalars, two embeddings: dim() == 74
/// layout.offset(2), layout.width(2)                // columns 2 to 65
/// ```
///
/// A field is kept or dropped as a whole: a scalar, or all columns of an embedding.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace pare::feature {

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

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
