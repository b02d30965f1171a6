// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The pass of a global query (LAMA) over some rows of tokens: scores of all heads, the weights
/// that follow from them, and the sums of the rows by these weights, while the rows are in cache.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/streaming.hpp>
#include <pare/kernel/tanh.hpp>

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

/// For rows h_t of `dim` scalars and heads i:
///
///     f_ti = tanh(scale_i <key_i, h_t>), f_t / max(|f_t|, epsilon) over all heads
///     w_ti = e^f_ti, mass_i += sum_t w_ti, sum_i += sum_t w_ti h_t
///
/// After the norm f is in [-1, 1], so that no largest score has to be known first. Where the scores
/// are given, scale may follow from all rows.
///
/// Cost: 2 heads multiply-adds an element, or as many as heads where scores are given, which bind
/// from some 8 heads of float on; the rows are read once, which binds below.
template <StorageScalar S>
struct GlobalQueryRows {
  using T = compute_t<S>;

  const S* const* rows = nullptr;  ///< [count], each [dim]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t dim = 0;
  const T* keys = nullptr;    ///< [whole heads x dim_room], as above
  const T* scores = nullptr;  ///< [whole heads x scores_stride]; null: of the keys
  std::ptrdiff_t scores_stride = 0;
  const T* scale = nullptr;  ///< [heads]
  std::ptrdiff_t heads = 0;
  T epsilon = 0;
  T* sum = nullptr;      ///< [whole heads x dim_room]
  T* mass = nullptr;     ///< [whole heads]
  T* weights = nullptr;  ///< [heads x weights_stride], e^f of each row; null: not kept
  std::ptrdiff_t weights_stride = 0;
  T* room = nullptr;            ///< [whole heads x global_query_rows]
  QueryFetch<S> score_fetch{};  ///< with scores of the keys
  QueryFetch<S> fetch{};        ///< with the sums
};

PARE_ABI_BEGIN

/// Rows of a block: those of 512 floats are 32 KiB, and their scores a register of AVX-512.
inline constexpr std::ptrdiff_t global_query_rows = 16;
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

/// Registers of sums of a tile of 4 heads: 16 sums + 4 of a row + a weight of 32, 8 + 2 + 1 of 16.
template <class Arch>
inline constexpr int query_registers = Arch::registers >= 32 ? 4 : 2;
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

/// e^f of a register of rows, from row r on, and of `Heads` heads, whose masses they join. f is at
/// most 1, so that 2^(f log2 e) is off by two roundings.
template <class Arch, std::ptrdiff_t Heads, class S, class V>
PARE_TILE_INLINE void weigh_query_heads(const GlobalQueryRows<S>& a, std::ptrdiff_t head,
                                        std::ptrdiff_t r, std::ptrdiff_t count,
                                        const V& over) noexcept {
  using T = compute_t<S>;
  using Each = RegisterTile<T, Arch, static_cast<int>(Heads), 1>;
  const std::ptrdiff_t left = count - r;
  T* const first = a.room + head * global_query_rows + r;
  V w[static_cast<std::size_t>(Heads)];
  Each::each([&](int i, int) PARE_LAMBDA_INLINE {
    w[i] = load<Arch>(static_cast<const T*>(first) + i * global_query_rows) * over;
  });
  exp2_each<Arch>(w);
  Each::each([&](int i, int) PARE_LAMBDA_INLINE {
    T* const at = first + i * global_query_rows;
    store<Arch>(at, w[i]);
    a.mass[head + i] += reduce_add<Arch>(
        left < lanes<T, Arch> ? load_first<Arch>(static_cast<const T*>(at), left, T(0)) : w[i]);
  });
}

/// Scores become weights, a register of rows at a time; what the last one holds behind `count` is
/// of no row, and is not read.
template <class Arch, class S>
PARE_TILE_INLINE void weigh_query_rows(const GlobalQueryRows<S>& a, std::ptrdiff_t count) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  for (std::ptrdiff_t r = 0; r < count; r += lanes<T, Arch>) {
    V squares = broadcast<Arch>(T(0));
    for (std::ptrdiff_t i = 0; i < a.heads; ++i) {
      T* const f = a.room + i * global_query_rows + r;
      const V bent = tanh<Arch>(load<Arch>(static_cast<const T*>(f)) * broadcast<Arch>(a.scale[i]));
      squares = multiply_add<Arch>(bent, bent, squares);
      store<Arch>(f, bent);
    }
    V norm;
    if constexpr (is_batch<V>)
      norm = xsimd::sqrt(squares);
    else
      norm = square_root(squares);
    // A NaN is not below epsilon, and stays.
    const V over =
        broadcast<Arch>(Exp<T>::log2_e) / maximum<Arch>(broadcast<Arch>(a.epsilon), norm);
    std::ptrdiff_t i = 0;
    for (; i + global_query_heads <= a.heads; i += global_query_heads)
      weigh_query_heads<Arch, global_query_heads>(a, i, r, count, over);
    for (; i < a.heads; ++i) weigh_query_heads<Arch, 1>(a, i, r, count, over);
  }
}

