// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The vector layer: one spelling of each operation for xsimd 8.1 to 14 and for one scalar lane.
///
/// ```cpp
/// vec<float, Arch> sum = broadcast<Arch>(0.0f);
/// for (std::ptrdiff_t i = 0; i + lanes<float, Arch> <= n; i += lanes<float, Arch>)
///   sum = multiply_add<Arch>(load<Arch>(x + i), load<Arch>(y + i), sum);
/// const float dot = reduce_add<Arch>(sum);
/// ```
///
/// Kernels are written once over `vec<T, Arch>`; with `arch::scalar` that is T itself. An operation
/// is what simd/x86*.hpp or arm.hpp has for the tag or one that it inherits from, else what
/// simd/generic.hpp makes of xsimd. Intrinsics (fused multiply-add and full-width interleave on
/// AVX-512, 16-bit floats, 32 x 32 -> 64 bit products) stand in those and nowhere else. What codes
/// of few bits and 2:4 weights ask for is in simd/codes.hpp and simd/two_four.hpp, which this
/// includes.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/arm.hpp>
#include <pare/kernel/simd/codes.hpp>
#include <pare/kernel/simd/contract.hpp>
#include <pare/kernel/simd/generic.hpp>
#include <pare/kernel/simd/two_four.hpp>
#include <pare/kernel/simd/x86.hpp>
#include <pare/kernel/simd/x86_avx512.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Stores a whole cache line past the caches where a register holds one (AVX-512), which spares
/// reading it first; plain elsewhere. p is aligned to 64 bytes, and `streaming_fence` must follow.
template <class Arch, class T>
PARE_ALWAYS_INLINE void store_streaming(T* p, vec<T, Arch> v) noexcept {
  if constexpr (requires { detail::store_streaming_on(Arch{}, p, v); })
    detail::store_streaming_on(Arch{}, p, v);
  else
    store<Arch>(p, v);
}

/// Orders streaming stores before all that follows.
template <class Arch>
PARE_ALWAYS_INLINE void streaming_fence() noexcept {
  if constexpr (requires { detail::streaming_fence_on(Arch{}); })
    detail::streaming_fence_on(Arch{});
}

/// The same register, of which the compiler does not know that memory has it too: g++ would load it
/// again for each use where it believes registers to be short.
template <class V>
PARE_ALWAYS_INLINE V held(V v) noexcept {
#if defined(__GNUC__) && defined(__x86_64__)
  if constexpr (detail::is_batch<V>) __asm__("" : "+v"(v.data));
#endif
  return v;
}

/// Lane I of v, which was loaded from p, in all lanes: of the register where lanes spread by a
/// shuffle, since a load takes the place of an operand's; else of memory.
template <class Arch, std::size_t I, class T>
PARE_ALWAYS_INLINE vec<T, Arch> spread_lane([[maybe_unused]] vec<T, Arch> v,
                                            [[maybe_unused]] const T* p) noexcept {
  if constexpr (requires { detail::spread_lane_on<I>(Arch{}, v); })
    return detail::spread_lane_on<I>(Arch{}, v);
  else
    return broadcast<Arch>(p[I]);
}

/// a * b + c, with one rounding on every arch that has_fma.
template <class Arch, class V>
PARE_ALWAYS_INLINE V multiply_add(V a, V b, V c) noexcept {
  if constexpr (requires { detail::multiply_add_on(Arch{}, a, b, c); })
    return detail::multiply_add_on(Arch{}, a, b, c);
  else
    return detail::generic_multiply_add<Arch>(a, b, c);
}

/// The sum of all lanes; the order of additions is fixed for an arch.
template <class Arch, class V>
PARE_ALWAYS_INLINE auto reduce_add(V v) noexcept {
  if constexpr (requires { detail::reduce_add_on(Arch{}, v); })
    return detail::reduce_add_on(Arch{}, v);
  else
    return detail::generic_reduce_add<Arch>(v);
}

