// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstddef>
#include <limits>

#include <pare/core/backend.hpp>
#include <pare/kernel/symmetric_product.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_symmetric_product_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct SymmetricProductTest : testing::Test {};
TYPED_TEST_SUITE(SymmetricProductTest, pare::testing::ArchsAndScalars);

/// Small integers: sums of products are exact.
int element(std::ptrdiff_t i, std::ptrdiff_t j) {
  return static_cast<int>((i * 31 + j * 7 + i * j % 5) % 9) - 4;
}

/// Rows [begin, end) of a lower half from column `first` on, against plain loops.
template <class P>
void expect_product(std::ptrdiff_t first, std::ptrdiff_t begin, std::ptrdiff_t end, Guard guard) {
  using T = typename P::scalar;
  constexpr std::ptrdiff_t block = kernel::symmetric_block;
  const std::ptrdiff_t stride = end + 3;
  GuardedArray<T> s((end - 1) * stride + end, guard), x(end, guard), y(end, guard);
  for (std::ptrdiff_t i = 0; i < end; ++i) {
    x[i] = static_cast<T>(element(i, 5));
    y[i] = static_cast<T>(i);
    // Of what lies above the blocks of the diagonal, left of `first` and above `begin` nothing is
    // read.
    for (std::ptrdiff_t j = 0; j < end; ++j) {
      const bool is_read = i >= begin && j >= first && j / block <= i / block;
      s[i * stride + j] = is_read ? static_cast<T>(i >= j ? element(i, j) : element(j, i))
                                  : std::numeric_limits<T>::quiet_NaN();
    }
  }
  launch(pare::simd_for<typename P::arch>{},
         kernel::SymmetricProduct<T>{s.data(), stride, first, begin, end, x.data(), y.data()});
  for (std::ptrdiff_t i = 0; i < end; ++i) {
    int wanted = static_cast<int>(i);
    if (i >= begin)
      for (std::ptrdiff_t j = first; j <= i; ++j) wanted += element(i, j) * element(j, 5);
    if (i >= first)
      for (std::ptrdiff_t r = begin > i ? begin : i + 1; r < end; ++r)
        wanted += element(r, i) * element(r, 5);
    ASSERT_EQ(y[i], static_cast<T>(wanted)) << first << ' ' << begin << ' ' << end << ' ' << i;
  }
  EXPECT_TRUE(y.surroundings_untouched());
}

TYPED_TEST(SymmetricProductTest, EqualsPlainLoops) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t end : {16, 32, 80, 144})
      for (std::ptrdiff_t begin = 0; begin < end; begin += 48)
        for (std::ptrdiff_t first = 0; first <= begin; first += 16)
          expect_product<TypeParam>(first, begin, end, guard);
}

TYPED_TEST(SymmetricProductTest, NoRowsAddNothing) {
  using T = typename TypeParam::scalar;
  T y = 3;
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::SymmetricProduct<T>{nullptr, 0, 16, 16, 16, nullptr, &y});
  EXPECT_EQ(y, T(3));
}

}  // namespace
}  // namespace kernel_symmetric_product_test
