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
#include <pare/kernel/score_query_rows.hpp>
#include <pare/kernel/streaming.hpp>
#include <pare/kernel/tanh.hpp>

#include <cstddef>

namespace pare::kernel {

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
  const T* keys = nullptr;    ///< [whole heads x dim_room], as of ScoreQueryRows
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

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Registers of sums of a tile of 4 heads: 16 sums + 4 of a row + a weight of 32, 8 + 2 + 1 of 16.
template <class Arch>
inline constexpr int query_registers = Arch::registers >= 32 ? 4 : 2;

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

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
