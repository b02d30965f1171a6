// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A sweep of balanced k-means at speed.
///
/// Clusters take rows in turn, so which rows are left for one depends on all before it. Scores
///
///     s_ki = <c_k, x_i> - |x_i|^2 / 2 = (|c_k|^2 - |x_i - c_k|^2) / 2
///
/// rank the rows of a cluster as distances do. Products are made for a block of clusters and the
/// rows that are left before it: little more than half of all. Then each cluster of the block, on
/// any thread, lists the best rows as if it came first, somewhat more than it takes, and at last,
/// one after the other, clusters take the best of their list that are still free. Rows that are
/// taken get a score of -infinity, and a cluster whose list others have emptied looks again.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/list_at_least.hpp>
#include <pare/kernel/mean_of_listed.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/kernel/row_dots.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/top_k.hpp>
#include <pare/retrieval/semantic/detail/reference_balanced.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Clusters whose products are computed at once: each number of a row that is packed is multiplied
/// so often. With more, products are made with rows that others take.
inline constexpr Index balanced_block = 32;

/// The best of scores, each the sum of two numbers.
template <class T>
class BestPlaces {
 public:
  using Ranked = linalg::Ranked<T>;
  static constexpr Index block = 2048;

  /// Entries that `list` has room for when `target` are wanted.
  static constexpr Index room(Index target) { return target + 2 * block; }

  /// `places` has room for a block and 16 more.
  BestPlaces(const T* products, const T* halves, Index count, Ranked* list, std::int32_t* places)
      : products_(products), halves_(halves), count_(count), list_(list), places_(places) {}

  /// Lists about the `target` best in any order: all that are not below what a sample told, at most
  /// `target`.
  template <class B>
  Index list(const B& backend, Index target) {
    return list(backend, target, 4 * target <= count_ ? sampled(target) : lowest);
  }

  /// Lists the `target` best, or all that are not -infinity if there are fewer.
  template <class B>
  Index list_surely(const B& backend, Index target) {
    return list(backend, target, lowest);
  }

  /// Moves the best `wanted` of the entries to the front, the last of them behind.
  static Index keep(Ranked* list, Index listed, Index wanted) {
    if (listed <= wanted) return listed;
    std::nth_element(list, list + wanted - 1, list + listed);
    return wanted;
  }

 private:
  static constexpr T lowest = std::numeric_limits<T>::lowest();
  static constexpr Index samples = 512;

  T score(Index place) const { return products_[place] + halves_[place]; }

  template <class B>
  Index list(const B& backend, Index target, T threshold) {
    Index listed = 0;
    for (Index begin = 0; begin < count_; begin += block) {
      Index found = 0;
      launch(backend, kernel::ListAtLeast<T>{products_ + begin, halves_ + begin,
                                             std::min(block, count_ - begin), threshold,
                                             static_cast<std::int32_t>(begin), places_, &found});
      for (Index i = 0; i < found; ++i)
        list_[listed + i] = Ranked(score(places_[i]), Index{places_[i]});
      listed += found;
      if (listed > target + block) {
        listed = keep(list_, listed, target);
        threshold = score(list_[target - 1].index);
      }
    }
    return keep(list_, listed, target);
  }

  /// A score that about one and a half times as many as wanted are not below.
  T sampled(Index target) const {
    std::array<T, samples> sample;
    std::uint64_t at = 0;
    for (T& x : sample) {
      x = score(static_cast<Index>((at * static_cast<std::uint64_t>(count_)) >> 32));
      at = (at + 0x9e3779b9u) & 0xffffffffu;  // 2^32 / golden ratio: evenly spread
    }
    const auto rank = static_cast<std::ptrdiff_t>(
        std::min<Index>(3 * target * samples / (2 * count_) + 4, samples - 1));
    std::nth_element(sample.begin(), sample.begin() + rank, sample.end(),
                     [](T a, T b) { return a > b; });
    return std::max(sample[static_cast<std::size_t>(rank)], lowest);
  }

  const T* products_;
  const T* halves_;
  Index count_;
  Ranked* list_;
  std::int32_t* places_;
};

struct BalancedMemory {
  AlignedBuffer<std::byte> shared, workers;
};

/// Sweeps over the same rows, which are contiguous and finite, and whose products do not overflow.
template <class B, class T>
class BalancedRun {
 public:
  BalancedRun(const B& backend, TensorView<const T, 2> rows, Index clusters)
      : backend_(backend), x_(rows), clusters_(clusters), memory_(leased<BalancedMemory>(backend)) {
    // Whole panels of any arch, and an odd number of cache lines from row to row: a power of two
    // would put all rows in the same places of a cache.
    stride_ = whole_panels(rows.rows()) + 64 / static_cast<Index>(sizeof(T));
    carve_from(memory_->shared, [this](Carver& take) { carve(take); });
    workers_ =
        worker_count(backend.executor, std::max(ceil_div(rows.rows(), item_columns), clusters_));
    halve_squares();
  }

