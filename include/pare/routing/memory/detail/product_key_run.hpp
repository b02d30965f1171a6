// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A search of product keys: scores of a block of rows by products with the keys as they lie, then
/// the choice of all rows of a register at a time. Of few rows: few_key_rows.hpp.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/falling_list.hpp>
#include <pare/kernel/pack_lines.hpp>
#include <pare/kernel/product_key_search.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/routing/memory/detail/few_key_rows.hpp>
#include <pare/routing/memory/detail/half_search.hpp>
#include <pare/routing/memory/detail/product_key_call.hpp>
#include <pare/routing/memory/memory_hits.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

struct ProductKeyMemory {
  AlignedBuffer<std::byte> bytes;
};

/// What a worker keeps of a block of rows, a column for each.
template <class T>
struct ProductKeyBlock {
  struct List {
    T* best = nullptr;               ///< [most_largest x stride]
    std::int32_t* places = nullptr;  ///< likewise
  };

  static constexpr Index columns = 256 / static_cast<Index>(sizeof(T));
  /// Rows of scores are five cache lines apart, so that those of a register meet in no set of L1.
  static constexpr Index stride = columns + 64 / static_cast<Index>(sizeof(T));

  T* panels = nullptr;  ///< queries, [half x columns]
  T* scores = nullptr;  ///< [keys of a part x stride]
  std::array<List, 2> halves;
  List part;

  void carve(Carver& take, Index half, Index keys) {
    take(panels, half * columns);
    take(scores, keys * stride);
    for (List* list : {&halves[0], &halves[1], &part}) {
      take(list->best, kernel::most_largest * stride);
      take(list->places, kernel::most_largest * stride);
    }
  }
};

template <class B, class T>
class ProductKeyRun {
 public:
  ProductKeyRun(const B& backend, const ProductKeyCall<T>& call, MemoryHits<T>& hits)
      : backend_(backend), c_(call), hits_(hits), memory_(leased<ProductKeyMemory>(backend)) {}

  void run() {
    const Index blocks = ceil_div(c_.rows(), Block::columns), items = c_.heads() * blocks;
    const auto place = [&](Index item) {
      const Index begin = item % blocks * Block::columns;
      return Item{item / blocks, begin, std::min(Block::columns, c_.rows() - begin)};
    };
    if constexpr (KernelBackend<B>) {
      if constexpr (std::is_same_v<T, float>)
        if (has_few_key_rows(c_.rows(), c_.k)) return FewKeyRun<B>(backend_, c_, hits_).run();
      if (by_network())
        return with_blocks(items,
                           [&](Index item, const Block& block) { find(place(item), block); });
      parallel_for(backend_.executor, items,
                   [&](Index item, int) { find_one_by_one(place(item)); });
    } else {
      for (Index item = 0; item < items; ++item) find_one_by_one(place(item));
    }
  }

 private:
  using Block = ProductKeyBlock<T>;
  struct Item {
    Index head, begin, count;
  };

  /// f(item, block) on all threads, with a block of memory of each worker.
  template <class F>
  void with_blocks(Index items, const F& f) {
    const auto blocks = worker_rooms<Block>(
        memory_->bytes, worker_count(backend_.executor, items),
        [&](Block& block, Carver& take) { block.carve(take, c_.half(), keys_of_part()); });
    parallel_for(backend_.executor, items,
                 [&](Index item, int worker) { f(item, blocks.of(worker)); });
  }

  /// Networks hold so many hits. Keys that all lie in one place have no stride to multiply by.
  bool by_network() const {
    return c_.k <= kernel::most_largest && (c_.keys.stride[2] != 0 || c_.n() == 1);
  }
  Index parts() const { return ceil_div(c_.n(), Index{kernel::most_places}); }
  Index keys_of_part() const { return ceil_div(c_.n(), parts()); }

  TensorView<const T, 2> queries(const Item& at, Index which) const {
    return {&c_.queries(at.begin, at.head, which * c_.half()),
            {at.count, c_.half()},
            {c_.queries.stride[0], 1}};
  }

