// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The difference of two softmax states: the end of differential attention.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/pack.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// first_i = first_i / l_i - lambda second_i / m_i, where a state whose sum is 0 counts as 0. Cost:
/// two states read and one written, out of the caches.
template <ComputeScalar T>
struct DifferenceRows {
  const T* first_sum = nullptr;   ///< [rows]
  T* first = nullptr;             ///< [rows x padded_columns(columns)]
  const T* second_sum = nullptr;  ///< [rows]
  const T* second = nullptr;      ///< as first
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T lambda = 0;
};

PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const DifferenceRows<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t stride = padded_columns<T>(a.columns);
  const auto lambda = broadcast<Arch>(-a.lambda);
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    T* const first = a.first + r * stride;
    const T* const second = a.second + r * stride;
    // Of an empty row the state is 0, and so is 0 / 1.
    const auto l = broadcast<Arch>(a.first_sum[r] == T(0) ? T(1) : a.first_sum[r]);
    const auto m = broadcast<Arch>(a.second_sum[r] == T(0) ? T(1) : a.second_sum[r]);
    for (std::ptrdiff_t c = 0; c < stride; c += n)
      store<Arch>(first + c, multiply_add<Arch>(lambda, load<Arch>(second + c) / m,
                                                load<Arch>(static_cast<const T*>(first) + c) / l));
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
