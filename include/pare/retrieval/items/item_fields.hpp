// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What items are known by: fields such as genres, decade or words of the title, each with any
/// number of values for an item.
///
/// ```cpp
/// ItemFields fields(3);                          // of three items
/// fields.add(10, {4, 4, 9});                     // one value each, of values 0 to 9
/// fields.add(20, {7, 1, 1, 3}, {0, 2, 2, 4});    // a bag each: {7, 1}, none, {1, 3}
/// ```
///
/// Values of a bag keep their order, and may repeat: each counts. embedding_bag.hpp makes rows of
/// items of them. Source: M2TRec, arXiv 2209.11824, whose items have no other name.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// Values of items, field by field, and the items of each value, which gradients are added up by.
class ItemFields {
 public:
  /// Items without a field.
  /// \throws std::invalid_argument if items are negative
  explicit ItemFields(Index items) : items_(items) {
    check(items >= 0, "retrieval::ItemFields", "items", items, "at least 0");
  }

  /// Adds a field with one value for each item.
  ///
  /// \param values how many values there are, at least 1
  /// \param ids    [items] from 0 to below values
  /// \throws std::invalid_argument if values are below 1, an id is none of them, or there is not an
  ///         id for each item. The fields are as they were then.
  /// Memory: 16 bytes for each id, 8 for each value.
  void add(Index values, std::vector<Index> ids) {
    check(static_cast<Index>(ids.size()) == items_, function, "ids", ids.size(),
          Worded{"one for each item, ", items_});
    keep(values, std::move(ids), {});
  }

  /// Adds a field with a bag of values for each item.
  ///
  /// \param ids     [places] the bags, one behind the other
  /// \param offsets [items + 1] where each begins: from 0 to the places, never falling, so that a
  ///                bag may be empty
  /// \throws std::invalid_argument as above, or if the offsets do not fit
  /// Memory: 16 bytes for each place, 8 for each value and item.
  void add(Index values, std::vector<Index> ids, std::vector<Index> offsets) {
    check(static_cast<Index>(offsets.size()) - 1 == items_, function, "offsets", offsets.size(),
          Worded{"one more than the items, ", items_});
    check_offsets(function, "offsets", offsets, static_cast<Index>(ids.size()), "ids");
    keep(values, std::move(ids), std::move(offsets));
  }

  Index items() const { return items_; }
  Index fields() const { return static_cast<Index>(fields_.size()); }

  /// How many values field j has.
  /// \throws std::invalid_argument unless j is a field, as all that take one
  Index values(Index j) const { return field(j).values; }
  /// The values of all items, [places].
  std::span<const Index> ids(Index j) const { return field(j).ids; }
  /// [items + 1] where each item's begin; empty: one value each.
  std::span<const Index> offsets(Index j) const { return field(j).offsets; }
  /// [places] the items of each value, which rise: those of value v are
  /// [value_offsets(j)[v], value_offsets(j)[v + 1]). An item that has it twice stands there twice.
  std::span<const Index> items_of_values(Index j) const { return field(j).owners; }
  /// [values + 1]
  std::span<const Index> value_offsets(Index j) const { return field(j).value_offsets; }

  /// How many values item i has in field j. Not checked.
  Index count(Index j, Index i) const {
    const std::span<const Index> all = fields_[static_cast<std::size_t>(j)].offsets;
    return all.empty() ? 1
                       : all[static_cast<std::size_t>(i) + 1] - all[static_cast<std::size_t>(i)];
  }

 private:
  static constexpr const char* function = "retrieval::ItemFields::add";

  struct Field {
    Index values = 0;
    std::vector<Index> ids, offsets, owners, value_offsets;
  };

  const Field& field(Index j) const {
    check(j >= 0 && j < fields(), "retrieval::ItemFields", "j", j,
          Worded{"a field, from 0 to below ", fields()});
    return fields_[static_cast<std::size_t>(j)];
  }

  void keep(Index values, std::vector<Index> ids, std::vector<Index> offsets) {
    check(values >= 1, function, "values", values, "at least 1");
    checked_count(function, "values", checked_sum(function, "values", values, 1), sizeof(Index));
    for (std::size_t place = 0; place < ids.size(); ++place)
      check(ids[place] >= 0 && ids[place] < values, function, "ids",
            std::array<Index, 2>{static_cast<Index>(place), ids[place]},
            Worded{"[place, id] with an id from 0 to below the values, ", values});
    Field next{values, std::move(ids), std::move(offsets), {}, {}};
    list_owners(next);
    fields_.push_back(std::move(next));
  }

  /// Items by value, counted and then placed: each list rises.
  void list_owners(Field& f) const {
    f.value_offsets.assign(static_cast<std::size_t>(f.values) + 1, 0);
    for (const Index id : f.ids) ++f.value_offsets[static_cast<std::size_t>(id) + 1];
    for (std::size_t v = 1; v < f.value_offsets.size(); ++v)
      f.value_offsets[v] += f.value_offsets[v - 1];
    std::vector<Index> next(f.value_offsets.begin(), f.value_offsets.end() - 1);
    f.owners.resize(f.ids.size());
    Index item = 0;
    for (std::size_t place = 0; place < f.ids.size(); ++place) {
      while (!f.offsets.empty() &&
             f.offsets[static_cast<std::size_t>(item) + 1] <= static_cast<Index>(place))
        ++item;
      f.owners[static_cast<std::size_t>(next[static_cast<std::size_t>(f.ids[place])]++)] =
          f.offsets.empty() ? static_cast<Index>(place) : item;
    }
  }

  Index items_;
  std::vector<Field> fields_;
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
