// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The permuted mix on kernels, forward and backward.
///
/// Fields are cut into items by the shape alone, and each piece of a field has sums of its own,
/// which are added in the order of the pieces: the same bits come out for every executor. Two
/// routes lead to the kernels, which see contiguous runs only:
/// - by rows, where a field's rows are contiguous and not too narrow: runs of whole rows, in place
///   where they follow each other and their donors too (FieldBlocked with shifts), gathered into L1
///   otherwise;
/// - by columns, for narrow fields between others (RowMajor) and columns of ColumnMajor: tiles of
///   columns are turned into L2, mixed column by column, and turned back.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/detail/mix_plan.hpp>
#include <pare/kernel/mix_fields.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::feature::detail {

/// What one worker writes while it runs an item.
template <class T>
struct MixScratch {
  AlignedBuffer<T> x_rows, donor_rows, grad_rows, source_rows, out_rows;  ///< [run of rows]
  AlignedBuffer<T> x_tile, grad_tile, out_tile;                           ///< [columns x rows]
  AlignedBuffer<std::uint32_t> donors, sources;                           ///< [rows]
  AlignedBuffer<double> distances;                                        ///< [rows]
};

/// Memory of mix_forward and mix_backward that calls share.
template <class T>
struct MixMemory {
  MixPlan plan;
  std::vector<PieceSums> pieces;
  std::vector<MixScratch<T>> scratch;
};

/// Everything a pass reads and writes.
template <class T>
struct MixProblem {
  FieldBatch<const T> x;
  FieldBatch<const T> grad_mixed;  ///< no data: forward
  FieldBatch<T> out;               ///< mixed, or the gradient by x; no data: not wanted
  std::span<const double> gates;   ///< [fields]
  const Donors* donors = nullptr;
  bool live = false;   ///< backward: donors pass gradients on
  bool norms = false;  ///< backward: the lengths of the displacements too
};

/// Whether the gradient by x takes the place of the one by the mix.
template <class T>
bool is_in_place(const MixProblem<T>& p) {
  return p.out.data != nullptr && p.out.data == p.grad_mixed.data &&
         p.out.storage == p.grad_mixed.storage && p.out.stride == p.grad_mixed.stride;
}

