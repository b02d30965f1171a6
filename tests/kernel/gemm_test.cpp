// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include <pare/kernel/gemm.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_gemm_test {
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

/// f(rows, registers) for each size that the full tile of an arch is cut into.
template <class Arch, class F>
void for_each_size(const F& f) {
  for (int rows = 1; rows <= kernel::tile_rows; ++rows)
    for (int registers = 1; registers <= kernel::tile_registers<Arch>; ++registers)
      f(rows, registers);
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

/// C = start + A B with rows of A and C apart by more than they hold; nothing else is read or
/// written, and a start of zero reads no C.
template <class Arch, class E>
void expect_product(int rows, int registers, std::ptrdiff_t steps, kernel::TileStart start,
                    Guard guard) {
  using T = typename kernel::product<E>::sum;
  constexpr std::ptrdiff_t per_step = kernel::product<E>::depth;
  const std::ptrdiff_t columns = registers * kernel::lanes<T, Arch>;
  const std::ptrdiff_t a_stride = steps + 3, c_stride = columns + 5;
  const bool zero = start == kernel::TileStart::Zero, scaled = start == kernel::TileStart::Scaled;
  GuardedArray<E> a((rows - 1) * a_stride + steps, guard), b(steps * columns, guard);
  GuardedArray<T> c((rows - 1) * c_stride + columns, guard), scale(rows, guard);
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    scale[r] = static_cast<T>(r) / 2 - 1;
    for (std::ptrdiff_t s = 0; s < steps; ++s)
      a[r * a_stride + s] = element_of<E>(left_at(r, s * per_step), left_at(r, s * per_step + 1));
    for (std::ptrdiff_t j = 0; j < columns; ++j)
      c[r * c_stride + j] =
          zero ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(start_at(r, j));
  }
  for (std::ptrdiff_t s = 0; s < steps; ++s)
    for (std::ptrdiff_t j = 0; j < columns; ++j)
      b[s * columns + j] = element_of<E>(right_at(s * per_step, j), right_at(s * per_step + 1, j));

  kernel::multiply_tile<Arch, E>(rows, registers,
                                 {.a = a.data(),
                                  .a_stride = a_stride,
                                  .b = b.data(),
                                  .steps = steps,
                                  .c = c.data(),
                                  .c_stride = c_stride,
                                  .start = start,
                                  .scale = scaled ? scale.data() : nullptr});
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t j = 0; j < c_stride && r * c_stride + j < c.size(); ++j) {
      if (j >= columns) {
        ASSERT_TRUE(c.untouched(r * c_stride + j)) << "row " << r << " place " << j;
        continue;
      }
      double wanted = zero ? 0 : start_at(r, j);
      if (scaled) wanted *= static_cast<double>(r) / 2 - 1;
      for (std::ptrdiff_t d = 0; d < steps * per_step; ++d)
        wanted += left_at(r, d) * right_at(d, j);
      ASSERT_EQ(static_cast<double>(c[r * c_stride + j]), wanted)
          << rows << "x" << registers << " steps " << steps << " at " << r << ' ' << j;
    }
  ASSERT_TRUE(c.surroundings_untouched());
}

template <class Arch, class E>
void expect_products(std::initializer_list<std::ptrdiff_t> depths) {
  for_each_size<Arch>([&](int rows, int registers) {
    for (const auto start :
         {kernel::TileStart::Zero, kernel::TileStart::Sum, kernel::TileStart::Scaled})
      for (const Guard guard : {Guard::before, Guard::after})
        for (const std::ptrdiff_t steps : depths)
          expect_product<Arch, E>(rows, registers, steps, start, guard);
  });
}

TYPED_TEST(RegisterTileTest, MultipliesExactlyFromEveryStartInEverySize) {
  expect_products<typename TypeParam::arch, typename TypeParam::scalar>({0, 1, 2, 3, 8, 33});
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
    expect_products<TypeParam, kernel::Bf16Pair>({0, 1, 2, 17});
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
}  // namespace kernel_gemm_test
