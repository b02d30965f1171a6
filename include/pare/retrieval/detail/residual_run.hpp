// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim of encoded rows: its definition, and the kernels on blocks of documents.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/residual_dots.hpp>
#include <pare/retrieval/detail/document_blocks.hpp>
#include <pare/retrieval/residual_codec.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

struct ResidualCall {
  TensorView<const float, 2> queries;  ///< [query tokens, dim]
  const ResidualCodec& codec;
  const ResidualRows& rows;
  std::span<const Index> offsets;  ///< [documents + 1]
  TensorView<float, 1> scores;
};

struct ResidualMemory {
  AlignedBuffer<std::byte> queries, workers;
};

inline void check_residual_max_sim(const ResidualCall& c) {
  constexpr const char* function = "retrieval::residual_max_sim";
  check_residual_rows(function, c.codec, c.rows);
  check_view(function, "queries", c.queries);
  check(c.queries.cols() == c.codec.dim(), function, "queries", c.queries.extent,
        Worded{"the dim of the codec, ", c.codec.dim()});
  check_contiguous_rows(function, "queries", c.queries);
  check_offsets(function, "offsets", c.offsets, c.rows.rows());
  check_writable(function, "scores", c.scores);
  check_extents<1>(function, "scores", c.scores.extent, {static_cast<Index>(c.offsets.size()) - 1});
  check_no_overlap(function, "scores", c.scores, "queries", c.queries);
  check_no_overlap(function, "scores", c.scores, "codec", const_view(c.codec.centroids));
  check_no_overlap(function, "scores", c.scores, "rows", to_view(c.rows.scales));
  check_no_overlap(function, "scores", c.scores, "rows", to_view(c.rows.codes));
  check_no_overlap(function, "scores", c.scores, "rows", to_view(c.rows.centroids));
  check_no_overlap(function, "scores", c.scores, "offsets", to_view(c.offsets));
  // Products with centroids, queries packed twice, with whole registers, and a worker's products.
  const Index columns = checked_sum(function, "queries", c.queries.rows(), 64);
  const Index each = c.codec.centroids.rows() + 2 * c.codec.dim() + 64;
  checked_count(function, "queries", checked_product(function, "queries", columns, each),
                sizeof(float));
}

inline void reference_residual_max_sim(const ResidualCall& c) {
  for (Index d = 0; d < c.scores.extent[0]; ++d) {
    double score = 0;
    for (Index i = 0; i < c.queries.rows(); ++i) {
      double largest = -std::numeric_limits<double>::infinity();
      for (Index j = c.offsets[static_cast<std::size_t>(d)];
           j < c.offsets[static_cast<std::size_t>(d) + 1]; ++j) {
        const auto at = static_cast<std::size_t>(j);
        double product = 0;
        for (Index x = 0; x < c.codec.dim(); ++x)
          product +=
              static_cast<double>(c.queries(i, x)) *
              static_cast<double>(residual_value(
                  c.codec, c.rows.codes.data() + j * c.codec.row_bytes(), c.rows.centroids[at], x));
        product *= static_cast<double>(c.rows.scales[at]);
        // Of infinite numbers too, as where they are rounded to bytes.
        largest = is_finite(product) ? std::max(largest, product)
                                     : std::numeric_limits<double>::quiet_NaN();
        if (is_nan(largest)) break;
      }
      score += largest;
    }
    c.scores(d) = static_cast<float>(score);
  }
}

template <class B>
class ResidualRun {
 public:
  ResidualRun(const B& backend, const ResidualCall& call)
      : backend_(backend),
        c_(call),
        blocks_(call.offsets),
        memory_(leased<ResidualMemory>(backend)) {}

  void run() {
    const Index items = blocks_.items();
    if (items == 0) return;
    prepare();
    const auto rooms =
        worker_rooms<Worker>(memory_->workers, worker_count(backend_.executor, items),
                             [this](Worker& worker, Carver& take) { carve(worker, take); });
    parallel_for(backend_.executor, items,
                 [&](Index item, int worker) { score(item, rooms.of(worker)); });
  }

 private:
  struct Worker {
    float *maxima = nullptr, *products = nullptr, *decoded = nullptr;
  };

  Index queries() const { return c_.queries.rows(); }
  Index dim() const { return c_.codec.dim(); }
  Index depth() const { return c_.codec.row_bytes() * c_.codec.levels.planes(); }
  Index columns() const { return kernel::padded_columns<float>(queries()); }

  void prepare() {
    const float** rows = nullptr;
    float *packed = nullptr, *added = nullptr;
    const Index centroids = c_.codec.centroids.rows();
    carve_from(memory_->queries, [&](Carver& take) {
      take(rows, queries());
      take(packed, (queries() + 64) * dim());
      take(panels_, (queries() + 64) * depth());
      take(factors_, columns());
      take(added, columns());
      take(table_, centroids * columns());
    });
    for (Index i = 0; i < queries(); ++i) rows[i] = &c_.queries(i, 0);
    launch(backend_, kernel::PackTransposed<float>{
                         rows, queries(), dim(), packed, {}, kernel::PanelWidth::Lanes});
    launch(backend_, kernel::PackResidualQueries{rows, queries(), dim(), depth(), c_.codec.levels,
                                                 panels_, factors_, added});
    constexpr Index block = 240;
    parallel_for(backend_.executor, ceil_div(centroids, block), [&](Index item, int) {
      const Index begin = item * block;
      launch(backend_, kernel::MultiplyCentroids{
                           packed, queries(), dim(), c_.codec.centroids.data() + begin * dim(),
                           std::min(block, centroids - begin), added, table_ + begin * columns()});
    });
  }

  void carve(Worker& worker, Carver& take) const {
    take(worker.maxima, columns());
    take(worker.products, columns() * kernel::max_dot_rows);
    take(worker.decoded, kernel::max_dot_rows * depth());
  }

  void score(Index item, const Worker& worker) const {
    const Index begin = blocks_.begin(item), end = blocks_.begin(item + 1);
    if (begin == end) return;
    launch(backend_, kernel::ScoreResiduals{
                         panels_,
                         factors_,
                         table_,
                         depth(),
                         c_.codec.levels,
                         c_.rows.codes.data(),
                         c_.codec.row_bytes(),
                         c_.rows.centroids.data(),
                         c_.rows.scales.data(),
                         worker.products,
                         worker.decoded,
                         {c_.offsets.data() + begin, end - begin, queries(), worker.maxima,
                          c_.scores.data + begin * c_.scores.stride[0], c_.scores.stride[0]}});
  }

  const B& backend_;
  const ResidualCall& c_;
  DocumentBlocks blocks_;
  Lease<ResidualMemory> memory_;
  float *panels_ = nullptr, *factors_ = nullptr, *table_ = nullptr;
};

template <class B>
void residual_max_sim(const B& backend, const ResidualCall& call) {
  check_residual_max_sim(call);
  if constexpr (KernelBackend<B>)
    ResidualRun<B>(backend, call).run();
  else
    reference_residual_max_sim(call);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
