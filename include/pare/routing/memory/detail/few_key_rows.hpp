// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A search of product keys for few rows, whose lanes a network would leave idle: the keys of each
/// half are read where they lie, in parts that threads share, and each row keeps lists of its best.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/falling_list.hpp>
#include <pare/kernel/product_key_search.hpp>
#include <pare/linalg/weight_rows.hpp>
#include <pare/routing/memory/detail/product_key_call.hpp>
#include <pare/routing/memory/memory_hits.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// Whether each row is searched by itself: a network takes as long for one as for a register of
/// them, a list longer the more it keeps.
inline bool has_few_key_rows(Index rows, Index k) { return rows <= 4 && rows * k <= 64; }

struct FewKeyMemory {
  AlignedBuffer<std::byte> bytes;
};

template <class B>
class FewKeyRun {
 public:
  /// At least one row.
  FewKeyRun(const B& backend, const ProductKeyCall<float>& call, MemoryHits<float>& hits)
      : backend_(backend), c_(call), hits_(hits), memory_(leased<FewKeyMemory>(backend)) {}

  void run() {
    const Index items = c_.heads() * 2 * parts();
    carve(items, worker_count(backend_.executor, items));
    parallel_for(backend_.executor, items,
                 [&](Index item, int worker) { search_part(item, worker); });
    parallel_for(backend_.executor, c_.heads(), [&](Index head, int worker) {
      for (Index r = 0; r < c_.rows(); ++r) choose(head, r, worker);
    });
  }

 private:
  /// Each part costs a row a list of its own, which takes as long as some hundred scores.
  static constexpr Index keys_of_part = 1024;

  /// The k best keys of a row, the best first; [k] both.
  struct List {
    float* best;
    std::int32_t* places;
  };

  Index parts() const { return ceil_div(c_.n(), keys_of_part); }
  Index keys_in(Index part) const { return std::min(keys_of_part, c_.n() - part * keys_of_part); }
  Index scores_of_worker() const { return whole_lines(c_.rows() * keys_in(0)); }

  void carve(Index items, Index workers) {
    carve_from(memory_->bytes, [&](Carver& take) {
      take(found_.best, items * c_.rows() * c_.k);
      take(found_.places, items * c_.rows() * c_.k);
      take(scores_, workers * scores_of_worker());
      take(merged_.best, workers * 2 * whole_lines(c_.k));
      take(merged_.places, workers * 2 * whole_lines(c_.k));
      take(sums_, workers * whole_lines(c_.k));
    });
  }

  /// What a row found in a part, whose items count part by part, half by half, head by head.
  List found(Index item, Index row) const {
    const Index at = (item * c_.rows() + row) * c_.k;
    return {found_.best + at, found_.places + at};
  }

  /// Where a worker puts together what was found in a half.
  List merged(int worker, Index which) const {
    const Index at = (2 * worker + which) * whole_lines(c_.k);
    return {merged_.best + at, merged_.places + at};
  }

  /// All rows, so that keys are read once.
  void search_part(Index item, int worker) const {
    const Index part = item % parts(), which = item / parts() % 2, head = item / parts() / 2;
    const Index begin = part * keys_of_part, count = keys_in(part), rows = c_.rows();
    float* const scores = scores_ + worker * scores_of_worker();
    linalg::multiply_weight_rows(
        backend_,
        TensorView<const float, 2>{
            &c_.keys(head, which, begin, 0), {count, c_.half()}, {c_.keys.stride[2], 1}},
        TensorView<const float, 2>{
            &c_.queries(0, head, which * c_.half()), {rows, c_.half()}, {c_.queries.stride[0], 1}},
        TensorView<float, 2>{scores, {rows, count}, {count, 1}});
    for (Index r = 0; r < rows; ++r) {
      const List best = found(item, r);
      kernel::FallingList<float, std::int32_t> list(c_.k, best.best, best.places, 1);
      for (Index i = 0; i < count; ++i)
        list.offer(scores[r * count + i], static_cast<std::int32_t>(begin + i));
    }
  }

  /// The k best keys of a half, from those of its parts.
  List merge(Index head, Index which, Index row, int worker) const {
    const List all = merged(worker, which);
    kernel::FallingList<float, std::int32_t> list(c_.k, all.best, all.places, 1);
    for (Index part = 0; part < parts(); ++part) {
      const List some = found((head * 2 + which) * parts() + part, row);
      for (Index s = 0; s < std::min(c_.k, keys_in(part)); ++s)
        list.offer(some.best[s], some.places[s]);
    }
    return all;
  }

  /// The k best pairs of a row.
  void choose(Index head, Index row, int worker) const {
    const List first = merge(head, 0, row, worker), second = merge(head, 1, row, worker);
    double* const sums = sums_ + worker * whole_lines(c_.k);
    kernel::FallingList<double, Index> list(c_.k, sums, &hits_.ids(row, head * c_.k), 1);
    kernel::each_pair(c_.k, [&](Index a, Index b) {
      list.offer(static_cast<double>(first.best[a]) + static_cast<double>(second.best[b]),
                 first.places[a] * c_.n() + second.places[b]);
    });
    for (Index s = 0; s < c_.k; ++s)
      hits_.scores(row, head * c_.k + s) = static_cast<float>(sums[s]);
  }

  const B& backend_;
  const ProductKeyCall<float>& c_;
  MemoryHits<float>& hits_;
  Lease<FewKeyMemory> memory_;
  List found_{}, merged_{};
  float* scores_ = nullptr;
  double* sums_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::routing::detail