  /// One greedy pass with these centroids [clusters x dim]; returns whether a row changed its
  /// cluster.
  bool assign(TensorView<const T, 2> centroids, std::vector<std::uint32_t>& assigned) {
    for (Index i = 0; i < rows(); ++i) left_[i] = static_cast<std::int32_t>(i);
    std::copy_n(halves_, rows(), left_halves_);
    left_count_ = rows();
    bool moved = false;
    for (Index first = 0; first < clusters_; first += balanced_block) {
      const Index count = std::min(balanced_block, clusters_ - first);
      multiply(rows_of(centroids, first, count));
      list_best(first, count);
      moved = take_best(first, count, assigned) || moved;
      drop_taken();
    }
    return moved;
  }

  /// Moves the centroids to the means of their rows; returns the sum of squared distances to them.
  double move_to_means(const std::vector<std::uint32_t>& assigned, RowMatrix<T>& centroids) {
    Index begin = 0;
    for (Index k = 0; k < clusters_; begin += size_of(k++)) begins_[k] = begin;
    for (Index i = 0; i < rows(); ++i)
      members_[begins_[assigned[static_cast<std::size_t>(i)]]++] = static_cast<std::int32_t>(i);
    const auto room = rooms();
    parallel_for(backend_.executor, clusters_, [&](Index k, int worker) {
      launch(backend_, kernel::MeanOfListed<T>{
                           x_.data, x_.stride[0], members_ + begins_[k] - size_of(k), size_of(k),
                           dim(), room.of(worker).sums, &centroids(k, 0), inertias_ + k});
    });
    double inertia = 0;
    for (Index k = 0; k < clusters_; ++k) inertia += inertias_[k];
    return inertia;
  }

 private:
  using Ranked = linalg::Ranked<T>;
  /// In the place of -|x|^2 / 2 of a row that has a cluster.
  static constexpr T taken = -std::numeric_limits<T>::infinity();
  /// Rows that a worker packs and multiplies at once: panels of them stay in L2.
  static constexpr Index item_columns = 128;

  struct Room {
    T* panels = nullptr;       ///< [depth of a block x item_columns]
    const T** rows = nullptr;  ///< [item_columns]
    Ranked* list = nullptr;    ///< what BestPlaces asks for
    std::int32_t* places = nullptr;
    double* sums = nullptr;  ///< [dim]
  };

  static Index whole_panels(Index columns) { return ceil_div(columns, Index{64}) * 64; }
  Index rows() const { return x_.rows(); }
  Index dim() const { return x_.cols(); }
  Index depth_block() const { return std::min(dim(), linalg::product_depth); }
  Index size_of(Index k) const { return balanced_size(rows(), clusters_, k); }
  /// Entries of a cluster's list: half as many again as it takes, since others take some of them.
  Index most_listed() const { return std::min(rows(), size_of(0) + size_of(0) / 2 + 32); }

  void carve(Carver& take) {
    const Index block = std::min(balanced_block, clusters_);
    take(products_, block * stride_);
    take(packed_, block * dim());
    take(halves_, rows());
    take(left_halves_, rows());
    take(left_, rows());
    take(members_, rows());
    take(lists_, block * most_listed());
    take(listed_, block);
    take(begins_, clusters_);
    take(inertias_, clusters_);
  }

  void carve(Room& room, Carver& take) const {
    take(room.panels, depth_block() * item_columns);
    take(room.rows, item_columns);
    take(room.list, BestPlaces<T>::room(most_listed()));
    take(room.places, BestPlaces<T>::block + 16);
    take(room.sums, dim());
  }

  auto rooms() const {
    return worker_rooms<Room>(memory_->workers, workers_,
                              [this](Room& room, Carver& take) { carve(room, take); });
  }

  /// halves = -|x|^2 / 2.
  void halve_squares() {
    parallel_for(backend_.executor, ceil_div(rows(), item_columns), [&](Index item, int) {
      const Index begin = item * item_columns, count = std::min(item_columns, rows() - begin);
      std::array<double, item_columns> squares{};
      launch(backend_, kernel::AddRowDots<T>{&x_(begin, 0), x_.stride[0], &x_(begin, 0),
                                             x_.stride[0], count, dim(), squares.data()});
      for (Index i = 0; i < count; ++i)
        halves_[begin + i] = static_cast<T>(-0.5 * squares[static_cast<std::size_t>(i)]);
    });
  }

