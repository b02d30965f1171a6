// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim: its definition, and the kernel on blocks of documents.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/max_dots.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/retrieval/detail/document_blocks.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

template <class S>
struct MaxSimCall {
  TensorView<const S, 2> queries;    ///< [query tokens, dim]
  TensorView<const S, 2> documents;  ///< [tokens, dim]
  std::span<const Index> offsets;    ///< [documents + 1]
  TensorView<compute_t<S>, 1> scores;
};

struct MaxSimMemory {
  AlignedBuffer<std::byte> queries, workers;
};

template <class S>
void check_max_sim(const MaxSimCall<S>& c) {
  using T = compute_t<S>;
  constexpr const char* function = "retrieval::max_sim";
  check_view(function, "queries", c.queries);
  check(c.queries.cols() >= 1, function, "queries", c.queries.extent, "a dim of at least 1");
  check_contiguous_rows(function, "queries", c.queries);
  check_view(function, "documents", c.documents);
  check(c.documents.cols() == c.queries.cols(), function, "documents", c.documents.extent,
        Worded{"the dim of queries, ", c.queries.cols()});
  check_contiguous_rows(function, "documents", c.documents);
  check_offsets(function, "offsets", c.offsets, c.documents.rows());
  check_writable(function, "scores", c.scores);
  check_extents<1>(function, "scores", c.scores.extent, {static_cast<Index>(c.offsets.size()) - 1});
  check_no_overlap(function, "scores", c.scores, "queries", c.queries);
  check_no_overlap(function, "scores", c.scores, "documents", c.documents);
  check_no_overlap(function, "scores", c.scores, "offsets", to_view(c.offsets));
  // What queries are packed into, with whole registers, a pair and a pointer more, and a worker's
  // rows of products.
  const Index columns = checked_sum(function, "queries", c.queries.rows(), 64);
  const Index depth =
      checked_sum(function, "queries", c.queries.cols(), 2 * (kernel::max_dot_rows + 1));
  checked_count(function, "queries", checked_product(function, "queries", columns, depth),
                sizeof(T));
}

/// The sum over query tokens of their largest product with tokens [begin, end).
template <class S>
compute_t<S> reference_score(TensorView<const S, 2> queries, TensorView<const S, 2> documents,
                             Index begin, Index end) {
  using T = compute_t<S>;
  const auto widened = [](S x) { return static_cast<double>(static_cast<T>(x)); };
  double score = 0;
  for (Index i = 0; i < queries.rows(); ++i) {
    double largest = -std::numeric_limits<double>::infinity();
    for (Index j = begin; j < end; ++j) {
      double product = 0;
      for (Index c = 0; c < queries.cols(); ++c)
        product += widened(queries(i, c)) * widened(documents(j, c));
      if (is_nan(product)) return std::numeric_limits<T>::quiet_NaN();
      largest = std::max(largest, product);
    }
    score += largest;
  }
  return static_cast<T>(score);
}

template <class S>
void reference_max_sim(const MaxSimCall<S>& c) {
  for (Index d = 0; d < c.scores.extent[0]; ++d)
    c.scores(d) = reference_score(c.queries, c.documents, c.offsets[static_cast<std::size_t>(d)],
                                  c.offsets[static_cast<std::size_t>(d) + 1]);
}

template <class B, class S>
class MaxSimRun {
 public:
  MaxSimRun(const B& backend, const MaxSimCall<S>& call)
      : backend_(backend),
        c_(call),
        blocks_(call.offsets),
        memory_(leased<MaxSimMemory>(backend)) {}

  void run() {
    pack_queries();
    const Index items = blocks_.items();
    const auto rooms =
        worker_rooms<Worker>(memory_->workers, worker_count(backend_.executor, items),
                             [this](Worker& worker, Carver& take) { carve(worker, take); });
    parallel_for(backend_.executor, items,
                 [&](Index item, int worker) { score(item, rooms.of(worker)); });
  }

 private:
  using T = compute_t<S>;
  struct Worker {
    T *maxima = nullptr, *products = nullptr, *widened = nullptr;
  };

  Index queries() const { return c_.queries.rows(); }
  Index dim() const { return c_.queries.cols(); }

  void pack_queries() {
    const S** rows = nullptr;
    carve_from(memory_->queries, [&](Carver& take) {
      take(panels_, (queries() + 64) * (dim() + 2));
      take(rows, queries());
    });
    for (Index i = 0; i < queries(); ++i) rows[i] = &c_.queries(i, 0);
    launch(backend_, kernel::PackTransposed<S>{
                         rows, queries(), dim(), panels_, {}, kernel::PanelWidth::Lanes});
  }

  void carve(Worker& worker, Carver& take) const {
    const Index columns = kernel::padded_columns<T>(queries());
    take(worker.maxima, columns);
    take(worker.products, columns * kernel::max_dot_rows);
    take(worker.widened, std::is_same_v<S, T> ? 0 : kernel::max_dot_rows * dim());
  }

  void score(Index item, const Worker& worker) const {
    const Index begin = blocks_.begin(item), end = blocks_.begin(item + 1);
    if (begin == end) return;
    launch(backend_,
           kernel::MaxDots<S>{panels_,
                              dim(),
                              c_.documents.data,
                              c_.documents.stride[0],
                              worker.products,
                              worker.widened,
                              {c_.offsets.data() + begin, end - begin, queries(), worker.maxima,
                               c_.scores.data + begin * c_.scores.stride[0], c_.scores.stride[0]}});
  }

  const B& backend_;
  const MaxSimCall<S>& c_;
  DocumentBlocks blocks_;
  Lease<MaxSimMemory> memory_;
  T* panels_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
