// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The recurrence of heads of a linear state-space model that have a single value each, as the
/// channels of S4D or of Mamba: registers run along the states, and some heads that lie side by
/// side are stepped together, so that what they have for a token is one stream of memory.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
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

/// Bytes of decays, in the order in which they are read, from those that are computed to those that
/// are fetched.
inline constexpr std::ptrdiff_t scan_decays_ahead = 8192;

/// Asks for the decays that `Heads` heads read after scan_decays_ahead bytes: those of heads behind
/// them, or of a token after theirs.
template <int Heads, class S, class T>
PARE_TILE_INLINE void fetch_decays(const ScanStates<S, T>& s, std::ptrdiff_t t,
                                   std::ptrdiff_t g) noexcept {
  const std::ptrdiff_t bytes = s.states * static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t at = g + scan_decays_ahead / bytes;
  const std::ptrdiff_t token = t + (at >= s.heads ? at / s.heads : 0);
  const T* const a = s.a + token * s.a_stride + (at - (token - t) * s.heads) * s.a_head_stride;
  for (int k = 0; k < Heads; ++k)
    for (std::ptrdiff_t byte = 0; byte < bytes; byte += 64)
      prefetch<2>(a + k * s.a_head_stride, byte);
}

/// Heads that are stepped together: their sums over lanes are folded at once, and b and c that they
/// share are loaded once. 8 x + 8 sums + b, c and a state of 32 registers, half as many of 16.
template <class T, class Arch>
inline constexpr int scan_heads = static_cast<int>(lanes<T, Arch>) < (Arch::registers >= 32 ? 8 : 4)
                                      ? static_cast<int>(lanes<T, Arch>)
                                      : (Arch::registers >= 32 ? 8 : 4);

/// A register of states: a whole one, or the first `count`.
template <class Arch, bool Whole, class S>
PARE_TILE_INLINE auto load_states(const S* p, std::ptrdiff_t count) noexcept {
  if constexpr (Whole)
    return load_widened<Arch>(p);
  else
    return load_first<Arch>(p, count, compute_t<S>(0));
}

/// One token of `Heads` heads from head g on. Shared: they have the same b and c.
template <class Arch, bool PerState, bool Shared, int Heads, class S, class T>
class ScanStep {
  using V = vec<T, Arch>;

 public:
  PARE_TILE_INLINE ScanStep(const ScanStates<S, T>& s, std::ptrdiff_t t, std::ptrdiff_t g) noexcept
      : s_(s),
        a_(s.a + t * s.a_stride + g * s.a_head_stride),
        b_(s.b + t * s.b_stride + g * s.b_head_stride),
        c_(s.c + t * s.c_stride + g * s.c_head_stride),
        x_(s.x + t * s.x_stride + g * s.x_head_stride),
        h_(s.state + g * s.state_stride) {
    for (int k = 0; k < Heads; ++k) {
      in_[k] = broadcast<Arch>(static_cast<T>(x_[k * s.x_head_stride]));
      sum_[k] = broadcast<Arch>(T(0));
    }
    if constexpr (PerState) fetch_decays<Heads>(s, t, g);
  }

  PARE_TILE_INLINE void run() noexcept {
    for_row<lanes<T, Arch>, true>(
        s_.states, [&](std::ptrdiff_t n) PARE_LAMBDA_INLINE { add<true>(n, 0); },
        [&](std::ptrdiff_t n, std::ptrdiff_t count) PARE_LAMBDA_INLINE { add<false>(n, count); });
  }

  PARE_TILE_INLINE void store_to(S* y) noexcept {
    T folded[static_cast<std::size_t>(lanes<T, Arch>)];
    constexpr auto apart = lanes<T, Arch> / Heads;
    store<Arch>(static_cast<T*>(folded),
                fold_lanes_of_each<Arch>(
                    sum_, [](const V& a, const V& b) PARE_LAMBDA_INLINE { return a + b; }));
    for (int k = 0; k < Heads; ++k)
      y[k * s_.y_head_stride] = static_cast<S>(folded[static_cast<std::ptrdiff_t>(k) * apart]);
  }

 private:
  template <bool Whole>
  PARE_TILE_INLINE void add(std::ptrdiff_t n, std::ptrdiff_t count) noexcept {
    V b = load_states<Arch, Whole>(b_ + n, count), c = load_states<Arch, Whole>(c_ + n, count);
    RegisterTile<T, Arch, Heads, 1>::each([&](int k, int) PARE_LAMBDA_INLINE {
      if (!Shared && k > 0) {
        b = load_states<Arch, Whole>(b_ + k * s_.b_head_stride + n, count);
        c = load_states<Arch, Whole>(c_ + k * s_.c_head_stride + n, count);
      }
      const T* const a = a_ + k * s_.a_head_stride;
      T* const h = h_ + k * s_.state_stride + n;
      V decay;
      if constexpr (PerState)
        decay = load_states<Arch, Whole>(a + n, count);
      else
        decay = broadcast<Arch>(*a);
      const V next = multiply_add<Arch>(
          decay, load_states<Arch, Whole>(static_cast<const T*>(h), count), b * in_[k]);
      if constexpr (Whole) {
        store<Arch>(h, next);
        sum_[k] = multiply_add<Arch>(c, next, sum_[k]);
      } else {
        store_first<Arch>(h, count, next);
        // Lanes behind the states may hold NaN, of an infinite x times 0: they are not summed.
        T products[static_cast<std::size_t>(lanes<T, Arch>)];
        store<Arch>(static_cast<T*>(products), c * next);
        sum_[k] = sum_[k] + load_first<Arch>(static_cast<const T*>(products), count, T(0));
      }
    });
  }

  const ScanStates<S, T>& s_;
  const T* a_;
  const S *b_, *c_, *x_;
  T* h_;
  V in_[static_cast<std::size_t>(Heads)];
  V sum_[static_cast<std::size_t>(Heads)];
};

template <class Arch, bool PerState, bool Shared, class S, class T>
void scan_states(const ScanStates<S, T>& s) noexcept {
  constexpr int together = scan_heads<T, Arch>;
  const auto step = [&]<int Heads>(std::ptrdiff_t t, std::ptrdiff_t g) PARE_LAMBDA_INLINE {
    ScanStep<Arch, PerState, Shared, Heads, S, T> stepped(s, t, g);
    stepped.run();
    if (s.y != nullptr) stepped.store_to(s.y + t * s.y_stride + g * s.y_head_stride);
  };
  for (std::ptrdiff_t t = 0; t < s.tokens; ++t) {
    std::ptrdiff_t g = 0;
    for (; g + together <= s.heads; g += together) step.template operator()<together>(t, g);
    for (; g < s.heads; ++g) step.template operator()<1>(t, g);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class T>
void run_kernel(Arch, const ScanStates<S, T>& s) noexcept {
  const bool shared = s.b_head_stride == 0 && s.c_head_stride == 0;
  if (s.a_per_state && shared)
    detail::scan_states<Arch, true, true>(s);
  else if (s.a_per_state)
    detail::scan_states<Arch, true, false>(s);
  else if (shared)
    detail::scan_states<Arch, false, true>(s);
  else
    detail::scan_states<Arch, false, false>(s);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