  /// Products of a block of centroids with the rows that are left.
  void multiply(TensorView<const T, 2> centroids) {
    std::array<const T*, balanced_block> of{};
    for (Index depth = 0; depth < dim(); depth += depth_block()) {
      for (Index k = 0; k < centroids.rows(); ++k)
        of[static_cast<std::size_t>(k)] = &centroids(k, depth);
      launch(backend_, kernel::PackLeft<T>{of.data(), centroids.rows(),
                                           std::min(depth_block(), dim() - depth),
                                           packed_ + depth * centroids.rows()});
    }
    const auto room = rooms();
    parallel_for(
        backend_.executor, ceil_div(left_count_, item_columns),
        [&](Index item, int worker) { multiply(centroids.rows(), item, room.of(worker)); });
  }

  void multiply(Index clusters, Index item, const Room& room) const {
    const Index begin = item * item_columns, count = std::min(item_columns, left_count_ - begin);
    // Panels are as wide as tiles: the last one has the last row again and again.
    const Index padded = whole_panels(count);
    for (Index depth = 0; depth < dim(); depth += depth_block()) {
      const Index steps = std::min(depth_block(), dim() - depth);
      for (Index i = 0; i < padded; ++i)
        room.rows[i] = &x_(left_[begin + std::min(i, count - 1)], depth);
      launch(backend_, kernel::PackTransposed<T>{room.rows, padded, steps, room.panels});
      launch(backend_, kernel::MultiplyPanels<T, false>{packed_ + depth * clusters, room.panels,
                                                        clusters, padded, steps, products_ + begin,
                                                        stride_, depth > 0});
    }
  }

  BestPlaces<T> best_of(Index k, const Room& room) const {
    return {products_ + k * stride_, left_halves_, left_count_, room.list, room.places};
  }

  /// The best rows of each cluster of a block: half as many again as it takes, or as it and those
  /// before it take.
  void list_best(Index first, Index count) {
    const auto room = rooms();
    parallel_for(backend_.executor, count, [&](Index k, int worker) {
      const Index target = std::min({left_count_, (k + 1) * size_of(first), most_listed()});
      const Room own = room.of(worker);
      listed_[k] = best_of(k, own).list(backend_, target);
      std::copy_n(own.list, listed_[k], lists_ + k * most_listed());
    });
  }

  bool take_best(Index first, Index count, std::vector<std::uint32_t>& assigned) {
    const Room own = rooms().of(0);
    bool moved = false;
    for (Index k = 0; k < count; ++k) {
      const auto cluster = static_cast<std::uint32_t>(first + k);
      const Index size = size_of(first + k);
      Ranked* list = lists_ + k * most_listed();
      Index free = drop_taken(list, listed_[k]);
      if (free < size) {
        list = own.list;
        free = best_of(k, own).list(backend_, size);
        if (free < size) best_of(k, own).list_surely(backend_, size);
      }
      BestPlaces<T>::keep(list, free, size);
      for (Index i = 0; i < size; ++i) {
        left_halves_[list[i].index] = taken;
        std::uint32_t& of = assigned[static_cast<std::size_t>(left_[list[i].index])];
        moved = moved || of != cluster;
        of = cluster;
      }
    }
    return moved;
  }

  /// Leaves the entries of a list whose rows are free; returns how many.
  Index drop_taken(Ranked* list, Index listed) const {
    Index free = 0;
    for (Index i = 0; i < listed; ++i) {
      const Ranked x = list[i];
      list[free] = x;
      free += left_halves_[x.index] == taken ? 0 : 1;
    }
    return free;
  }

  /// The same of the rows that are left, in the order of their numbers.
  void drop_taken() {
    Index kept = 0;
    for (Index i = 0; i < left_count_; ++i) {
      const bool free = left_halves_[i] != taken;
      left_[kept] = left_[i];
      left_halves_[kept] = left_halves_[i];
      kept += free ? 1 : 0;
    }
    left_count_ = kept;
  }

  const B& backend_;
  TensorView<const T, 2> x_;
  Index clusters_;
  Lease<BalancedMemory> memory_;
  Index stride_ = 0;      ///< of products
  Index left_count_ = 0;  ///< rows without a cluster
  Index workers_ = 1;
  T* products_ = nullptr;            ///< [clusters of a block x stride]
  T* packed_ = nullptr;              ///< centroids of a block
  T* halves_ = nullptr;              ///< [rows] -|x|^2 / 2
  T* left_halves_ = nullptr;         ///< [left] the same of those that are left, or `taken`
  std::int32_t* left_ = nullptr;     ///< [left] rows, ascending
  std::int32_t* members_ = nullptr;  ///< [rows] by cluster, ascending
  Ranked* lists_ = nullptr;          ///< [clusters of a block x most_listed]
  Index* listed_ = nullptr;          ///< [clusters of a block]
  Index* begins_ = nullptr;          ///< [clusters] in members
  double* inertias_ = nullptr;       ///< [clusters]
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
