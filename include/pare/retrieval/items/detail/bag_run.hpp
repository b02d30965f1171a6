// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of items by embedding bags, and gradients of the tables: checks, the definition, and blocks
/// of items or values for workers.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/mean_bags.hpp>
#include <pare/kernel/sum_gathered.hpp>
#include <pare/retrieval/items/item_fields.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

template <class X>
using table_in = decltype(std::declval<X&>()[std::size_t{0}]);

/// A vector, an array or a span of matrices.
template <class X>
concept TableList =
    requires(const X& x) {
      { x.size() } -> std::convertible_to<std::size_t>;
      x[std::size_t{0}];
    } && In<std::remove_cvref_t<table_in<const X>>, 2> &&
    StorageScalar<scalar_of<std::remove_cvref_t<table_in<const X>>>>;

template <class X>
using table_scalar = scalar_of<std::remove_cvref_t<table_in<const X>>>;

/// The same of T, to be written.
template <class X, class T>
concept TablesWritten = TableList<std::remove_const_t<X>> && Out<table_in<X>, 2> &&
                        std::is_same_v<table_scalar<std::remove_const_t<X>>, T>;

template <class X>
using TakesTables = std::bool_constant<TableList<std::remove_cvref_t<X>>>;
template <class X>
using TakesFields = std::is_same<std::remove_cvref_t<X>, ItemFields>;

/// Views of the tables, and the columns of rows where each begins.
template <class S>
struct BagTables {
  std::vector<TensorView<S, 2>> tables;
  std::vector<Index> begins;  ///< [fields + 1]
  std::vector<Index> blocks;  ///< [fields + 1] of values, before each field's
  AlignedBuffer<std::byte> workers;
};

/// Collects views, and refuses those that do not fit.
template <class S, class Tables>
void collect_tables(const char* function, const char* argument, const ItemFields& fields,
                    Tables& tables, BagTables<S>& views) {
  check(fields.fields() >= 1, function, "fields", "no field", "at least one");
  check(static_cast<Index>(tables.size()) == fields.fields(), function, argument, tables.size(),
        Worded{"a table for each field, ", fields.fields()});
  views.tables.clear();
  views.begins.assign(1, 0);
  for (std::size_t j = 0; j < tables.size(); ++j) {
    const TensorView<S, 2> table = [&] {
      if constexpr (std::is_const_v<S>)
        return as_const(to_view(tables[j]));
      else
        return to_view(tables[j]);
    }();
    if constexpr (std::is_const_v<S>)
      check_view(function, argument, table);
    else
      check_writable(function, argument, table);
    const Index values = fields.values(static_cast<Index>(j));
    check(table.rows() == values, function, argument, table.extent,
          Worded{"a row for each value of the field, ", values});
    check(table.cols() >= 1, function, argument, table.extent, "a width of at least 1");
    check_contiguous_rows(function, argument, table);
    views.begins.push_back(checked_sum(function, argument, views.begins.back(), table.cols()));
    views.tables.push_back(table);
  }
}

template <class S>
void check_item_rows(const char* function, const char* argument, const ItemFields& fields,
                     const BagTables<S>& views, const std::array<Index, 2>& extent) {
  check_extents<2>(function, argument, extent, {fields.items(), views.begins.back()});
}

template <class S>
void reference_bags(const ItemFields& fields, const BagTables<const S>& views,
                    TensorView<compute_t<S>, 2> rows) {
  using T = compute_t<S>;
  for (std::size_t j = 0; j < views.tables.size(); ++j) {
    const auto field = static_cast<Index>(j);
    const std::span<const Index> ids = fields.ids(field), offsets = fields.offsets(field);
    for (Index i = 0; i < rows.rows(); ++i) {
      const Index begin = offsets.empty() ? i : offsets[static_cast<std::size_t>(i)];
      const Index count = fields.count(field, i);
      for (Index c = 0; c < views.tables[j].cols(); ++c) {
        double sum = count > 0 ? -0. : 0;  // -0 + x is x, -0 too
        for (Index p = begin; p < begin + count; ++p)
          sum += static_cast<double>(
              static_cast<T>(views.tables[j](ids[static_cast<std::size_t>(p)], c)));
        rows(i, views.begins[j] + c) =
            static_cast<T>(count > 1 ? sum / static_cast<double>(count) : sum);
      }
    }
  }
}

template <class B, class S>
void run_bags(const B& backend, const ItemFields& fields, const BagTables<const S>& views,
              TensorView<compute_t<S>, 2> rows) {
  // As many as begin one stream of fetched rows for each table, which ends at most once a block.
  constexpr Index block = 256;
  parallel_for(backend.executor, ceil_div(rows.rows(), block), [&](Index part, int) {
    const Index begin = part * block, count = std::min(block, rows.rows() - begin);
    for (std::size_t j = 0; j < views.tables.size(); ++j) {
      const TensorView<const S, 2>& table = views.tables[j];
      const std::span<const Index> ids = fields.ids(static_cast<Index>(j)),
                                   offsets = fields.offsets(static_cast<Index>(j));
      const Index skipped = offsets.empty() ? begin : 0;
      launch(backend,
             kernel::MeanBags<S>{.table = table.data,
                                 .stride = table.stride[0],
                                 .ids = ids.data() + skipped,
                                 .places = static_cast<Index>(ids.size()) - skipped,
                                 .offsets = offsets.empty() ? nullptr : offsets.data() + begin,
                                 .bags = count,
                                 .out = &rows(begin, views.begins[j]),
                                 .out_stride = rows.stride[0],
                                 .columns = table.cols()});
    }
  });
}

