// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of a tile without values: what selectors look at before attention runs.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_tile.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace pare::kernel {

/// scores[r][j] = scale * <q_r, k_j>, or += , for `rows` queries and `count` keys, both packed.
/// Rows of scores are tile_keys apart; columns from `count` up to the next multiple of tile_columns
/// are written too, with `scale` times zero. Cost: 2 rows count depth FLOPs, which binds.
template <StorageScalar S>
struct ScoreTile {
  using T = compute_t<S>;

  const T* queries = nullptr;  ///< PackLeft
  const T* keys = nullptr;     ///< PackTransposed
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t count = 0;  ///< at most tile_keys
  std::ptrdiff_t depth = 0;
  T scale = 1;
  bool add = false;
  T* scores = nullptr;  ///< [rows x tile_keys]
};

/// For each row of a tile of scores: the maximum over its first limit[r] columns, and the sum of
/// e^(score - maximum) over them; -infinity and 0 if the limit is 0. From these numbers of all
/// tiles follow the row's log-sum-exp, and the mass and the largest weight of each tile.
template <ComputeScalar T>
struct TileStats {
  T* scores = nullptr;  ///< [rows x tile_keys]; columns past the limits are overwritten
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t count = 0;             ///< at most tile_keys
  const std::int32_t* limit = nullptr;  ///< [rows], at most count; null: all of them
  T* maximum = nullptr;                 ///< of row r at r * stride
  T* sum = nullptr;                     ///< likewise
  std::ptrdiff_t stride = 1;
};

/// For each row of a tile of scores, the largest of its first limit[r] columns where it is above
/// what the row met before, and the number of its key: of equal ones the first. A row that meets a
/// NaN has the maximum NaN and the key -1 from then on. Cost: one read of the scores, which binds.
template <ComputeScalar T>
struct TileMaxima {
  T* scores = nullptr;  ///< [rows x tile_keys]; columns past the limits are overwritten
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t count = 0;             ///< at most tile_keys
  const std::int32_t* limit = nullptr;  ///< [rows], at most count; null: all of them
  std::ptrdiff_t first = 0;             ///< the number of the tile's first key
  T* maximum = nullptr;                 ///< [rows]; of a row that met nothing -infinity
  std::ptrdiff_t* key = nullptr;        ///< [rows]; of a row that met nothing above that -1
};

/// column[j] += sum over rows r with j < limit[r] of e^(scores[r][j] - lse[r]).
template <ComputeScalar T>
struct AddWeights {
  T* scores = nullptr;  ///< [rows x tile_keys]; overwritten
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t count = 0;             ///< at most tile_keys
  const std::int32_t* limit = nullptr;  ///< [rows], at most count; null: all of them
  const T* lse = nullptr;               ///< [rows]; a row at -infinity adds nothing
  T* column = nullptr;                  ///< [tile_keys]: columns past `count` are scratch
};

namespace detail {
PARE_ABI_BEGIN

/// A group of `rows` rows.
template <class Arch, class S>
void score_group(const ScoreTile<S>& a, std::ptrdiff_t row, int rows) noexcept {
  using T = compute_t<S>;
  using E = element_t<S, Arch>;
  constexpr std::ptrdiff_t columns = tile_columns<T, Arch>, n = lanes<T, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(a.depth);
  const vec<T, Arch> scale = broadcast<Arch>(a.scale);
  alignas(64) T products[static_cast<std::size_t>(tile_rows * columns)];
  for (std::ptrdiff_t j = 0; j < a.count; j += columns) {
    multiply_tile<Arch, E>(rows, tile_registers<Arch>,
                           {.a = reinterpret_cast<const E*>(a.queries) + row * steps,
                            .a_stride = steps,
                            .b = reinterpret_cast<const E*>(a.keys) + j * steps,
                            .steps = steps,
                            .c = products,
                            .c_stride = columns});
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t i = 0; i < columns; i += n) {
        T* out = a.scores + (row + r) * tile_keys + j + i;
        const vec<T, Arch> old =
            a.add ? load<Arch>(static_cast<const T*>(out)) : broadcast<Arch>(T(0));
        const vec<T, Arch> product = load<Arch>(static_cast<const T*>(products) + r * columns + i);
        store<Arch>(out, multiply_add<Arch>(scale, product, old));
      }
  }
}

/// Hides columns from `limit` to the end of the last register; returns where that is.
template <class Arch, class T>
std::ptrdiff_t hide_tail(T* scores, std::ptrdiff_t limit) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t padded = (limit + n - 1) / n * n;
  for (std::ptrdiff_t j = limit; j < padded; ++j) scores[j] = -std::numeric_limits<T>::infinity();
  return padded;
}