/// The larger of each pair; b where either is a NaN.
template <class Arch, class V>
PARE_ALWAYS_INLINE V maximum(V a, V b) noexcept {
  if constexpr (requires { detail::maximum_on(Arch{}, a, b); })
    return detail::maximum_on(Arch{}, a, b);
  else
    return detail::generic_maximum<Arch>(a, b);
}

/// The smaller of each pair; b where either is a NaN.
template <class Arch, class V>
PARE_ALWAYS_INLINE V minimum(V a, V b) noexcept {
  if constexpr (requires { detail::minimum_on(Arch{}, a, b); })
    return detail::minimum_on(Arch{}, a, b);
  else
    return detail::generic_minimum<Arch>(a, b);
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

/// Loads storage scalars as their compute type: float and double as they are, 16-bit ones widened.
template <class Arch, StorageScalar T>
PARE_ALWAYS_INLINE vec<compute_t<T>, Arch> load_widened(const T* p) noexcept {
  if constexpr (requires { detail::load_widened_on(Arch{}, p); })
    return detail::load_widened_on(Arch{}, p);
  else
    return detail::generic_load_widened<Arch>(p);
}

/// c + a0 * b0 + a1 * b1 in each lane, for pairs of bf16 held as 32 bits. Rounds as the instruction
/// does (subnormals count as 0); only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> multiply_add_pairs(vec<float, Arch> a, vec<float, Arch> b,
                                                       vec<float, Arch> c) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::multiply_add_pairs_on(Arch{}, a, b, c); })
    return detail::multiply_add_pairs_on(Arch{}, a, b, c);
  else
    return a + b + c;
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

/// The same of two registers, one behind the other; returns the pairs that were stored. Only where
/// the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> store_rounded(bf16* p, vec<float, Arch> first,
                                                  vec<float, Arch> second) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::store_rounded_on(Arch{}, p, first, second); })
    return detail::store_rounded_on(Arch{}, p, first, second);
  else
    return first + second;
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

/// Pairs (a_i, b_i) of two rows of bf16, held as 32 bits; only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_pairs(const bf16* a, const bf16* b) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::load_pairs_on(Arch{}, a, b); })
    return detail::load_pairs_on(Arch{}, a, b);
  else
    return broadcast<Arch>(static_cast<float>(*a) + static_cast<float>(*b));
}

/// The same for two registers of columns.
template <class Arch>
PARE_ALWAYS_INLINE void load_pairs(const bf16* a, const bf16* b, vec<float, Arch>& first,
                                   vec<float, Arch>& second) noexcept {
  if constexpr (requires { detail::load_pairs_on(Arch{}, a, b, first, second); }) {
    detail::load_pairs_on(Arch{}, a, b, first, second);
  } else {
    first = load_pairs<Arch>(a, b);
    second = load_pairs<Arch>(a + lanes<float, Arch>, b + lanes<float, Arch>);
  }
}

/// The same of rows in registers, as load_first_words leaves them.
template <class Arch>
PARE_ALWAYS_INLINE void pair_words(vec<float, Arch> a, vec<float, Arch> b, vec<float, Arch>& first,
                                   vec<float, Arch>& second) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::pair_words_on(Arch{}, a, b, first, second); })
    detail::pair_words_on(Arch{}, a, b, first, second);
  else
    first = second = a + b;
}

/// The first `count` bf16 from memory, up to two of them in a lane, and zeros behind them; only
/// where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_first_words(const bf16* p, std::ptrdiff_t count) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
  if constexpr (requires { detail::load_first_words_on(Arch{}, p, count); })
    return detail::load_first_words_on(Arch{}, p, count);
  else
    return broadcast<Arch>(count > 0 ? static_cast<float>(*p) : 0.0f);
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

/// Interleaves the lower halves of a and b over the full register: a0 b0 a1 b1 ...
template <class Arch, class V>
PARE_ALWAYS_INLINE V interleave_low(V a, V b) noexcept {
  if constexpr (requires { detail::interleave_low_on(Arch{}, a, b); })
    return detail::interleave_low_on(Arch{}, a, b);
  else
    return xsimd::zip_lo(a, b);
}

