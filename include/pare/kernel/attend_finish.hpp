// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The ends of an online softmax: merging the states of parts, and writing rows out.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/math.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel {

/// Merges the states that parts of the keys left for the same rows into part 0:
/// m = max_p m_p, l = sum_p l_p 2^(m_p - m), o = sum_p o_p 2^(m_p - m), in the order of the parts.
/// Row r of part p stands p * part_rows behind that of part 0.
template <ComputeScalar T>
struct MergeRows {
  T* maximum = nullptr;  ///< [parts x part_rows]
  T* sum = nullptr;      ///< [parts x part_rows]
  T* out = nullptr;      ///< [parts x part_rows x padded_columns(columns)]
  std::ptrdiff_t parts = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T* mass = nullptr;             ///< [parts x part_rows], merged as sum is; or null
  std::ptrdiff_t part_rows = 0;  ///< of a part, at least `rows`
};

/// Writes out_i = o_i / l_i and lse_i = ln(2) (m_i + log2 l_i); a row that saw no key is 0, with
/// an lse of -infinity.
template <ComputeScalar T, StorageScalar O>
struct FinishRows {
  const T* maximum = nullptr;
  const T* sum = nullptr;
  const T* state = nullptr;  ///< [rows x padded_columns(columns)]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  O* const* out = nullptr;  ///< [rows], each to `columns` scalars
  T* const* lse = nullptr;  ///< [rows], or null
  const T* mass = nullptr;  ///< l_i of the log-sum-exp; null: sum
};

namespace detail {
PARE_ABI_BEGIN

template <class Arch, class T>
PARE_ALWAYS_INLINE void merge_into(T* out, const T* part, std::ptrdiff_t columns, T keep,
                                   T weight) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t c = 0; c < columns; c += n)
    store<Arch>(out + c, multiply_add<Arch>(
                             broadcast<Arch>(weight), load<Arch>(part + c),
                             broadcast<Arch>(keep) * load<Arch>(static_cast<const T*>(out) + c)));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const MergeRows<T>& a) noexcept {
  const std::ptrdiff_t stride = padded_columns<T>(a.columns);
  for (std::ptrdiff_t part = 1; part < a.parts; ++part)
    for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
      const std::ptrdiff_t other = part * a.part_rows + r;
      if (a.sum[other] == T(0)) continue;
      const T m = a.maximum[other] > a.maximum[r] ? a.maximum[other] : a.maximum[r];
      const T keep = exp2<arch::scalar>(a.maximum[r] - m);
      const T weight = exp2<arch::scalar>(a.maximum[other] - m);
      a.maximum[r] = m;
      a.sum[r] = a.sum[r] * keep + a.sum[other] * weight;
      if (a.mass != nullptr) a.mass[r] = a.mass[r] * keep + a.mass[other] * weight;
      detail::merge_into<Arch>(a.out + r * stride, static_cast<const T*>(a.out) + other * stride,
                               stride, keep, weight);
    }
}

template <class Arch, class T, class O>
void run_kernel(Arch, const FinishRows<T, O>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t stride = padded_columns<T>(a.columns);
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const T* state = a.state + r * stride;
    const bool empty = a.sum[r] == T(0);
    // Of an empty row the state is 0, and so is 0 / 1.
    const T sum = empty ? T(1) : a.sum[r];
    std::ptrdiff_t c = 0;
    for (; c + n <= a.columns; c += n)
      store_narrowed<Arch>(a.out[r] + c, load<Arch>(state + c) / broadcast<Arch>(sum));
    for (; c < a.columns; ++c) a.out[r][c] = static_cast<O>(state[c] / sum);
    if (a.lse != nullptr)
      *a.lse[r] = empty ? -std::numeric_limits<T>::infinity()
                        : (a.maximum[r] + binary_logarithm(a.mass != nullptr ? a.mass[r] : sum)) *
                              T(0.69314718055994530942);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
