// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums over poles of the equation whose roots are the eigenvalues of a diagonal matrix plus one of
/// rank one.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// *sum = sum_j z_j^2 / (d_j - t) and *slope = sum_j z_j^2 / (d_j - t)^2, where d_j - t is
/// (d_j - origin) - shift: exact to a rounding near the pole that is the origin.
///
/// Sums are kept lane by lane. Cost: a division an element, which binds.
struct SecularSums {
  const double* d = nullptr;  ///< [count]
  const double* z = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  double origin = 0;
  double shift = 0;
  double* sum = nullptr;
  double* slope = nullptr;
};

namespace detail {
PARE_ABI_BEGIN

/// The sums of elements [begin, end), whole registers of Arch.
template <class Arch>
void secular_sums(const SecularSums& a, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
  using V = vec<double, Arch>;
  V sum = broadcast<Arch>(0.0), slope = sum;
  const V origin = broadcast<Arch>(a.origin), shift = broadcast<Arch>(a.shift);
  for (std::ptrdiff_t j = begin; j < end; j += lanes<double, Arch>) {
    const V z = load<Arch>(a.z + j);
    const V part = z / ((load<Arch>(a.d + j) - origin) - shift);
    sum = multiply_add<Arch>(z, part, sum);
    slope = multiply_add<Arch>(part, part, slope);
  }
  *a.sum += reduce_add<Arch>(sum);
  *a.slope += reduce_add<Arch>(slope);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
void run_kernel(Arch, const SecularSums& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<double, Arch>;
  const std::ptrdiff_t whole = a.count / n * n;
  *a.sum = *a.slope = 0;
  detail::secular_sums<Arch>(a, 0, whole);
  detail::secular_sums<arch::scalar>(a, whole, a.count);
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
