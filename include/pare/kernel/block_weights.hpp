// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The softmax weight of each cell of keys, from the maximum and the sum of its scores.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_tile.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel {

/// Merges what TileStats found of each row r and cell c: m_rc its largest score, l_rc the sum of
/// e^(score - m_rc). With lse_r = log sum_c l_rc e^m_rc,
///
///     mass_c += sum_r l_rc e^(m_rc - lse_r),    top_c = max(top_c, max_r m_rc - lse_r):
///
/// mass_c is the sum of softmax weights in the cell, and top_c the logarithm of the largest weight
/// there. A row whose cells are all (-inf, 0) adds nothing. A row with a NaN makes every mass NaN
/// and adds no top. Cost: rows * cells exponentials.
template <ComputeScalar T>
struct BlockWeights {
  const T* maximum = nullptr;  ///< [rows x stride]
  const T* sum = nullptr;      ///< [rows x stride]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t stride = 0;  ///< a multiple of padded_columns; unused cells hold -inf and 0
  T* mass = nullptr;          ///< [stride]
  T* top = nullptr;           ///< [stride]
};

namespace detail {
PARE_ABI_BEGIN

/// The largest of a row of maxima.
template <class Arch, class T>
T row_maximum(const T* maximum_of, std::ptrdiff_t cells) noexcept {
  vec<T, Arch> largest = broadcast<Arch>(-std::numeric_limits<T>::infinity());
  for (std::ptrdiff_t c = 0; c < cells; c += lanes<T, Arch>)
    largest = maximum<Arch>(load<Arch>(maximum_of + c), largest);
  return reduce_max<Arch>(largest);
}

template <class Arch, class T>
void add_row_weights(const BlockWeights<T>& a, const T* maximum_of, const T* sum_of) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const T largest = row_maximum<Arch>(maximum_of, a.stride);
  const vec<T, Arch> shift = broadcast<Arch>(largest), factor = broadcast<Arch>(T(log2_e));
  const auto weight = [&](std::ptrdiff_t c) PARE_LAMBDA_INLINE {
    return load<Arch>(sum_of + c) * exp2<Arch>((load<Arch>(maximum_of + c) - shift) * factor);
  };
  vec<T, Arch> total = broadcast<Arch>(T(0));
  if (largest != -std::numeric_limits<T>::infinity())
    for (std::ptrdiff_t c = 0; c < a.stride; c += n) total = total + weight(c);
  else
    for (std::ptrdiff_t c = 0; c < a.stride; c += n) total = total + load<Arch>(sum_of + c);
  const T sum = reduce_add<Arch>(total);
  if (sum == T(0)) return;
  const vec<T, Arch> share = broadcast<Arch>(T(1) / sum);
  const vec<T, Arch> log_sum = broadcast<Arch>(binary_logarithm(sum) / T(log2_e));
  for (std::ptrdiff_t c = 0; c < a.stride; c += n) {
    store<Arch>(a.mass + c, load<Arch>(static_cast<const T*>(a.mass) + c) + weight(c) * share);
    const vec<T, Arch> top = load<Arch>(maximum_of + c) - shift - log_sum;
    store<Arch>(a.top + c, maximum<Arch>(top, load<Arch>(static_cast<const T*>(a.top) + c)));
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const BlockWeights<T>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    detail::add_row_weights<Arch>(a, a.maximum + r * a.stride, a.sum + r * a.stride);
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
