// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Softmax over the keys for many queries side by side, one to a lane, its weights summed by cells
/// of keys.
///
/// Lanes hold queries, so maxima and sums over keys never cross a register. That pays where cells
/// are as short as a register; TileStats, whose lanes are keys, needs two reductions for each cell.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/math.hpp>
#include <pare/kernel/online_softmax.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel {

/// What the cells hold before the first key: `maximum` this, `sum` 0. It is finite, so that no
/// difference of maxima is NaN.
template <ComputeScalar T>
inline constexpr T empty_cell = std::numeric_limits<T>::lowest();

/// Adds the scores of keys first, first + 1, ... to the cells that they lie in: key j is in cell
/// j / size. Per query, with m and l the maximum and sum of a cell before:
/// m' = max(m, max_j s_j), l' = l e^(m - m') + sum_j e^(s_j - m').
///
/// A score of -infinity adds nothing; NaN or +infinity makes the sum of its query and cell NaN.
/// Cost: an exponential for each score, which binds, and one for each cell and query.
template <ComputeScalar T>
struct AddToCells {
  const T* scores = nullptr;  ///< [keys x stride]
  std::ptrdiff_t stride = 0;  ///< whole registers of any arch: padded_columns
  std::ptrdiff_t keys = 0;
  std::ptrdiff_t queries = 0;  ///< more are worked on, up to a whole register
  std::ptrdiff_t first = 0;
  std::ptrdiff_t size = 1;
  T* maximum = nullptr;            ///< [cells x cell_stride], from cell 0
  T* sum = nullptr;                ///< likewise
  std::ptrdiff_t cell_stride = 0;  ///< padded_columns
};

/// sum_cq becomes the share of query q's softmax that falls on cell c:
/// l_cq e^(m_cq - M_q) / sum_c of the same, M_q = max_c m_cq. A query whose cells are all empty has
/// shares of 0; one with a NaN in any cell has nothing but NaN. Cost: an exponential for each.
template <ComputeScalar T>
struct CellShares {
  const T* maximum = nullptr;  ///< [cells x stride]
  T* sum = nullptr;            ///< [cells x stride]
  std::ptrdiff_t cells = 0;
  std::ptrdiff_t queries = 0;  ///< more are worked on, up to a whole register
  std::ptrdiff_t stride = 0;   ///< padded_columns
};

namespace detail {
PARE_ABI_BEGIN

/// Some registers of queries and the keys [0, keys) of one cell. A sum waits for the one before:
/// with two at a time the multiplier does not.
template <class Arch, int Registers, class T>
PARE_ALWAYS_INLINE void add_to_cell(const T* scores, std::ptrdiff_t stride, std::ptrdiff_t keys,
                                    T* maximum_of, T* sum_of) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const V factor = broadcast<Arch>(T(log2_e));
  V top[Registers], total[Registers];
  for (int i = 0; i < Registers; ++i) top[i] = load<Arch>(maximum_of + i * n);
  for (std::ptrdiff_t j = 0; j < keys; ++j)
    for (int i = 0; i < Registers; ++i)
      top[i] = maximum<Arch>(load<Arch>(scores + j * stride + i * n), top[i]);
  for (int i = 0; i < Registers; ++i)
    total[i] =
        load<Arch>(static_cast<const T*>(sum_of) + i * n) *
        exp2<Arch>((load<Arch>(static_cast<const T*>(maximum_of) + i * n) - top[i]) * factor);
  for (std::ptrdiff_t j = 0; j < keys; ++j)
    for (int i = 0; i < Registers; ++i)
      total[i] = total[i] + exp2<Arch>((load<Arch>(scores + j * stride + i * n) - top[i]) * factor);
  for (int i = 0; i < Registers; ++i) {
    store<Arch>(maximum_of + i * n, top[i]);
    store<Arch>(sum_of + i * n, total[i]);
  }
}

/// A register of queries over all cells.
template <class Arch, class T>
PARE_ALWAYS_INLINE void share_cells(const CellShares<T>& a, std::ptrdiff_t at) noexcept {
  using V = vec<T, Arch>;
  const V factor = broadcast<Arch>(T(log2_e));
  V top = broadcast<Arch>(empty_cell<T>), total = broadcast<Arch>(T(0));
  for (std::ptrdiff_t c = 0; c < a.cells; ++c)
    top = maximum<Arch>(load<Arch>(a.maximum + c * a.stride + at), top);
  // Runs of 64: the error of a sum grows with its length.
  for (std::ptrdiff_t begin = 0; begin < a.cells; begin += 64) {
    V part = broadcast<Arch>(T(0));
    for (std::ptrdiff_t c = begin; c < a.cells && c < begin + 64; ++c) {
      T* const sum = a.sum + c * a.stride + at;
      const V weight = load<Arch>(static_cast<const T*>(sum)) *
                       exp2<Arch>((load<Arch>(a.maximum + c * a.stride + at) - top) * factor);
      store<Arch>(sum, weight);
      part = part + weight;
    }
    total = total + part;
  }
  // A total is 0, NaN, or at least 1, to which the smallest number adds nothing.
  const V share = broadcast<Arch>(T(1)) / (total + broadcast<Arch>(std::numeric_limits<T>::min()));
  for (std::ptrdiff_t c = 0; c < a.cells; ++c) {
    T* const sum = a.sum + c * a.stride + at;
    store<Arch>(sum, load<Arch>(static_cast<const T*>(sum)) * share);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const AddToCells<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t key = 0; key < a.keys;) {
    const std::ptrdiff_t cell = (a.first + key) / a.size;
    const std::ptrdiff_t left = (cell + 1) * a.size - (a.first + key);
    const std::ptrdiff_t count = left < a.keys - key ? left : a.keys - key;
    const T* const scores = a.scores + key * a.stride;
    T* const maximum = a.maximum + cell * a.cell_stride;
    T* const sum = a.sum + cell * a.cell_stride;
    std::ptrdiff_t q = 0;
    for (; q + n < a.queries; q += 2 * n)
      detail::add_to_cell<Arch, 2>(scores + q, a.stride, count, maximum + q, sum + q);
    if (q < a.queries)
      detail::add_to_cell<Arch, 1>(scores + q, a.stride, count, maximum + q, sum + q);
    key += count;
  }
}

template <class Arch, class T>
void run_kernel(Arch, const CellShares<T>& a) noexcept {
  for (std::ptrdiff_t q = 0; q < a.queries; q += lanes<T, Arch>) detail::share_cells<Arch>(a, q);
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
