// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Kernels of the permuted mix x' = x - (1 - g) (x - t): t is the value of another row.
///
/// In this form a row that is its own donor keeps its bits for every g. Gates of exactly 0 and 1
/// copy, so that an infinity is never multiplied by 0.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>
#include <pare/kernel/streaming.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel {

/// The donors of a run of elements. The donor of element i is first[i] before `turn`, and rest[i -
/// turn] from there on: if donors are a shift away, they start anew somewhere in a column.
template <ComputeScalar T>
struct DonorRun {
  const T* first = nullptr;
  const T* rest = nullptr;
  std::ptrdiff_t turn = std::numeric_limits<std::ptrdiff_t>::max();
};

/// mixed_i = x_i - rest (x_i - donor_i); x_i where rest is 0, donor_i where gate is 0.
///
/// Cost: x and donor read, mixed written; memory binds. With `streaming`, whole cache lines are
/// written past the caches; FinishStreaming must follow.
template <ComputeScalar T>
struct MixForward {
  const T* x = nullptr;  ///< [size]
  DonorRun<T> donor;     ///< [size], may overlap x
  T* mixed = nullptr;    ///< [size]
  std::ptrdiff_t size = 0;
  T gate = 1;
  T rest = 0;  ///< 1 - gate
  bool streaming = false;
  std::ptrdiff_t ahead = 0;  ///< x + ahead on is read next, in the same order; 0: not known
};

/// With Delta = x - donor and G = grad_mixed: sums += {sum Delta_i G_i, sum Delta_i^2,
/// sum |Delta_i|}, and grad_x_i = gate G_i + rest source_i. The second term is left out without
/// sources and where rest is 0, the first where gate is 0.
///
/// Terms are added in T, at most 64 to a lane, then in double. Cost: x, donor and grad_mixed read,
/// grad_x written; memory binds.
template <ComputeScalar T>
struct MixBackward {
  const T* x = nullptr;           ///< [size]
  DonorRun<T> donor;              ///< [size]
  const T* grad_mixed = nullptr;  ///< [size]
  const T* sources = nullptr;     ///< [size] grad_mixed of the rows that took from these; or null
  T* grad_x = nullptr;            ///< [size], or null: only sums
  std::ptrdiff_t size = 0;
  T gate = 1;
  T rest = 0;  ///< 1 - gate
  bool streaming = false;
  double* sums = nullptr;    ///< [3]
  std::ptrdiff_t ahead = 0;  ///< x + ahead on is read next, in the same order; 0: not known
};

namespace detail {
PARE_ABI_BEGIN

/// Bytes between what is worked on and what is asked for: measured best of 1 to 16 KiB.
inline constexpr std::ptrdiff_t prefetch_distance = 2048;

/// Where donors are shifts, x is read from two places at once, which change with every column. A
/// processor takes each for a new stream: it must be told what comes next.
template <class T>
PARE_ALWAYS_INLINE void prefetch_ahead(const T* p, std::ptrdiff_t ahead) noexcept {
  if (ahead != 0)
    prefetch<2>(p, ahead * static_cast<std::ptrdiff_t>(sizeof(T)) + prefetch_distance);
}

/// Calls body(i) for registers of [begin, end) and returns where the last whole one ends.
template <std::ptrdiff_t Lanes, class Body>
PARE_ALWAYS_INLINE std::ptrdiff_t for_registers(std::ptrdiff_t begin, std::ptrdiff_t end,
                                                const Body& body) noexcept {
  std::ptrdiff_t i = begin;
  for (; i + 4 * Lanes <= end; i += 4 * Lanes) {
    body(i);
    body(i + Lanes);
    body(i + 2 * Lanes);
    body(i + 3 * Lanes);
  }
  for (; i + Lanes <= end; i += Lanes) body(i);
  return i;
}

/// Calls run(donors, from, begin, end) for stretches of [begin, end) in which element i's donor is
/// donors[i - from]; it does whole registers and returns where they end. A register within which
/// the donors turn has them brought together.
template <class Arch, class T, class Run>
PARE_ALWAYS_INLINE std::ptrdiff_t for_stretches(const DonorRun<T>& donor, std::ptrdiff_t begin,
                                                std::ptrdiff_t end, const Run& run) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  std::ptrdiff_t i = begin;
  if (i < donor.turn)
    i = run(donor.first, std::ptrdiff_t{0}, i, end < donor.turn ? end : donor.turn);
  if (i < donor.turn && i + n > donor.turn && i + n <= end) {
    T together[static_cast<std::size_t>(n)];
    for (std::ptrdiff_t l = 0; l < n; ++l)
      together[l] = i + l < donor.turn ? donor.first[i + l] : donor.rest[i + l - donor.turn];
    i = run(static_cast<const T*>(together), i, i, i + n);
  }
  if (i >= donor.turn) i = run(donor.rest, donor.turn, i, end);
  return i;
}

