// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Elementary functions over vectors, as far as attention and the rows of a transformer need them.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <type_traits>
#include <utility>

namespace pare::kernel {

namespace detail {
PARE_ABI_BEGIN

template <class T>
struct Exp2;

/// 2^f = 1 + f q(f) on [-1/2, 1/2]: minimax in relative error, 2.6e-9 before rounding.
template <>
struct Exp2<float> {
  using bits = std::uint32_t;
  static constexpr int significand = 23;
  static constexpr float smallest = -126;    ///< below, 2^x is subnormal and taken as 0
  static constexpr float whole = 0x1.8p23f;  ///< added and subtracted: the nearest integer
  static constexpr float round = whole + 127;
  static constexpr float q[] = {6.9314721496803976e-01f, 2.4022652782876183e-01f,
                                5.5503105509957711e-02f, 9.6176929748835816e-03f,
                                1.3406643905038597e-03f, 1.5594677550930938e-04f};
};

/// Taylor's coefficients ln(2)^k / k!; the remainder is below 5e-18.
template <>
struct Exp2<double> {
  using bits = std::uint64_t;
  static constexpr int significand = 52;
  static constexpr double smallest = -1022;
  static constexpr double whole = 0x1.8p52;
  static constexpr double round = whole + 1023;
  static constexpr double q[] = {
      6.93147180559945309417e-01, 2.40226506959100712333e-01, 5.55041086648215799532e-02,
      9.61812910762847716197e-03, 1.33335581464284434234e-03, 1.54035303933816099544e-04,
      1.52527338040598402800e-05, 1.32154867901443094884e-06, 1.01780860092396997274e-07,
      7.05491162080112332986e-09, 4.44553827187081149759e-10, 2.56784359934882051419e-11,
      1.36914888539041288881e-12};
};

/// e^x outside [lowest, highest] is 0 or infinity, even times 1000; n ln2_high is exact.
template <class T>
struct Exp;
template <>
struct Exp<float> {
  static constexpr float lowest = -120, highest = 89;
  static constexpr float log2_e = 1.44269504088896340736f, log2_e_rest = 1.925962991e-8f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440054690582768e-4f;
};
template <>
struct Exp<double> {
  static constexpr double lowest = -760, highest = 710;
  static constexpr double log2_e = 1.44269504088896340736, log2_e_rest = 2.035527374093103205e-17;
  static constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
};

/// The nearest integer of a number that is small enough to have one.
template <class Arch, class V>
PARE_ALWAYS_INLINE V nearest(V v) noexcept {
  if constexpr (Arch::has_exponent_scale) {
    return round_nearest<Arch>(v);
  } else {
    const V whole = broadcast<Arch>(Exp2<lane_t<V>>::whole);
    return (v + whole) - whole;
  }
}

/// x / ln 2 - n, to the last bits of what is left. Without a fused product ln 2 is taken in two
/// parts, of which n times the first is exact (Cody and Waite).
template <class Arch, class V>
PARE_ALWAYS_INLINE V exp_rest(V x, V n) noexcept {
  using Constants = Exp<lane_t<V>>;
  if constexpr (Arch::has_fma) {
    const V f = multiply_add<Arch>(x, broadcast<Arch>(Constants::log2_e),
                                   broadcast<Arch>(lane_t<V>(0)) - n);
    return multiply_add<Arch>(x, broadcast<Arch>(Constants::log2_e_rest), f);
  } else {
    V r = multiply_add<Arch>(n, broadcast<Arch>(-Constants::ln2_high), x);
    r = multiply_add<Arch>(n, broadcast<Arch>(-Constants::ln2_low), r);
    return r * broadcast<Arch>(Constants::log2_e);
  }
}

/// 2^n for a whole n in the range of exponents.
template <class Arch, class V>
PARE_ALWAYS_INLINE V power_of_two(V n) noexcept {
  using Constants = Exp2<lane_t<V>>;
  using Bits = typename Constants::bits;
  const V shifted = n + broadcast<Arch>(Constants::round);
  if constexpr (is_batch<V>) {
    using Integers = vec<Bits, Arch>;
    return xsimd::bitwise_cast<V>(xsimd::bitwise_cast<Integers>(shifted) << Constants::significand);
  } else {
    return std::bit_cast<V>(std::bit_cast<Bits>(shifted) << Constants::significand);
  }
}

template <class Arch, class V>
PARE_ALWAYS_INLINE V exp2_polynomial(V f) noexcept {
  using T = std::remove_cvref_t<decltype(reduce_add<Arch>(f))>;
  constexpr auto& q = Exp2<T>::q;
  constexpr std::size_t terms = sizeof(q) / sizeof(q[0]);
  const auto horner = [&]<std::size_t... I>(std::index_sequence<I...>) {
    V sum = broadcast<Arch>(q[terms - 1]);
    ((sum = multiply_add<Arch>(sum, f, broadcast<Arch>(q[terms - 2 - I]))), ...);
    return multiply_add<Arch>(sum, f, broadcast<Arch>(T(1)));
  };
  return horner(std::make_index_sequence<terms - 1>{});
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// 2^x for x below 127 (1023 for double): relative error below 2e-7 (4e-16), 2^-inf = 0, a NaN
/// stays one. Results below the smallest normal number are 0.
///
/// 2^x = 2^n 2^f with n the nearest integer. Adding 1.5 * 2^23 (2^52) and the bias of exponents
/// leaves the exponent of 2^n in the low bits.
template <class Arch, class V>
PARE_ALWAYS_INLINE V exp2(V x) noexcept {
  using T = std::remove_cvref_t<decltype(reduce_add<Arch>(x))>;
  using Constants = detail::Exp2<T>;
  const V smallest = broadcast<Arch>(Constants::smallest);
  if constexpr (Arch::has_exponent_scale) {
    // Any x has a nearest integer, and what is made of those below `smallest` is not taken.
    const V n = round_nearest<Arch>(x);
    return scale_exponent<Arch>(detail::exp2_polynomial<Arch>(x - n), n, x, smallest);
  } else {
    using Bits = typename Constants::bits;
    const V clamped = maximum<Arch>(smallest, x);
    const V shifted = clamped + broadcast<Arch>(Constants::round);
    const V f = clamped - (shifted - broadcast<Arch>(Constants::round));
    const V p = detail::exp2_polynomial<Arch>(f);
    if constexpr (detail::is_batch<V>) {
      using Integers = vec<Bits, Arch>;
      const V power =
          xsimd::bitwise_cast<V>(xsimd::bitwise_cast<Integers>(shifted) << Constants::significand);
      return xsimd::select(x < smallest, V(T(0)), p * power);
    } else {
      const Bits power = std::bit_cast<Bits>(shifted) << Constants::significand;
      return x < smallest ? T(0) : p * std::bit_cast<T>(power);
    }
  }
}

/// exp2 of each of some registers, step by step for all of them: one after the other, their steps
/// would wait in a scheduler that has room for those of a few.
template <class Arch, class V, std::size_t N>
PARE_ALWAYS_INLINE void exp2_each(V (&x)[N]) noexcept {
  using T = detail::lane_t<V>;
  if constexpr (Arch::has_exponent_scale) {
    constexpr auto& q = detail::Exp2<T>::q;
    constexpr std::size_t terms = sizeof(q) / sizeof(q[0]);
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      const V n[] = {round_nearest<Arch>(x[I])...};
      const V f[] = {(x[I] - n[I])...};
      V sum[] = {((void)I, broadcast<Arch>(q[terms - 1]))...};
      const auto add = [&](T term) PARE_LAMBDA_INLINE {
        ((sum[I] = multiply_add<Arch>(sum[I], f[I], broadcast<Arch>(term))), ...);
      };
      [&]<std::size_t... Term>(std::index_sequence<Term...>) PARE_LAMBDA_INLINE {
        (add(q[terms - 2 - Term]), ...);
      }(std::make_index_sequence<terms - 1>{});
      add(T(1));
      const V smallest = broadcast<Arch>(detail::Exp2<T>::smallest);
      ((x[I] = scale_exponent<Arch>(sum[I], n[I], x[I], smallest)), ...);
    }(std::make_index_sequence<N>{});
  } else {
    [&]<std::size_t... I>(std::index_sequence<I...>)
        PARE_LAMBDA_INLINE { ((x[I] = exp2<Arch>(x[I])), ...); }(std::make_index_sequence<N>{});
  }
}

/// -|x|; a NaN stays one.
template <class Arch, class V>
PARE_ALWAYS_INLINE V minus_magnitude(V x) noexcept {
  if constexpr (detail::is_batch<V>)
    return x | broadcast<Arch>(detail::lane_t<V>(-0.0));
  else
    return x < V(0) ? x : -x;
}

/// `below` where x < 0, elsewhere `otherwise`: of a NaN, and of -0.
template <class Arch, class V>
PARE_ALWAYS_INLINE V select_negative(V x, V below, V otherwise) noexcept {
  if constexpr (detail::is_batch<V>)
    return xsimd::select(x < broadcast<Arch>(detail::lane_t<V>(0)), below, otherwise);
  else
    return x < V(0) ? below : otherwise;
}

/// A number m 2^n that may lie beyond the range of normal ones: `scaled` rounds it, once.
template <class V>
struct Scaled {
  V m;
  V n;  ///< a whole number
};

/// m 2^n: below the smallest normal number a subnormal, rounded once; above the largest infinity.
/// |n| is at most twice the largest exponent.
template <class Arch, class V>
PARE_ALWAYS_INLINE V scaled(V m, V n) noexcept {
  using T = detail::lane_t<V>;
  if constexpr (Arch::has_exponent_scale) {
    return scale_exponent<Arch>(m, n);
  } else {
    // In two steps, since 2^n itself may be none; the first is exact.
    const V half = detail::nearest<Arch>(n * broadcast<Arch>(T(0.5)));
    return m * detail::power_of_two<Arch>(half) * detail::power_of_two<Arch>(n - half);
  }
}

/// e^x for x in [Exp::lowest, Exp::highest], as m 2^n: 4 roundings, however large x is. A NaN stays
/// one. e^x = 2^n 2^f with n the nearest integer of x / ln 2.
template <class Arch, class V>
PARE_ALWAYS_INLINE Scaled<V> exp_scaled(V x) noexcept {
  using Constants = detail::Exp<detail::lane_t<V>>;
  const V n = detail::nearest<Arch>(x * broadcast<Arch>(Constants::log2_e));
  return {detail::exp2_polynomial<Arch>(detail::exp_rest<Arch>(x, n)), n};
}

/// e^(x + low), for a |low| of at most 0.05.
template <class Arch, class V>
PARE_ALWAYS_INLINE Scaled<V> exp_scaled(V x, V low) noexcept {
  using Constants = detail::Exp<detail::lane_t<V>>;
  const V n = detail::nearest<Arch>(x * broadcast<Arch>(Constants::log2_e));
  const V f =
      multiply_add<Arch>(low, broadcast<Arch>(Constants::log2_e), detail::exp_rest<Arch>(x, n));
  return {detail::exp2_polynomial<Arch>(f), n};
}

/// e^x: relative error below 3e-7 (5e-16) where the result is normal, one rounding more where it is
/// subnormal; 0 far below, infinity above the largest number. A NaN stays one.
template <class Arch, class V>
PARE_ALWAYS_INLINE V exp(V x) noexcept {
  using T = detail::lane_t<V>;
  const V zero = broadcast<Arch>(T(0));
  const V above = maximum<Arch>(broadcast<Arch>(detail::Exp<T>::lowest), x);
  const V within = zero - maximum<Arch>(broadcast<Arch>(-detail::Exp<T>::highest), zero - above);
  const Scaled<V> e = exp_scaled<Arch>(within);
  return scaled<Arch>(e.m, e.n);
}

/// 2^x - 1 for x in [0, 64], to a few roundings however small x is: 2^n (2^f - 1) + (2^n - 1).
template <class T>
PARE_ALWAYS_INLINE T exp2_minus_one(T x) noexcept {
  using Constants = detail::Exp2<T>;
  using Bits = typename Constants::bits;
  constexpr auto& q = Constants::q;
  const T shifted = x + Constants::round;
  const T f = x - (shifted - Constants::round);
  const T power = std::bit_cast<T>(std::bit_cast<Bits>(shifted) << Constants::significand);
  T sum = q[std::size(q) - 1];
  for (std::size_t i = std::size(q) - 1; i-- > 0;) sum = sum * f + q[i];
  return power * (f * sum) + (power - T(1));
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
