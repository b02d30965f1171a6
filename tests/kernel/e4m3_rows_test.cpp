// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/kernel/e4m3_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_e4m3_rows_test {
namespace {

using pare::bf16;
using pare::e4m3;
using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Arch>
struct E4m3RowsTest : testing::Test {};
TYPED_TEST_SUITE(E4m3RowsTest, pare::testing::Archs);

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
std::uint32_t bits_of(bf16 x) { return x.bits; }

/// Codes, all 256 in turn, of some rows with a scale for each tile.
template <class O, class Arch>
void expect_widened(std::ptrdiff_t columns, std::ptrdiff_t tile, Guard guard) {
  const std::ptrdiff_t rows = 3, tiles = (columns + tile - 1) / tile;
  GuardedArray<e4m3> codes(rows * columns, guard);
  GuardedArray<O> out(rows * columns, guard);
  std::vector<float> scales;
  std::mt19937_64 random(5);
  for (std::ptrdiff_t i = 0; i < rows * tiles; ++i)
    scales.push_back(i % 3 == 0   ? std::ldexp(1.0f, static_cast<int>(random() % 40) - 20)
                     : i % 5 == 2 ? -0.3f
                                  : static_cast<float>(random() % 10007 + 1) * 1e-5f);
  // Neighbours of one scale, within a row and across its end.
  for (std::size_t i = 4; i + 1 < scales.size(); i += 5) scales[i + 1] = scales[i];
  for (std::ptrdiff_t i = 0; i < codes.size(); ++i)
    codes[i] = e4m3::from_bits(static_cast<std::uint8_t>(i * 37));
  run_kernel(Arch{}, kernel::WidenE4m3Rows<O>{.codes = codes.data(),
                                              .code_stride = columns,
                                              .scales = scales.data(),
                                              .scale_stride = tiles,
                                              .out = out.data(),
                                              .out_stride = columns,
                                              .rows = rows,
                                              .columns = columns,
                                              .tile = tile});
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      const std::ptrdiff_t at = r * columns + c;
      const float value = static_cast<float>(codes[at]);
      const float scale = scales[static_cast<std::size_t>(r * tiles + c / tile)];
      if (pare::is_nan(value))
        EXPECT_TRUE(pare::is_nan(static_cast<float>(out[at])));
      else
        ASSERT_EQ(bits_of(out[at]), bits_of(static_cast<O>(value * scale)))
            << r << ' ' << c << ' ' << columns << ' ' << tile;
    }
  EXPECT_TRUE(out.surroundings_untouched());
}

TYPED_TEST(E4m3RowsTest, RowsHaveTheBitsOfCodeTimesScale) {
  for (const std::ptrdiff_t columns : {1, 3, 15, 16, 17, 64, 100, 257, 576})
    for (const std::ptrdiff_t tile : {1, 5, 64, 128, 576})
      for (const Guard guard : {Guard::before, Guard::after}) {
        expect_widened<float, TypeParam>(columns, tile, guard);
        expect_widened<bf16, TypeParam>(columns, tile, guard);
      }
}

/// What codes, all 256 in turn, become in tiles of 128 with these scales.
template <class O, class Arch>
std::vector<O> widened(const std::vector<float>& scales) {
  const auto columns = static_cast<std::ptrdiff_t>(128 * scales.size());
  std::vector<e4m3> codes;
  for (std::ptrdiff_t i = 0; i < columns; ++i)
    codes.push_back(e4m3::from_bits(static_cast<std::uint8_t>(i * 37)));
  std::vector<O> out(codes.size());
  run_kernel(Arch{}, kernel::WidenE4m3Rows<O>{.codes = codes.data(),
                                              .scales = scales.data(),
                                              .out = out.data(),
                                              .rows = 1,
                                              .columns = columns,
                                              .tile = 128});
  return out;
}

TYPED_TEST(E4m3RowsTest, AScaleThatIsNoNumberStaysInItsTile) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const auto plain = widened<bf16, TypeParam>({2, 2, 0.5f, 3e38f, 1});
  const auto spoilt = widened<bf16, TypeParam>({2, nan, nan, infinity, 1});
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const auto code = static_cast<float>(e4m3::from_bits(static_cast<std::uint8_t>(i * 37)));
    const auto got = static_cast<float>(spoilt[i]);
    if (i < 128 || i >= 512)
      EXPECT_EQ(pare::is_nan(code) ? 0 : bits_of(plain[i]),
                pare::is_nan(code) ? 0 : bits_of(spoilt[i]));
    else if (i < 384 || code == 0 || pare::is_nan(code))
      EXPECT_TRUE(pare::is_nan(got)) << i;
    else
      EXPECT_EQ(got, code < 0 ? -infinity : infinity) << i;
  }
}

TYPED_TEST(E4m3RowsTest, ProductsBeyondTheLargestNumberAreInfinite) {
  const auto out = widened<bf16, TypeParam>({3e38f, -3e38f});
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto code = static_cast<float>(e4m3::from_bits(static_cast<std::uint8_t>(i * 37)));
    if (pare::is_nan(code)) continue;
    const auto wanted = static_cast<double>(code) * (i < 128 ? 3e38 : -3e38);
    const auto got = static_cast<double>(static_cast<float>(out[i]));
    if (std::abs(wanted) > 3.5e38)  // nothing lies between the largest bf16 and that
      EXPECT_TRUE(std::isinf(got) && (got > 0) == (wanted > 0)) << i;
    else
      EXPECT_LE(std::abs(got - wanted), 0x1p-8 * std::abs(wanted)) << i;
  }
}

