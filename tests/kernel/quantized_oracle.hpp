// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The values of quantised blocks by a second reading of the format: element by element, each field
/// a number of bits at a position, in double, where all but the conversion to float is exact.

#include <pare/kernel/quantized.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>

namespace pare::testing {

/// The bytes of a block as one number, the first bit the lowest of the first byte.
class BlockBits {
 public:
  explicit BlockBits(const void* block) : bytes_(static_cast<const std::uint8_t*>(block)) {}

  int field(int first, int width) const {
    int value = 0;
    for (int b = 0; b < width; ++b) {
      const int at = first + b;
      value += ((bytes_[at / 8] >> at % 8) & 1) << b;
    }
    return value;
  }
  int signed_field(int first, int width) const {
    const int value = field(first, width);
    return value >> (width - 1) != 0 ? value - (1 << width) : value;
  }
  /// A number of 1 sign, 5 exponent and 10 significand bits.
  double half(int first) const {
    const int significand = field(first, 10), exponent = field(first + 10, 5);
    const double sign = field(first + 15, 1) != 0 ? -1 : 1;
    if (exponent == 31)
      return significand == 0 ? sign * std::numeric_limits<double>::infinity()
                              : std::numeric_limits<double>::quiet_NaN();
    return exponent == 0 ? sign * std::ldexp(significand, -24)
                         : sign * std::ldexp(1024 + significand, exponent - 25);
  }

 private:
  const std::uint8_t* bytes_;
};

/// Element i of a block of the given format; every result but infinities and NaN is exact.
template <class Block>
double element_of(const void* block, int i) {
  const BlockBits bits(block);
  if constexpr (std::is_same_v<Block, kernel::Q8_0>) {
    return bits.half(0) * bits.signed_field(16 + 8 * i, 8);
  } else if constexpr (std::is_same_v<Block, kernel::Q4_0>) {
    return bits.half(0) * (bits.field(16 + 8 * (i % 16) + 4 * (i / 16), 4) - 8);
  } else if constexpr (std::is_same_v<Block, kernel::Q4_1>) {
    return bits.half(0) * bits.field(32 + 8 * (i % 16) + 4 * (i / 16), 4) + bits.half(16);
  } else if constexpr (std::is_same_v<Block, kernel::Q4_K>) {
    // Bytes 0 to 11 of `packed`, from bit 32 on: low and high parts of scale and offset of run j.
    const int j = i / 32, byte = 32 + 8 * (j % 4);
    const int scale =
        j < 4 ? bits.field(byte, 6) : bits.field(byte + 64, 4) + 16 * bits.field(byte + 6, 2);
    const int offset =
        j < 4 ? bits.field(byte + 32, 6) : bits.field(byte + 68, 4) + 16 * bits.field(byte + 38, 2);
    const int q = bits.field(128 + 256 * (j / 2) + 8 * (i % 32) + 4 * (j % 2), 4);
    return bits.half(0) * scale * q - bits.half(16) * offset;
  } else {
    static_assert(std::is_same_v<Block, kernel::Q6_K>);
    const int half = i / 128, at = i % 128;
    const int low = bits.field(512 * half + 8 * (at % 64) + 4 * (at / 64), 4);
    const int high = bits.field(1024 + 256 * half + 8 * (at % 32) + 2 * (at / 32), 2);
    return bits.half(1664) * bits.signed_field(1536 + 8 * (i / 16), 8) * (low + 16 * high - 32);
  }
}

/// Random bytes as a block; the exponents of its binary16 numbers leave out infinity and NaN.
template <class Block>
Block random_block(std::mt19937_64& random) {
  Block block;
  auto* const bytes = reinterpret_cast<std::uint8_t*>(&block);
  for (std::size_t i = 0; i < sizeof(Block); ++i) bytes[i] = static_cast<std::uint8_t>(random());
  const auto finite = [](kernel::UnalignedF16& x) {
    if ((x.high & 0x7c) == 0x7c) x.high ^= 0x40;
  };
  finite(block.d);
  if constexpr (requires { block.m; }) finite(block.m);
  if constexpr (requires { block.d_offset; }) finite(block.d_offset);
  return block;
}

}  // namespace pare::testing
