// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One step of orthogonal matching pursuit by a Gram matrix, and the atom that is chosen next.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// row = (gram - sum_i factors_i rows_i) / pivot, and correlations -= share row.
///
/// With the rows of L^-1 G_I before it, that is the next row of L^-1 G_I for G_II = L L^T: its
/// column of a chosen atom is that atom's row of L. Cost: 2 (count + 1) atoms FLOPs; the rows, in
/// L2, bind.
template <ComputeScalar T>
struct PursuitStep {
  const T* gram = nullptr;  ///< [atoms], of the chosen atom
  const T* rows = nullptr;  ///< [count x atoms]
  std::ptrdiff_t row_stride = 0;
  const T* factors = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t atoms = 0;
  T pivot = 1;
  T share = 0;
  T* row = nullptr;           ///< [atoms], written
  T* correlations = nullptr;  ///< [atoms], changed
};

/// place = the first of the largest |x_i|, which are not NaN; size at least 1.
template <ComputeScalar T>
struct LargestSize {
  const T* x = nullptr;
  std::ptrdiff_t size = 0;
  std::ptrdiff_t* place = nullptr;
};

namespace detail {
PARE_ABI_BEGIN

/// `Registers` registers of a step from column c on.
template <class Arch, std::ptrdiff_t Registers, class T>
PARE_ALWAYS_INLINE void pursue_columns(const PursuitStep<T>& a, std::ptrdiff_t c,
                                       T inverse) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> rest[static_cast<std::size_t>(Registers)];
  for (std::ptrdiff_t i = 0; i < Registers; ++i) rest[i] = load<Arch>(a.gram + c + i * n);
  const T* row = a.rows + c;
  for (std::ptrdiff_t j = 0; j < a.count; ++j, row += a.row_stride) {
    const vec<T, Arch> factor = broadcast<Arch>(-a.factors[j]);
    for (std::ptrdiff_t i = 0; i < Registers; ++i)
      rest[i] = multiply_add<Arch>(factor, load<Arch>(row + i * n), rest[i]);
  }
  const vec<T, Arch> scale = broadcast<Arch>(inverse), share = broadcast<Arch>(-a.share);
  for (std::ptrdiff_t i = 0; i < Registers; ++i) {
    const vec<T, Arch> value = rest[i] * scale;
    T* const correlation = a.correlations + c + i * n;
    store<Arch>(a.row + c + i * n, value);
    store<Arch>(correlation,
                multiply_add<Arch>(share, value, load<Arch>(static_cast<const T*>(correlation))));
  }
}

template <class T>
PARE_ALWAYS_INLINE T size_of(T x) noexcept {
  return x < T(0) ? -x : x;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const PursuitStep<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>, together = 8;
  const T inverse = T(1) / a.pivot;
  std::ptrdiff_t c = 0;
  for (; c + together * n <= a.atoms; c += together * n)
    detail::pursue_columns<Arch, together>(a, c, inverse);
  for (; c + n <= a.atoms; c += n) detail::pursue_columns<Arch, 1>(a, c, inverse);
  for (; c < a.atoms; ++c) detail::pursue_columns<arch::scalar, 1>(a, c, inverse);
}

template <class Arch, class T>
void run_kernel(Arch, const LargestSize<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> most = broadcast<Arch>(T(0));
  std::ptrdiff_t i = 0;
  for (; i + n <= a.size; i += n) {
    const vec<T, Arch> x = load<Arch>(a.x + i);
    most = maximum<Arch>(most, maximum<Arch>(x, broadcast<Arch>(T(0)) - x));
  }
  T largest = reduce_max<Arch>(most);
  for (; i < a.size; ++i)
    if (detail::size_of(a.x[i]) > largest) largest = detail::size_of(a.x[i]);
  std::ptrdiff_t place = 0;
  while (place < a.size - 1 && detail::size_of(a.x[place]) != largest) ++place;
  *a.place = place;
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
