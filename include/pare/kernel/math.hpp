// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Elementary functions over vectors, as far as attention needs them.

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
  static constexpr float smallest = -126;  ///< below, 2^x is subnormal and taken as 0
  static constexpr float round = 0x1.8p23f + 127;
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
  static constexpr double round = 0x1.8p52 + 1023;
  static constexpr double q[] = {
      6.93147180559945309417e-01, 2.40226506959100712333e-01, 5.55041086648215799532e-02,
      9.61812910762847716197e-03, 1.33335581464284434234e-03, 1.54035303933816099544e-04,
      1.52527338040598402800e-05, 1.32154867901443094884e-06, 1.01780860092396997274e-07,
      7.05491162080112332986e-09, 4.44553827187081149759e-10, 2.56784359934882051419e-11,
      1.36914888539041288881e-12};
};

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
  const V clamped = maximum<Arch>(smallest, x);
  if constexpr (Arch::has_exponent_scale) {
    const V n = round_nearest<Arch>(clamped);
    return scale_exponent<Arch>(detail::exp2_polynomial<Arch>(clamped - n), n, x, smallest);
  } else {
    using Bits = typename Constants::bits;
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
