// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim of documents of bytes: its definition, and the kernel on blocks of documents.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/int8_dots.hpp>
#include <pare/linalg/int8_rows.hpp>
#include <pare/retrieval/detail/document_blocks.hpp>
#include <pare/retrieval/detail/int8_queries.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

struct Int8MaxSimCall {
  TensorView<const float, 2> queries;  ///< [query tokens, dim]
  linalg::Int8View documents;          ///< [tokens, dim]
  std::span<const Index> offsets;      ///< [documents + 1]
  TensorView<float, 1> scores;
};

struct Int8MaxSimMemory {
  AlignedBuffer<std::byte> queries, workers;
};

inline void check_max_sim(const Int8MaxSimCall& c) {
  constexpr const char* function = "retrieval::max_sim";
  linalg::check_int8_rows(function, "documents", c.documents);
  check_int8_queries(function, c.queries, c.documents.dim());
  check_offsets(function, "offsets", c.offsets, c.documents.rows());
  check_writable(function, "scores", c.scores);
  check_extents<1>(function, "scores", c.scores.extent, {static_cast<Index>(c.offsets.size()) - 1});
  check_no_overlap(function, "scores", c.scores, "queries", c.queries);
  check_no_overlap(function, "scores", c.scores, "documents", c.documents.codes);
  check_no_overlap(function, "scores", c.scores, "documents", to_view(c.documents.scales));
  check_no_overlap(function, "scores", c.scores, "offsets", to_view(c.offsets));
}

/// Products are rounded as kernel/int8_dots.hpp says, and added up in double.
inline void reference_max_sim(const Int8MaxSimCall& c) {
  const linalg::Int8Rows rounded = linalg::quantize_rows(reference, c.queries);
  const linalg::Int8View queries = rounded;
  for (Index d = 0; d < c.scores.extent[0]; ++d) {
    const auto at = static_cast<std::size_t>(d);
    double score = 0;
    for (Index i = 0; i < queries.rows(); ++i) {
      double largest = -std::numeric_limits<double>::infinity();
      for (Index j = c.offsets[at]; j < c.offsets[at + 1] && !is_nan(largest); ++j) {
        const auto product = static_cast<double>(reference_int8_score(queries, i, c.documents, j));
        largest = is_nan(product) ? product : std::max(largest, product);
      }
      score += largest;
    }
    c.scores(d) = static_cast<float>(score);
  }
}

template <class B>
class Int8MaxSimRun {
 public:
  Int8MaxSimRun(const B& backend, const Int8MaxSimCall& call)
      : backend_(backend),
        c_(call),
        blocks_(call.offsets),
        memory_(leased<Int8MaxSimMemory>(backend)) {}

  void run() {
    packed_.pack(backend_, c_.queries, kernel::Int8Order::Lanes, memory_->queries);
    const Index items = blocks_.items();
    const auto rooms =
        worker_rooms<Worker>(memory_->workers, worker_count(backend_.executor, items),
                             [this](Worker& worker, Carver& take) { carve(worker, take); });
    parallel_for(backend_.executor, items,
                 [&](Index item, int worker) { score(item, rooms.of(worker)); });
  }

 private:
  struct Worker {
    float* maxima = nullptr;
    std::int32_t *products = nullptr, *widened = nullptr;
  };

  void carve(Worker& worker, Carver& take) const {
    const Index columns = kernel::padded_columns<float>(c_.queries.rows());
    take(worker.maxima, columns);
    take(worker.products, columns * kernel::max_dot_rows);
    take(worker.widened, kernel::int8_row_words(c_.queries.cols()) * kernel::max_dot_rows);
  }

  void score(Index item, const Worker& worker) const {
    const Index begin = blocks_.begin(item), end = blocks_.begin(item + 1);
    if (begin == end) return;
    launch(backend_, kernel::MaxInt8Dots{
                         packed_.with(c_.documents, 0),
                         worker.products,
                         worker.widened,
                         {c_.offsets.data() + begin, end - begin, c_.queries.rows(), worker.maxima,
                          c_.scores.data + begin * c_.scores.stride[0], c_.scores.stride[0]}});
  }

  const B& backend_;
  const Int8MaxSimCall& c_;
  DocumentBlocks blocks_;
  Lease<Int8MaxSimMemory> memory_;
  Int8Queries packed_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
