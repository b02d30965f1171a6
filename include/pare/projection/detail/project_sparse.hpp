// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/signed_columns.hpp>
#include <pare/projection/detail/column_lists.hpp>
#include <pare/projection/detail/project_dense.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// A row of sums for each worker.
template <class T>
class SumRows {
 public:
  void prepare(int workers, Index outputs) {
    if (rows_.size() < static_cast<std::size_t>(workers))
      rows_.resize(static_cast<std::size_t>(workers));
    for (auto& row : rows_) row.resize(static_cast<std::size_t>(outputs));
  }
  T* operator[](int worker) { return rows_[static_cast<std::size_t>(worker)].data(); }

 private:
  std::vector<AlignedBuffer<T>> rows_;
};

template <class T, class Entry>
struct SparseMemory {
  SumRows<T> sums;
  StoredColumns<Entry> columns;
};

/// Sums of rows of X times signs of R, entry by entry in stored order: columns that are stored from
/// their lists, the others drawn as they are met and dropped.
template <class Sampler, class T, class I, class Entry>
struct RowSums {
  const CompressedView<T, I>& x;
  const Sampler& sampler;
  const StoredColumns<Entry>& stored;
  Index output_dim;

  /// Adds entries [begin, end) of X; those up to `readable` exist.
  template <KernelBackend B>
  void add(const B& backend, Index begin, Index end, Index readable, T* sums) const {
    const bool all_stored = stored.first() == 0 && stored.last() == x.inner_size;
    while (begin < end) {
      Index from_lists = all_stored ? end : begin;
      while (from_lists < end && stored.holds(column(from_lists))) ++from_lists;
      launch(backend,
             kernel::AddSignedColumns<T, I, Entry>{
                 x.inner + begin, x.values + begin, from_lists - begin, readable - begin,
                 stored.lists(), stored.first(), stored.last(), sums, stored.nonzeros_of_each()});
      begin = add_drawn(backend, from_lists, end, 0, output_dim, sums);
    }
  }

  /// Adds entries from `begin` up to the next one that is stored, 256 at most, to the sums of
  /// outputs [first, last); returns its place.
  template <KernelBackend B>
  Index add_drawn(const B& backend, Index begin, Index end, Index first, Index last,
                  T* sums) const {
    std::array<Index, 256> columns;
    Index count = 0;
    for (; begin + count < end && count < Index{columns.size()}; ++count) {
      const Index j = column(begin + count);
      if (stored.holds(j)) break;
      columns[static_cast<std::size_t>(count)] = j;
    }
    if (count == 0) return begin;
    const T* values = x.values + begin;
    sampler.sample(backend, columns.data(), count, first, last,
                   [&](Index position, Index row, std::uint64_t mask, std::uint64_t signs) {
                     const T signed_value[2] = {values[position], -values[position]};
                     for (; mask != 0; mask &= mask - 1) {
                       const int r = std::countr_zero(mask);
                       sums[row + r] += signed_value[(signs >> r) & 1u];
                     }
                   });
    return begin + count;
  }

 private:
  Index column(Index e) const { return static_cast<Index>(x.inner[e]); }
};

/// Whether the entries of each row come in ascending order of their columns.
template <class T, class I>
bool rows_ascend(const CompressedView<T, I>& x) {
  for (Index u = 0; u < x.outer_size; ++u)
    if (!std::is_sorted(x.inner + x.begin(u), x.inner + x.end(u))) return false;
  return true;
}

/// How many columns of R to store at a time; 0: none, each entry of X draws its column.
///
/// To store is worth it where X has more entries than R columns, and more rows than one. Where
/// these do not fit `bytes`, X is read once for each part of R. That must leave the order of its
/// entries as it is, and costs a search a row, about what it takes to draw a column.
template <class Entry, class T, class I>
Index columns_to_store(const CompressedView<T, I>& x, double column_nonzeros, double bytes) {
  const Index entries = x.entries();
  if (entries < x.inner_size || x.outer_size == 1) return 0;
  const double fit = bytes / StoredColumns<Entry>::bytes(1, column_nonzeros);
  if (fit >= static_cast<double>(x.inner_size)) return x.inner_size;
  const Index step = std::max(Index{1}, static_cast<Index>(fit));
  const bool searches_pay = ceil_div(x.inner_size, step) <= entries / x.outer_size;
  return searches_pay && rows_ascend(x) ? step : 0;
}

