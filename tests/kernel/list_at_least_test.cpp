// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/list_at_least.hpp>
#include <pare/kernel/mean_of_listed.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_list_at_least_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct ListAtLeastTest : testing::Test {};
TYPED_TEST_SUITE(ListAtLeastTest, pare::testing::ArchsAndScalars);

/// Whole numbers of 0 to `most`.
std::ptrdiff_t value_at(std::ptrdiff_t i, std::ptrdiff_t most) { return i * 7919 % (most + 1); }

template <class P>
void expect_places(std::ptrdiff_t count, std::ptrdiff_t most, Guard guard) {
  using T = typename P::scalar;
  GuardedArray<T> values(count, guard), added(count, guard);
  GuardedArray<std::int32_t> places(count + 16, guard);
  std::vector<std::int32_t> wanted;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    added[i] = static_cast<T>(i % 3);
    values[i] = static_cast<T>(value_at(i, most)) - added[i];
    if (i == 70) values[i] = static_cast<T>(std::nan(""));
    if (i == 71) added[i] = static_cast<T>(-INFINITY);
    if (i != 71 && (i == 70 || value_at(i, most) >= 5))
      wanted.push_back(static_cast<std::int32_t>(100 + i));
  }
  std::ptrdiff_t listed = -1;
  launch(pare::simd_for<typename P::arch>{},
         kernel::ListAtLeast<T>{values.data(), added.data(), count, T(5), 100, places.data(),
                                &listed});
  ASSERT_EQ(listed, static_cast<std::ptrdiff_t>(wanted.size())) << count;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    ASSERT_EQ(places[static_cast<std::ptrdiff_t>(i)], wanted[i]) << count << ' ' << i;
  EXPECT_TRUE(places.surroundings_untouched());
}

TYPED_TEST(ListAtLeastTest, ListsThePlacesOfSumsThatAreNotBelow) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t count : {0, 1, 15, 16, 31, 64, 65, 127, 128, 200, 1001})
      for (const std::ptrdiff_t most : {4, 5, 6, 30, 5000}) {
        expect_places<TypeParam>(count, most, guard);
        if (testing::Test::HasFatalFailure()) return;
      }
}

TYPED_TEST(ListAtLeastTest, MeansAndDistancesOfListedRows) {
  using T = typename TypeParam::scalar;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : {1, 3, 16, 17, 33, 64})
      for (const std::ptrdiff_t count : {1, 2, 4, 16}) {
        const std::ptrdiff_t rows = 40, stride = columns + 3;
        GuardedArray<T> table((rows - 1) * stride + columns, guard), mean(columns, guard);
        GuardedArray<std::int32_t> ids(count, guard);
        GuardedArray<double> sums(columns, guard);
        for (std::ptrdiff_t i = 0; i < rows; ++i)
          for (std::ptrdiff_t c = 0; c < columns; ++c)
            table[i * stride + c] = static_cast<T>(value_at(i * 31 + c, 16));
        for (std::ptrdiff_t i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(i * 17 % 40);
        double distance = -1;
        launch(pare::simd_for<typename TypeParam::arch>{},
               kernel::MeanOfListed<T>{table.data(), stride, ids.data(), count, columns,
                                       sums.data(), mean.data(), &distance});
        // Counts are powers of 2: means and squares are exact.
        double wanted = 0;
        for (std::ptrdiff_t c = 0; c < columns; ++c) {
          double sum = 0, squares = 0;
          for (std::ptrdiff_t i = 0; i < count; ++i) {
            const auto x = static_cast<double>(value_at(i * 17 % 40 * 31 + c, 16));
            sum += x;
            squares += x * x;
          }
          const double middle = sum / static_cast<double>(count);
          ASSERT_EQ(static_cast<double>(mean[c]), middle) << columns << ' ' << count;
          wanted += squares - sum * middle;
        }
        ASSERT_EQ(distance, wanted) << columns << ' ' << count;
        EXPECT_TRUE(mean.surroundings_untouched() && sums.surroundings_untouched());
      }
}

}  // namespace
}  // namespace kernel_list_at_least_test
