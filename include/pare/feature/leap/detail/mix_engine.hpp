// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The permuted mix on kernels, forward and backward.
///
/// Fields are cut into items by the shape alone, and each piece of a field has sums of its own,
/// which are added in the order of the pieces: the same bits come out for every executor. Two
/// routes lead to the kernels, which see contiguous runs only:
/// - by rows, where a field's rows are contiguous and not too narrow (mix_rows.hpp);
/// - by columns, for narrow fields between others (RowMajor) and columns of ColumnMajor: tiles of
///   columns are turned, mixed column by column where they lie, and turned back.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/detail/mix_plan.hpp>
#include <pare/feature/leap/detail/mix_problem.hpp>
#include <pare/feature/leap/detail/mix_rows.hpp>
#include <pare/kernel/column_statistics.hpp>
#include <pare/kernel/move_rows.hpp>
#include <pare/kernel/streaming.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::feature::detail {

PARE_ABI_BEGIN

template <class B, class T>
class MixPass {
 public:
  MixPass(const B& backend, const MixProblem<T>& problem, MixMemory<T>& memory)
      : backend_(backend),
        p_(problem),
        memory_(memory),
        rows_(problem.x.rows),
        backward_(problem.grad_mixed.data != nullptr),
        // Beyond what caches hold, the output is not found there by its reader either; lines that
        // were read to be overwritten are in the cache already.
        streaming_(rows_ * layout().dim() * Index{sizeof(T)} >= kernel::streamed_bytes &&
                   !is_in_place(problem)),
        mix_rows_(backend, problem, streaming_) {}

  void run() {
    const int tiles = backward_ ? (p_.live ? 3 : 2) : 1;
    memory_.plan.make(layout(), rows_, Index{sizeof(T)}, tiles,
                      [this](Index j) { return by_columns(j); });
    memory_.pieces.assign(static_cast<std::size_t>(backward_ ? memory_.plan.pieces : 0), {});
    const auto items = static_cast<Index>(memory_.plan.items.size());
    memory_.scratch.resize(std::max(
        memory_.scratch.size(), static_cast<std::size_t>(worker_count(backend_.executor, items))));
    for (MixScratch<T>& scratch : memory_.scratch) prepare(scratch);
    parallel_for(backend_.executor, items, [this](Index item, int worker) {
      run_item(memory_.plan.items[static_cast<std::size_t>(item)],
               memory_.scratch[static_cast<std::size_t>(worker)]);
      if (streaming_) launch(backend_, kernel::FinishStreaming{});
    });
  }

 private:
  /// Narrower rows between others are turned rather than copied one by one.
  static constexpr Index narrow = 16;
  const FieldLayout& layout() const { return *p_.x.layout; }
  bool writes() const { return p_.out.data != nullptr; }

  template <class U>
  bool by_columns(const FieldBatch<U>& batch, Index width) const {
    if (batch.data == nullptr || batch.storage == Storage::FieldBlocked) return false;
    if (batch.storage == Storage::ColumnMajor) return width > 1;
    return width < narrow && batch.stride != width;
  }
  bool by_columns(Index j) const {
    const Index width = layout().width(j);
    return by_columns(p_.x, width) || by_columns(p_.grad_mixed, width) || by_columns(p_.out, width);
  }

  void prepare(MixScratch<T>& s) const {
    const auto run =
        static_cast<std::size_t>(std::max(MixRows<B, T>::run_size, memory_.plan.widest));
    const auto rows = static_cast<std::size_t>(rows_);
    const auto tile = static_cast<std::size_t>(memory_.plan.tile_columns * tile_stride());
    s.x_rows.resize(run);
    s.donor_rows.resize(run);
    s.out_rows.resize(run);
    s.x_tile.resize(tile);
    if (!backward_) s.column.resize(memory_.plan.tile_columns > 0 ? rows : 0);
    if (backward_ && p_.live) s.out_tile.resize(tile);
    if (!p_.donors->cyclic()) s.donors.resize(rows);
    if (p_.norms) s.distances.resize(rows);
    if (!backward_) return;
    s.grad_rows.resize(run);
    s.grad_tile.resize(tile);
    if (!p_.live) return;
    s.source_rows.resize(run);
    if (!p_.donors->cyclic()) s.sources.resize(rows);
  }

