// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Blocks of quantised weights as .gguf files store them, and their values.
///
/// ```cpp
/// float x[kernel::Q4_1::elements];
/// kernel::dequantize(block, x);  // x_i = q_i d + m
/// ```
///
/// | block | elements | bytes | element i |
/// |---|---|---|---|
/// | `Q8_0` | 32 | 34 | q d, q of 8 bits with sign |
/// | `Q4_0` | 32 | 18 | (q - 8) d, q of 4 bits |
/// | `Q4_1` | 32 | 20 | q d + m |
/// | `Q4_K` | 256 | 144 | q (d s) - (d' s'), q of 4 bits, s and s' of 6 bits for each 32 elements |
/// | `Q6_K` | 256 | 210 | (q - 32) (d s), q of 6 bits, s of 8 bits with sign for each 16 elements |
///
/// d, m and d' are binary16. Every product above is exact in float: d has 11 bits of significand,
/// and what it is multiplied by at most 12. At most one sum is rounded, once, so that compilers may
/// fuse it: all flags and architectures give the same bits. Only where d, m or d' is infinite or
/// NaN is the element NaN or infinite.
///
/// The structs are the bytes of a file: they consist of bytes alone and lie at any address.
/// Source: the block structs of ggml (ggml-common.h) and their description in gguf-py.

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// A binary16 number at any address, little endian.
struct UnalignedF16 {
  std::uint8_t low, high;

  PARE_ALWAYS_INLINE explicit operator float() const noexcept {
    return pare::detail::f16_bits_to_float(static_cast<std::uint16_t>(low | high << 8));
  }
};

/// x_i = q_i d.
struct Q8_0 {
  static constexpr std::ptrdiff_t elements = 32;

  UnalignedF16 d;
  std::int8_t q[32];
};

/// x_i = (q_i - 8) d; the lower halves of the bytes are elements 0 to 15, the upper ones 16 to 31.
struct Q4_0 {
  static constexpr std::ptrdiff_t elements = 32;

  UnalignedF16 d;
  std::uint8_t q[16];
};

/// x_i = q_i d + m; the order is that of Q4_0.
struct Q4_1 {
  static constexpr std::ptrdiff_t elements = 32;

  UnalignedF16 d, m;
  std::uint8_t q[16];
};

/// x_i = q_i (d s) - (d' s') with s, s' = `scale_of`, `offset_of` of run i / 32.
///
/// The 32 bytes p of q hold runs 2 p, in their lower halves, and 2 p + 1, in their upper ones.
struct Q4_K {
  static constexpr std::ptrdiff_t elements = 256;

  UnalignedF16 d, d_offset;
  std::uint8_t packed[12];  ///< 8 scales and 8 offsets of 6 bits
  std::uint8_t q[128];

  /// The scale of a run from 0 to 7: for the first four the lower 6 bits of byte `run`, for the
  /// others the lower half of byte 4 + run, and above it the upper 2 bits of byte run - 4.
  PARE_ALWAYS_INLINE int scale_of(int run) const noexcept {
    return run < 4 ? packed[run] & 63 : (packed[run + 4] & 15) | (packed[run - 4] >> 6) << 4;
  }
  /// Its offset: for the first four the lower 6 bits of byte 4 + run, for the others the upper half
  /// of byte 4 + run, and above it the upper 2 bits of byte `run`.
  PARE_ALWAYS_INLINE int offset_of(int run) const noexcept {
    return run < 4 ? packed[run + 4] & 63 : packed[run + 4] >> 4 | (packed[run] >> 6) << 4;
  }
};

/// x_i = (q_i - 32) (d s) with s = scale[i / 16].
///
/// Each half of the block has 128 elements: 64 bytes of `low`, whose lower halves are elements 0 to
/// 63 and whose upper ones 64 to 127, and 32 bytes of `high`: bits 2 k and 2 k + 1 of byte l are
/// the upper bits of element 32 k + l.
struct Q6_K {
  static constexpr std::ptrdiff_t elements = 256;

  std::uint8_t low[128];
  std::uint8_t high[64];
  std::int8_t scale[16];
  UnalignedF16 d;
};

static_assert(sizeof(Q8_0) == 34 && alignof(Q8_0) == 1);
static_assert(sizeof(Q4_0) == 18 && alignof(Q4_0) == 1);
static_assert(sizeof(Q4_1) == 20 && alignof(Q4_1) == 1);
static_assert(sizeof(Q4_K) == 144 && alignof(Q4_K) == 1);
static_assert(sizeof(Q6_K) == 210 && alignof(Q6_K) == 1);

PARE_ABI_BEGIN

/// Writes the elements of a block, `elements` numbers, to x, which lies apart from it (bytes might
/// else be those of x, for all that compilers know, which then do not vectorise). Cost: 3 to 7
/// elements a nanosecond on Zen 4, where the stores bind; Q6_K 2 to 4.
inline void dequantize(const Q8_0& block, float* __restrict x) noexcept {
  const auto d = static_cast<float>(block.d);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(block.q[i]) * d;
}

inline void dequantize(const Q4_0& block, float* __restrict x) noexcept {
  const auto d = static_cast<float>(block.d);
  for (int i = 0; i < 16; ++i) x[i] = static_cast<float>((block.q[i] & 15) - 8) * d;
  for (int i = 0; i < 16; ++i) x[i + 16] = static_cast<float>((block.q[i] >> 4) - 8) * d;
}

inline void dequantize(const Q4_1& block, float* __restrict x) noexcept {
  const auto d = static_cast<float>(block.d), m = static_cast<float>(block.m);
  for (int i = 0; i < 16; ++i) x[i] = static_cast<float>(block.q[i] & 15) * d + m;
  for (int i = 0; i < 16; ++i) x[i + 16] = static_cast<float>(block.q[i] >> 4) * d + m;
}

inline void dequantize(const Q4_K& block, float* __restrict x) noexcept {
  const auto d = static_cast<float>(block.d), d_offset = static_cast<float>(block.d_offset);
  for (int pair = 0; pair < 4; ++pair) {
    const std::uint8_t* const q = block.q + 32 * pair;
    float scale[2], offset[2];
    for (int i = 0; i < 2; ++i) {
      scale[i] = d * static_cast<float>(block.scale_of(2 * pair + i));
      offset[i] = d_offset * static_cast<float>(block.offset_of(2 * pair + i));
    }
    float* const run = x + 64 * pair;
    for (int i = 0; i < 32; ++i) run[i] = static_cast<float>(q[i] & 15) * scale[0] - offset[0];
    for (int i = 0; i < 32; ++i) run[32 + i] = static_cast<float>(q[i] >> 4) * scale[1] - offset[1];
  }
}

inline void dequantize(const Q6_K& block, float* __restrict x) noexcept {
  const auto d = static_cast<float>(block.d);
  for (int run = 0; run < 16; ++run, x += 16) {  // 8 in either half of the block
    const int half = run / 8, quarter = run / 2 % 4, first = 16 * (run % 2);
    const std::uint8_t* const low = block.low + 64 * half + 32 * (quarter % 2) + first;
    const std::uint8_t* const high = block.high + 32 * half + first;
    const int low_shift = 4 * (quarter / 2), high_shift = 2 * quarter;
    const float scale = d * static_cast<float>(block.scale[run]);
    for (int i = 0; i < 16; ++i) {
      const int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
      x[i] = static_cast<float>(q - 32) * scale;
    }
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
