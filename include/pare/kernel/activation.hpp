// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Activations: functions of one number that kernels inline. A user's own is a struct like these.
///
/// ```cpp
/// struct Square {
///   static double exact(double x) { return x * x; }        // the definition
///   template <class Arch, class V>
///   static V apply(V x) noexcept { return x * x; }         // of a register, or of one scalar
/// };
/// ```
///
/// Limits are kept: of minus infinity Silu and both Gelu are -0, where their formulas say 0 times
/// infinity, Relu and Sigmoid 0; of plus infinity Sigmoid is 1, the others infinity; -0 stays -0
/// but for Sigmoid, and NaN stays NaN.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/math.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace pare::kernel {

namespace detail {
PARE_ABI_BEGIN

/// Of the tail of the normal distribution, P(X > a) e^(a^2 / 2) (a + shift) as a polynomial in u =
/// 1 - 2 shift / (a + shift), for a in [0, highest]; above, x P(X > |x|) is 0. Interpolated at
/// Chebyshev's nodes: relative error 1.4e-8 (1.2e-17) before rounding. The variable is that of
/// Shepherd and Laframboise, Math. Comp. 36, 1981. `grid` cuts a so that the square of what is left
/// of it is exact.
template <class T>
struct NormalTail;
template <>
struct NormalTail<float> {
  static constexpr float highest = 15, shift = 4;
  static constexpr float grid = 0x1.8p15f;  ///< multiples of 2^-8
  static constexpr float p[] = {
      7.552851386e-1f,  -6.078965941e-1f, 3.871366831e-1f, -1.865233068e-1f, 6.040618551e-2f,
      -7.525402418e-3f, -3.520972824e-3f, 1.566881688e-3f, 1.889965194e-4f,  -1.255583856e-4f};
};
template <>
struct NormalTail<double> {
  static constexpr double highest = 39, shift = 5;
  static constexpr double grid = 0x1.8p32;  ///< multiples of 2^-20
  static constexpr double p[] = {
      7.6919304975006295856e-1,  -6.6538250289005670039e-1, 4.9530561596997641327e-1,
      -3.135331566713045447e-1,  1.6502036617038471792e-1,  -6.9118638706310163575e-2,
      2.0795066799883179639e-2,  -2.9933767705085424387e-3, -7.9786939846607010544e-4,
      5.4489906477312989385e-4,  -5.9375728009915863678e-5, -4.976281427058580517e-5,
      1.6681213742042061453e-5,  3.9809021578680411194e-6,  -2.7692670959974302454e-6,
      -3.3661536810124711722e-7, 4.3314103568625849535e-7,  4.2274993740065348384e-8,
      -6.5942216624772230429e-8, -9.3135609943260591435e-9, 7.6630718007600410458e-9,
      1.7530484014082319805e-9,  -1.5877468827473365378e-10};
};

/// p_0 + p_1 u + ...
template <class Arch, class V, class T, std::size_t N>
PARE_ALWAYS_INLINE V horner(V u, const T (&p)[N]) noexcept {
  return [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    V sum = broadcast<Arch>(p[N - 1]);
    ((sum = multiply_add<Arch>(sum, u, broadcast<Arch>(p[N - 2 - I]))), ...);
    return sum;
  }(std::make_index_sequence<N - 1>{});
}

/// x / (1 + e^-w), where w has the sign of x; `below` is x cut where the result is -0. Where w < 0
/// it is x e^w / (1 + e^w), whose numerator is scaled last: it is a normal number long after e^w is
/// none.
template <class Arch, class V>
PARE_ALWAYS_INLINE V times_sigmoid(V x, V below, V minus_w) noexcept {
  const Scaled<V> e = exp_scaled<Arch>(minus_w);
  const V numerator = select_negative<Arch>(x, scaled<Arch>(below * e.m, e.n), x);
  return numerator / (broadcast<Arch>(lane_t<V>(1)) + scaled<Arch>(e.m, e.n));
}

PARE_ABI_END
}  // namespace detail

// Outside the ABI namespace, as all that crosses from one object to another: they name kernels.

/// x / (1 + e^-x): SiLU, or Swish (Elfwing et al., 2018; Ramachandran et al., 2017).
/// Relative error below 8 roundings.
struct Silu {
  PARE_ALWAYS_INLINE static double exact(double x) noexcept {
    return x < -760 ? -0.0 : x / (1 + __builtin_exp(-x));
  }
  template <class Arch, class V>
  PARE_ALWAYS_INLINE static V apply(V x) noexcept {
    const V lowest = broadcast<Arch>(detail::Exp<detail::lane_t<V>>::lowest);
    const V a = maximum<Arch>(lowest, minus_magnitude<Arch>(x));
    return detail::times_sigmoid<Arch>(x, a, a);
  }
};

