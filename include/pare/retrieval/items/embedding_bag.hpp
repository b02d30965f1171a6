// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of items made of their metadata (M2TRec): for each field the mean of the embeddings of an
/// item's values, and the fields side by side.
///
///     row_i = [ mean over v in bag_i,1 of table_1(v) | ... | mean over v in bag_i,F of table_F(v)
///     ]
///
/// ```cpp
/// std::vector<RowMatrix<float>> tables{genres, decades};  // [values of the field, its width]
/// RowMatrix<float> rows(fields.items(), 24 + 8);
/// embedding_bag(pare::simd.threads(2), fields, tables, rows);
/// embedding_bag_gradient(fields, by_rows, by_tables);     // of the loss by rows, by tables
/// ```
///
/// Tables are float, double, bf16 or f16, one scalar for all; rows have what that is computed in. A
/// bag of one is the table's row, bit for bit; an empty bag is 0. Two items of equal values have
/// equal bits wherever they stand, and so has one that training never saw. A NaN in a table reaches
/// the items that have its value, in its column.
///
/// Source: Shalaby et al., M2TRec, arXiv 2209.11824, of which we read the abstract and a figure's
/// caption: embeddings of metadata, side by side. Ours: the mean for several values (as torch's
/// EmbeddingBag has it), 0 for none.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/items/detail/bag_run.hpp>
#include <pare/retrieval/items/item_fields.hpp>

#include <type_traits>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// Makes rows of items.
///
/// \param backend left out: pare::simd
/// \param fields  at least one
/// \param tables  for each field a table [values, width], rows contiguous, in a vector, an array or
///                a span: matrices by rows, or views
/// \param rows    [items, sum of the widths], rows contiguous, written; apart from the tables
/// \throws std::invalid_argument if there is no field, not a table for each, a table has no column
///         or not a row for each value of its field, rows do not fit, are not contiguous, or
///         overlap a table. Nothing is written then. Without items nothing is done.
///
/// Cost: each row of a table is read as often as items have its value, from anywhere in memory,
/// which binds. Memory, kept in the backend's workspace: a view a table. Sums run in the order of a
/// bag's values: the same bits for any number of threads.
template <Backend B, detail::TableList Tables, Out<2> R>
requires std::is_same_v<scalar_of<R>, compute_t<detail::table_scalar<Tables>>>
void embedding_bag(const B& backend, const ItemFields& fields, const Tables& tables, R&& rows) {
  detail::embedding_bag(on_any_executor(backend), fields, tables, to_view(rows));
}

/// \overload
template <detail::TableList Tables, Out<2> R>
requires std::is_same_v<scalar_of<R>, compute_t<detail::table_scalar<Tables>>>
void embedding_bag(const ItemFields& fields, const Tables& tables, R&& rows) {
  embedding_bag(simd, fields, tables, rows);
}

/// The gradient by tables of a loss whose gradient by rows is known: by_table_f(v) is the sum of
/// by_row_i / n_i,f over the places where items i have value v, in their order.
///
/// \param backend   left out: pare::simd
/// \param by_rows   [items, sum of the widths] of float or double, rows contiguous
/// \param by_tables for each field [values, width] of that scalar, rows contiguous, written: apart
///                  from by_rows and from each other. 0 for a value that no item has
/// \throws std::invalid_argument as embedding_bag. Nothing is written then.
///
/// Cost: a row of by_rows is read for each value of an item, which binds, and each value's sum is
/// one worker's: a value that most items have is as long as they are. Memory, kept in the backend's
/// workspace: a view a table, and a factor an item and worker. The same bits for any number of
/// threads. A NaN reaches the values of its item, in its column.
template <Backend B, In<2> G, class Tables>
requires ComputeScalar<scalar_of<G>> && detail::TablesWritten<Tables, scalar_of<G>>
void embedding_bag_gradient(const B& backend, const ItemFields& fields, const G& by_rows,
                            Tables& by_tables) {
  detail::embedding_bag_gradient(on_any_executor(backend), fields, as_const(to_view(by_rows)),
                                 by_tables);
}

/// \overload
template <In<2> G, class Tables>
requires ComputeScalar<scalar_of<G>> && detail::TablesWritten<Tables, scalar_of<G>>
void embedding_bag_gradient(const ItemFields& fields, const G& by_rows, Tables& by_tables) {
  embedding_bag_gradient(simd, fields, by_rows, by_tables);
}

PARE_REFUSE_CALLS(embedding_bag, "retrieval::embedding_bag", "after rows: wanted nothing",
                  (PLAIN, (roles::Takes<detail::TakesFields>), "fields", "ItemFields"),
                  (PLAIN, (roles::Takes<detail::TakesTables>), "tables",
                   "a list of tables [values, width] of one scalar"),
                  (OUTPUT, (roles::Writes<2>), "rows", "[items, sum of the widths]"))
PARE_REFUSE_CALLS(embedding_bag_gradient, "retrieval::embedding_bag_gradient",
                  "after by_tables: wanted nothing",
                  (PLAIN, (roles::Takes<detail::TakesFields>), "fields", "ItemFields"),
                  (INPUT, (roles::ReadsCompute<2>), "by_rows", "[items, sum of the widths]"),
                  (OUTPUT, (roles::Takes<detail::TakesTables>), "by_tables",
                   "a list of tables [values, width] of the scalar of by_rows"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