/// Elements [begin, end) in whole registers; returns where they end.
template <class Arch, bool Streaming, class T>
std::ptrdiff_t mix_forward(const MixForward<T>& a, std::ptrdiff_t begin,
                           std::ptrdiff_t end) noexcept {
  using V = vec<T, Arch>;
  const V minus_rest = broadcast<Arch>(-a.rest);
  return for_stretches<Arch>(
      a.donor, begin, end,
      [&](const T* donors, std::ptrdiff_t from, std::ptrdiff_t first,
          std::ptrdiff_t last) PARE_LAMBDA_INLINE {
        return for_registers<lanes<T, Arch>>(first, last, [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
          const V x = load<Arch>(a.x + i), t = load<Arch>(donors + (i - from));
          prefetch_ahead(a.x + i, a.ahead);
          put<Arch, Streaming>(a.mixed + i, multiply_add<Arch>(minus_rest, x - t, x));
        });
      });
}

/// The same with a gate of 0, which copies the donors, or of 1, which copies x.
template <class Arch, bool Streaming, class T>
std::ptrdiff_t mix_copy(const MixForward<T>& a, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
  const DonorRun<T> own{.first = a.x};
  return for_stretches<Arch>(
      a.rest == T(0) ? own : a.donor, begin, end,
      [&](const T* values, std::ptrdiff_t from, std::ptrdiff_t first,
          std::ptrdiff_t last) PARE_LAMBDA_INLINE {
        return for_registers<lanes<T, Arch>>(first, last, [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
          put<Arch, Streaming>(a.mixed + i, load<Arch>(values + (i - from)));
        });
      });
}

template <class Arch, bool Streaming, class T>
std::ptrdiff_t mix_any(const MixForward<T>& a, std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
  const bool copies = a.rest == T(0) || a.gate == T(0);
  return copies ? mix_copy<Arch, Streaming>(a, begin, end)
                : mix_forward<Arch, Streaming>(a, begin, end);
}

/// The sums of MixBackward over registers.
template <class V>
struct MixSums {
  V slope, squares, magnitudes;
};

/// One register or element of the backward pass; the gradient is written by `Write`.
template <class Arch, bool Write, bool Live, bool Streaming, class T, class V>
PARE_ALWAYS_INLINE void mix_backward_at(const MixBackward<T>& a, const T* donor, std::ptrdiff_t i,
                                        V gate, V rest, MixSums<V>& sums) noexcept {
  const V delta = load<Arch>(a.x + i) - load<Arch>(donor);
  const V g = load<Arch>(a.grad_mixed + i);
  prefetch_ahead(a.x + i, a.ahead);
  // Measured: without it this stream waits for the two of x.
  if (a.ahead != 0) prefetch<2>(a.grad_mixed + i, prefetch_distance);
  sums.slope = multiply_add<Arch>(delta, g, sums.slope);
  sums.squares = multiply_add<Arch>(delta, delta, sums.squares);
  sums.magnitudes = sums.magnitudes + maximum<Arch>(delta, broadcast<Arch>(T(0)) - delta);
  if constexpr (Write && Live)
    put<Arch, Streaming>(a.grad_x + i,
                         multiply_add<Arch>(rest, load<Arch>(a.sources + i), gate * g));
  else if constexpr (Write)
    put<Arch, Streaming>(a.grad_x + i, gate * g);
}

template <class Arch, class V>
PARE_ALWAYS_INLINE void add_sums(const MixSums<V>& s, double* sums) noexcept {
  sums[0] += static_cast<double>(reduce_add<Arch>(s.slope));
  sums[1] += static_cast<double>(reduce_add<Arch>(s.squares));
  sums[2] += static_cast<double>(reduce_add<Arch>(s.magnitudes));
}

