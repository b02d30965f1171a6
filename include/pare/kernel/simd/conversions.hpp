// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Conversions of the vector layer: between storage and what is computed, and between floats and
/// doubles.
///
/// ```cpp
/// const auto x = load_widened<Arch>(storage);                   // vec<compute_t<T>, Arch>
/// store_narrowed<Arch>(out, x);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/archs.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Loads storage scalars as their compute type: float and double as they are, 16-bit ones widened.
template <class Arch, StorageScalar T>
PARE_ALWAYS_INLINE vec<compute_t<T>, Arch> load_widened(const T* p) noexcept {
  if constexpr (requires { detail::load_widened_on(Arch{}, p); })
    return detail::load_widened_on(Arch{}, p);
  else
    return detail::generic_load_widened<Arch>(p);
}

/// Rounds to bf16, nearest, ties to even, stores that, and returns what was stored. Where the arch
/// has_bf16_dot, subnormals become 0.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> store_rounded(bf16* p, vec<float, Arch> v) noexcept {
  if constexpr (requires { detail::store_rounded_on(Arch{}, p, v); })
    return detail::store_rounded_on(Arch{}, p, v);
  else
    return detail::generic_store_rounded<Arch>(p, v);
}

/// Stores what is computed as what is kept: float and double as they are, 16-bit storage rounded to
/// nearest, ties to even (subnormals of bf16 as in store_rounded).
template <class Arch, StorageScalar O>
PARE_ALWAYS_INLINE void store_narrowed(O* p, vec<compute_t<O>, Arch> v) noexcept {
  if constexpr (ComputeScalar<O>)
    store<Arch>(p, v);
  else if constexpr (requires { detail::store_rounded_on(Arch{}, p, v); })
    detail::store_rounded_on(Arch{}, p, v);
  else
    detail::generic_store_narrowed<Arch>(p, v);
}

/// The same bits as a register of other lanes, as wide.
template <class V, class U>
PARE_ALWAYS_INLINE V bits_as(U v) noexcept {
  if constexpr (detail::is_batch<V>)
    return xsimd::bitwise_cast<V>(v);
  else
    return __builtin_bit_cast(V, v);
}

/// Integers as floats, rounded to nearest, ties to even.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> to_floats(vec<std::int32_t, Arch> v) noexcept {
  if constexpr (requires { detail::to_floats_on(Arch{}, v); })
    return detail::to_floats_on(Arch{}, v);
  else if constexpr (detail::is_batch<vec<float, Arch>>)
    return xsimd::to_float(v);
  else
    return static_cast<float>(v);
}

/// Registers of doubles that hold the lanes of one of floats.
template <class Arch>
inline constexpr std::ptrdiff_t double_registers = lanes<float, Arch> / lanes<double, Arch>;

/// The lanes of v as doubles, in double_registers registers in their order.
template <class Arch>
PARE_ALWAYS_INLINE void widen_floats(vec<float, Arch> v, vec<double, Arch>* out) noexcept {
  if constexpr (requires { detail::widen_floats_on(Arch{}, v, out); })
    detail::widen_floats_on(Arch{}, v, out);
  else
    detail::generic_widen_floats<Arch>(v, out);
}

/// The reverse, rounded to nearest.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> narrow_doubles(const vec<double, Arch>* v) noexcept {
  if constexpr (requires { detail::narrow_doubles_on(Arch{}, v); })
    return detail::narrow_doubles_on(Arch{}, v);
  else
    return detail::generic_narrow_doubles<Arch>(v);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