/// What a tile of heads asks for with each row of a block and `bytes` of its sums, from element j
/// on: its share of a half or all of as many bytes of another row.
template <class S>
class SumFetch {
 public:
  PARE_TILE_INLINE SumFetch(const QueryFetch<S>& fetch, std::ptrdiff_t r, std::ptrdiff_t j,
                            std::ptrdiff_t bytes, std::ptrdiff_t head, bool alone) noexcept {
    if (fetch.rows == nullptr || head >= 2 * global_query_heads) return;
    constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(S));
    const std::ptrdiff_t part = bytes >> fetch.shift;
    share_ = alone ? part : part >> 1;
    at_ = fetch.rows + (r >> fetch.shift) * fetch.stride + j;
    byte_ = head > 0 ? share_ : 0;
    next_ = fetch.shift == 0 ? fetch.stride * size : part;
    after_ = fetch.shift == 0 ? fetch.stride * size : fetch.stride * size - part;
  }
  PARE_TILE_INLINE void advance() noexcept {
    for (std::ptrdiff_t k = 0; k < share_; k += 64) prefetch<2>(at_, byte_ + k);
    byte_ += next_;
    const std::ptrdiff_t step = next_;
    next_ = after_;
    after_ = step;
  }

 private:
  const S* at_ = nullptr;
  std::ptrdiff_t share_ = 0, byte_ = 0, next_ = 0, after_ = 0;
};

/// Adds the rows of a block, from row r on, to a tile of heads, `Registers` registers from element
/// j on. Not Whole: what is left of a row.
template <class Arch, int Registers, bool Whole, class S>
PARE_TILE_INLINE void add_query_rows(const GlobalQueryRows<S>& a, std::ptrdiff_t head,
                                     std::ptrdiff_t j, std::ptrdiff_t r,
                                     std::ptrdiff_t count) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr int heads = static_cast<int>(global_query_heads);
  const std::ptrdiff_t stride = query_dim_room(a.dim);
  const S* const* const rows = a.rows + r;
  T* const sum = a.sum + head * stride + j;
  RegisterTile<T, Arch, heads, Registers> tile;
  tile.load(sum, stride);
  constexpr std::ptrdiff_t bytes =
      Registers * lanes<T, Arch> * static_cast<std::ptrdiff_t>(sizeof(S));
  SumFetch<S> fetch(a.fetch, r, j, bytes, head, a.heads <= global_query_heads);
  for (std::ptrdiff_t t = 0; t < count; ++t) {
    const T* const w = a.room + head * global_query_rows + t;
    fetch.advance();
    V row[Registers];
    RegisterTile<T, Arch, Registers, 1>::each([&](int k, int) PARE_LAMBDA_INLINE {
      row[k] = Whole ? load_widened<Arch>(rows[t] + j + k * lanes<T, Arch>)
                     : load_first<Arch>(rows[t] + j, a.dim - j, T(0));
    });
    tile.each([&](int i, int k) PARE_LAMBDA_INLINE {
      tile.sum[i][k] =
          multiply_add<Arch>(broadcast<Arch>(w[i * global_query_rows]), row[k], tile.sum[i][k]);
    });
  }
  tile.each([&](int i, int k) PARE_LAMBDA_INLINE {
    store<Arch>(sum + i * stride + k * lanes<T, Arch>, tile.sum[i][k]);
  });
}

template <class Arch, class S>
PARE_TILE_INLINE void query_block(const GlobalQueryRows<S>& a, std::ptrdiff_t r,
                                  std::ptrdiff_t count) noexcept {
  using T = compute_t<S>;
  constexpr int registers = query_registers<Arch>;
  const std::ptrdiff_t heads = whole_query_heads(a.heads);
  if (a.scores == nullptr) {
    const QueryFetch<S> fetch{
        a.score_fetch.rows == nullptr
            ? nullptr
            : a.score_fetch.rows + (r >> a.score_fetch.shift) * a.score_fetch.stride,
        a.score_fetch.stride, a.score_fetch.shift};
    score_all_query_rows<Arch>(ScoreQueryRows<S>{a.rows + r, count, a.dim, a.keys, a.heads, a.room,
                                                 global_query_rows, nullptr, fetch});
  }
  for (std::ptrdiff_t i = 0; i < heads; ++i) {
    T* const room = a.room + i * global_query_rows;
    if (a.scores != nullptr) copy(a.scores + i * a.scores_stride + r, room, count);
    for (std::ptrdiff_t t = count; t < global_query_rows; ++t) room[t] = T(0);
  }
  weigh_query_rows<Arch>(a, count);
  std::ptrdiff_t j = 0;
  for (; j + registers * lanes<T, Arch> <= a.dim; j += registers * lanes<T, Arch>)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      add_query_rows<Arch, registers, true>(a, i, j, r, count);
  for (; j + lanes<T, Arch> <= a.dim; j += lanes<T, Arch>)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      add_query_rows<Arch, 1, true>(a, i, j, r, count);
  if (j < a.dim)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      add_query_rows<Arch, 1, false>(a, i, j, r, count);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const GlobalQueryRows<S>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.count; r += global_query_rows) {
    const std::ptrdiff_t left = a.count - r;
    const std::ptrdiff_t count = left < global_query_rows ? left : global_query_rows;
    detail::query_block<Arch>(a, r, count);
    if (a.weights == nullptr) continue;
    for (std::ptrdiff_t i = 0; i < a.heads; ++i)
      for (std::ptrdiff_t t = 0; t < count; ++t)
        a.weights[i * a.weights_stride + r + t] = a.room[i * global_query_rows + t];
  }
}

template <class Arch, class S>
void run_kernel(Arch, const ScoreQueryRows<S>& a) noexcept {
  detail::score_all_query_rows<Arch>(a);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
