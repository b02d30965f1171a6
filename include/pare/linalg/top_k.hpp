// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Ranking scores: all of them, only as far as the ranking is read, or until a mass is reached.
///
/// The order is total: larger scores first, of equal ones the earlier index first, NaN last.
///
/// ```cpp
/// std::vector<std::uint32_t> rank(scores.size());
/// rank_scores<float>(scores, rank);  // scores[rank[0]] is the largest
///
/// take_mass<float>(scores, 0.9, rank, [&](std::uint32_t i) {  // the fewest that hold 0.9
///   kept.push_back(i);
///   return scores[i];
/// });
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::linalg {
PARE_ABI_BEGIN

/// rank[t] = index of the t-th largest score; both spans have one size. Cost: n log n comparisons.
template <ComputeScalar T>
void rank_scores(std::span<const T> scores, std::span<std::uint32_t> rank) {
  std::iota(rank.begin(), rank.end(), std::uint32_t{0});
  std::sort(rank.begin(), rank.end(), [scores](std::uint32_t a, std::uint32_t b) {
    const bool a_last = is_nan(scores[a]), b_last = is_nan(scores[b]);
    if (a_last || b_last) return a_last == b_last ? a < b : b_last;
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
}

/// Calls take(i) for indices by falling score until the returned numbers, together with `counted`,
/// add up to `mass`; the index that crosses it is included. If they never do, all indices are
/// taken. NaN scores come last. Cost: as rank_scores. Memory: `rank`, which is resized.
template <ComputeScalar T, class Take>
void take_mass(std::span<const T> scores, double mass, std::vector<std::uint32_t>& rank,
               const Take& take, double counted = 0) {
  rank.resize(scores.size());
  rank_scores(scores, std::span(rank));
  for (const std::uint32_t i : rank) {
    if (counted >= mass) return;
    counted += static_cast<double>(take(i));
  }
}

/// A score and its index, ordered by falling score, then by index; NaN comes last. Bits are
/// compared, so the order is total whatever the scores are.
template <ComputeScalar T>
struct Ranked {
  using Bits = std::conditional_t<std::is_same_v<T, float>, std::uint32_t, std::uint64_t>;

  std::uint32_t index = 0;
  Bits falling = 0;

  Ranked() = default;
  Ranked(T score, Index i) : index(static_cast<std::uint32_t>(i)), falling(falling_bits(score)) {}

  friend bool operator<(const Ranked& a, const Ranked& b) {
    if constexpr (std::is_same_v<T, float>)
      return a.joined() < b.joined();
    else
      return a.falling != b.falling ? a.falling < b.falling : a.index < b.index;
  }

 private:
  std::uint64_t joined() const { return std::uint64_t{falling} << 32 | index; }

  static Bits falling_bits(T score) {
    constexpr Bits sign = Bits{1} << (8 * sizeof(T) - 1);
    constexpr Bits infinity =
        std::is_same_v<T, float> ? Bits{0x7f800000} : static_cast<Bits>(0x7ff0000000000000u);
    const Bits bits = std::bit_cast<Bits>(score);
    const Bits magnitude = bits & ~sign;
    // -0 ranks with 0.
    const Bits rising = magnitude == 0 ? sign : (bits & sign) != 0 ? ~bits : bits | sign;
    return magnitude > infinity ? ~Bits{0} : static_cast<Bits>(~rising);
  }
};

/// Ranks keys by falling score, only as far as asked. It works in chunks: a pivot from a sample of
/// the keys that are left cuts off the next chunk, which is then sorted. The ranking depends on the
/// scores alone. Cost: a pass over the remaining keys for each chunk; chunks double what is ranked,
/// so that reading all keys costs O(n log n).
template <ComputeScalar T>
class LazyRanking {
 public:
  /// `ranked` has room for one entry more than there will be keys, `rest` for the keys.
  LazyRanking(Ranked<T>* ranked, Ranked<T>* rest) : ranked_(ranked), rest_(rest) {}

  void start(const T* scores, Index count) {
    for (Index i = 0; i < count; ++i) rest_[i] = Ranked<T>(scores[i], i);
    known_ = 0;
    left_ = count;
  }

  /// How many ranks are known.
  Index known() const { return known_; }

  /// Makes at least the first `wanted` ranks known; there must be as many keys.
  void reach(Index wanted) {
    while (known_ < wanted) take_chunk(std::max({wanted - known_, known_, least_chunk}));
  }

  /// The key of a known rank.
  std::uint32_t operator[](Index rank) const { return ranked_[rank].index; }

 private:
  static constexpr Index least_chunk = 256;
  static constexpr std::size_t samples = 128;

  void take_chunk(Index wanted) {
    Ranked<T>* const chunk = ranked_ + known_;
    Index taken = 0, kept = 0;
    if (wanted > left_ / 4) {
      std::copy_n(rest_, left_, chunk);
      taken = left_;
    } else {
      const Ranked<T> pivot = pick_pivot(wanted);
      for (Index i = 0; i < left_; ++i) {
        // Both are written and one is kept: which of them is a toss-up no branch can foresee.
        const Ranked<T> x = rest_[i];
        chunk[taken] = x;
        rest_[kept] = x;
        const bool after = pivot < x;
        taken += after ? 0 : 1;
        kept += after ? 1 : 0;
      }
    }
    sort_chunk(chunk, rest_ + kept, taken);
    known_ += taken;
    left_ = kept;
  }

  /// Sorts a chunk digit by digit, the last first; `room` has as many entries. Entries come in the
  /// order of their indices, and equal digits stay as they are.
  static void sort_chunk(Ranked<T>* chunk, Ranked<T>* room, Index count) {
    for (unsigned shift = 0; shift < 8 * sizeof(T); shift += 8) {
      const auto digit = [shift](const Ranked<T>& x) { return (x.falling >> shift) & 0xff; };
      std::array<Index, 257> begin{};
      for (Index i = 0; i < count; ++i) ++begin[digit(chunk[i]) + 1];
      for (std::size_t d = 1; d < 256; ++d) begin[d] += begin[d - 1];
      for (Index i = 0; i < count; ++i) room[begin[digit(chunk[i])]++] = chunk[i];
      std::swap(chunk, room);
    }
  }

  /// The entry of a sample that about `wanted` of those left do not come after: at least one.
  Ranked<T> pick_pivot(Index wanted) const {
    std::array<Ranked<T>, samples> sample;
    std::uint32_t at = 0;
    for (Ranked<T>& x : sample) {
      x = rest_[(std::uint64_t{at} * static_cast<std::uint64_t>(left_)) >> 32];
      at += 0x9e3779b9u;  // 2^32 / golden ratio: evenly spread, with no period that data could have
    }
    const auto rank = static_cast<std::size_t>(static_cast<double>(wanted) /
                                               static_cast<double>(left_) * samples);
    std::nth_element(sample.begin(), sample.begin() + static_cast<std::ptrdiff_t>(rank),
                     sample.end());
    return sample[rank];
  }

  Ranked<T>* ranked_;
  Ranked<T>* rest_;
  Index known_ = 0;
  Index left_ = 0;
};

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