/// Interleaves the upper halves of a and b over the full register.
template <class Arch, class V>
PARE_ALWAYS_INLINE V interleave_high(V a, V b) noexcept {
  if constexpr (requires { detail::interleave_high_on(Arch{}, a, b); })
    return detail::interleave_high_on(Arch{}, a, b);
  else
    return xsimd::zip_hi(a, b);
}

/// Whether lanes of two registers trade places faster than they interleave.
template <class Arch, class V>
inline constexpr bool trades_lanes = requires(V a) { detail::trade_lanes_on<1>(Arch{}, a, a); };

/// Those lanes of a whose number has no bit `Distance`, a power of 2, and those of b that have it.
template <class Arch, int Distance, class V>
requires trades_lanes<Arch, V>
PARE_ALWAYS_INLINE V keep_lanes(V a, V b) noexcept {
  return detail::keep_lanes_on<Distance>(Arch{}, a, b);
}

/// The other lanes of both, `Distance` from where they were: in a lane that keep_lanes takes from a
/// or b, the one of the same register.
template <class Arch, int Distance, class V>
requires trades_lanes<Arch, V>
PARE_ALWAYS_INLINE V trade_lanes(V a, V b) noexcept {
  return detail::trade_lanes_on<Distance>(Arch{}, a, b);
}

/// Lanes 2 i and 2 i + 1 exchanged; of a single lane the lane itself.
template <class Arch, class V>
PARE_ALWAYS_INLINE V swap_pairs(V v) noexcept {
  if constexpr (requires { detail::swap_pairs_on(Arch{}, v); })
    return detail::swap_pairs_on(Arch{}, v);
  else
    return detail::generic_swap_pairs<Arch>(v);
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

/// first = p[0] and second = p[1] in every lane, by one load where an arch can.
template <class Arch, ComputeScalar T>
PARE_ALWAYS_INLINE void broadcast_pair(const T* p, vec<T, Arch>& first,
                                       vec<T, Arch>& second) noexcept {
  if constexpr (requires { detail::broadcast_pair_on(Arch{}, p, first, second); }) {
    detail::broadcast_pair_on(Arch{}, p, first, second);
  } else {
    first = broadcast<Arch>(p[0]);
    second = broadcast<Arch>(p[1]);
  }
}

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

/// Writes first + i for each bit i of `bits`, ascending, and returns the place behind the last. Up
/// to 16 places more may be written.
template <class Arch>
PARE_ALWAYS_INLINE std::int32_t* list_bits(std::uint64_t bits, std::int32_t first,
                                           std::int32_t* out) noexcept {
  if constexpr (requires { detail::list_bits_on(Arch{}, bits, first, out); })
    return detail::list_bits_on(Arch{}, bits, first, out);
  else
    return detail::generic_list_bits(bits, first, out);
}

/// Transposes a square block held in `lanes` registers: afterwards v[i] holds lane i of each.
///
/// Each of the log2(lanes) stages shuffles the register file once like a deck of cards. Unrolled by
/// hand: g++ -O2 would keep the registers in memory.
template <class Arch, class V, std::size_t N>
PARE_ALWAYS_INLINE void transpose_block(V (&v)[N]) noexcept {
  const auto shuffle = [&v]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    constexpr std::size_t half = N / 2;
    const V low[] = {interleave_low<Arch>(v[I], v[I + half])...};
    const V high[] = {interleave_high<Arch>(v[I], v[I + half])...};
    ((v[2 * I] = low[I], v[2 * I + 1] = high[I]), ...);
  };
  if constexpr (N > 1) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 2) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 4) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 8) shuffle(std::make_index_sequence<N / 2>{});
  static_assert(N <= 16);
}

/// Asks for the cache line `ahead` bytes behind p, to be read soon; never faults, wherever that is.
/// Locality 3 is all caches, 2 is L2.
template <int Locality = 3>
PARE_ALWAYS_INLINE void prefetch(const void* p, std::ptrdiff_t ahead = 0) noexcept {
  // Integers, since the sum may point nowhere.
  const auto address = reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(ahead);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): nothing is read through it
  __builtin_prefetch(reinterpret_cast<const void*>(address), 0, Locality);
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
