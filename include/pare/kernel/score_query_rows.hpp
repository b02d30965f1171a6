// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of some rows of tokens against the keys of a global query (LAMA), all heads at once.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// Rows that are asked for while others are worked on, a half or all of one for each of these: with
/// the row r that is worked on, row r >> shift.
template <StorageScalar S>
struct QueryFetch {
  const S* rows = nullptr;    ///< null: none
  std::ptrdiff_t stride = 0;  ///< scalars
  int shift = 0;              ///< 0 or 1
};

/// s_it = <key_i, h_t>, and sum_j += the elements j of all rows.
///
/// Cost: a multiply-add an element and head; the additions go beside them.
template <StorageScalar S>
struct ScoreQueryRows {
  using T = compute_t<S>;

  const S* const* rows = nullptr;  ///< [count], each [dim]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t dim = 0;
  const T* keys = nullptr;  ///< [whole heads x dim_room]: zeros behind heads and dim
  std::ptrdiff_t heads = 0;
  T* scores = nullptr;  ///< [whole heads x scores_stride]
  std::ptrdiff_t scores_stride = 0;
  T* sum = nullptr;  ///< [dim_room], zeros behind dim; or null
  QueryFetch<S> fetch{};
};

PARE_ABI_BEGIN

/// Heads of a tile; keys, sums and masses have whole ones.
inline constexpr std::ptrdiff_t global_query_heads = 4;

