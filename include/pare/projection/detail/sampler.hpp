// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/backend.hpp>
#include <pare/core/random.hpp>
#include <pare/kernel/philox.hpp>
#include <pare/projection/detail/binomial.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace pare::projection::detail {

/// Rows of R that share a random count, and one 64-bit mask.
inline constexpr Index rows_per_block = 64;

PARE_ABI_BEGIN

constexpr std::uint64_t join_words(std::uint64_t high, std::uint64_t low) {
  return (high << 32) | (low & 0xffffffffu);
}

/// A batch of Philox counters, turned into words by one kernel launch.
struct PhiloxBatch {
  static constexpr Index capacity = 256;
  std::array<std::array<std::uint64_t, capacity>, 4> word;
  Index size = 0;

  void push(std::uint64_t c0, std::uint64_t column, std::uint64_t c3) {
    const auto i = static_cast<std::size_t>(size++);
    word[0][i] = c0;
    word[1][i] = column & 0xffffffffu;
    word[2][i] = column >> 32;
    word[3][i] = c3;
  }

  template <KernelBackend B>
  void generate(const B& backend, PhiloxKey key) {
    launch(backend, kernel::PhiloxWords{word[0].data(), word[1].data(), word[2].data(),
                                        word[3].data(), size, key.k0, key.k1});
  }

  std::uint32_t at(int w, Index i) const {
    return static_cast<std::uint32_t>(
        word[static_cast<std::size_t>(w)][static_cast<std::size_t>(i)]);
  }
};

/// Columns of a SparseProjection. `sample` calls emit(column position, first row, mask, signs) for
/// each block of 64 rows that holds a nonzero in [first_row, last_row): bit r of mask is row first
/// + r, negative if the same bit of signs is set. Blocks come column by column, rows ascending.
///
/// Random words of block b of column j: Philox counters (b, j low, j high, t). t = 0 gives the
/// count (words 0, 1) and the signs (words 2, 3); t >= 1 give the places, four a counter.
class BernoulliSampler {
 public:
  explicit BernoulliSampler(const SparseProjection& r)
      : output_dim_(r.output_dim),
        key_(r.seed),
        full_(static_cast<int>(rows_per_block), r.effective_density()),
        last_(static_cast<int>(r.output_dim % rows_per_block), r.effective_density()) {}

  template <KernelBackend B, class Emit>
  void sample(const B& backend, const Index* columns, Index count, Index first_row, Index last_row,
              const Emit& emit) const {
    const Index first_block = first_row / rows_per_block;
    const Index blocks = (last_row + rows_per_block - 1) / rows_per_block - first_block;
    const Index total = count * blocks;
    // Rows are drawn block by block; what lies outside the range is dropped.
    const auto emit_within = [&](Index position, Index block_row, std::uint64_t mask,
                                 std::uint64_t signs) {
      mask &= rows_from(first_row - block_row) & ~rows_from(last_row - block_row);
      if (mask != 0) emit(position, block_row, mask, signs);
    };
    Batch batch;
    Place place{0, first_block};
    for (Index begin = 0; begin < total; begin += PhiloxBatch::capacity) {
      const Index size = std::min(PhiloxBatch::capacity, total - begin);
      batch.heads.size = 0;
      Place ahead = place;
      for (Index i = 0; i < size; ++i, ahead.advance(first_block, first_block + blocks))
        batch.heads.push(static_cast<std::uint64_t>(ahead.block),
                         static_cast<std::uint64_t>(columns[ahead.position]), 0);
      batch.heads.generate(backend, key_);
      for (Index i = 0; i < size; ++i, place.advance(first_block, first_block + blocks))
        add_block(backend, batch, i, place, columns[place.position], emit_within);
      flush(backend, batch, emit_within);
    }
  }

 private:
  /// A block of a column, in the order of sampling.
  struct Place {
    Index position;
    Index block;

    void advance(Index first_block, Index last_block) {
      if (++block < last_block) return;
      block = first_block;
      ++position;
    }
  };

  /// A block whose rows are yet to be drawn.
  struct Pending {
    std::uint64_t signs;
    Place place;
    int count;
  };

