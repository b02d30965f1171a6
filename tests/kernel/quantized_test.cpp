// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>

#include <pare/kernel/quantized.hpp>

#include "kernel/guarded_array.hpp"
#include "kernel/quantized_oracle.hpp"

namespace kernel_quantized_test {
namespace {

using pare::testing::element_of;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::random_block;
namespace kernel = pare::kernel;

template <class Block>
struct QuantizedTest : testing::Test {};
using Blocks = testing::Types<kernel::Q8_0, kernel::Q4_0, kernel::Q4_1, kernel::Q4_K, kernel::Q6_K>;
TYPED_TEST_SUITE(QuantizedTest, Blocks);

// Every product is exact in float and so is in double each element: one rounding, the same bits.
TYPED_TEST(QuantizedTest, RandomBlocksHaveTheBitsOfTheFormat) {
  using Block = TypeParam;
  std::mt19937_64 random(7);
  for (const Guard guard : {Guard::before, Guard::after})
    for (int n = 0; n < 200; ++n) {
      GuardedArray<Block> block(1, guard);
      GuardedArray<float> x(Block::elements, guard);
      block[0] = random_block<Block>(random);
      kernel::dequantize(block[0], x.data());
      for (int i = 0; i < Block::elements; ++i)
        ASSERT_EQ(x[i], static_cast<float>(element_of<Block>(block.data(), i))) << i;
      EXPECT_TRUE(x.surroundings_untouched());
    }
}

TYPED_TEST(QuantizedTest, BlocksLieAtAnyAddress) {
  using Block = TypeParam;
  std::mt19937_64 random(8);
  const Block block = random_block<Block>(random);
  unsigned char memory[sizeof(Block) + 1];
  std::memcpy(memory + 1, &block, sizeof(Block));
  float x[Block::elements], wanted[Block::elements];
  kernel::dequantize(*reinterpret_cast<const Block*>(memory + 1), x);
  kernel::dequantize(block, wanted);
  EXPECT_EQ(std::memcmp(x, wanted, sizeof(x)), 0);
}

TYPED_TEST(QuantizedTest, AScaleThatIsNaNMakesElementsNaN) {
  using Block = TypeParam;
  std::mt19937_64 random(9);
  Block block = random_block<Block>(random);
  block.d = {0x01, 0x7e};
  float x[Block::elements];
  kernel::dequantize(block, x);
  for (const float value : x) EXPECT_TRUE(std::isnan(value));
}

/// A block of hand-written bytes.
template <class Block>
Block block_of(std::string_view bytes) {
  Block block;
  EXPECT_EQ(bytes.size(), sizeof(Block));
  std::memcpy(&block, bytes.data(), sizeof(Block));
  return block;
}

using namespace std::string_view_literals;

// d = 0.5 is 0x3800, m = -1 is 0xbc00, d = 2 is 0x4000: little endian.
TEST(QuantizedGolden, Q8_0) {
  float x[32];
  kernel::dequantize(block_of<kernel::Q8_0>("\x00\x38\x01\xff\x7f\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                            "\0\0\0\0\0\0\0\0\0\0\0\0\x04"sv),
                     x);
  EXPECT_EQ(x[0], 0.5f);
  EXPECT_EQ(x[1], -0.5f);
  EXPECT_EQ(x[2], 63.5f);
  EXPECT_EQ(x[3], -64.0f);
  EXPECT_EQ(x[4], 0.0f);
  EXPECT_EQ(x[31], 2.0f);
}

TEST(QuantizedGolden, Q4_0AndQ4_1KeepTheSecondHalfInTheUpperBits) {
  float x[32];
  kernel::dequantize(block_of<kernel::Q4_0>("\x00\x38\xf0\x98\0\0\0\0\0\0\0\0\0\0\0\0\0\x0f"sv), x);
  EXPECT_EQ(x[0], -4.0f);
  EXPECT_EQ(x[1], 0.0f);
  EXPECT_EQ(x[15], 3.5f);
  EXPECT_EQ(x[16], 3.5f);
  EXPECT_EQ(x[17], 0.5f);
  EXPECT_EQ(x[31], -4.0f);
  kernel::dequantize(
      block_of<kernel::Q4_1>("\x00\x38\x00\xbc\xf0\x98\0\0\0\0\0\0\0\0\0\0\0\0\0\x0f"sv), x);
  EXPECT_EQ(x[0], -1.0f);
  EXPECT_EQ(x[1], 3.0f);
  EXPECT_EQ(x[15], 6.5f);
  EXPECT_EQ(x[16], 6.5f);
  EXPECT_EQ(x[17], 3.5f);
  EXPECT_EQ(x[31], -1.0f);
}

TEST(QuantizedGolden, Q4_KPacksScalesAndOffsetsInSixBits) {
  kernel::Q4_K block{};
  block.d = {0x00, 0x38};         // 0.5
  block.d_offset = {0x00, 0x40};  // 2
  // Run 0: scale 63, offset 1. Run 4: scale 0b100011 = 35, offset 0b011111 = 31.
  block.packed[0] = 63 | 0b10 << 6;
  block.packed[4] = 1 | 0b01 << 6;
  block.packed[8] = 0b0011 | 0b1111 << 4;
  block.q[0] = 15;        // element 0 of run 0, and of run 1: 0
  block.q[64] = 3;        // element 0 of run 4
  block.q[127] = 7 << 4;  // the last element of run 7
  float x[256];
  kernel::dequantize(block, x);
  EXPECT_EQ(x[0], 15 * 63 * 0.5f - 2);
  EXPECT_EQ(x[1], -2.0f);
  EXPECT_EQ(x[32], 0.0f);
  EXPECT_EQ(x[128], 3 * 35 * 0.5f - 62);
  EXPECT_EQ(x[129], -62.0f);
  EXPECT_EQ(x[255], 0.0f);
  block.packed[11] = 0b0101 | 0b0010 << 4;  // run 7: scale 5, offset 2
  kernel::dequantize(block, x);
  EXPECT_EQ(x[255], 7 * 5 * 0.5f - 4);
}

TEST(QuantizedGolden, Q6_KPutsTwoBitsAboveFour) {
  kernel::Q6_K block{};
  block.d = {0x00, 0x38};
  for (int run = 0; run < 16; ++run) block.scale[run] = static_cast<std::int8_t>(run - 8);
  block.low[0] = 0xf1;   // elements 0 and 64
  block.low[32] = 0x23;  // elements 32 and 96
  block.high[0] = 0b11'10'01'00;
  block.low[127] = 0x40;  // elements 191 and 255
  block.high[63] = 0b10'00'00'00;
  float x[256];
  kernel::dequantize(block, x);
  EXPECT_EQ(x[0], (1 - 32) * -8 * 0.5f);
  EXPECT_EQ(x[32], (3 + 16 - 32) * -6 * 0.5f);
  EXPECT_EQ(x[64], (15 + 32 - 32) * -4 * 0.5f);
  EXPECT_EQ(x[96], (2 + 48 - 32) * -2 * 0.5f);
  EXPECT_EQ(x[16], -32 * -7 * 0.5f);
  EXPECT_EQ(x[191], -32 * 3 * 0.5f);
  EXPECT_EQ(x[255], (4 + 32 - 32) * 7 * 0.5f);
}

}  // namespace
}  // namespace kernel_quantized_test