constexpr std::ptrdiff_t whole_query_heads(std::ptrdiff_t heads) noexcept {
  return (heads + global_query_heads - 1) / global_query_heads * global_query_heads;
}
/// Scalars of a key or a sum: whole registers of any arch.
constexpr std::ptrdiff_t query_dim_room(std::ptrdiff_t dim) noexcept {
  return (dim + 15) / 16 * 16;
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Rows of a tile of scores: 16 sums + 4 keys + 1 of 32, 8 + 4 + 1 of 16.
template <class Arch>
inline constexpr int query_rows = Arch::registers >= 32 ? 4 : 2;

/// The rows that a tile of heads asks for with `Rows` rows of scores, from row r on: two of those
/// that are its share, since more pointers would not stay in registers. The first two tiles of
/// heads share them: asked for at once, lines wait for each other and the loads of the tile for
/// them, and rows from memory then took as long as if none had been asked for.
template <class S, int Rows>
class ScoreFetch {
 public:
  PARE_TILE_INLINE ScoreFetch(const QueryFetch<S>& fetch, std::ptrdiff_t r, std::ptrdiff_t head,
                              bool alone) noexcept {
    if (fetch.rows == nullptr || head >= 2 * global_query_heads) return;
    const std::ptrdiff_t begin = (r + fetch.shift) >> fetch.shift;
    const std::ptrdiff_t end = (r + Rows + fetch.shift) >> fetch.shift;
    const std::ptrdiff_t first = begin + (head > 0 ? 1 : 0), second = first + (alone ? 1 : 2);
    if (first < end) first_ = fetch.rows + first * fetch.stride;
    if (second < end) second_ = fetch.rows + second * fetch.stride;
  }
  /// The line that begins at element j of each.
  PARE_TILE_INLINE void line(std::ptrdiff_t j) const noexcept {
    if (j * static_cast<std::ptrdiff_t>(sizeof(S)) % 64 != 0) return;
    if (first_ != nullptr) prefetch<2>(first_ + j, 0);
    if (second_ != nullptr) prefetch<2>(second_ + j, 0);
  }

 private:
  const S* first_ = nullptr;
  const S* second_ = nullptr;
};

/// Scores of `Rows` rows, from row r on, and a tile of heads, whose first adds the rows to the sum.
/// Lanes are folded in one order, whatever the rows of a tile.
template <class Arch, int Rows, bool Sums, class S>
PARE_TILE_INLINE void score_query_tile(const ScoreQueryRows<S>& a, std::ptrdiff_t r,
                                       std::ptrdiff_t head) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr int heads = static_cast<int>(global_query_heads);
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t dim = a.dim, stride = query_dim_room(dim);
  const T* const keys = a.keys + head * stride;
  T* const sum = a.sum;
  const S* rows[Rows];
  for (int t = 0; t < Rows; ++t) rows[t] = a.rows[r + t];
  const ScoreFetch<S, Rows> fetch(a.fetch, r, head, a.heads <= global_query_heads);
  RegisterTile<T, Arch, heads, Rows> tile;
  tile.clear();
  const auto step = [&]<bool Whole>(std::ptrdiff_t j) PARE_LAMBDA_INLINE {
    V key[heads], total;
    if constexpr (Sums) total = load<Arch>(static_cast<const T*>(sum) + j);
    RegisterTile<T, Arch, heads, 1>::each(
        [&](int i, int) PARE_LAMBDA_INLINE { key[i] = load<Arch>(keys + i * stride + j); });
    fetch.line(j);
    RegisterTile<T, Arch, Rows, 1>::each([&](int t, int) PARE_LAMBDA_INLINE {
      V row;
      if constexpr (Whole)
        row = held(load_widened<Arch>(rows[t] + j));
      else
        row = load_first<Arch>(rows[t] + j, dim - j, T(0));
      if constexpr (Sums) total = total + row;
      RegisterTile<T, Arch, heads, 1>::each([&](int i, int) PARE_LAMBDA_INLINE {
        tile.sum[i][t] = multiply_add<Arch>(key[i], row, tile.sum[i][t]);
      });
    });
    if constexpr (Sums) store<Arch>(sum + j, total);
  };
  std::ptrdiff_t j = 0;
  for (; j + n <= dim; j += n) step.template operator()<true>(j);
  if (j < dim) step.template operator()<false>(j);
  constexpr int together = heads * Rows < static_cast<int>(n) ? heads * Rows : static_cast<int>(n);
  T* const scores = a.scores + head * a.scores_stride + r;
  for (int first = 0; first < heads * Rows; first += together) {
    V sums[together];
    RegisterTile<T, Arch, together, 1>::each([&](int k, int) PARE_LAMBDA_INLINE {
      sums[k] = tile.sum[(first + k) / Rows][(first + k) % Rows];
    });
    T folded[static_cast<std::size_t>(n)];
    if constexpr (together == static_cast<int>(n))
      store<Arch>(static_cast<T*>(folded), sum_lanes_of_each<Arch>(sums));
    else
      store<Arch>(static_cast<T*>(folded),
                  fold_lanes_of_each<Arch>(
                      sums, [](const V& x, const V& y) PARE_LAMBDA_INLINE { return x + y; }));
    // Rows of a head lie side by side in both: a piece of them is one store.
    constexpr int piece = together < Rows ? together : Rows;
    for (int k = 0; k < together; k += piece)
      for (int t = 0; t < piece; ++t)
        scores[(first + k) / Rows * a.scores_stride + (first + k) % Rows + t] =
            folded[(k + t) * (n / together)];
  }
}

/// `Rows` rows and all heads.
template <class Arch, int Rows, class S>
PARE_TILE_INLINE void score_query_rows(const ScoreQueryRows<S>& a, std::ptrdiff_t r) noexcept {
  if (a.sum != nullptr)
    score_query_tile<Arch, Rows, true>(a, r, 0);
  else
    score_query_tile<Arch, Rows, false>(a, r, 0);
  for (std::ptrdiff_t i = global_query_heads; i < a.heads; i += global_query_heads)
    score_query_tile<Arch, Rows, false>(a, r, i);
}

template <class Arch, class S>
void score_all_query_rows(const ScoreQueryRows<S>& a) noexcept {
  constexpr int together = query_rows<Arch>;
  std::ptrdiff_t t = 0;
  for (; t + together <= a.count; t += together) score_query_rows<Arch, together>(a, t);
  for (; t < a.count; ++t) score_query_rows<Arch, 1>(a, t);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const ScoreQueryRows<S>& a) noexcept {
  detail::score_all_query_rows<Arch>(a);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
