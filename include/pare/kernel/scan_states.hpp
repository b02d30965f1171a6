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
/// or constant; else two multiply-adds and a product for each token and state. Decays of 64 states
/// of their own are read at about 0.9 of what one thread reads without arithmetic.
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

/// Tokens for which a state is loaded and stored once. Decays of each state are a stream of memory
/// for each token: 1536 heads of 64 states took 7.0 ms with one stream on Zen 5, 5.5 with two, 6.3
/// with four and 7.4 with eight. Of fewer states the sum of a head costs more than a stream: 16
/// took 6.0 ms with two, 5.0 with four.
inline constexpr int scan_states_tokens = 4, scan_streams = 2;
inline constexpr std::ptrdiff_t least_scan_stream = 256;  ///< bytes of a head's decays

/// Bytes of each token's decays, in the order in which they are read, from those that are computed
/// to those that are fetched. Into L1: nothing else that is read misses it. 2 KiB took 1.1 times as
/// long.
inline constexpr std::ptrdiff_t scan_decays_ahead = 4096;

/// Heads whose sums over lanes are folded at once.
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

/// Bytes from the decays of `tokens` tokens and head g to those that are fetched with them: of
/// heads behind g, or of the tokens that follow.
template <class S, class T>
PARE_TILE_INLINE std::ptrdiff_t decays_ahead(const ScanStates<S, T>& s, std::ptrdiff_t g,
                                             std::ptrdiff_t tokens) noexcept {
  constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t heads = scan_decays_ahead / (s.states * size);
  const std::ptrdiff_t at = g + (heads > 0 ? heads : 1);
  const std::ptrdiff_t turns = at < s.heads ? 0 : at / s.heads;
  return size * (turns * tokens * s.a_stride + (at - turns * s.heads - g) * s.a_head_stride);
}

/// `Tokens` tokens of `Heads` heads, from token t and head g on. Shared: the heads have the same b
/// and c.
template <class Arch, bool PerState, bool Shared, int Heads, int Tokens, class S, class T>
class ScanStep {
  using V = vec<T, Arch>;
  /// Heads of a tile, for which b and c that they share are loaded once: 8 sums + 8 x + 2 states +
  /// b and c of 32 registers, 4 + 4 + 1 + b and c of 16.
  static constexpr int together = Heads % 2 == 0 && Arch::registers >= 32 ? 2 : 1;
  using Tile = RegisterTile<T, Arch, Tokens, together>;

 public:
  PARE_TILE_INLINE ScanStep(const ScanStates<S, T>& s, std::ptrdiff_t t, std::ptrdiff_t g) noexcept
      : s_(s),
        a_(s.a + t * s.a_stride + g * s.a_head_stride),
        b_(s.b + t * s.b_stride + g * s.b_head_stride),
        c_(s.c + t * s.c_stride + g * s.c_head_stride),
        x_(s.x + t * s.x_stride + g * s.x_head_stride),
        h_(s.state + g * s.state_stride),
        ahead_(PerState ? decays_ahead(s, g, Tokens) : 0) {}

  PARE_TILE_INLINE void run() noexcept {
    for (int k = 0; k < Heads; k += together) {
      Tile::each([&](int u, int i) PARE_LAMBDA_INLINE {
        in_.sum[u][i] =
            broadcast<Arch>(static_cast<T>(x_[u * s_.x_stride + (k + i) * s_.x_head_stride]));
      });
      out_.clear();
      for_row<lanes<T, Arch>, true>(
          s_.states, [&](std::ptrdiff_t n) PARE_LAMBDA_INLINE { add<true>(k, n, 0); },
          [&](std::ptrdiff_t n, std::ptrdiff_t count)
              PARE_LAMBDA_INLINE { add<false>(k, n, count); });
      Tile::each([&](int u, int i) PARE_LAMBDA_INLINE { sum_[u][k + i] = out_.sum[u][i]; });
    }
  }

  PARE_TILE_INLINE void store_to(S* y) noexcept {
    T folded[static_cast<std::size_t>(lanes<T, Arch>)];
    constexpr auto apart = lanes<T, Arch> / Heads;
    for (int u = 0; u < Tokens; ++u) {
      store<Arch>(static_cast<T*>(folded),
                  fold_lanes_of_each<Arch>(
                      sum_[u], [](const V& a, const V& b) PARE_LAMBDA_INLINE { return a + b; }));
      for (int k = 0; k < Heads; ++k)
        y[u * s_.y_stride + k * s_.y_head_stride] =
            static_cast<S>(folded[static_cast<std::ptrdiff_t>(k) * apart]);
    }
  }

