// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/softmax_cells.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_softmax_cells_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct SoftmaxCellsTest : testing::Test {};
TYPED_TEST_SUITE(SoftmaxCellsTest, pare::testing::ArchsAndScalars);

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

/// Scores of keys and queries, and the cells of `size` keys that they are added to.
template <class T>
struct Scores {
  std::ptrdiff_t keys, queries, size, cells, stride;
  GuardedArray<T> scores, maximum, sum;

  Scores(std::ptrdiff_t key_count, std::ptrdiff_t query_count, std::ptrdiff_t cell_size)
      : keys(key_count),
        queries(query_count),
        size(cell_size),
        cells((key_count - 1) / cell_size + 1),
        stride(kernel::padded_columns<T>(query_count)),
        scores(keys * stride),
        maximum(cells * stride),
        sum(cells * stride) {
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> score(-6, 6);
    for (T& x : scores) x = static_cast<T>(score(random));
    for (T& x : maximum) x = kernel::empty_cell<T>;
    for (T& x : sum) x = 0;
  }
  T& at(std::ptrdiff_t key, std::ptrdiff_t query) { return scores[key * stride + query]; }
  T share(std::ptrdiff_t cell, std::ptrdiff_t query) const { return sum[cell * stride + query]; }

  /// Adds keys `step` at a time.
  template <class Arch>
  void run(std::ptrdiff_t step) {
    const pare::simd_for<Arch> backend{};
    for (std::ptrdiff_t first = 0; first < keys; first += step)
      launch(backend, kernel::AddToCells<T>{scores.data() + first * stride, stride,
                                            std::min(step, keys - first), queries, first, size,
                                            maximum.data(), sum.data(), stride});
    launch(backend, kernel::CellShares<T>{maximum.data(), sum.data(), cells, queries, stride});
  }

  /// The shares of a query by the definition, [cells].
  std::vector<double> wanted(std::ptrdiff_t query) const {
    std::vector<double> own(static_cast<std::size_t>(cells), 0.0);
    double total = 0;
    for (std::ptrdiff_t j = 0; j < keys; ++j) {
      const double e = std::exp(static_cast<double>(scores[j * stride + query]));
      total += e;
      own[static_cast<std::size_t>(j / size)] += e;
    }
    for (double& x : own) x /= total;
    return own;
  }
  void expect_shares(std::ptrdiff_t query, double relative) const {
    const std::vector<double> shares = wanted(query);
    for (std::ptrdiff_t c = 0; c < cells; ++c) {
      const double share_of_cell = shares[static_cast<std::size_t>(c)];
      EXPECT_TRUE(within(share(c, query), share_of_cell, relative * share_of_cell))
          << queries << ' ' << size << ' ' << c << ' ' << query;
    }
  }
};

/// Exponents of at most 12 are off by 24 roundings, exponentials by 4 and twice, sums by one for
/// each term; a cell is scaled anew for each of up to 10 runs of keys.
template <class T>
double relative_bound(std::ptrdiff_t keys) {
  return pare::testing::Tolerance<T>::gamma(static_cast<double>(keys) + 10 * 32);
}

TYPED_TEST(SoftmaxCellsTest, SharesOfTheSoftmaxHoweverKeysArrive) {
  using T = typename TypeParam::scalar;
  for (const std::ptrdiff_t queries : {1, 8, 17, 64})
    for (const std::ptrdiff_t size : {1, 5, 16, 100})
      for (const std::ptrdiff_t step : {10, 48, 97}) {
        Scores<T> x(97, queries, size);
        x.template run<typename TypeParam::arch>(step);
        for (std::ptrdiff_t q = 0; q < queries; ++q) x.expect_shares(q, relative_bound<T>(97));
      }
}

TYPED_TEST(SoftmaxCellsTest, HiddenKeysAddNothing) {
  using T = typename TypeParam::scalar;
  Scores<T> x(40, 6, 8);
  for (std::ptrdiff_t j = 0; j < 40; ++j) {
    for (std::ptrdiff_t q = 0; q < 3; ++q) x.at(j, q) = -infinity<T>;
    if (j < 20) x.at(j, 3) = -infinity<T>;
    if (j >= 20) x.at(j, 4) = -infinity<T>;
  }
  x.template run<typename TypeParam::arch>(16);
  for (std::ptrdiff_t c = 0; c < 5; ++c)
    for (std::ptrdiff_t q = 0; q < 3; ++q) EXPECT_EQ(x.share(c, q), T(0));
  for (std::ptrdiff_t q = 3; q < 6; ++q) x.expect_shares(q, relative_bound<T>(40));
  EXPECT_EQ(x.share(0, 3), T(0));
  EXPECT_EQ(x.share(4, 4), T(0));
}

TYPED_TEST(SoftmaxCellsTest, ANanSpoilsItsQueryAlone) {
  using T = typename TypeParam::scalar;
  for (const T bad : {std::numeric_limits<T>::quiet_NaN(), infinity<T>})
    for (const bool beside_nothing : {false, true})
      for (const std::ptrdiff_t key : {0, 21, 39}) {
        Scores<T> x(40, 20, 8);
        if (beside_nothing)
          for (std::ptrdiff_t j = 0; j < 40; ++j) x.at(j, 5) = -infinity<T>;
        x.at(key, 5) = bad;
        x.template run<typename TypeParam::arch>(16);
        for (std::ptrdiff_t c = 0; c < 5; ++c)
          for (std::ptrdiff_t q = 0; q < 20; ++q) EXPECT_EQ(std::isnan(x.share(c, q)), q == 5);
      }
}

TYPED_TEST(SoftmaxCellsTest, ScoresOfAnySize) {
  using T = typename TypeParam::scalar;
  const T most = std::numeric_limits<T>::max();
  Scores<T> x(4, 3, 2);
  const T scores[3][4] = {
      {-most, most, 0, 1}, {-most, -most, -most, -most}, {1e6, 1e6 + 1, 1e6, 0}};
  for (std::ptrdiff_t q = 0; q < 3; ++q)
    for (std::ptrdiff_t j = 0; j < 4; ++j) x.at(j, q) = scores[q][j];
  x.template run<typename TypeParam::arch>(3);
  EXPECT_EQ(x.share(0, 0), T(1));
  EXPECT_EQ(x.share(1, 0), T(0));
  EXPECT_EQ(x.share(0, 1), T(0.5));
  EXPECT_EQ(x.share(1, 1), T(0.5));
  const double e = std::exp(1.0);
  EXPECT_TRUE(within(x.share(0, 2), (1 + e) / (2 + e), relative_bound<T>(4)));
}

}  // namespace
}  // namespace kernel_softmax_cells_test
