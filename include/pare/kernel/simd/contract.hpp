// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the vector layer stands on: registers by arch tag, and how they meet memory.

#include <pare/core/macros_off.hpp>

#include <pare/core/arch.hpp>
#include <pare/core/scalar.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// The xsimd architecture of a tag.
template <class Arch>
struct xsimd_arch;
template <>
struct xsimd_arch<arch::sse2> {
  using type = xsimd::sse2;
};
template <>
struct xsimd_arch<arch::avx2> {
  using type = xsimd::fma3<xsimd::avx2>;
};
template <>
struct xsimd_arch<arch::avx512> {
  using type = xsimd::avx512bw;
};
template <>
struct xsimd_arch<arch::avx512_vnni> : xsimd_arch<arch::avx512> {};
template <>
struct xsimd_arch<arch::avx512_bf16> : xsimd_arch<arch::avx512_vnni> {};
template <>
struct xsimd_arch<arch::neon> {
  using type = xsimd::neon64;
};

namespace detail {
PARE_ABI_BEGIN
template <class T, class Arch>
struct vector_type {
  using type = xsimd::batch<T, typename xsimd_arch<Arch>::type>;
  static constexpr std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(type::size);
};
template <class T>
struct vector_type<T, arch::scalar> {
  using type = T;
  static constexpr std::ptrdiff_t lanes = 1;
};

template <class V>
inline constexpr bool is_batch = !std::is_arithmetic_v<V>;

template <class V>
struct lane {
  using type = V;
};
template <class V>
requires is_batch<V>
struct lane<V> {
  using type = typename V::value_type;
};
/// What a lane of V holds.
template <class V>
using lane_t = typename lane<V>::type;
PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A vector of T, one register wide.
template <class T, class Arch>
using vec = typename detail::vector_type<T, Arch>::type;

/// Elements in a `vec<T, Arch>`.
template <class T, class Arch>
inline constexpr std::ptrdiff_t lanes = detail::vector_type<T, Arch>::lanes;

/// Unaligned load.
template <class Arch, class T>
PARE_ALWAYS_INLINE vec<T, Arch> load(const T* p) noexcept {
  if constexpr (detail::is_batch<vec<T, Arch>>)
    return vec<T, Arch>::load_unaligned(p);
  else
    return *p;
}

/// Unaligned store.
template <class Arch, class T>
PARE_ALWAYS_INLINE void store(T* p, vec<T, Arch> v) noexcept {
  if constexpr (detail::is_batch<vec<T, Arch>>)
    v.store_unaligned(p);
  else
    *p = v;
}

/// The same value in every lane.
template <class Arch, class T>
PARE_ALWAYS_INLINE vec<T, Arch> broadcast(T value) noexcept {
  return vec<T, Arch>(value);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
