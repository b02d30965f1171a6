// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include <pare/kernel/gemm.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct RegisterTileTest : testing::Test {};
TYPED_TEST_SUITE(RegisterTileTest, pare::testing::ArchsAndScalars);

template <class Arch>
struct PairTileTest : testing::Test {};
TYPED_TEST_SUITE(PairTileTest, pare::testing::Archs);

/// f(rows, registers) for each size that the full tile of any arch is cut into.
template <class F>
void for_each_size(const F& f) {
  const auto of_rows = [&]<int... C>(auto rows, std::integer_sequence<int, C...>) {
    (f(rows, std::integral_constant<int, C + 1>{}), ...);
  };
  [&]<int... R>(std::integer_sequence<int, R...>) {
    (of_rows(std::integral_constant<int, R + 1>{}, std::make_integer_sequence<int, 4>{}), ...);
  }(std::make_integer_sequence<int, kernel::tile_rows>{});
}

/// Small integers: every sum below is exact, in any order and with any fusing.
int left_at(std::ptrdiff_t row, std::ptrdiff_t depth) {
  return static_cast<int>((row * 5 + depth * 3) % 11) - 5;
}
int right_at(std::ptrdiff_t depth, std::ptrdiff_t column) {
  return static_cast<int>((depth * 7 + column * 2) % 13) - 6;
}
int start_at(std::ptrdiff_t row, std::ptrdiff_t column) {
  return static_cast<int>(row * 10 + column % 9) - 12;
}

template <class E>
E element_of(int low, [[maybe_unused]] int high) {
  if constexpr (std::is_same_v<E, kernel::Bf16Pair>)
    return E{std::uint32_t{pare::bf16(static_cast<float>(low)).bits} |
             std::uint32_t{pare::bf16(static_cast<float>(high)).bits} << 16};
  else
    return static_cast<E>(low);
}

/// C = scale C + A B with rows of A and C apart by more than they hold; nothing else is read or
/// written.
template <class Arch, class E, int Rows, int Registers>
void expect_product(std::ptrdiff_t steps, Guard guard) {
  using T = typename kernel::product<E>::sum;
  constexpr std::ptrdiff_t per_step = kernel::product<E>::depth;
  constexpr std::ptrdiff_t columns = Registers * kernel::lanes<T, Arch>;
  const std::ptrdiff_t a_stride = steps + 3, c_stride = columns + 5;
  GuardedArray<E> a((Rows - 1) * a_stride + steps, guard), b(steps * columns, guard);
  GuardedArray<T> c((Rows - 1) * c_stride + columns, guard), scale(Rows, guard);
  for (std::ptrdiff_t r = 0; r < Rows; ++r) {
    scale[r] = static_cast<T>(r) / 2 - 1;
    for (std::ptrdiff_t s = 0; s < steps; ++s)
      a[r * a_stride + s] = element_of<E>(left_at(r, s * per_step), left_at(r, s * per_step + 1));
    for (std::ptrdiff_t j = 0; j < columns; ++j)
      c[r * c_stride + j] = static_cast<T>(start_at(r, j));
  }
  for (std::ptrdiff_t s = 0; s < steps; ++s)
    for (std::ptrdiff_t j = 0; j < columns; ++j)
      b[s * columns + j] = element_of<E>(right_at(s * per_step, j), right_at(s * per_step + 1, j));

  kernel::RegisterTile<T, Arch, Rows, Registers> tile;
  tile.load_scaled(c.data(), c_stride, scale.data());
  tile.multiply(static_cast<const E*>(a.data()), a_stride, static_cast<const E*>(b.data()), steps);
  tile.store_to(c.data(), c_stride);
  for (std::ptrdiff_t r = 0; r < Rows; ++r)
    for (std::ptrdiff_t j = 0; j < c_stride && r * c_stride + j < c.size(); ++j) {
      if (j >= columns) {
        ASSERT_TRUE(c.untouched(r * c_stride + j)) << "row " << r << " place " << j;
        continue;
      }
      double wanted = (static_cast<double>(r) / 2 - 1) * start_at(r, j);
      for (std::ptrdiff_t d = 0; d < steps * per_step; ++d)
        wanted += left_at(r, d) * right_at(d, j);
      ASSERT_EQ(static_cast<double>(c[r * c_stride + j]), wanted)
          << Rows << "x" << Registers << " steps " << steps << " at " << r << ' ' << j;
    }
  ASSERT_TRUE(c.surroundings_untouched());
}