  /// Between columns of a tile: a line more than a multiple of lines that is odd, since columns a
  /// power of 2 apart would share one set of the cache.
  Index tile_stride() const {
    constexpr Index line = Index{64 / sizeof(T)};
    return ((rows_ + line - 1) / line | 1) * line;
  }

  void run_item(const MixItem& item, MixScratch<T>& s) {
    if (item.by_columns) return run_tiles(item, s);
    for (Index j = item.first_field; j < item.last_field; ++j) {
      draw(j, s);
      mix_rows_.run(lines_of(j), j, item.first_row, item.last_row, s, piece(item, j));
    }
  }

  PieceSums* piece(const MixItem& item, Index j) {
    if (!backward_) return nullptr;
    return &memory_.pieces[static_cast<std::size_t>(item.first_piece + j - item.first_field)];
  }

  void draw(Index j, MixScratch<T>& s) const {
    if (p_.donors->cyclic()) return;
    const auto rows = static_cast<std::size_t>(rows_);
    const bool inverse = backward_ && p_.live;
    p_.donors->fill(backend_, j, {s.donors.data(), rows},
                    {s.sources.data(), inverse ? rows : std::size_t{0}});
  }

  MixLines<T> lines_of(Index j) const {
    MixLines<T> lines;
    const auto x = p_.x.block(j);
    lines.x = x.data;
    lines.x_stride = x.stride[0];
    if (backward_) {
      const auto g = p_.grad_mixed.block(j);
      lines.grad_mixed = g.data;
      lines.grad_stride = g.stride[0];
    }
    if (writes()) {
      const auto out = p_.out.block(j);
      lines.out = out.data;
      lines.out_stride = out.stride[0];
    }
    lines.width = layout().width(j);
    set_gate(j, lines);
    return lines;
  }

  void set_gate(Index j, MixLines<T>& lines) const {
    const double g = p_.gates[static_cast<std::size_t>(j)];
    lines.gate = static_cast<T>(g);
    lines.rest = static_cast<T>(1 - g);
  }

  /// Columns of fields, a tile at a time.
  void run_tiles(const MixItem& item, MixScratch<T>& s) {
    const Index end = layout().offset(item.last_field);
    Index j = item.first_field;
    for (Index first = layout().offset(j); first < end; first += memory_.plan.tile_columns) {
      const Index last = std::min(first + memory_.plan.tile_columns, end);
      // Without sources the gradient may take the place of what it is computed from; a mixed
      // column that of x, of which its donors are copied first.
      T* out_tile = !backward_ ? s.x_tile.data() : p_.live ? s.out_tile.data() : s.grad_tile.data();
      pack(p_.x, j, first, last, s.x_tile.data());
      if (backward_) pack(p_.grad_mixed, j, first, last, s.grad_tile.data());
      Index field = j;
      for (Index c = first; c < last; ++c) {
        while (layout().offset(field + 1) <= c) ++field;
        run_column(item, field, c, first, out_tile, s);
      }
      if (writes()) unpack(j, first, last, out_tile);
      j = field;
    }
  }

