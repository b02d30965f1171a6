// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The recurrence of heads of a linear state-space model that have a single value each, as the
/// channels of S4D or of Mamba: registers run along the states, and some heads that lie side by
/// side are stepped together, so that what they have for a token is one stream of memory.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// h_gn <- a_tgn h_gn + b_tgn x_tg, then y_tg = sum_n c_tgn h_gn, for tokens t in order and heads
/// g. The states of a head are summed in an order that depends on their number alone.
///
/// Cost: what a head has for a token of a, b and c is read once, which binds where it is not shared
/// or constant; else two multiply-adds and a product for each token and state.
template <StorageScalar S, ComputeScalar T>
struct ScanStates {
  const T* a = nullptr;         ///< of token t and head g at a + t a_stride + g a_head_stride
  std::ptrdiff_t a_stride = 0;  ///< strides are in scalars
  std::ptrdiff_t a_head_stride = 0;
  bool a_per_state = false;  ///< [states], contiguous; else one number
  const S* b = nullptr;      ///< [states], contiguous, as a
  std::ptrdiff_t b_stride = 0;
  std::ptrdiff_t b_head_stride = 0;
  const S* c = nullptr;  ///< [states], contiguous, as a
  std::ptrdiff_t c_stride = 0;
  std::ptrdiff_t c_head_stride = 0;
  const S* x = nullptr;  ///< one number, as a
  std::ptrdiff_t x_stride = 0;
  std::ptrdiff_t x_head_stride = 0;
  S* y = nullptr;  ///< one number, as a; null: only the states are wanted
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t y_head_stride = 0;
  T* state = nullptr;  ///< [heads x states], rows contiguous
  std::ptrdiff_t state_stride = 0;
  std::ptrdiff_t tokens = 0;
  std::ptrdiff_t heads = 0;
  std::ptrdiff_t states = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Tokens from the one that is computed to the one whose decays are fetched.
inline constexpr std::ptrdiff_t scan_tokens_ahead = 2;

/// One token of one head; returns y.
template <class Arch, bool PerState, class S, class T>
PARE_TILE_INLINE T scan_step(const T* a, const S* b, const S* c, T x, T* h,
                             std::ptrdiff_t states) noexcept {
  using V = vec<T, Arch>;
  const V in = broadcast<Arch>(x);
  const V same = broadcast<Arch>(*a);
  V sum = broadcast<Arch>(T(0));
  for_row<lanes<T, Arch>>(
      states,
      [&](std::ptrdiff_t n) PARE_LAMBDA_INLINE {
        V decay = same;
        if constexpr (PerState) decay = load<Arch>(a + n);
        const V next = multiply_add<Arch>(decay, load<Arch>(h + n), load_widened<Arch>(b + n) * in);
        store<Arch>(h + n, next);
        sum = multiply_add<Arch>(load_widened<Arch>(c + n), next, sum);
      },
      [&](std::ptrdiff_t n, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        V decay = same;
        if constexpr (PerState) decay = load_first<Arch>(a + n, count, T(0));
        const V next = multiply_add<Arch>(decay, load_first<Arch>(h + n, count, T(0)),
                                          load_first<Arch>(b + n, count, T(0)) * in);
        store_first<Arch>(h + n, count, next);
        // Lanes behind the states may hold NaN, of an x that is none times 0: they are not summed.
        T products[static_cast<std::size_t>(lanes<T, Arch>)];
        store<Arch>(static_cast<T*>(products), load_first<Arch>(c + n, count, T(0)) * next);
        sum = sum + load_first<Arch>(static_cast<const T*>(products), count, T(0));
      });
  return reduce_add<Arch>(sum);
}

template <class Arch, bool PerState, class S, class T>
void scan_states(const ScanStates<S, T>& s) noexcept {
  const auto bytes = PerState ? s.states * static_cast<std::ptrdiff_t>(sizeof(T)) : 0;
  for (std::ptrdiff_t t = 0; t < s.tokens; ++t)
    for (std::ptrdiff_t g = 0; g < s.heads; ++g) {
      const T* const a = s.a + t * s.a_stride + g * s.a_head_stride;
      for (std::ptrdiff_t at = 0; at < bytes; at += 64)
        prefetch<2>(a,
                    at + scan_tokens_ahead * s.a_stride * static_cast<std::ptrdiff_t>(sizeof(T)));
      const T y = scan_step<Arch, PerState>(
          a, s.b + t * s.b_stride + g * s.b_head_stride, s.c + t * s.c_stride + g * s.c_head_stride,
          static_cast<T>(s.x[t * s.x_stride + g * s.x_head_stride]), s.state + g * s.state_stride,
          s.states);
      if (s.y != nullptr) s.y[t * s.y_stride + g * s.y_head_stride] = static_cast<S>(y);
    }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class T>
void run_kernel(Arch, const ScanStates<S, T>& s) noexcept {
  if (s.a_per_state)
    detail::scan_states<Arch, true>(s);
  else
    detail::scan_states<Arch, false>(s);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