TYPED_TEST(RegisterTileTest, ScalesMultipliesAndStoresExactlyInEverySize) {
  using T = typename TypeParam::scalar;
  for_each_size([](auto rows, auto registers) {
    for (const Guard guard : {Guard::before, Guard::after})
      for (const std::ptrdiff_t steps : {0, 1, 2, 3, 8, 33})
        expect_product<typename TypeParam::arch, T, rows, registers>(steps, guard);
  });
}

TYPED_TEST(RegisterTileTest, ClearForgetsWhatWasThere) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  for_each_size([](auto rows, auto registers) {
    constexpr std::ptrdiff_t columns = registers * kernel::lanes<T, Arch>;
    GuardedArray<T> a(rows), b(columns), c(rows * columns), scale(rows);
    for (T& x : c) x = std::numeric_limits<T>::quiet_NaN();
    for (T& x : scale) x = 1;
    for (std::ptrdiff_t r = 0; r < rows; ++r) a[r] = static_cast<T>(r + 1);
    for (std::ptrdiff_t j = 0; j < columns; ++j) b[j] = static_cast<T>(j - 4);
    kernel::RegisterTile<T, Arch, rows, registers> tile;
    tile.load_scaled(c.data(), columns, scale.data());
    tile.clear();
    tile.multiply(static_cast<const T*>(a.data()), 1, static_cast<const T*>(b.data()), 1);
    tile.store_to(c.data(), columns);
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t j = 0; j < columns; ++j)
        ASSERT_EQ(c[r * columns + j], static_cast<T>((r + 1) * (j - 4))) << r << ' ' << j;
  });
}

TYPED_TEST(RegisterTileTest, FullTileIsWholeRegistersAndFitsTheRegisterFile) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr std::ptrdiff_t n = kernel::lanes<T, Arch>;
  constexpr int registers = kernel::tile_registers<Arch>;
  EXPECT_EQ((kernel::tile_columns<T, Arch>), registers * n);
  EXPECT_EQ((kernel::RegisterTile<T, Arch, 5, 2>::rows), 5);
  EXPECT_EQ((kernel::RegisterTile<T, Arch, 5, 2>::registers), 2);
  constexpr bool many = Arch::registers >= 32;
  EXPECT_LE(kernel::tile_rows * registers + registers + 1, many ? 32 : 16);
}

TYPED_TEST(PairTileTest, PairsOfBf16MultiplyExactlyInEverySize) {
  if constexpr (TypeParam::has_bf16_dot) {
    for_each_size([](auto rows, auto registers) {
      for (const Guard guard : {Guard::before, Guard::after})
        for (const std::ptrdiff_t steps : {0, 1, 2, 17})
          expect_product<TypeParam, kernel::Bf16Pair, rows, registers>(steps, guard);
    });
  } else {
    GTEST_SKIP() << TypeParam::name << " has no bf16 products";
  }
}

TYPED_TEST(PairTileTest, ElementsHoldTheDepthTheySay) {
  using Element = kernel::element_t<pare::bf16, TypeParam>;
  EXPECT_EQ((std::is_same_v<Element, kernel::Bf16Pair>), TypeParam::has_bf16_dot);
  EXPECT_TRUE((std::is_same_v<kernel::element_t<pare::f16, TypeParam>, float>));
  EXPECT_TRUE((std::is_same_v<kernel::element_t<double, TypeParam>, double>));
  for (std::ptrdiff_t depth = 0; depth < 9; ++depth) {
    EXPECT_EQ(kernel::steps_of<float>(depth), depth);
    EXPECT_EQ(kernel::steps_of<double>(depth), depth);
    EXPECT_EQ(kernel::steps_of<kernel::Bf16Pair>(depth), depth / 2 + depth % 2);
  }
}

}  // namespace