  void find(const Item& at, const Block& block) {
    for (Index which = 0; which < 2; ++which) find_half(at, which, block);
    const auto &first = block.halves[0], &second = block.halves[1];
    launch(backend_, kernel::LargestPairs<T>{first.best, second.best, first.places, second.places,
                                             Block::stride, at.count, c_.k, c_.n(),
                                             &hits_.ids(at.begin, at.head * c_.k),
                                             &hits_.scores(at.begin, at.head * c_.k),
                                             hits_.ids.cols(), hits_.scores.cols()});
  }

  /// The k best keys of each row in a half.
  void find_half(const Item& at, Index which, const Block& block) {
    const TensorView<const T, 2> rows = queries(at, which);
    launch(backend_, kernel::PackRightLines<T, T, false>{
                         {rows.data, rows.stride[0], 1, at.count, c_.half(), nullptr, nullptr},
                         block.panels});
    for (Index part = 0; part < parts(); ++part) {
      const Index begin = part * c_.n() / parts(), end = (part + 1) * c_.n() / parts();
      kernel::MultiplyPanels<T, false> product{&c_.keys(at.head, which, begin, 0),
                                               block.panels,
                                               end - begin,
                                               at.count,
                                               c_.half(),
                                               block.scores,
                                               Block::stride};
      product.left_stride = c_.keys.stride[2];
      if (const Index next = at.begin + Block::columns; part == 0 && next < c_.rows())
        product.ahead = rows_ahead(next, at.head, which);
      launch(backend_, product);
      const auto& list = part == 0 ? block.halves[static_cast<std::size_t>(which)] : block.part;
      launch(backend_, kernel::LargestOfColumns<T>{block.scores, end - begin, Block::stride,
                                                   at.count, c_.k, list.best, list.places});
      if (part > 0)
        merge(block.part, begin, at.count, block.halves[static_cast<std::size_t>(which)]);
    }
  }

  /// The next rows, which come from beyond L2.
  kernel::RowsAhead rows_ahead(Index begin, Index head, Index which) const {
    constexpr Index size = sizeof(T);
    return {&c_.queries(begin, head, which * c_.half()),
            std::min(Block::columns, c_.rows() - begin), c_.half() * size,
            c_.queries.stride[0] * size};
  }

  /// Takes what a later part found, whose places count from `begin`, into what is known.
  void merge(const typename Block::List& later, Index begin, Index count,
             const typename Block::List& all) const {
    std::array<T, kernel::most_largest> best;
    std::array<std::int32_t, kernel::most_largest> places;
    for (Index c = 0; c < count; ++c) {
      Index mine = 0, theirs = 0;
      for (std::size_t s = 0; s < static_cast<std::size_t>(c_.k); ++s) {
        const Index a = mine * Block::stride + c, b = theirs * Block::stride + c;
        const auto place = static_cast<std::int32_t>(begin + later.places[b]);
        const bool take = kernel::stands_before(later.best[b], place, all.best[a], all.places[a]);
        best[s] = take ? later.best[b] : all.best[a];
        places[s] = take ? place : all.places[a];
        ++(take ? theirs : mine);
      }
      for (std::size_t s = 0; s < static_cast<std::size_t>(c_.k); ++s) {
        all.best[static_cast<Index>(s) * Block::stride + c] = best[s];
        all.places[static_cast<Index>(s) * Block::stride + c] = places[s];
      }
    }
  }

  /// The definition, and the way of more hits than a network holds.
  void find_one_by_one(const Item& at) {
    std::vector<PairHit> pairs;
    const auto half = [&](Index which) {
      const TensorView<const T, 2> keys{
          &c_.keys(at.head, which, 0, 0), {c_.n(), c_.half()}, {c_.keys.stride[2], 1}};
      return search_half(backend_, queries(at, which), keys, c_.k);
    };
    const auto first = half(0), second = half(1);
    for (Index r = 0; r < at.count; ++r)
      best_sums(first.of(r), second.of(r), c_.n(), c_.k, pairs,
                &hits_.ids(at.begin + r, at.head * c_.k),
                &hits_.scores(at.begin + r, at.head * c_.k));
  }

  const B& backend_;
  const ProductKeyCall<T>& c_;
  MemoryHits<T>& hits_;
  Lease<ProductKeyMemory> memory_;
};

PARE_ABI_END
}  // namespace pare::routing::detail
