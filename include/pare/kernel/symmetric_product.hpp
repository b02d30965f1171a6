// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A symmetric matrix, of which the lower half is read, times a vector.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// Rows and columns of a block of the diagonal that stands whole in memory.
inline constexpr std::ptrdiff_t symmetric_block = 16;

/// y += the part of S x that rows [begin, end) of the lower half of S give: a row i gives y_i the
/// sum of s_ij x_j over j <= i, and its element j < i gives y_j the product s_ij x_i. Columns from
/// `first` on take part.
///
/// `first`, `begin` and `end` are multiples of 16. Of the blocks of 16 x 16 on the diagonal both
/// halves are read. y does not overlap x or S. Cost: two FMAs for each element read, which is what
/// binds where S does not fit L2; x and y are read once for every four rows.
template <ComputeScalar T>
struct SymmetricProduct {
  const T* s = nullptr;  ///< row-major
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t first = 0;
  std::ptrdiff_t begin = 0;
  std::ptrdiff_t end = 0;
  const T* x = nullptr;  ///< [end]
  T* y = nullptr;        ///< [end]
};

PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const SymmetricProduct<T>& a) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, group = 4;
  static_assert(symmetric_block % n == 0 && symmetric_block % group == 0);
  for (std::ptrdiff_t i = a.begin; i < a.end; i += group) {
    const std::ptrdiff_t block = i / symmetric_block * symmetric_block;
    const T* const row[] = {a.s + i * a.stride, a.s + (i + 1) * a.stride, a.s + (i + 2) * a.stride,
                            a.s + (i + 3) * a.stride};
    V sum[group], own[group];
    for (std::ptrdiff_t r = 0; r < group; ++r) {
      sum[r] = broadcast<Arch>(T(0));
      own[r] = broadcast<Arch>(a.x[i + r]);
    }
    for (std::ptrdiff_t j = a.first; j < block; j += n) {
      const V x = load<Arch>(a.x + j);
      V y = load<Arch>(static_cast<const T*>(a.y) + j);
      for (std::ptrdiff_t r = 0; r < group; ++r) {
        const V s = load<Arch>(row[r] + j);
        sum[r] = multiply_add<Arch>(s, x, sum[r]);
        y = multiply_add<Arch>(s, own[r], y);
      }
      store<Arch>(a.y + j, y);
    }
    for (std::ptrdiff_t j = block; j < block + symmetric_block; j += n)
      for (std::ptrdiff_t r = 0; r < group; ++r)
        sum[r] = multiply_add<Arch>(load<Arch>(row[r] + j), load<Arch>(a.x + j), sum[r]);
    for (std::ptrdiff_t r = 0; r < group; ++r) a.y[i + r] += reduce_add<Arch>(sum[r]);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
