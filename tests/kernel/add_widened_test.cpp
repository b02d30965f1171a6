// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstddef>

#include <pare/core/backend.hpp>
#include <pare/kernel/add_widened.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_add_widened_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct AddWidenedTest : testing::Test {};
TYPED_TEST_SUITE(AddWidenedTest, pare::testing::ArchsAndScalars);

TYPED_TEST(AddWidenedTest, AddsInDouble) {
  using T = typename TypeParam::scalar;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t rows : {1, 3})
      for (const std::ptrdiff_t columns : {1, 7, 16, 31, 64, 100}) {
        const std::ptrdiff_t stride = columns + 3, sums_stride = columns + 2;
        GuardedArray<T> x((rows - 1) * stride + columns, guard);
        GuardedArray<double> sums((rows - 1) * sums_stride + columns, guard);
        const auto start = [](std::ptrdiff_t i, std::ptrdiff_t j) {
          return static_cast<double>(i + j) + 0x1p-40;  // lost in a float sum
        };
        for (std::ptrdiff_t i = 0; i < rows; ++i)
          for (std::ptrdiff_t j = 0; j < columns; ++j) {
            x[i * stride + j] = static_cast<T>(3 * i - 5 * j);
            sums[i * sums_stride + j] = start(i, j);
          }
        launch(pare::simd_for<typename TypeParam::arch>{},
               kernel::AddWidened<T>{x.data(), stride, rows, columns, sums.data(), sums_stride});
        for (std::ptrdiff_t i = 0; i < rows; ++i)
          for (std::ptrdiff_t j = 0; j < columns; ++j)
            ASSERT_EQ(sums[i * sums_stride + j], start(i, j) + static_cast<double>(3 * i - 5 * j))
                << rows << ' ' << columns << ' ' << i << ' ' << j;
        if (rows > 1) {
          EXPECT_TRUE(sums.untouched(columns)) << "what lies between rows";
        }
        EXPECT_TRUE(sums.surroundings_untouched());
      }
}

}  // namespace
}  // namespace kernel_add_widened_test