/// Elements [begin, end), whose donors are donors[i - from], in whole registers, 64 to a lane
/// before their sums go to double; returns where they end.
template <class Arch, bool Write, bool Live, bool Streaming, class T>
std::ptrdiff_t mix_backward_stretch(const MixBackward<T>& a, const T* donors, std::ptrdiff_t from,
                                    std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, run = 64 * n;
  const V gate = broadcast<Arch>(a.gate), rest = broadcast<Arch>(a.rest),
          zero = broadcast<Arch>(T(0));
  std::ptrdiff_t i = begin;
  while (i + n <= end) {
    const std::ptrdiff_t stop = i + run < end ? i + run : end;
    MixSums<V> even{zero, zero, zero}, odd{zero, zero, zero};
    for (; i + 2 * n <= stop; i += 2 * n) {
      mix_backward_at<Arch, Write, Live, Streaming>(a, donors + (i - from), i, gate, rest, even);
      mix_backward_at<Arch, Write, Live, Streaming>(a, donors + (i + n - from), i + n, gate, rest,
                                                    odd);
    }
    if (i + n <= stop) {
      mix_backward_at<Arch, Write, Live, Streaming>(a, donors + (i - from), i, gate, rest, even);
      i += n;
    }
    add_sums<Arch>(MixSums<V>{even.slope + odd.slope, even.squares + odd.squares,
                              even.magnitudes + odd.magnitudes},
                   a.sums);
  }
  return i;
}

template <class Arch, bool Write, bool Live, bool Streaming, class T>
std::ptrdiff_t mix_backward(const MixBackward<T>& a, std::ptrdiff_t begin,
                            std::ptrdiff_t end) noexcept {
  return for_stretches<Arch>(
      a.donor, begin, end,
      [&](const T* donors, std::ptrdiff_t from, std::ptrdiff_t first, std::ptrdiff_t last)
          PARE_LAMBDA_INLINE {
            return mix_backward_stretch<Arch, Write, Live, Streaming>(a, donors, from, first, last);
          });
}

/// Up to a cache line of grad_x, whole registers, the rest.
template <class Arch, bool Write, bool Live, class T>
void mix_backward_all(const MixBackward<T>& a) noexcept {
  std::ptrdiff_t i = 0;
  if constexpr (Write) {
    if (a.streaming) {
      i = mix_backward<arch::scalar, Write, Live, false>(a, 0, to_next_line(a.grad_x, a.size));
      if (at_line(a.grad_x + i)) i = mix_backward<Arch, Write, Live, true>(a, i, a.size);
    }
  }
  i = mix_backward<Arch, Write, Live, false>(a, i, a.size);
  mix_backward<arch::scalar, Write, Live, false>(a, i, a.size);
}

/// The gradient of a gate of exactly 0 or 1.
template <class T>
void copy_gradient(const MixBackward<T>& a) noexcept {
  if (a.rest == T(0)) return copy(a.grad_mixed, a.grad_x, a.size);
  if (a.sources != nullptr) return copy(a.sources, a.grad_x, a.size);
  for (std::ptrdiff_t i = 0; i < a.size; ++i) a.grad_x[i] = T(0);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const MixForward<T>& a) noexcept {
  std::ptrdiff_t i = 0;
  if (a.streaming) {
    i = detail::mix_any<arch::scalar, false>(a, 0, detail::to_next_line(a.mixed, a.size));
    if (detail::at_line(a.mixed + i)) i = detail::mix_any<Arch, true>(a, i, a.size);
  }
  i = detail::mix_any<Arch, false>(a, i, a.size);
  detail::mix_any<arch::scalar, false>(a, i, a.size);
}

template <class Arch, class T>
void run_kernel(Arch, const MixBackward<T>& a) noexcept {
  if (a.grad_x == nullptr) return detail::mix_backward_all<Arch, false, false>(a);
  if (a.rest == T(0) || a.gate == T(0)) {
    detail::mix_backward_all<Arch, false, false>(a);
    return detail::copy_gradient(a);
  }
  if (a.sources != nullptr)
    detail::mix_backward_all<Arch, true, true>(a);
  else
    detail::mix_backward_all<Arch, true, false>(a);
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