/// A row of Y and the sums that it is made of.
template <class T>
struct SumsToRow {
  TensorView<T, 2> y;
  bool begun;  ///< Y holds sums of the columns before
  T factor;

  /// Sums that `store` will write; Y's row is fetched meanwhile, or the additions of the next row
  /// would wait for it.
  void load(Index u, T* sums) const {
    for (Index r = 0; r < y.cols(); ++r) sums[r] = begun ? y(u, r) : T(0);
    if (y.stride[1] != 1) return;
    for (Index r = 0; r < y.cols(); r += 64 / Index{sizeof(T)}) kernel::prefetch(&y(u, r));
  }
  void store(Index u, const T* sums) const {
    if (y.stride[1] == 1) {  // a loop of its own, which compilers vectorize
      T* out = &y(u, 0);
      for (Index r = 0; r < y.cols(); ++r) out[r] = factor * sums[r];
    } else {
      for (Index r = 0; r < y.cols(); ++r) y(u, r) = factor * sums[r];
    }
  }
};

/// Whether X has fewer rows than threads could share out, but many entries.
template <class T, class I>
bool has_many_entries_in_few_rows(const CompressedView<T, I>& x) {
  constexpr Index few = 8, many = 1024;
  return x.outer_size <= few && x.entries() >= many;
}

/// Few rows whose columns are all drawn: a thread draws some outputs of a row's columns, so that
/// many work on one row and an output still sums its entries in stored order.
template <class Sampler, class T, class I, class Entry, KernelBackend B>
void add_drawn_rows(const B& backend, const RowSums<Sampler, T, I, Entry>& rows, SumRows<T>& memory,
                    TensorView<T, 2> y, T factor) {
  constexpr Index block = 64;        // outputs that samplers draw together
  constexpr Index most_slices = 16;  // of a row's outputs, each a whole number of blocks
  const CompressedView<T, I>& x = rows.x;
  // One thread draws all outputs at once, in nine tenths of the time.
  const Index parts = worker_count(backend.executor, most_slices) > 1 ? most_slices : 1;
  const Index width = block * ceil_div(y.cols(), block * parts);
  const Index slices = ceil_div(y.cols(), width);
  memory.prepare(static_cast<int>(x.outer_size), y.cols());
  parallel_for(backend.executor, x.outer_size * slices, [&](Index item, int) {
    const Index u = item / slices, first = item % slices * width;
    const Index last = std::min(y.cols(), first + width);
    T* sums = memory[static_cast<int>(u)];
    std::fill(sums + first, sums + last, T(0));
    for (Index e = x.begin(u); e < x.end(u);)
      e = rows.add_drawn(backend, e, x.end(u), first, last, sums);
    for (Index r = first; r < last; ++r) y(u, r) = factor * sums[r];
  });
}

/// All rows of X, of which the entries within the stored columns alone if `stored_only`: rows then
/// ascend.
template <class Sampler, class T, class I, class Entry, KernelBackend B>
void add_sparse_rows(const B& backend, const RowSums<Sampler, T, I, Entry>& rows, bool stored_only,
                     SumRows<T>& memory, const SumsToRow<T>& to) {
  const CompressedView<T, I>& x = rows.x;
  const Index rows_per_item = x.outer_size < 64 ? 1 : 8;
  const Index items = ceil_div(x.outer_size, rows_per_item);
  memory.prepare(worker_count(backend.executor, items), to.y.cols());
  parallel_for(backend.executor, items, [&](Index item, int worker) {
    T* sums = memory[worker];
    const Index last = std::min(x.outer_size, (item + 1) * rows_per_item);
    for (Index u = item * rows_per_item; u < last; ++u) {
      Index begin = x.begin(u), end = x.end(u);
      if (stored_only) {
        const auto column_below = [](I j, Index bound) { return static_cast<Index>(j) < bound; };
        const auto place_of = [&](Index column) {
          return std::lower_bound(x.inner + begin, x.inner + end, column, column_below) - x.inner;
        };
        end = place_of(rows.stored.last());
        begin = place_of(rows.stored.first());
      }
      to.load(u, sums);
      rows.add(backend, begin, end, x.line_nonzeros == nullptr ? x.end(last - 1) : end, sums);
      to.store(u, sums);
    }
  });
}