/// 2^ceil(log2(max(a / 448, 1e-4))), or max(a / 448, 2^-110).
float scale_of(double largest, bool power_of_two) {
  if (!power_of_two) return std::max(static_cast<float>(largest / 448), 0x1p-110f);
  double scale = 1;
  const double least = std::max(largest / 448, 1e-4);
  while (scale < least) scale *= 2;
  while (scale / 2 >= least) scale /= 2;
  return static_cast<float>(scale);
}

template <class Arch>
void expect_quantized(const std::vector<float>& x, std::ptrdiff_t columns, std::ptrdiff_t tile,
                      bool power_of_two) {
  const auto rows = static_cast<std::ptrdiff_t>(x.size()) / columns;
  const std::ptrdiff_t tiles = (columns + tile - 1) / tile;
  GuardedArray<e4m3> codes(static_cast<std::ptrdiff_t>(x.size()), Guard::after);
  GuardedArray<float> scales(rows * tiles, Guard::after);
  run_kernel(Arch{}, kernel::QuantizeE4m3Rows{.x = x.data(),
                                              .x_stride = columns,
                                              .codes = codes.data(),
                                              .code_stride = columns,
                                              .scales = scales.data(),
                                              .scale_stride = tiles,
                                              .rows = rows,
                                              .columns = columns,
                                              .tile = tile,
                                              .power_of_two = power_of_two});
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t t = 0; t < tiles; ++t) {
      const std::ptrdiff_t end = std::min(columns, (t + 1) * tile);
      double largest = 0;
      for (std::ptrdiff_t c = t * tile; c < end; ++c) {
        const double size =
            std::abs(static_cast<double>(x[static_cast<std::size_t>(r * columns + c)]));
        if (std::isfinite(size)) largest = std::max(largest, size);
      }
      const float scale = scale_of(largest, power_of_two);
      ASSERT_EQ(scales[r * tiles + t], scale) << largest;
      for (std::ptrdiff_t c = t * tile; c < end; ++c) {
        const float value = x[static_cast<std::size_t>(r * columns + c)];
        const e4m3 code = codes[r * columns + c];
        ASSERT_EQ(code.bits, e4m3(value / scale).bits) << value << ' ' << scale;
        if (!std::isfinite(value)) continue;
        const double back = static_cast<double>(static_cast<float>(code)) * scale;
        ASSERT_LE(std::abs(back - static_cast<double>(value)),
                  std::max(0x1p-4 * std::abs(static_cast<double>(value)), scale * 0x1p-10));
      }
    }
  EXPECT_TRUE(codes.surroundings_untouched() && scales.surroundings_untouched());
}

TYPED_TEST(E4m3RowsTest, ScalesAndCodesFollowTheRule) {
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal;
  for (const std::ptrdiff_t columns : {1, 15, 16, 33, 128, 300})
    for (const std::ptrdiff_t tile : {7, 64, 128, 300})
      for (const float size : {1e-30f, 1e-6f, 1.0f, 300.0f, 1e30f}) {
        std::vector<float> x(static_cast<std::size_t>(4 * columns));
        for (float& v : x) v = size * normal(random);
        expect_quantized<TypeParam>(x, columns, tile, true);
        expect_quantized<TypeParam>(x, columns, tile, false);
      }
}

TYPED_TEST(E4m3RowsTest, ScalesChangeAtPowersOfTwo) {
  for (int n = -13; n < 20; ++n) {
    const float edge = std::ldexp(448.0f, n);
    for (const float x : {std::nextafter(edge, 0.0f), edge, std::nextafter(edge, 1e30f)})
      expect_quantized<TypeParam>({x, -x / 3, 0.0f}, 3, 3, true);
  }
}

// Of scale 1, which 448 makes: what lies in the middle of two codes, and beside it.
TYPED_TEST(E4m3RowsTest, TiesGoToEven) {
  std::vector<float> x{448};
  for (int code = 0; code < 126; ++code) {
    const auto value = [](int c) {
      return static_cast<float>(e4m3::from_bits(static_cast<std::uint8_t>(c)));
    };
    const float middle = (value(code) + value(code + 1)) / 2;
    for (const float y : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 500.0f)}) {
      x.push_back(y);
      x.push_back(-y);
    }
  }
  const auto columns = static_cast<std::ptrdiff_t>(x.size());
  expect_quantized<TypeParam>(x, columns, columns, true);
}

TYPED_TEST(E4m3RowsTest, NaNsStayInTheirPlaceAndInfinitiesSaturate) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x(40, 1.5f);
  x[3] = nan;
  x[17] = -nan;
  x[20] = infinity;
  x[39] = -infinity;
  for (const bool power_of_two : {true, false}) {
    expect_quantized<TypeParam>(x, 40, 40, power_of_two);
    expect_quantized<TypeParam>(std::vector<float>(40, nan), 40, 16, power_of_two);
    expect_quantized<TypeParam>(std::vector<float>(40, 0.0f), 40, 16, power_of_two);
    expect_quantized<TypeParam>(std::vector<float>(40, -0.0f), 40, 16, power_of_two);
  }
}

}  // namespace
}  // namespace kernel_e4m3_rows_test
