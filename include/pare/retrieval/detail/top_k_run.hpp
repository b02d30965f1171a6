// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The k largest products of each query with the rows of a table: the definition, and lists of
/// candidates that workers keep while they go through blocks of rows.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/falling_list.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/select_dots.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// What is searched, and where hits go.
template <class Table, class Queries, ComputeScalar T>
struct TopKCall {
  Table table;      ///< [rows, dim]
  Queries queries;  ///< [queries, dim]
  Index k = 0;
  TensorView<Index, 2> ids;   ///< [queries, k]
  TensorView<T, 2> scores{};  ///< likewise
};
template <class S>
using ScalarTopK = TopKCall<TensorView<const S, 2>, TensorView<const S, 2>, compute_t<S>>;

/// Larger scores first, of equal ones the lower row, NaN last.
struct ComesBefore {
  template <class T>
  bool operator()(const kernel::ListedDot<T>& a, const kernel::ListedDot<T>& b) const {
    return kernel::stands_before(a.score, Index{a.row}, b.score, Index{b.row});
  }
};

/// The k best of score(query, row), of all rows.
template <class Call, class Score>
void reference_top_k(const Call& c, Index rows, Index queries, const Score& score) {
  using T = decltype(score(Index{}, Index{}));
  std::vector<kernel::ListedDot<T>> all(static_cast<std::size_t>(rows));
  for (Index i = 0; i < queries; ++i) {
    for (Index j = 0; j < rows; ++j)
      all[static_cast<std::size_t>(j)] = {static_cast<std::uint32_t>(j), score(i, j)};
    std::partial_sort(all.begin(), all.begin() + c.k, all.end(), ComesBefore{});
    for (Index t = 0; t < c.k; ++t) {
      c.ids(i, t) = static_cast<Index>(all[static_cast<std::size_t>(t)].row);
      c.scores(i, t) = all[static_cast<std::size_t>(t)].score;
    }
  }
}

template <class S>
void reference_top_k_dot(const ScalarTopK<S>& c) {
  using T = compute_t<S>;
  const auto widened = [](S x) { return static_cast<double>(static_cast<T>(x)); };
  reference_top_k(c, c.table.rows(), c.queries.rows(), [&](Index i, Index j) {
    double sum = 0;
    for (Index x = 0; x < c.table.cols(); ++x)
      sum += widened(c.queries(i, x)) * widened(c.table(j, x));
    return static_cast<T>(sum);
  });
}

struct TopKMemory {
  AlignedBuffer<std::byte> queries, workers;
};

/// Queries up to which registers run along the depth: lanes would be empty, and the loads of single
/// numbers would bind before memory does.
inline constexpr Index few_queries = 4;

/// Rows that are listed in one go.
inline constexpr Index top_k_block = 768;

/// Products of a table of scalars with queries of the same.
template <class B, class S>
class ScalarDots {
 public:
  using T = compute_t<S>;
  struct Room {
    T *products = nullptr, *widened = nullptr;
  };

  ScalarDots(const B& backend, const ScalarTopK<S>& call) : backend_(backend), c_(call) {}

  Index rows() const { return c_.table.rows(); }
  Index queries() const { return c_.queries.rows(); }

  void pack(AlignedBuffer<std::byte>& memory) {
    const S** rows = nullptr;
    carve_from(memory, [&](Carver& take) {
      take(packed_, (queries() + 64) * padded_dim());
      take(rows, queries());
    });
    for (Index i = 0; i < queries(); ++i) rows[i] = &c_.queries(i, 0);
    if (are_few())
      for (Index i = 0; i < queries(); ++i)
        for (Index c = 0; c < padded_dim(); ++c)
          packed_[i * padded_dim() + c] = c < dim() ? static_cast<T>(rows[i][c]) : T(0);
    else
      launch(backend_, kernel::PackTransposed<S>{
                           rows, queries(), dim(), packed_, {}, kernel::PanelWidth::Lanes});
  }

  void carve(Room& room, Carver& take) const {
    take(room.products, are_few() ? 0 : columns() * kernel::max_dot_rows);
    take(room.widened, std::is_same_v<S, T> ? 0 : kernel::max_dot_rows * dim());
  }

  void list(Index row, Index count, const Room& room, const kernel::DotLists<T>& lists) const {
    const S* const rows = c_.table.data + row * c_.table.stride[0];
    const auto first = static_cast<std::uint32_t>(row);
    if (are_few())
      launch(backend_, kernel::SelectFewDots<S>{packed_, padded_dim(), queries(), dim(), rows,
                                                c_.table.stride[0], count, first, lists});
    else
      launch(backend_, kernel::SelectDots<S>{packed_, queries(), dim(), rows, c_.table.stride[0],
                                             count, first, room.products, room.widened, lists});
  }

