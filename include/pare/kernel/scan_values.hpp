// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The recurrence of one head of a linear state-space model, whose registers run along the values
/// that a state row holds. scan_states.hpp is for heads of a single value.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>

namespace pare::kernel {

/// h_np <- a_tn h_np + b_tn x_tp, then y_tp = sum_n c_tn h_np, for tokens t in order. The sum runs
/// over n in ascending order, so that an element has the same bits wherever calls are cut.
///
/// Cost: two multiply-adds and a product for each token, state and value, which bind from a few
/// tokens on; of one token, memory: the state is read and written.
template <StorageScalar S, StorageScalar H>
struct ScanValues {
  using T = compute_t<S>;

  const T* a = nullptr;  ///< [tokens x states], or [tokens] with a_step 0
  std::ptrdiff_t a_stride = 0;
  std::ptrdiff_t a_step = 0;  ///< from a state to the next: 0 or 1
  const S* b = nullptr;       ///< [tokens x states], rows contiguous
  std::ptrdiff_t b_stride = 0;
  const S* c = nullptr;  ///< [tokens x states], rows contiguous
  std::ptrdiff_t c_stride = 0;
  const S* x = nullptr;  ///< [tokens x values], rows contiguous
  std::ptrdiff_t x_stride = 0;
  S* y = nullptr;  ///< [tokens x values], rows contiguous; null: only the state is wanted
  std::ptrdiff_t y_stride = 0;
  H* state = nullptr;  ///< [states x values], rows contiguous
  std::ptrdiff_t state_stride = 0;
  std::ptrdiff_t tokens = 0;
  std::ptrdiff_t states = 0;
  std::ptrdiff_t values = 0;  ///< at most scan_most_values<T>
  T* room = nullptr;          ///< scan_values_room<T>(states), on a cache line
};

PARE_ABI_BEGIN

/// Tokens whose inputs are kept in L1 while the rows of a state pass by: of 64 states and values 16
/// KiB, beside 16 KiB of the state. A tile of the state is loaded and stored once for them.
inline constexpr std::ptrdiff_t scan_tokens = 16;

/// The most values of any arch: 256 bytes.
template <ComputeScalar T>
inline constexpr std::ptrdiff_t scan_most_values = static_cast<std::ptrdiff_t>(256 / sizeof(T));

/// Scalars that a call works in: decays, b and c of some tokens, widened, and x and y.
template <ComputeScalar T>
constexpr std::ptrdiff_t scan_values_room(std::ptrdiff_t states) noexcept {
  return scan_tokens * (3 * ((states + 15) / 16 * 16) + 2 * scan_most_values<T>);
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Registers of values in a tile of 4 states: 16 of the state + 4 of x + 4 of y + 3 scalars of 32,
/// or 8 + 2 + 2 + 3 of 16.
template <class Arch>
inline constexpr int scan_registers = Arch::registers >= 32 ? 4 : 2;

/// What the tiles of some tokens read, all in L1.
template <class T>
struct ScanBlock {
  T* a = nullptr;  ///< [tokens x states], or [tokens]
  T* b = nullptr;  ///< [tokens x states]
  T* c = nullptr;
  T* x = nullptr;  ///< [tokens x width], zeros behind the values
  T* y = nullptr;  ///< likewise
  std::ptrdiff_t tokens = 0;
  std::ptrdiff_t a_stride = 0, a_step = 0;
  std::ptrdiff_t stride = 0;  ///< of b and c
  std::ptrdiff_t width = 0;
};

template <class Arch, class S, class T>
PARE_TILE_INLINE void widen_row(const S* from, std::ptrdiff_t size, T* to) noexcept {
  for_row<lanes<T, Arch>>(
      size,
      [&](std::ptrdiff_t i)
          PARE_LAMBDA_INLINE { store<Arch>(to + i, load_widened<Arch>(from + i)); },
      [&](std::ptrdiff_t i, std::ptrdiff_t count)
          PARE_LAMBDA_INLINE { store<Arch>(to + i, load_first<Arch>(from + i, count, T(0))); });
}

/// `States` rows of the state, from row n on, over the tokens of a block. `last`: values in the
/// last register, 0 if it is whole.
template <class Arch, int Registers, int States, class S, class H>
PARE_TILE_INLINE void scan_tile(const ScanValues<S, H>& s, const ScanBlock<compute_t<S>>& block,
                                std::ptrdiff_t n, std::ptrdiff_t last) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t w = lanes<T, Arch>;
  V h[States][Registers];
  for (int i = 0; i < States; ++i)
    for (int r = 0; r < Registers; ++r) {
      const H* const from = s.state + (n + i) * s.state_stride + r * w;
      h[i][r] = r == Registers - 1 && last != 0 ? load_first<Arch>(from, last, T(0))
                                                : load_widened<Arch>(from);
    }
  for (std::ptrdiff_t t = 0; t < block.tokens; ++t) {
    const T* const a = block.a + t * block.a_stride + n * block.a_step;
    const T* const b = block.b + t * block.stride + n;
    const T* const c = block.c + t * block.stride + n;
    T* const out = block.y + t * block.width;
    V x[Registers], y[Registers];
    for (int r = 0; r < Registers; ++r) {
      x[r] = load<Arch>(block.x + t * block.width + r * w);
      y[r] = load<Arch>(out + r * w);
    }
    for (int i = 0; i < States; ++i) {
      const V decay = broadcast<Arch>(a[i * block.a_step]);
      const V in = broadcast<Arch>(b[i]), read = broadcast<Arch>(c[i]);
      for (int r = 0; r < Registers; ++r) {
        h[i][r] = multiply_add<Arch>(decay, h[i][r], in * x[r]);
        y[r] = multiply_add<Arch>(read, h[i][r], y[r]);
      }
    }
    for (int r = 0; r < Registers; ++r) store<Arch>(out + r * w, y[r]);
  }
  for (int i = 0; i < States; ++i)
    for (int r = 0; r < Registers; ++r) {
      H* const to = s.state + (n + i) * s.state_stride + r * w;
      if (r == Registers - 1 && last != 0)
        store_first<Arch>(to, last, h[i][r]);
      else
        store_narrowed<Arch>(to, h[i][r]);
    }
}

/// Reads the inputs of tokens [first, first + block.tokens).
template <class Arch, class S, class H>
PARE_TILE_INLINE void load_scan_block(const ScanValues<S, H>& s, std::ptrdiff_t first,
                                      const ScanBlock<compute_t<S>>& block) noexcept {
  using T = compute_t<S>;
  for (std::ptrdiff_t t = 0; t < block.tokens; ++t) {
    widen_row<Arch>(s.a + (first + t) * s.a_stride, s.a_step == 0 ? 1 : s.states,
                    block.a + t * block.a_stride);
    widen_row<Arch>(s.b + (first + t) * s.b_stride, s.states, block.b + t * block.stride);
    widen_row<Arch>(s.c + (first + t) * s.c_stride, s.states, block.c + t * block.stride);
    T* const x = block.x + t * block.width;
    widen_row<Arch>(s.x + (first + t) * s.x_stride, s.values, x);
    for (std::ptrdiff_t p = s.values; p < block.width; ++p) x[p] = T(0);
    for (std::ptrdiff_t p = 0; p < block.width; ++p) block.y[t * block.width + p] = T(0);
  }
}

template <class Arch, class S, class H>
PARE_TILE_INLINE void store_scan_block(const ScanValues<S, H>& s, std::ptrdiff_t first,
                                       const ScanBlock<compute_t<S>>& block) noexcept {
  using T = compute_t<S>;
  for (std::ptrdiff_t t = 0; t < block.tokens; ++t) {
    const T* const from = block.y + t * block.width;
    S* const to = s.y + (first + t) * s.y_stride;
    for_row<lanes<T, Arch>>(
        s.values,
        [&](std::ptrdiff_t i)
            PARE_LAMBDA_INLINE { store_narrowed<Arch>(to + i, load<Arch>(from + i)); },
        [&](std::ptrdiff_t i, std::ptrdiff_t count)
            PARE_LAMBDA_INLINE { store_first<Arch>(to + i, count, load<Arch>(from + i)); });
  }
}

/// Bytes from the state that is computed to the one that is fetched, where one token passes by.
inline constexpr std::ptrdiff_t scan_bytes_ahead = 8192;

/// Asks for `size` scalars from p + ahead bytes on.
template <class X>
PARE_TILE_INLINE void fetch_row(const X* p, std::ptrdiff_t size, std::ptrdiff_t ahead) noexcept {
  const auto bytes = size * static_cast<std::ptrdiff_t>(sizeof(X));
  for (std::ptrdiff_t at = 0; at < bytes; at += 64) prefetch<2>(p, ahead + at);
}

/// While rows n to n + 3 of the state are computed, asks for the tile's share of what the tokens
/// from `next` on have, which lies a row of all heads apart, where no hardware looks; and where
/// there are none, for the state.
template <class S, class H>
PARE_TILE_INLINE void fetch_for_scan(const ScanValues<S, H>& s, std::ptrdiff_t next,
                                     std::ptrdiff_t n) noexcept {
  if (next >= s.tokens) {
    for (std::ptrdiff_t i = n; i < n + 4; ++i)
      fetch_row(s.state + i * s.state_stride, s.values, scan_bytes_ahead);
    return;
  }
  const std::ptrdiff_t tiles = s.states / 4, left = s.tokens - next, tile = n / 4;
  const std::ptrdiff_t count = left < scan_tokens ? left : scan_tokens;
  for (std::ptrdiff_t t = next + tile * count / tiles; t < next + (tile + 1) * count / tiles; ++t) {
    fetch_row(s.x + t * s.x_stride, s.values, 0);
    if (s.y != nullptr) fetch_row(s.y + t * s.y_stride, s.values, 0);
    fetch_row(s.b + t * s.b_stride, s.states, 0);
    fetch_row(s.c + t * s.c_stride, s.states, 0);
    if (s.a_step != 0) fetch_row(s.a + t * s.a_stride, s.states, 0);
  }
}

template <class Arch, int Registers, class S, class H>
void scan_values(const ScanValues<S, H>& s) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t w = lanes<T, Arch>;
  const std::ptrdiff_t last = s.values - (Registers - 1) * w;
  const std::ptrdiff_t stride = (s.states + 15) / 16 * 16;
  ScanBlock<T> block;
  block.width = Registers * w;
  block.stride = stride;
  block.a_step = s.a_step;
  block.a_stride = stride;
  block.a = s.room;
  block.b = block.a + scan_tokens * stride;
  block.c = block.b + scan_tokens * stride;
  block.x = block.c + scan_tokens * stride;
  block.y = block.x + scan_tokens * scan_most_values<T>;
  for (std::ptrdiff_t first = 0; first < s.tokens; first += scan_tokens) {
    block.tokens = first + scan_tokens < s.tokens ? scan_tokens : s.tokens - first;
    load_scan_block<Arch>(s, first, block);
    std::ptrdiff_t n = 0;
    for (; n + 4 <= s.states; n += 4) {
      fetch_for_scan(s, first + scan_tokens, n);
      scan_tile<Arch, Registers, 4>(s, block, n, last == w ? 0 : last);
    }
    for (; n < s.states; ++n) scan_tile<Arch, Registers, 1>(s, block, n, last == w ? 0 : last);
    if (s.y != nullptr) store_scan_block<Arch>(s, first, block);
  }
}

/// The values that an arch's registers hold, of which there are at most that many.
template <class Arch, class S, class H>
void scan_strip(const ScanValues<S, H>& s) noexcept {
  constexpr std::ptrdiff_t w = lanes<compute_t<S>, Arch>;
  if constexpr (scan_registers<Arch> == 4) {
    if (s.values > 3 * w) return scan_values<Arch, 4>(s);
    if (s.values > 2 * w) return scan_values<Arch, 3>(s);
  }
  if (s.values > w) return scan_values<Arch, 2>(s);
  scan_values<Arch, 1>(s);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class H>
void run_kernel(Arch, const ScanValues<S, H>& s) noexcept {
  constexpr std::ptrdiff_t strip = detail::scan_registers<Arch> * lanes<compute_t<S>, Arch>;
  for (std::ptrdiff_t p = 0; p < s.values; p += strip) {
    ScanValues<S, H> part = s;
    part.x += p;
    if (s.y != nullptr) part.y += p;
    part.state += p;
    part.values = p + strip < s.values ? strip : s.values - p;
    detail::scan_strip<Arch>(part);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