/// One field, or one column of one, with rows of `width` contiguous scalars.
template <class T>
struct MixLines {
  const T* x = nullptr;
  Index x_stride = 0;
  const T* grad_mixed = nullptr;
  Index grad_stride = 0;
  T* out = nullptr;
  Index out_stride = 0;
  Index width = 1;
  T gate = 1, rest = 0;
};

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
        streaming_(rows_ * layout().dim() * Index{sizeof(T)} >= streaming_from &&
                   !is_in_place(problem)) {}

  void run() {
    const int tiles = backward_ ? (p_.live ? 3 : 2) : 2;
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
  /// Scalars of a run of rows that is gathered: a few of these fit L1.
  static constexpr Index run_size = 1024;

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
    const auto run = static_cast<std::size_t>(std::max(run_size, memory_.plan.widest));
    const auto rows = static_cast<std::size_t>(rows_);
    const auto tile = static_cast<std::size_t>(memory_.plan.tile_columns * tile_stride());
    s.x_rows.resize(run);
    s.donor_rows.resize(run);
    s.out_rows.resize(run);
    s.x_tile.resize(tile);
    s.out_tile.resize(tile);
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
      run_rows(lines_of(j), j, item.first_row, item.last_row, s, piece(item, j));
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

  /// Whether rows follow each other in all that is read and written.
  bool is_packed(const MixLines<T>& lines) const {
    return lines.x_stride == lines.width && (!backward_ || lines.grad_stride == lines.width) &&
           (!writes() || lines.out_stride == lines.width);
  }

  /// Rows [begin, end), cut where the donors or sources of a shift begin anew.
  void run_rows(const MixLines<T>& lines, Index j, Index begin, Index end, MixScratch<T>& s,
                PieceSums* sums) const {
    if (!p_.donors->cyclic()) return run_runs(lines, begin, end, 0, 0, s, sums);
    const Index shift = p_.donors->shift(j);
    if (is_packed(lines) && !p_.live && !(p_.norms && lines.width > 1))
      return run_packed(lines, shift, begin, end, sums);
    for (Index b = begin; b < end;) {
      Index stop = b < rows_ - shift ? std::min(end, rows_ - shift) : end;
      if (p_.live && b < shift) stop = std::min(stop, shift);
      const Index donor = b < rows_ - shift ? b + shift : b + shift - rows_;
      const Index source = b < shift ? b + rows_ - shift : b - shift;
      run_runs(lines, b, stop, donor, source, s, sums);
      b = stop;
    }
  }

  /// Rows [begin, end) at once, in place.
  void run_packed(const MixLines<T>& lines, Index shift, Index begin, Index end,
                  PieceSums* sums) const {
    const Index width = lines.width, turn = rows_ - shift;
    kernel::DonorRun<T> donor;
    if (begin < turn)
      donor = {lines.x + (begin + shift) * width, lines.x, (turn - begin) * width};
    else
      donor.first = lines.x + (begin - turn) * width;
    T* out = writes() ? lines.out + begin * width : nullptr;
    const T* x = lines.x + begin * width;
    const Index size = (end - begin) * width;
    if (backward_)
      launch(backend_, kernel::MixBackward<T>{x, donor, lines.grad_mixed + begin * width, nullptr,
                                              out, size, lines.gate, lines.rest, streams(lines),
                                              sums->values, ahead(lines)});
    else
      launch(backend_, kernel::MixForward<T>{x, donor, out, size, lines.gate, lines.rest,
                                             streams(lines), ahead(lines)});
  }

  /// Rows [begin, end) whose donors and sources follow each other from the given rows on, or are
  /// those in the scratch; as many at a time as need be.
  void run_runs(const MixLines<T>& lines, Index begin, Index end, Index donor, Index source,
                MixScratch<T>& s, PieceSums* sums) const {
    const bool in_place = p_.donors->cyclic() && is_packed(lines);
    const Index most =
        in_place && !p_.norms ? end - begin : std::max(Index{1}, run_size / lines.width);
    for (Index b = begin; b < end; b += most) {
      const Index count = std::min(most, end - b);
      const T* x = rows_at(lines.x, lines.x_stride, lines.width, b, count, s.x_rows);
      const T* t = moved(lines.x, lines.x_stride, lines.width, s.donors, b, donor + b - begin,
                         count, s.donor_rows);
      T* out = lines.out_stride == lines.width ? lines.out + b * lines.width : s.out_rows.data();
      if (!writes()) out = nullptr;
      if (backward_)
        run_backward(lines, x, t, out, b, source + b - begin, count, s, sums);
      else
        launch(backend_, kernel::MixForward<T>{x,
                                               {.first = t},
                                               out,
                                               count * lines.width,
                                               lines.gate,
                                               lines.rest,
                                               streams(lines),
                                               ahead(lines)});
      if (writes() && lines.out_stride != lines.width)
        launch(backend_, kernel::GatherRows<T>{out, lines.width, nullptr, 0, count, lines.width,
                                               lines.out + b * lines.out_stride, lines.out_stride});
    }
  }

  bool streams(const MixLines<T>& lines) const {
    return streaming_ && lines.out_stride == lines.width;
  }

  /// From a small contiguous block to the next one; large ones are streams by themselves.
  Index ahead(const MixLines<T>& lines) const {
    const Index size = rows_ * lines.width;
    return lines.x_stride == lines.width && size <= (Index{64} << 10) / Index{sizeof(T)} ? size : 0;
  }

  void run_backward(const MixLines<T>& lines, const T* x, const T* t, T* out, Index b, Index source,
                    Index count, MixScratch<T>& s, PieceSums* sums) const {
    const T* g = rows_at(lines.grad_mixed, lines.grad_stride, lines.width, b, count, s.grad_rows);
    const T* from = nullptr;
    if (p_.live && writes())
      from = moved(lines.grad_mixed, lines.grad_stride, lines.width, s.sources, b, source, count,
                   s.source_rows);
    launch(backend_, kernel::MixBackward<T>{x,
                                            {.first = t},
                                            g,
                                            from,
                                            out,
                                            count * lines.width,
                                            lines.gate,
                                            lines.rest,
                                            streams(lines),
                                            sums->values,
                                            ahead(lines)});
    if (p_.norms && lines.width > 1)
      launch(backend_,
             kernel::AddRowDistances<T>{x, t, count, lines.width, &sums->values[PieceSums::norm]});
  }

  /// Rows [b, b + count), where they are if they follow each other.
  const T* rows_at(const T* data, Index stride, Index width, Index b, Index count,
                   AlignedBuffer<T>& scratch) const {
    if (stride == width) return data + b * width;
    launch(backend_,
           kernel::GatherRows<T>{data, stride, nullptr, b, count, width, scratch.data(), width});
    return scratch.data();
  }

  /// The rows that belong to [b, b + count): from `first` on, or by index.
  const T* moved(const T* data, Index stride, Index width,
                 const AlignedBuffer<std::uint32_t>& index, Index b, Index first, Index count,
                 AlignedBuffer<T>& scratch) const {
    if (p_.donors->cyclic()) return rows_at(data, stride, width, first, count, scratch);
    launch(backend_, kernel::GatherRows<T>{data, stride, index.data() + b, 0, count, width,
                                           scratch.data(), width});
    return scratch.data();
  }

  /// Columns of fields, a tile at a time.
  void run_tiles(const MixItem& item, MixScratch<T>& s) {
    const Index end = layout().offset(item.last_field);
    Index j = item.first_field;
    for (Index first = layout().offset(j); first < end; first += memory_.plan.tile_columns) {
      const Index last = std::min(first + memory_.plan.tile_columns, end);
      // Without sources the gradient may take the place of what it is computed from.
      T* out_tile = backward_ && !p_.live ? s.grad_tile.data() : s.out_tile.data();
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
    if (writes()) lines.out = in_place(p_.out, j) ? column_of(p_.out, column) : out_tile + at;
    run_rows(lines, j, 0, rows_, s, piece(item, j));
    if (p_.norms && layout().width(j) > 1) add_distances(item, j, column, lines.x, s);
  }

  /// Sums the squares of a field's columns by row; the last column takes the roots.
  void add_distances(const MixItem& item, Index j, Index column, const T* x, MixScratch<T>& s) {
    double* squares = s.distances.data();
    if (column == layout().offset(j)) std::fill_n(squares, rows_, 0.0);
    for (Index b = 0; b < rows_;) {
      Index count = std::min(run_size, rows_ - b), donor = 0;
      if (p_.donors->cyclic()) {
        donor = (b + p_.donors->shift(j)) % rows_;
        count = std::min(count, rows_ - donor);
      }
      const T* t = moved(x, 1, 1, s.donors, b, donor, count, s.donor_rows);
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
};

PARE_ABI_END
}  // namespace pare::feature::detail