/// Calls f(j, e^(s_j - shift)) for each register of scores. The product of a far shift would be
/// rounded by more than an exponent may be off: there the difference is taken first.
template <class Arch, class T, class F>
PARE_ALWAYS_INLINE void each_weight(const T* scores, std::ptrdiff_t padded, T shift,
                                    const F& f) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const vec<T, Arch> factor = broadcast<Arch>(T(log2_e));
  if (is_far(shift)) {
    const vec<T, Arch> largest = broadcast<Arch>(shift);
    for (std::ptrdiff_t j = 0; j < padded; j += n)
      f(j, exp2<Arch>((load<Arch>(scores + j) - largest) * factor));
    return;
  }
  const vec<T, Arch> moved = broadcast<Arch>(-shift * T(log2_e));
  for (std::ptrdiff_t j = 0; j < padded; j += n)
    f(j, exp2<Arch>(multiply_add<Arch>(load<Arch>(scores + j), factor, moved)));
}

template <class Arch, class T>
void row_stats(T* scores, std::ptrdiff_t limit, T& maximum_out, T& sum_out) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  maximum_out = hidden;
  sum_out = T(0);
  if (limit <= 0) return;
  const std::ptrdiff_t padded = hide_tail<Arch>(scores, limit);
  vec<T, Arch> largest = broadcast<Arch>(hidden);
  for (std::ptrdiff_t j = 0; j < padded; j += n)
    largest = maximum<Arch>(largest, load<Arch>(static_cast<const T*>(scores) + j));
  maximum_out = reduce_max<Arch>(largest);
  // Where all is hidden the sum is 0, unless there is a NaN that no maximum shows.
  const bool nothing = maximum_out == hidden;
  vec<T, Arch> total = broadcast<Arch>(T(0));
  each_weight<Arch>(static_cast<const T*>(scores), padded, nothing ? T(0) : maximum_out,
                    [&](std::ptrdiff_t, const vec<T, Arch>& weight)
                        PARE_LAMBDA_INLINE { total = total + weight; });
  sum_out = reduce_add<Arch>(total);
}

/// Takes the first `limit` scores, at least one, into the maximum of a row.
template <class Arch, class T>
void take_maximum(T* scores, std::ptrdiff_t limit, std::ptrdiff_t first, T& maximum_of_row,
                  std::ptrdiff_t& key) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t padded = hide_tail<Arch>(scores, limit);
  vec<T, Arch> largest = broadcast<Arch>(-std::numeric_limits<T>::infinity());
  bool has_nan = false;
  for (std::ptrdiff_t j = 0; j < padded; j += n) {
    const vec<T, Arch> score = load<Arch>(static_cast<const T*>(scores) + j);
    has_nan = has_nan || any_nan(score);
    largest = maximum<Arch>(largest, score);
  }
  const T top = reduce_max<Arch>(largest);
  if (has_nan) {
    maximum_of_row = std::numeric_limits<T>::quiet_NaN();
    key = -1;
  } else if (top > maximum_of_row) {  // never of a row that met a NaN
    std::ptrdiff_t j = 0;
    while (scores[j] != top) ++j;
    maximum_of_row = top;
    key = first + j;
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const ScoreTile<S>& a) noexcept {
  for (std::ptrdiff_t row = 0; row < a.rows;) {
    const int rows = next_group(a.rows - row);
    detail::score_group<Arch>(a, row, rows);
    row += rows;
  }
}

template <class Arch, class T>
void run_kernel(Arch, const TileStats<T>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    detail::row_stats<Arch>(a.scores + r * tile_keys, a.limit != nullptr ? a.limit[r] : a.count,
                            a.maximum[r * a.stride], a.sum[r * a.stride]);
}

template <class Arch, class T>
void run_kernel(Arch, const TileMaxima<T>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const std::ptrdiff_t limit = a.limit != nullptr ? a.limit[r] : a.count;
    if (limit > 0)
      detail::take_maximum<Arch>(a.scores + r * tile_keys, limit, a.first, a.maximum[r], a.key[r]);
  }
}

template <class Arch, class T>
void run_kernel(Arch, const AddWeights<T>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    if (a.lse[r] == -std::numeric_limits<T>::infinity()) continue;
    T* scores = a.scores + r * tile_keys;
    const std::ptrdiff_t padded =
        detail::hide_tail<Arch>(scores, a.limit != nullptr ? a.limit[r] : a.count);
    detail::each_weight<Arch>(
        static_cast<const T*>(scores), padded, a.lse[r],
        [&](std::ptrdiff_t j, const vec<T, Arch>& weight) PARE_LAMBDA_INLINE {
          store<Arch>(a.column + j, load<Arch>(static_cast<const T*>(a.column) + j) + weight);
        });
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
