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

template <class S>
struct TopKCall {
  TensorView<const S, 2> table;    ///< [rows, dim]
  TensorView<const S, 2> queries;  ///< [queries, dim]
  Index k = 0;
  TensorView<Index, 2> ids;              ///< [queries, k]
  TensorView<compute_t<S>, 2> scores{};  ///< likewise
};

/// Larger scores first, of equal ones the lower row, NaN last.
struct ComesBefore {
  template <class T>
  bool operator()(const kernel::ListedDot<T>& a, const kernel::ListedDot<T>& b) const {
    return kernel::stands_before(a.score, Index{a.row}, b.score, Index{b.row});
  }
};

template <class S>
void reference_top_k_dot(const TopKCall<S>& c) {
  using T = compute_t<S>;
  const auto widened = [](S x) { return static_cast<double>(static_cast<T>(x)); };
  std::vector<kernel::ListedDot<T>> all(static_cast<std::size_t>(c.table.rows()));
  for (Index i = 0; i < c.queries.rows(); ++i) {
    for (Index j = 0; j < c.table.rows(); ++j) {
      double sum = 0;
      for (Index x = 0; x < c.table.cols(); ++x)
        sum += widened(c.queries(i, x)) * widened(c.table(j, x));
      all[static_cast<std::size_t>(j)] = {static_cast<std::uint32_t>(j), static_cast<T>(sum)};
    }
    std::partial_sort(all.begin(), all.begin() + c.k, all.end(), ComesBefore{});
    for (Index t = 0; t < c.k; ++t) {
      c.ids(i, t) = static_cast<Index>(all[static_cast<std::size_t>(t)].row);
      c.scores(i, t) = all[static_cast<std::size_t>(t)].score;
    }
  }
}

struct TopKMemory {
  AlignedBuffer<std::byte> queries, workers;
};

template <class B, class S>
class TopKRun {
 public:
  TopKRun(const B& backend, const TopKCall<S>& call)
      : backend_(backend), c_(call), memory_(leased<TopKMemory>(backend)) {}

  void run() {
    pack_queries();
    const Index items = ceil_div(c_.table.rows(), item_rows);
    const Index workers = worker_count(backend_.executor, items);
    const auto rooms = worker_rooms<Worker>(
        memory_->workers, workers, [this](Worker& worker, Carver& take) { carve(worker, take); });
    for (Index w = 0; w < workers; ++w) clear(rooms.of(w));
    parallel_for(backend_.executor, items, [&](Index item, int w) { search(item, rooms.of(w)); });
    for (Index i = 0; i < queries(); ++i) finish(i, rooms, workers);
  }

  /// Entries of a list: k, as many again before the worst are dropped, and those of a block.
  static Index capacity(Index k) { return k + std::max<Index>(k, 64) + block_rows; }

 private:
  using T = compute_t<S>;
  using Listed = kernel::ListedDot<T>;
  static constexpr Index block_rows = 768, item_rows = 16 * block_rows;
  /// Queries up to which registers run along the depth: lanes would be empty, and the loads of
  /// single numbers would bind before memory does.
  static constexpr Index few_queries = 4;

  struct Worker {
    T *products = nullptr, *widened = nullptr, *thresholds = nullptr;
    Listed* entries = nullptr;
    Index* counts = nullptr;
  };

  Index queries() const { return c_.queries.rows(); }
  Index dim() const { return c_.table.cols(); }
  Index padded_dim() const { return kernel::padded_columns<T>(dim() + 1); }
  Index columns() const { return kernel::padded_columns<T>(queries()); }
  bool are_few() const { return queries() <= few_queries; }

  void pack_queries() {
    const S** rows = nullptr;
    carve_from(memory_->queries, [&](Carver& take) {
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

  void carve(Worker& worker, Carver& take) const {
    take(worker.products, are_few() ? few_queries * block_rows : columns() * kernel::max_dot_rows);
    take(worker.widened, std::is_same_v<S, T> ? 0 : kernel::max_dot_rows * dim());
    take(worker.thresholds, columns());
    take(worker.entries, queries() * capacity(c_.k));
    take(worker.counts, queries());
  }

  void clear(const Worker& w) const {
    std::fill_n(w.thresholds, columns(), std::numeric_limits<T>::quiet_NaN());
    std::fill_n(w.counts, queries(), Index{0});
  }

  void search(Index item, const Worker& w) const {
    const Index end = std::min((item + 1) * item_rows, c_.table.rows());
    for (Index row = item * item_rows; row < end; row += block_rows) {
      list_block(row, std::min(block_rows, end - row), w);
      for (Index i = 0; i < queries(); ++i)
        if (w.counts[i] >= c_.k + std::max<Index>(c_.k, 64)) drop_worst(i, w);
    }
  }

  void list_block(Index row, Index count, const Worker& w) const {
    const S* const rows = c_.table.data + row * c_.table.stride[0];
    const kernel::DotLists<T> lists{w.thresholds, w.entries, capacity(c_.k), w.counts};
    const auto first = static_cast<std::uint32_t>(row);
    if (are_few())
      launch(backend_, kernel::SelectFewDots<S>{packed_, padded_dim(), queries(), dim(), rows,
                                                c_.table.stride[0], count, first, lists});
    else
      launch(backend_, kernel::SelectDots<S>{packed_, queries(), dim(), rows, c_.table.stride[0],
                                             count, first, w.products, w.widened, lists});
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
  const TopKCall<S>& c_;
  Lease<TopKMemory> memory_;
  T* packed_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
