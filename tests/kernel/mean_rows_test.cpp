// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/mean_rows.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_mean_rows_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct MeanRowsTest : testing::Test {};
TYPED_TEST_SUITE(MeanRowsTest, pare::testing::ArchsAndStorages);

/// Heads of three tokens, the last head ending at a page that may not be touched.
template <class S>
struct Tokens {
  static constexpr std::ptrdiff_t tokens = 3;
  std::ptrdiff_t heads, columns;
  GuardedArray<S> list;

  Tokens(std::ptrdiff_t head_count, std::ptrdiff_t column_count, Guard guard)
      : heads(head_count), columns(column_count), list(heads * tokens * columns, guard) {
    for (std::ptrdiff_t i = 0; i < list.size(); ++i)
      list[i] = static_cast<S>(static_cast<pare::compute_t<S>>(i * 37 % 101 - 50));
  }
  S* at(std::ptrdiff_t head, std::ptrdiff_t token) {
    return list.data() + (head * tokens + token) * columns;
  }
};

TYPED_TEST(MeanRowsTest, IsTheMeanOfEachColumn) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t heads : {1, 2, 7})
      for (const std::ptrdiff_t columns : {1, 3, 16, 33, 64, 128, 200}) {
        Tokens<S> x(heads, columns, guard);
        const std::ptrdiff_t order[] = {2, 0};
        const std::vector<const S*> rows{x.at(0, order[0]), x.at(0, order[1])};
        GuardedArray<T> mean(2 * columns, guard);
        launch(pare::simd_for<typename TypeParam::arch>{},
               kernel::MeanRows<S>{rows.data(), 2, heads, x.at(1, 0) - x.at(0, 0), columns,
                                   mean.data()});
        for (std::ptrdiff_t r = 0; r < 2; ++r)
          for (std::ptrdiff_t c = 0; c < columns; ++c) {
            double sum = 0, magnitude = 0;
            for (std::ptrdiff_t h = 0; h < heads; ++h) {
              const auto value = static_cast<double>(static_cast<T>(x.at(h, order[r])[c]));
              sum += value;
              magnitude += std::abs(value);
            }
            const auto n = static_cast<double>(heads);
            ASSERT_TRUE(
                within(mean[r * columns + c], sum / n, Tolerance<T>::scaled_sum(n, magnitude / n)))
                << heads << ' ' << columns << ' ' << r << ' ' << c;
          }
        EXPECT_TRUE(mean.surroundings_untouched());
      }
}

TYPED_TEST(MeanRowsTest, HeadsMayLieInAnyOrder) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Tokens<S> x(2, 20, Guard::after);
  std::vector<T> up(20), down(20);
  const S *first = x.at(0, 1), *second = x.at(1, 1);
  const std::ptrdiff_t stride = second - first;
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::MeanRows<S>{&first, 1, 2, stride, 20, up.data()});
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::MeanRows<S>{&second, 1, 2, -stride, 20, down.data()});
  EXPECT_EQ(up, down);
}

TYPED_TEST(MeanRowsTest, NoRowsWriteNothing) {
  using S = typename TypeParam::scalar;
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::MeanRows<S>{nullptr, 0, 4, 10, 20, nullptr});
  GuardedArray<pare::compute_t<S>> mean(1);
  EXPECT_TRUE(mean.untouched(0));
}

}  // namespace
}  // namespace kernel_mean_rows_test