  struct Batch {
    PhiloxBatch heads;
    PhiloxBatch places;
    std::array<Pending, PhiloxBatch::capacity> pending;
    Index pending_count = 0;
  };

  /// The bits of rows `row` and above of a block; all of them below 0, none from 64 on.
  static std::uint64_t rows_from(Index row) {
    if (row >= rows_per_block) return 0;
    return row <= 0 ? ~std::uint64_t{0} : ~std::uint64_t{0} << row;
  }

  int rows_in(Index block) const {
    return static_cast<int>(std::min(rows_per_block, output_dim_ - block * rows_per_block));
  }

  /// Four places a counter; none where all rows of a block are taken, as at density 1.
  static Index counters_for_places(int count, int rows) {
    return count == rows ? 0 : (count + 3) / 4;
  }

  template <class B, class Emit>
  void add_block(const B& backend, Batch& batch, Index head, Place place, Index column,
                 const Emit& emit) const {
    const PhiloxBatch& h = batch.heads;
    const int rows = rows_in(place.block);
    const int count =
        (rows == rows_per_block ? full_ : last_).count(join_words(h.at(0, head), h.at(1, head)));
    if (count == 0) return;
    const Index counters = counters_for_places(count, rows);
    if (batch.places.size + counters > PhiloxBatch::capacity) flush(backend, batch, emit);
    for (Index t = 1; t <= counters; ++t)
      batch.places.push(static_cast<std::uint64_t>(place.block), static_cast<std::uint64_t>(column),
                        static_cast<std::uint64_t>(t));
    batch.pending[static_cast<std::size_t>(batch.pending_count++)] = {
        join_words(h.at(2, head), h.at(3, head)), place, count};
  }

  template <class B, class Emit>
  void flush(const B& backend, Batch& batch, const Emit& emit) const {
    batch.places.generate(backend, key_);
    Index counter = 0;
    for (Index p = 0; p < batch.pending_count; ++p) {
      const Pending& pending = batch.pending[static_cast<std::size_t>(p)];
      const std::uint64_t mask = draw_places(batch.places, counter, pending);
      counter += counters_for_places(pending.count, rows_in(pending.place.block));
      emit(pending.place.position, pending.place.block * rows_per_block, mask, pending.signs);
    }
    batch.places.size = 0;
    batch.pending_count = 0;
  }

  /// Floyd's algorithm: `count` distinct places of the block, each subset equally likely.
  std::uint64_t draw_places(const PhiloxBatch& words, Index counter, const Pending& p) const {
    const int rows = rows_in(p.place.block);
    if (p.count == rows) return ~rows_from(rows);
    std::uint64_t mask = 0;
    for (int i = 0; i < p.count; ++i) {
      const auto top = static_cast<std::uint32_t>(rows - p.count + i);
      const std::uint32_t place = scale_to_range(words.at(i % 4, counter + i / 4), top + 1);
      const std::uint64_t bit = std::uint64_t{1} << place;
      mask |= (mask & bit) == 0 ? bit : std::uint64_t{1} << top;
    }
    return mask;
  }

  Index output_dim_;
  PhiloxKey key_;
  BinomialTable full_;
  BinomialTable last_;
};

/// Columns of a SparseSignProjection, emitted one nonzero at a time (mask 1), rows ascending.
///
/// Random words of column j: Philox counters (t, j low, j high, tag), four groups a counter for the
/// places, 128 groups a counter for the signs.
class SignSampler {
 public:
  explicit SignSampler(const SparseSignProjection& r)
      : output_dim_(r.output_dim), nonzeros_(r.nonzeros), key_(r.seed) {
    if (nonzeros_ > kept) return;
    for (Index group = 0; group <= nonzeros_; ++group)
      first_of_[static_cast<std::size_t>(group)] = first_of(group, output_dim_, nonzeros_);
  }

