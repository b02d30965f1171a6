// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The hyperbolic tangent over vectors, to a few roundings of itself however small it is.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/activation.hpp>
#include <pare/kernel/math.hpp>

namespace pare::kernel {

namespace detail {
PARE_ABI_BEGIN

/// tanh(x) = x + x z p(z) / q(z) with z = x^2, for |x| below 0.625: coefficients of Moshier's
/// Cephes (tanhf.c, tanh.c). q is 1 for float.
template <class T>
struct Tanh;
template <>
struct Tanh<float> {
  static constexpr float small = 0.625f;
  static constexpr float p[] = {-3.33332819422e-1f, 1.33314422036e-1f, -5.37397155531e-2f,
                                2.06390887954e-2f, -5.70498872745e-3f};
};
template <>
struct Tanh<double> {
  static constexpr double small = 0.625;
  static constexpr double p[] = {-1.61468768441708447952e3, -9.92877231001918586564e1,
                                 -9.64399179425052238628e-1};
  static constexpr double q[] = {4.84406305325125486048e3, 2.23548839060100448583e3,
                                 1.12811678491632931402e2, 1.0};
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// tanh x: relative error below 4 roundings. A NaN stays one, and so does -0.
template <class Arch, class V>
PARE_ALWAYS_INLINE V tanh(V x) noexcept {
  using T = detail::lane_t<V>;
  using Constants = detail::Tanh<T>;
  const V one = broadcast<Arch>(T(1)), zero = broadcast<Arch>(T(0));
  const V z = x * x;
  V ratio = detail::horner<Arch>(z, Constants::p);
  if constexpr (requires { Constants::q; }) ratio = ratio / detail::horner<Arch>(z, Constants::q);
  const V near = x * multiply_add<Arch>(z, ratio, one);
  // (1 - e) / (1 + e) with e = e^-2|x|, at most 0.29 here.
  const V down = minus_magnitude<Arch>(x);
  const V e = exp<Arch>(down + down);
  const V far = (one - e) / (one + e);
  const V signed_far = select_negative<Arch>(x, zero - far, far);
  return select_negative<Arch>((zero - down) - broadcast<Arch>(Constants::small), near, signed_far);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
