// SPDX-License-Identifier: Apache-2.0
// Means of bags of rows that lie anywhere, against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/mean_bags.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_mean_bags_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct MeanBagsTest : testing::Test {};
TYPED_TEST_SUITE(MeanBagsTest, pare::testing::ArchsAndStorages);

/// Numbers in [-1, 1] that no scalar holds exactly.
double value_at(std::ptrdiff_t i, std::ptrdiff_t j) {
  return static_cast<double>((i * 31 + j * 17) % 101 - 50) / 50;
}

/// A table whose last row ends at a page, and bags of its rows: of none at both ends and between,
/// of one, and of more than are fetched ahead.
template <class S>
struct Bags {
  using T = pare::compute_t<S>;
  static constexpr std::ptrdiff_t slots = 7, gap = 3, bags = 7, places = 46;

  Bags(std::ptrdiff_t width, Guard guard)
      : columns(width),
        stride(width + gap),
        table((slots - 1) * stride + width, guard),
        ids(places, guard),
        offsets(bags + 1, guard),
        out((bags - 1) * stride + width, guard) {
    for (std::ptrdiff_t i = 0; i < table.size(); ++i)
      table[i] = static_cast<S>(static_cast<T>(value_at(i / stride, i % stride)));
    for (std::ptrdiff_t p = 0; p < places; ++p) ids[p] = (p * p + 6) % slots;
    const std::ptrdiff_t at[] = {0, 0, 1, 4, 4, 44, 46, 46};
    for (std::ptrdiff_t i = 0; i <= bags; ++i) offsets[i] = at[i];
  }
  template <class Arch>
  void run() {
    launch(pare::simd_for<Arch>{},
           kernel::MeanBags<S>{table.data(), stride, ids.data(), places, offsets.data(), bags,
                               out.data(), stride, columns});
  }
  double at(std::ptrdiff_t place, std::ptrdiff_t j) const {
    return static_cast<double>(static_cast<T>(table[ids[place] * stride + j]));
  }

  std::ptrdiff_t columns, stride;
  GuardedArray<S> table;
  GuardedArray<std::ptrdiff_t> ids, offsets;
  GuardedArray<T> out;
};

template <class Case>
void expect_means(std::ptrdiff_t columns, Guard guard) {
  using S = typename Case::scalar;
  using T = pare::compute_t<S>;
  Bags<S> b(columns, guard);
  b.template run<typename Case::arch>();
  for (std::ptrdiff_t i = 0; i < b.bags; ++i)
    for (std::ptrdiff_t j = 0; j < columns; ++j) {
      double sum = 0, magnitude = 0;
      const auto n = static_cast<double>(b.offsets[i + 1] - b.offsets[i]);
      for (std::ptrdiff_t p = b.offsets[i]; p < b.offsets[i + 1]; ++p) {
        sum += b.at(p, j);
        magnitude += std::abs(b.at(p, j));
      }
      const double wanted = n > 0 ? sum / n : 0;
      // n - 1 sums, 1 / n and the product; of one there is none.
      const double bound = n > 1 ? Tolerance<T>::scaled_sum(n, magnitude / n) +
                                       Tolerance<double>::scaled_sum(n, magnitude / n)
                                 : 0;
      ASSERT_TRUE(within(static_cast<double>(b.out[i * b.stride + j]), wanted, bound))
          << columns << ' ' << i << ' ' << j;
    }
  EXPECT_TRUE(b.out.surroundings_untouched());
}

TYPED_TEST(MeanBagsTest, AreTheMeansOfPlainLoops) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : {1, 2, 7, 16, 33, 64, 71, 130, 200})
      expect_means<TypeParam>(columns, guard);
}

/// Without offsets each row is one of the table, -0 too; without ids, of the same place.
TYPED_TEST(MeanBagsTest, OfOnesAreRowsBitForBit) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Bags<S> b(71, Guard::after);
  b.table[2] = b.table[70] = static_cast<S>(T(-0.));
  for (const bool with_ids : {true, false}) {
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::MeanBags<S>{b.table.data(), b.stride, with_ids ? b.ids.data() : nullptr, 7,
                               nullptr, 7, b.out.data(), b.stride, 71});
    for (std::ptrdiff_t i = 0; i < 7; ++i)
      for (std::ptrdiff_t j = 0; j < 71; ++j)
        ASSERT_TRUE(same_bits(b.out[i * b.stride + j],
                              static_cast<T>(b.table[(with_ids ? b.ids[i] : i) * b.stride + j])))
            << i << ' ' << j;
  }
}

TYPED_TEST(MeanBagsTest, NaNStaysInItsBagsAndColumn) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Bags<S> b(71, Guard::after);
  for (std::ptrdiff_t p = 0; p < b.places; ++p) b.ids[p] = p == 2 || p == 45 ? 3 : 1;
  b.table[3 * b.stride + 6] = b.table[3 * b.stride + 70] =
      static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  b.template run<typename TypeParam::arch>();
  for (std::ptrdiff_t i = 0; i < b.bags; ++i)
    for (std::ptrdiff_t j = 0; j < 71; ++j)
      EXPECT_EQ(std::isnan(b.out[i * b.stride + j]), (i == 2 || i == 5) && (j == 6 || j == 70))
          << i << ' ' << j;
}

}  // namespace
}  // namespace kernel_mean_bags_test