/// x P(X <= x) for a normal X, = x / 2 (1 + erf(x / sqrt(2))): GELU (Hendrycks and Gimpel, 2016).
/// Relative error below 16 roundings, in the tail too.
struct Gelu {
  PARE_ALWAYS_INLINE static double exact(double x) noexcept {
    return x < -39 ? -0.0 : x * (0.5 * __builtin_erfc(x * -0.70710678118654752440));
  }
  template <class Arch, class V>
  PARE_ALWAYS_INLINE static V apply(V x) noexcept {
    using T = detail::lane_t<V>;
    using Tail = detail::NormalTail<T>;
    const V one = broadcast<Arch>(T(1)), zero = broadcast<Arch>(T(0));
    const V a = zero - maximum<Arch>(broadcast<Arch>(-Tail::highest), minus_magnitude<Arch>(x));
    const V t = one / (a + broadcast<Arch>(Tail::shift));
    const V u = one - broadcast<Arch>(2 * Tail::shift) * t;
    // a^2 = b^2 + (a - b) (a + b), where b^2 is exact: rounded, it would cost a^2 roundings.
    const V b = (a + broadcast<Arch>(Tail::grid)) - broadcast<Arch>(Tail::grid);
    const V half = broadcast<Arch>(T(-0.5));
    const Scaled<V> e = exp_scaled<Arch>(half * b * b, half * (a - b) * (a + b));
    const V tail = t * detail::horner<Arch>(u, Tail::p) * e.m;
    return select_negative<Arch>(x, scaled<Arch>((zero - a) * tail, e.n),
                                 x * (one - scaled<Arch>(tail, e.n)));
  }
};

/// x / (1 + e^-w), w = sqrt(8 / pi) (x + 0.044715 x^3), = x / 2 (1 + tanh(w / 2)): the form of GELU
/// that BERT and GPT-2 were trained with. Relative error below (10 + 6 |w|) roundings where x < 0.
struct GeluTanh {
  PARE_ALWAYS_INLINE static double exact(double x) noexcept {
    const double w = 1.595769121605730711759784 * (x + 0.044715 * x * x * x);
    return w < -760 ? -0.0 : x / (1 + __builtin_exp(-w));
  }
  template <class Arch, class V>
  PARE_ALWAYS_INLINE static V apply(V x) noexcept {
    using T = detail::lane_t<V>;
    const V w = x * multiply_add<Arch>(broadcast<Arch>(T(0.07135481627260024877633875)), x * x,
                                       broadcast<Arch>(T(1.595769121605730711759784)));
    const V lowest = broadcast<Arch>(detail::Exp<T>::lowest);
    return detail::times_sigmoid<Arch>(x, maximum<Arch>(lowest, x),
                                       maximum<Arch>(lowest, minus_magnitude<Arch>(w)));
  }
};

/// The larger of x and 0; a NaN stays one.
struct Relu {
  PARE_ALWAYS_INLINE static double exact(double x) noexcept { return x < 0 ? 0 : x; }
  template <class Arch, class V>
  PARE_ALWAYS_INLINE static V apply(V x) noexcept {
    return select_negative<Arch>(x, broadcast<Arch>(detail::lane_t<V>(0)), x);
  }
};

/// 1 / (1 + e^-x), the logistic function, of values between 0 and 1: gates of GLU. Relative error
/// below 8 roundings, in the tail too.
struct Sigmoid {
  PARE_ALWAYS_INLINE static double exact(double x) noexcept {
    const double e = __builtin_exp(x < 0 ? x : -x);
    return (x < 0 ? e : 1) / (1 + e);
  }
  template <class Arch, class V>
  PARE_ALWAYS_INLINE static V apply(V x) noexcept {
    using T = detail::lane_t<V>;
    const V lowest = broadcast<Arch>(detail::Exp<T>::lowest), one = broadcast<Arch>(T(1));
    const Scaled<V> e = exp_scaled<Arch>(maximum<Arch>(lowest, minus_magnitude<Arch>(x)));
    const V small = scaled<Arch>(e.m, e.n);
    return select_negative<Arch>(x, small, one) / (one + small);
  }
};

/// x itself: no activation.
struct Identity {
  PARE_ALWAYS_INLINE static double exact(double x) noexcept { return x; }
  template <class Arch, class V>
  PARE_ALWAYS_INLINE static V apply(V x) noexcept {
    return x;
  }
};

/// A function of one number: `exact` defines it, `apply` computes it for every lane of a register
/// and for T itself (arch::scalar). It holds no data.
template <class A>
concept Activation = std::is_empty_v<A> && requires(double x, float f) {
  { A::exact(x) } -> std::same_as<double>;
  { A::template apply<arch::scalar>(f) } -> std::same_as<float>;
};

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