 private:
  /// A register of states of `together` heads, from the k-th on.
  template <bool Whole>
  PARE_TILE_INLINE void add(int k, std::ptrdiff_t n, std::ptrdiff_t count) noexcept {
    using States = RegisterTile<T, Arch, together, 1>;
    T* const h = h_ + k * s_.state_stride + n;
    V state[static_cast<std::size_t>(together)], b, c;
    States::each([&](int i, int) PARE_LAMBDA_INLINE {
      state[i] = load_states<Arch, Whole>(static_cast<const T*>(h) + i * s_.state_stride, count);
    });
    Tile::each([&](int u, int i) PARE_LAMBDA_INLINE {
      if (!Shared || i == 0) {
        b = load_states<Arch, Whole>(b_ + u * s_.b_stride + (k + i) * s_.b_head_stride + n, count);
        c = load_states<Arch, Whole>(c_ + u * s_.c_stride + (k + i) * s_.c_head_stride + n, count);
      }
      state[i] = multiply_add<Arch>(decay<Whole>(u, k + i, n, count), state[i], b * in_.sum[u][i]);
      add_product<Whole>(c, state[i], count, out_.sum[u][i]);
    });
    States::each([&](int i, int) PARE_LAMBDA_INLINE {
      if constexpr (Whole)
        store<Arch>(h + i * s_.state_stride, state[i]);
      else
        store_first<Arch>(h + i * s_.state_stride, count, state[i]);
    });
  }

  template <bool Whole>
  PARE_TILE_INLINE V decay(int u, int k, std::ptrdiff_t n, std::ptrdiff_t count) const noexcept {
    const T* const a = a_ + u * s_.a_stride + k * s_.a_head_stride;
    if constexpr (!PerState) {
      return broadcast<Arch>(*a);
    } else {
      if (n * static_cast<std::ptrdiff_t>(sizeof(T)) % 64 == 0) prefetch<3>(a + n, ahead_);
      return load_states<Arch, Whole>(a + n, count);
    }
  }

  /// Lanes behind the states may hold NaN, of an infinite x times 0: they are not summed.
  template <bool Whole>
  PARE_TILE_INLINE static void add_product(const V& c, const V& h, std::ptrdiff_t count,
                                           V& sum) noexcept {
    if constexpr (Whole) {
      sum = multiply_add<Arch>(c, h, sum);
    } else {
      T products[static_cast<std::size_t>(lanes<T, Arch>)];
      store<Arch>(static_cast<T*>(products), c * h);
      sum = sum + load_first<Arch>(static_cast<const T*>(products), count, T(0));
    }
  }

  const ScanStates<S, T>& s_;
  const T* a_;
  const S *b_, *c_, *x_;
  T* h_;
  std::ptrdiff_t ahead_;
  Tile in_, out_;
  V sum_[static_cast<std::size_t>(Tokens)][static_cast<std::size_t>(Heads)];
};

template <class Arch, bool PerState, bool Shared, class S, class T>
void scan_states(const ScanStates<S, T>& given) noexcept {
  constexpr int together = scan_heads<T, Arch>;
  // A copy, which no store to a state may change: its strides stay in registers.
  const ScanStates<S, T> s = given;
  const auto step = [&]<int Heads, int Tokens>(std::ptrdiff_t t, std::ptrdiff_t g)
                        PARE_LAMBDA_INLINE {
                          ScanStep<Arch, PerState, Shared, Heads, Tokens, S, T> stepped(s, t, g);
                          stepped.run();
                          if (s.y != nullptr)
                            stepped.store_to(s.y + t * s.y_stride + g * s.y_head_stride);
                        };
  const auto all_heads = [&]<int Tokens>(std::ptrdiff_t t) PARE_LAMBDA_INLINE {
    std::ptrdiff_t g = 0;
    for (; g + together <= s.heads; g += together) step.template operator()<together, Tokens>(t, g);
    for (; g < s.heads; ++g) step.template operator()<1, Tokens>(t, g);
  };
  std::ptrdiff_t t = 0;
  if constexpr (PerState)
    if (s.states * static_cast<std::ptrdiff_t>(sizeof(T)) >= least_scan_stream)
      for (; t + scan_streams <= s.tokens; t += scan_streams)
        all_heads.template operator()<scan_streams>(t);
  for (; t + scan_states_tokens <= s.tokens; t += scan_states_tokens)
    all_heads.template operator()<scan_states_tokens>(t);
  for (; t < s.tokens; ++t) all_heads.template operator()<1>(t);
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
