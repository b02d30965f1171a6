// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/block_weights.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_block_weights_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct BlockWeightsTest : testing::Test {};
TYPED_TEST_SUITE(BlockWeightsTest, pare::testing::ArchsAndScalars);

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

/// Cells of some rows; each is empty until it is set.
template <class T>
struct Cells {
  std::ptrdiff_t rows, stride;
  GuardedArray<T> maximum, sum, mass, top;

  Cells(std::ptrdiff_t row_count, std::ptrdiff_t cells)
      : rows(row_count),
        stride(kernel::padded_columns<T>(cells)),
        maximum(rows * stride),
        sum(rows * stride),
        mass(stride),
        top(stride) {
    for (T& x : maximum) x = -infinity<T>;
    for (T& x : sum) x = 0;
    for (T& x : mass) x = 0;
    for (T& x : top) x = -infinity<T>;
  }
  void set(std::ptrdiff_t row, std::ptrdiff_t cell, double largest, double total) {
    maximum[row * stride + cell] = static_cast<T>(largest);
    sum[row * stride + cell] = static_cast<T>(total);
  }
  template <class Arch>
  void run() {
    launch(pare::simd_for<Arch>{}, kernel::BlockWeights<T>{maximum.data(), sum.data(), rows, stride,
                                                           mass.data(), top.data()});
  }
};

TYPED_TEST(BlockWeightsTest, MassAndLargestWeightOfEachCell) {
  using T = typename TypeParam::scalar;
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> score(-5, 5), terms(1, 100);
  for (const std::ptrdiff_t cells : {1, 5, 16, 40}) {
    Cells<T> x(4, cells);
    std::vector<double> mass(static_cast<std::size_t>(cells), 0.0), top(mass.size(), 0.0);
    for (std::ptrdiff_t r = 0; r < 4; ++r) {
      double total = 0;
      for (std::ptrdiff_t c = 0; c <= std::min<std::ptrdiff_t>(cells - 1, 10 * r); ++c) {
        x.set(r, c, score(random), terms(random));
        total += static_cast<double>(x.sum[r * x.stride + c]) *
                 std::exp(static_cast<double>(x.maximum[r * x.stride + c]));
      }
      for (std::ptrdiff_t c = 0; c < cells; ++c) {
        const double weight = std::exp(static_cast<double>(x.maximum[r * x.stride + c])) / total;
        const auto at = static_cast<std::size_t>(c);
        mass[at] += static_cast<double>(x.sum[r * x.stride + c]) * weight;
        top[at] = std::max(top[at], weight);
      }
    }
    x.template run<typename TypeParam::arch>();
    // Exponents of at most 15 are off by 30 roundings, the exponential by 4, sums of 40 by 40.
    const double relative = 80 * pare::testing::Tolerance<T>::unit_roundoff;
    for (std::ptrdiff_t c = 0; c < cells; ++c) {
      const auto at = static_cast<std::size_t>(c);
      EXPECT_TRUE(within(x.mass[c], mass[at], relative * mass[at])) << cells << ' ' << c;
      EXPECT_TRUE(within(std::exp(static_cast<double>(x.top[c])), top[at], relative * top[at]))
          << cells << ' ' << c;
    }
    for (std::ptrdiff_t c = cells; c < x.stride; ++c) {
      EXPECT_EQ(x.mass[c], T(0));
      EXPECT_EQ(x.top[c], -infinity<T>);
    }
  }
}

TYPED_TEST(BlockWeightsTest, AddsToWhatIsThere) {
  using T = typename TypeParam::scalar;
  Cells<T> x(1, 2);
  x.set(0, 0, 1e4, 1);
  x.set(0, 1, 1e4, 3);
  x.mass[0] = 2;
  x.top[1] = -T(0.5);
  x.template run<typename TypeParam::arch>();
  const double relative = 8 * pare::testing::Tolerance<T>::unit_roundoff;
  EXPECT_TRUE(within(x.mass[0], 2.25, 3 * relative));
  EXPECT_TRUE(within(x.mass[1], 0.75, relative));
  EXPECT_TRUE(within(x.top[0], -std::log(4.0), 2 * relative));
  EXPECT_EQ(x.top[1], -T(0.5));
}

TYPED_TEST(BlockWeightsTest, EmptyRowsAddNothing) {
  using T = typename TypeParam::scalar;
  Cells<T> x(3, 20);
  x.template run<typename TypeParam::arch>();
  for (std::ptrdiff_t c = 0; c < x.stride; ++c) {
    EXPECT_EQ(x.mass[c], T(0));
    EXPECT_EQ(x.top[c], -infinity<T>);
  }
}

TYPED_TEST(BlockWeightsTest, ARowWithANaNSpoilsEveryMassAndNoTop) {
  using T = typename TypeParam::scalar;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double cases[][2] = {{nan, nan}, {1, nan}, {static_cast<double>(infinity<T>), nan}};
  for (const auto& bad : cases)
    for (const std::ptrdiff_t others : {0, 4}) {
      Cells<T> x(2, 20);
      x.set(0, 3, 0, 1);
      x.set(1, 7, bad[0], bad[1]);
      for (std::ptrdiff_t c = 0; c < others; ++c) x.set(1, c, 2, 5);
      x.template run<typename TypeParam::arch>();
      for (std::ptrdiff_t c = 0; c < x.stride; ++c) {
        EXPECT_TRUE(std::isnan(x.mass[c]));
        EXPECT_EQ(x.top[c], c == 3 ? T(0) : -infinity<T>) << c;
      }
    }
}

}  // namespace
}  // namespace kernel_block_weights_test
