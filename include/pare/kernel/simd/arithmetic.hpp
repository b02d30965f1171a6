// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Arithmetic of the vector layer: on lanes, over all lanes of a register, and of one scalar.
///
/// ```cpp
/// sum = multiply_add<Arch>(load<Arch>(x), load<Arch>(y), sum);
/// const float dot = reduce_add<Arch>(sum);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/archs.hpp>

#include <cstdint>
#include <type_traits>

namespace pare::kernel {
PARE_ABI_BEGIN

/// a * b + c, with one rounding on every arch that has_fma.
template <class Arch, class V>
PARE_ALWAYS_INLINE V multiply_add(V a, V b, V c) noexcept {
  if constexpr (requires { detail::multiply_add_on(Arch{}, a, b, c); })
    return detail::multiply_add_on(Arch{}, a, b, c);
  else
    return detail::generic_multiply_add<Arch>(a, b, c);
}

/// The larger of each pair; b where either is a NaN.
template <class Arch, class V>
PARE_ALWAYS_INLINE V maximum(V a, V b) noexcept {
  if constexpr (requires { detail::maximum_on(Arch{}, a, b); })
    return detail::maximum_on(Arch{}, a, b);
  else
    return detail::generic_maximum<Arch>(a, b);
}

/// The smaller of each pair of integers. Not of floats: beside a NaN the archs would differ.
template <class Arch, class V>
PARE_ALWAYS_INLINE V minimum(V a, V b) noexcept {
  static_assert(std::is_integral_v<detail::lane_t<V>>, "pare: minimum is of integers");
  if constexpr (requires { detail::minimum_on(Arch{}, a, b); })
    return detail::minimum_on(Arch{}, a, b);
  else
    return detail::generic_minimum<Arch>(a, b);
}

/// The sum of all lanes; the order of additions is fixed for an arch.
template <class Arch, class V>
PARE_ALWAYS_INLINE auto reduce_add(V v) noexcept {
  if constexpr (requires { detail::reduce_add_on(Arch{}, v); })
    return detail::reduce_add_on(Arch{}, v);
  else
    return detail::generic_reduce_add<Arch>(v);
}

/// The largest of all lanes; of a register that holds a NaN, any of them. Halves are compared until
/// one lane is left: xsimd 8.1 has no such reduction.
template <class Arch, class V>
PARE_ALWAYS_INLINE detail::lane_t<V> reduce_max(V v) noexcept {
  if constexpr (requires { detail::reduce_max_on(Arch{}, v); })
    return detail::reduce_max_on(Arch{}, v);
  else
    return detail::generic_reduce_max<Arch>(v);
}

/// Bit i: lane i is not zero (of either sign); NaN is not.
template <class Arch, class V>
PARE_ALWAYS_INLINE std::uint32_t nonzero_lanes(V v) noexcept {
  if constexpr (requires { detail::nonzero_lanes_on(Arch{}, v); })
    return detail::nonzero_lanes_on(Arch{}, v);
  else
    return detail::generic_nonzero_lanes<Arch>(v);
}

/// The correctly rounded square root of one scalar.
PARE_ALWAYS_INLINE float square_root(float x) noexcept { return __builtin_sqrtf(x); }
PARE_ALWAYS_INLINE double square_root(double x) noexcept { return __builtin_sqrt(x); }

/// The logarithm to base 2 of one scalar.
PARE_ALWAYS_INLINE float binary_logarithm(float x) noexcept { return __builtin_log2f(x); }
PARE_ALWAYS_INLINE double binary_logarithm(double x) noexcept { return __builtin_log2(x); }

/// The nearest integer, ties to even; only where the arch has_exponent_scale.
template <class Arch, class V>
PARE_ALWAYS_INLINE V round_nearest(V v) noexcept {
  static_assert(Arch::has_exponent_scale);
  if constexpr (requires { detail::round_nearest_on(Arch{}, v); })
    return detail::round_nearest_on(Arch{}, v);
  else
    return v;
}

/// v 2^n, and 0 where x is below `smallest`; only where the arch has_exponent_scale.
template <class Arch, class V>
PARE_ALWAYS_INLINE V scale_exponent(V v, V n, V x, V smallest) noexcept {
  static_assert(Arch::has_exponent_scale);
  if constexpr (requires { detail::scale_exponent_on(Arch{}, v, n, x, smallest); })
    return detail::scale_exponent_on(Arch{}, v, n, x, smallest);
  else
    return v;
}

/// v 2^n, rounded once where that is subnormal; only where the arch has_exponent_scale.
template <class Arch, class V>
PARE_ALWAYS_INLINE V scale_exponent(V v, V n) noexcept {
  static_assert(Arch::has_exponent_scale);
  if constexpr (requires { detail::scale_exponent_on(Arch{}, v, n); })
    return detail::scale_exponent_on(Arch{}, v, n);
  else
    return v;
}

/// The products of the low 32 bits of each 64-bit lane; the high halves of a and b are ignored.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::uint64_t, Arch> multiply_low_words(
    vec<std::uint64_t, Arch> a, vec<std::uint64_t, Arch> b) noexcept {
  if constexpr (requires { detail::multiply_low_words_on(Arch{}, a, b); })
    return detail::multiply_low_words_on(Arch{}, a, b);
  else
    return detail::generic_multiply_low_words<Arch>(a, b);
}

/// The high 32 bits of each 64-bit lane.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::uint64_t, Arch> high_words(vec<std::uint64_t, Arch> a) noexcept {
  if constexpr (requires { detail::high_words_on(Arch{}, a); })
    return detail::high_words_on(Arch{}, a);
  else
    return a >> 32;
}

/// Whether a lane of `v` is NaN.
template <class V>
PARE_ALWAYS_INLINE bool any_nan(V v) noexcept {
  if constexpr (detail::is_batch<V>)
    return xsimd::any(xsimd::isnan(v));
  else
    return is_nan(v);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