  template <KernelBackend B, class Emit>
  void sample(const B& backend, const Index* columns, Index count, Index first_row, Index last_row,
              const Emit& emit) const {
    const Index first_quad = group_of(first_row) / 4;
    const Index quads = group_of(last_row - 1) / 4 + 1 - first_quad;
    const Index total = count * quads;
    PhiloxBatch places, signs;
    for (Index begin = 0; begin < total; begin += PhiloxBatch::capacity) {
      const Index end = std::min(total, begin + PhiloxBatch::capacity);
      places.size = signs.size = 0;
      for (Index i = begin; i < end; ++i) {
        const Index quad = first_quad + i % quads;
        const auto column = static_cast<std::uint64_t>(columns[i / quads]);
        places.push(static_cast<std::uint64_t>(quad), column, places_tag);
        signs.push(static_cast<std::uint64_t>(quad / 32), column, signs_tag);
      }
      places.generate(backend, key_);
      signs.generate(backend, key_);
      for (Index i = begin; i < end; ++i)
        emit_quad(places, signs, i - begin, first_quad + i % quads, i / quads, first_row, last_row,
                  emit);
    }
  }

  static constexpr std::uint32_t places_tag = 0x534a4c54u;
  static constexpr std::uint32_t signs_tag = 0x534a4c55u;

 private:
  static Index first_of(Index group, Index output_dim, Index nonzeros) {
    return group * output_dim / nonzeros;
  }
  Index first_of(Index group) const {
    return nonzeros_ <= kept ? first_of_[static_cast<std::size_t>(group)]
                             : first_of(group, output_dim_, nonzeros_);
  }

  Index group_of(Index row) const {
    Index group = row * nonzeros_ / output_dim_;
    while (group + 1 < nonzeros_ && first_of(group + 1) <= row) ++group;
    return group;
  }

  template <class Emit>
  void emit_quad(const PhiloxBatch& places, const PhiloxBatch& signs, Index at, Index quad,
                 Index position, Index first_row, Index last_row, const Emit& emit) const {
    const std::uint32_t sign_bits = signs.at(static_cast<int>(quad % 32 / 8), at);
    for (int lane = 0; lane < 4 && quad * 4 + lane < nonzeros_; ++lane) {
      const Index group = quad * 4 + lane;
      const auto size = static_cast<std::uint32_t>(first_of(group + 1) - first_of(group));
      const Index row = first_of(group) + scale_to_range(places.at(lane, at), size);
      if (row < first_row || row >= last_row) continue;
      emit(position, row, std::uint64_t{1}, std::uint64_t{(sign_bits >> (group % 32)) & 1u});
    }
  }

  Index output_dim_;
  Index nonzeros_;
  PhiloxKey key_;
  /// The first row of each group, and of none, where they are few: a division costs more than the
  /// rest of a draw. Groups differ by at most one row.
  static constexpr Index kept = 64;
  std::array<Index, kept + 1> first_of_{};
};

inline BernoulliSampler make_sampler(const SparseProjection& r) { return BernoulliSampler(r); }
inline SignSampler make_sampler(const SparseSignProjection& r) { return SignSampler(r); }

/// Calls visit(column, row, negative) for each nonzero of columns [first, last) and rows
/// [first_row, last_row); columns ascending, then rows. Empty ranges visit nothing.
template <class Sampler, KernelBackend B, class Visit>
void visit_columns(const Sampler& sampler, const B& backend, Index first, Index last,
                   Index first_row, Index last_row, const Visit& visit) {
  if (first_row >= last_row) return;
  std::array<Index, 64> columns;
  for (Index begin = first, count; begin < last; begin += count) {
    count = std::min<Index>(64, last - begin);
    for (Index i = 0; i < count; ++i) columns[static_cast<std::size_t>(i)] = begin + i;
    sampler.sample(backend, columns.data(), count, first_row, last_row,
                   [&](Index position, Index row, std::uint64_t mask, std::uint64_t signs) {
                     for (; mask != 0; mask &= mask - 1) {
                       const int r = std::countr_zero(mask);
                       visit(begin + position, row + r, ((signs >> r) & 1u) != 0);
                     }
                   });
  }
}

PARE_ABI_END
}  // namespace pare::projection::detail