 private:
  Index dim() const { return c_.table.cols(); }
  Index padded_dim() const { return kernel::padded_columns<T>(dim() + 1); }
  Index columns() const { return kernel::padded_columns<T>(queries()); }
  bool are_few() const { return queries() <= few_queries; }

  const B& backend_;
  const ScalarTopK<S>& c_;
  T* packed_ = nullptr;
};

/// The k best of Dots, which lists what reaches a threshold: its rows in blocks, each with a list
/// of candidates of each worker.
template <class B, class Dots, class Call>
class TopKRun {
 public:
  TopKRun(const B& backend, const Call& call, Dots dots)
      : backend_(backend), c_(call), dots_(dots), memory_(leased<TopKMemory>(backend)) {}

  void run() {
    dots_.pack(memory_->queries);
    const Index items = ceil_div(dots_.rows(), item_rows);
    const Index workers = worker_count(backend_.executor, items);
    const auto rooms = worker_rooms<Worker>(
        memory_->workers, workers, [this](Worker& worker, Carver& take) { carve(worker, take); });
    for (Index w = 0; w < workers; ++w) clear(rooms.of(w));
    parallel_for(backend_.executor, items, [&](Index item, int w) { search(item, rooms.of(w)); });
    for (Index i = 0; i < queries(); ++i) finish(i, rooms, workers);
  }

  /// Entries of a list: k, as many again before the worst are dropped, and those of a block.
  static Index capacity(Index k) { return k + std::max<Index>(k, 64) + top_k_block; }

 private:
  using T = typename Dots::T;
  using Listed = kernel::ListedDot<T>;
  static constexpr Index item_rows = 16 * top_k_block;

  struct Worker {
    typename Dots::Room room;
    T* thresholds = nullptr;
    Listed* entries = nullptr;
    Index* counts = nullptr;
  };

  Index queries() const { return dots_.queries(); }
  Index columns() const { return kernel::padded_columns<T>(queries()); }

  void carve(Worker& worker, Carver& take) const {
    dots_.carve(worker.room, take);
    take(worker.thresholds, columns());
    take(worker.entries, queries() * capacity(c_.k));
    take(worker.counts, queries());
  }

  void clear(const Worker& w) const {
    std::fill_n(w.thresholds, columns(), std::numeric_limits<T>::quiet_NaN());
    std::fill_n(w.counts, queries(), Index{0});
  }

  void search(Index item, const Worker& w) const {
    const Index end = std::min((item + 1) * item_rows, dots_.rows());
    const kernel::DotLists<T> lists{w.thresholds, w.entries, capacity(c_.k), w.counts};
    for (Index row = item * item_rows; row < end; row += top_k_block) {
      dots_.list(row, std::min(top_k_block, end - row), w.room, lists);
      for (Index i = 0; i < queries(); ++i)
        if (w.counts[i] >= c_.k + std::max<Index>(c_.k, 64)) drop_worst(i, w);
    }
  }

  /// Leaves the k best of a list, and raises the threshold to the last of them.
  void drop_worst(Index query, const Worker& w) const {
    Listed* const list = w.entries + query * capacity(c_.k);
    std::nth_element(list, list + c_.k - 1, list + w.counts[query], ComesBefore{});
    w.counts[query] = c_.k;
    w.thresholds[query] = list[c_.k - 1].score;
  }

  /// The k best of all workers' lists.
  template <class Rooms>
  void finish(Index query, const Rooms& rooms, Index workers) const {
    const Worker first = rooms.of(0);
    Listed* const all = first.entries + query * capacity(c_.k);
    Index found = first.counts[query];
    for (Index which = 1; which < workers; ++which) {
      const Worker w = rooms.of(which);
      if (found > c_.k) {
        std::nth_element(all, all + c_.k - 1, all + found, ComesBefore{});
        found = c_.k;
      }
      if (w.counts[query] > c_.k) drop_worst(query, w);
      std::copy_n(w.entries + query * capacity(c_.k), w.counts[query], all + found);
      found += w.counts[query];
    }
    std::partial_sort(all, all + c_.k, all + found, ComesBefore{});
    for (Index t = 0; t < c_.k; ++t) {
      c_.ids(query, t) = static_cast<Index>(all[t].row);
      c_.scores(query, t) = all[t].score;
    }
  }

  const B& backend_;
  const Call& c_;
  Dots dots_;
  Lease<TopKMemory> memory_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