template <class B, class Tables, class T>
void embedding_bag(const B& backend, const ItemFields& fields, const Tables& tables,
                   TensorView<T, 2> rows) {
  using S = table_scalar<Tables>;
  constexpr const char* function = "retrieval::embedding_bag";
  const auto views = leased<BagTables<const S>>(backend);
  collect_tables(function, "tables", fields, tables, *views);
  check_writable(function, "rows", rows);
  check_item_rows(function, "rows", fields, *views, rows.extent);
  check_contiguous_rows(function, "rows", rows);
  for (const TensorView<const S, 2>& table : views->tables)
    check_no_overlap(function, "rows", rows, "tables", table);
  if (rows.rows() == 0) return;
  if constexpr (KernelBackend<B>)
    run_bags<B, S>(backend, fields, *views, rows);
  else
    reference_bags<S>(fields, *views, rows);
}

template <class T>
void reference_bag_gradient(const ItemFields& fields, const BagTables<T>& views,
                            TensorView<const T, 2> by_rows) {
  for (std::size_t j = 0; j < views.tables.size(); ++j) {
    const auto field = static_cast<Index>(j);
    const std::span<const Index> items = fields.items_of_values(field),
                                 offsets = fields.value_offsets(field);
    for (Index v = 0; v < views.tables[j].rows(); ++v)
      for (Index c = 0; c < views.tables[j].cols(); ++c) {
        double sum = 0;
        for (auto p = static_cast<std::size_t>(offsets[static_cast<std::size_t>(v)]);
             p < static_cast<std::size_t>(offsets[static_cast<std::size_t>(v) + 1]); ++p)
          sum += static_cast<double>(by_rows(items[p], views.begins[j] + c)) /
                 static_cast<double>(fields.count(field, items[p]));
        views.tables[j](v, c) = static_cast<T>(sum);
      }
  }
}

/// Blocks of values of a field, and the field they belong to: few, so that rare values share one.
inline constexpr Index value_block = 16;

/// The sum of each value: the rows of its items, by 1 / n, at the speed of memory.
template <class B, class T>
void run_bag_gradient(const B& backend, const ItemFields& fields, BagTables<T>& views,
                      TensorView<const T, 2> by_rows) {
  Index blocks = 0, longest = 0;
  std::vector<Index>& first_block = views.blocks;
  first_block.assign(1, 0);
  for (Index j = 0; j < fields.fields(); ++j) {
    first_block.push_back(blocks += ceil_div(fields.values(j), value_block));
    const std::span<const Index> offsets = fields.value_offsets(j);
    for (std::size_t v = 1; v < offsets.size(); ++v)
      longest = std::max(longest, offsets[v] - offsets[v - 1]);
  }
  struct Room {
    T* weights = nullptr;
  };
  const auto rooms =
      worker_rooms<Room>(views.workers, worker_count(backend.executor, blocks),
                         [longest](Room& room, Carver& take) { take(room.weights, longest); });
  parallel_for(backend.executor, blocks, [&](Index block, int worker) {
    const auto j = static_cast<std::size_t>(
        std::upper_bound(first_block.begin(), first_block.end(), block) - first_block.begin() - 1);
    const auto field = static_cast<Index>(j);
    const TensorView<T, 2>& table = views.tables[j];
    const std::span<const Index> items = fields.items_of_values(field),
                                 offsets = fields.value_offsets(field);
    T* const weights = rooms.of(worker).weights;
    const T* const from = by_rows.rows() > 0 ? &by_rows(0, views.begins[j]) : nullptr;
    const Index first = (block - first_block[j]) * value_block;
    for (Index v = first; v < std::min(first + value_block, table.rows()); ++v) {
      const Index begin = offsets[static_cast<std::size_t>(v)],
                  count = offsets[static_cast<std::size_t>(v) + 1] - begin;
      for (Index p = 0; p < count; ++p)
        weights[p] =
            T(1) / static_cast<T>(fields.count(field, items[static_cast<std::size_t>(begin + p)]));
      launch(backend, kernel::SumGathered<T>{from, by_rows.stride[0], items.data() + begin, weights,
                                             count, &table(v, 0), table.cols()});
    }
  });
}

template <class B, class T, class Tables>
void embedding_bag_gradient(const B& backend, const ItemFields& fields,
                            TensorView<const T, 2> by_rows, Tables& by_tables) {
  constexpr const char* function = "retrieval::embedding_bag_gradient";
  const auto views = leased<BagTables<T>>(backend);
  collect_tables(function, "by_tables", fields, by_tables, *views);
  check_view(function, "by_rows", by_rows);
  check_item_rows(function, "by_rows", fields, *views, by_rows.extent);
  check_contiguous_rows(function, "by_rows", by_rows);
  for (std::size_t j = 0; j < views->tables.size(); ++j) {
    check_no_overlap(function, "by_tables", views->tables[j], "by_rows", by_rows);
    for (std::size_t other = 0; other < j; ++other)
      check_no_overlap(function, "by_tables", views->tables[j], "another table",
                       views->tables[other]);
  }
  if constexpr (KernelBackend<B>)
    run_bag_gradient(backend, fields, *views, by_rows);
  else
    reference_bag_gradient(fields, *views, by_rows);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