  void run_column(const MixItem& item, Index j, Index column, Index first, T* out_tile,
                  MixScratch<T>& s) {
    if (column == layout().offset(j) || column == first) draw(j, s);
    const Index at = (column - first) * tile_stride();
    MixLines<T> lines;
    set_gate(j, lines);
    lines.x_stride = lines.grad_stride = lines.out_stride = 1;
    lines.x = in_place(p_.x, j) ? column_of(p_.x, column) : s.x_tile.data() + at;
    if (backward_)
      lines.grad_mixed =
          in_place(p_.grad_mixed, j) ? column_of(p_.grad_mixed, column) : s.grad_tile.data() + at;
    lines.in_tile = !in_place(p_.out, j);
    if (writes()) lines.out = lines.in_tile ? out_tile + at : column_of(p_.out, column);
    if (lines.out == lines.x) {
      std::copy_n(lines.x, rows_, s.column.data());
      lines.x = s.column.data();
    }
    mix_rows_.run(lines, j, 0, rows_, s, piece(item, j));
    if (p_.norms && layout().width(j) > 1) add_distances(item, j, column, lines.x, s);
  }

  /// Sums the squares of a field's columns by row; the last column takes the roots.
  void add_distances(const MixItem& item, Index j, Index column, const T* x, MixScratch<T>& s) {
    double* squares = s.distances.data();
    if (column == layout().offset(j)) std::fill_n(squares, rows_, 0.0);
    for (Index b = 0; b < rows_;) {
      Index count = std::min(MixRows<B, T>::run_size, rows_ - b), donor = 0;
      if (p_.donors->cyclic()) {
        donor = (b + p_.donors->shift(j)) % rows_;
        count = std::min(count, rows_ - donor);
      }
      const T* t = mix_rows_.moved(x, 1, 1, s.donors, b, donor, count, s.donor_rows);
      launch(backend_, kernel::AddSquaredDifferences<T>{x + b, t, count, squares + b});
      b += count;
    }
    if (column + 1 < layout().offset(j + 1)) return;
    double sum = 0;
    for (Index b = 0; b < rows_; ++b) sum += std::sqrt(squares[b]);
    piece(item, j)->values[PieceSums::norm] += sum;
  }

  /// Whether the columns of field j are contiguous where they lie.
  template <class U>
  bool in_place(const FieldBatch<U>& batch, Index j) const {
    return batch.storage == Storage::ColumnMajor ||
           (batch.storage == Storage::FieldBlocked && layout().width(j) == 1);
  }
  template <class U>
  U* column_of(const FieldBatch<U>& batch, Index column) const {
    return batch.data + column * (batch.storage == Storage::ColumnMajor ? batch.stride : rows_);
  }

  /// Calls f(data, row stride, columns, offset in the tile) for every row-major part of the columns
  /// [first, last), of which the first belongs to field j.
  template <class U, class F>
  void for_parts(const FieldBatch<U>& batch, Index j, Index first, Index last, const F& f) const {
    if (batch.storage == Storage::ColumnMajor) return;
    if (batch.storage == Storage::RowMajor)
      return f(batch.data + first, batch.stride, last - first, Index{0});
    for (Index c = first; c < last; ++j) {
      const Index end = std::min(last, layout().offset(j + 1)), width = layout().width(j);
      if (width > 1) f(batch.block(j).data + (c - layout().offset(j)), width, end - c, c - first);
      c = end;
    }
  }

  void pack(const FieldBatch<const T>& batch, Index j, Index first, Index last, T* tile) const {
    for_parts(batch, j, first, last, [&](const T* data, Index stride, Index columns, Index at) {
      launch(backend_, kernel::ColumnsFromRows<T>{data, stride, rows_, columns,
                                                  tile + at * tile_stride(), tile_stride()});
    });
  }

  void unpack(Index j, Index first, Index last, const T* tile) const {
    for_parts(p_.out, j, first, last, [&](T* data, Index stride, Index columns, Index at) {
      launch(backend_, kernel::RowsFromColumns<T>{tile + at * tile_stride(), tile_stride(), rows_,
                                                  columns, data, stride, streaming_});
    });
  }

  const B& backend_;
  const MixProblem<T>& p_;
  MixMemory<T>& memory_;
  const Index rows_;
  const bool backward_, streaming_;
  const MixRows<B, T> mix_rows_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