/// As project_sparse, with entries of 16 or 32 bits and at most about `bytes` of R in memory.
template <class Entry, class Sampler, class T, class I, KernelBackend B>
void project_sparse_in(const B& backend, const CompressedView<T, I>& x, const Sampler& sampler,
                       double column_nonzeros, double scale, TensorView<T, 2> y,
                       double bytes = operator_bytes) {
  const auto memory = leased<SparseMemory<T, Entry>>(backend);
  const T factor = entry_factor<T>(scale);
  const Index step = columns_to_store<Entry>(x, column_nonzeros, bytes);
  if (step == 0) {
    const StoredColumns<Entry> none;
    const RowSums<Sampler, T, I, Entry> rows{x, sampler, none, y.cols()};
    if (has_many_entries_in_few_rows(x))
      return add_drawn_rows(backend, rows, memory->sums, y, factor);
    return add_sparse_rows(backend, rows, false, memory->sums, {y, false, factor});
  }
  const RowSums<Sampler, T, I, Entry> rows{x, sampler, memory->columns, y.cols()};
  for (Index first = 0; first < x.inner_size; first += step) {
    const Index last = first + std::min(step, x.inner_size - first);
    memory->columns.draw(sampler, backend, first, last, y.cols());
    add_sparse_rows(backend, rows, step < x.inner_size, memory->sums,
                    {y, first > 0, last == x.inner_size ? factor : T(1)});
  }
}

/// Y = scale * X * (signs of R)^T for sparse rows, each of which sums its entries in stored order.
template <class Sampler, class T, class I, KernelBackend B>
void project_sparse(const B& backend, const CompressedView<T, I>& x, const Sampler& sampler,
                    double column_nonzeros, double scale, TensorView<T, 2> y) {
  if (y.cols() <= short_entry_rows)
    project_sparse_in<std::uint16_t>(backend, x, sampler, column_nonzeros, scale, y);
  else
    project_sparse_in<std::uint32_t>(backend, x, sampler, column_nonzeros, scale, y);
}

/// The same with columns that were stored before, and SumRows<T> as memory.
template <class Sampler, class T, class I, class Entry, KernelBackend B>
void project_sparse_stored(const B& backend, const CompressedView<T, I>& x, const Sampler& sampler,
                           const StoredColumns<Entry>& stored, double scale, TensorView<T, 2> y) {
  const auto memory = leased<SumRows<T>>(backend);
  const RowSums<Sampler, T, I, Entry> rows{x, sampler, stored, y.cols()};
  add_sparse_rows(backend, rows, false, *memory, {y, false, entry_factor<T>(scale)});
}

/// A part of a dense row as if it were sparse.
template <class T>
struct DenseSegment {
  static constexpr Index most = 1024;
  std::array<Index, most> column;
  std::array<T, most> value;

  template <class X>
  Index fill(TensorView<const X, 2> x, Index row, Index first) {
    const Index size = std::min(most, x.cols() - first);
    for (Index i = 0; i < size; ++i) {
      column[static_cast<std::size_t>(i)] = first + i;
      value[static_cast<std::size_t>(i)] = static_cast<T>(x(row, first + i));
    }
    return size;
  }
};

/// Rows of a dense X, each from columns that were stored before and others that it draws.
template <class Sampler, class X, class T, class Entry, KernelBackend B>
void project_dense_stored(const B& backend, TensorView<const X, 2> x, const Sampler& sampler,
                          const StoredColumns<Entry>& stored, double scale, TensorView<T, 2> y) {
  const auto memory = leased<SumRows<T>>(backend);
  memory->prepare(worker_count(backend.executor, x.rows()), y.cols());
  const SumsToRow<T> to{y, false, entry_factor<T>(scale)};
  parallel_for(backend.executor, x.rows(), [&](Index u, int worker) {
    T* sums = (*memory)[worker];
    to.load(u, sums);
    DenseSegment<T> segment;
    for (Index first = 0, size; first < x.cols(); first += size) {
      size = segment.fill(x, u, first);
      const CompressedView<T, Index> part{
          1, x.cols(), nullptr, nullptr, segment.column.data(), segment.value.data()};
      const RowSums<Sampler, T, Index, Entry> row{part, sampler, stored, y.cols()};
      row.add(backend, 0, size, size, sums);
    }
    to.store(u, sums);
  });
}

PARE_ABI_END
}  // namespace pare::projection::detail
