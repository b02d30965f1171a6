// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/score_tile.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_score_tile_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;
using Size = std::ptrdiff_t;

template <class Case>
struct ScoreTileTest : testing::Test {};
TYPED_TEST_SUITE(ScoreTileTest, pare::testing::ArchsAndStorages);

template <class Case>
struct TileStatsTest : testing::Test {};
TYPED_TEST_SUITE(TileStatsTest, pare::testing::ArchsAndScalars);

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

/// Whole numbers from -3 to 3, whose products any scalar adds up exactly.
template <class S>
std::vector<S> whole_numbers(Size size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<S> values(static_cast<std::size_t>(size));
  for (S& x : values) x = S(static_cast<pare::compute_t<S>>(static_cast<int>(random() % 7) - 3));
  return values;
}

template <class S>
std::vector<const S*> rows_of(const std::vector<S>& x, Size width) {
  std::vector<const S*> rows;
  for (Size i = 0; i < static_cast<Size>(x.size()) / width; ++i) rows.push_back(&x[0] + i * width);
  return rows;
}

template <class Arch, class S>
void expect_products(Size rows, Size count, Size depth) {
  using T = pare::compute_t<S>;
  constexpr pare::simd_for<Arch> backend{};
  const auto q = whole_numbers<S>(rows * depth, 1), k = whole_numbers<S>(count * depth, 2);
  const auto q_rows = rows_of(q, depth), k_rows = rows_of(k, depth);
  GuardedArray<T> queries(rows * depth), keys(depth * kernel::tile_keys),
      scores(rows * kernel::tile_keys);
  launch(backend, kernel::PackLeft<S>{q_rows.data(), rows, depth, queries.data()});
  launch(backend, kernel::PackTransposed<S>{k_rows.data(), count, depth, keys.data()});
  const auto run = [&](T scale, bool add) {
    launch(backend, kernel::ScoreTile<S>{queries.data(), keys.data(), rows, count, depth, scale,
                                         add, scores.data()});
  };
  run(T(2), false);
  run(T(0.5), true);
  for (Size r = 0; r < rows; ++r)
    for (Size j = 0; j < count; ++j) {
      double product = 0;
      for (Size d = 0; d < depth; ++d)
        product += static_cast<double>(static_cast<T>(q_rows[static_cast<std::size_t>(r)][d])) *
                   static_cast<double>(static_cast<T>(k_rows[static_cast<std::size_t>(j)][d]));
      ASSERT_EQ(static_cast<double>(scores[r * kernel::tile_keys + j]), 2.5 * product)
          << rows << " rows, " << count << " keys, " << depth << " deep: " << r << ", " << j;
    }
}

TYPED_TEST(ScoreTileTest, ScalesAndAddsProductsExactly) {
  for (const Size rows : {1, 2, 5, 6, 7, 13})
    for (const Size count : {1, 3, 17, 64, 65, 128})
      for (const Size depth : {1, 2, 7, 16, 33})
        expect_products<typename TypeParam::arch, typename TypeParam::scalar>(rows, count, depth);
}

/// Rows of scores with limits from 0 to `count`.
template <class T>
struct Scores {
  Size rows = 9, count;
  GuardedArray<T> values{rows * kernel::tile_keys};
  std::vector<std::int32_t> limits;

  explicit Scores(Size columns) : count(columns) {
    std::mt19937_64 random(3);
    for (T& x : values) x = static_cast<T>(static_cast<double>(random()) * 0x1p-60 - 8);
    for (Size r = 0; r < rows; ++r)
      limits.push_back(static_cast<std::int32_t>(r * count / (rows - 1)));
  }
  long double at(Size r, Size j) const {
    return static_cast<long double>(values[r * kernel::tile_keys + j]);
  }
};

/// e^x by 2^(x log2 e): the product and the difference from the shift, each of at most 16 log2 e,
/// and the power's 3 u; then the sum.
template <class T>
double weight_error(Size terms) {
  return std::expm1(Tolerance<T>::gamma(4) * 32 +
                    Tolerance<T>::gamma(static_cast<double>(terms) + 4));
}

TYPED_TEST(TileStatsTest, MaximumAndSumOfWhatTheLimitLeaves) {
  using T = typename TypeParam::scalar;
  for (const Size count : {1, 5, 31, 128}) {
    Scores<T> x(count);
    const Scores<T> before(count);
    constexpr Size stride = 3;
    std::vector<T> maximum(static_cast<std::size_t>(x.rows * stride)), sum(maximum.size());
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::TileStats<T>{x.values.data(), x.rows, count, x.limits.data(), maximum.data(),
                                sum.data(), stride});
    for (Size r = 0; r < x.rows; ++r) {
      const Size limit = x.limits[static_cast<std::size_t>(r)];
      long double highest = -infinity<long double>, total = 0;
      for (Size j = 0; j < limit; ++j) highest = std::max(highest, before.at(r, j));
      for (Size j = 0; j < limit; ++j) total += std::exp(before.at(r, j) - highest);
      const auto at = static_cast<std::size_t>(r * stride);
      ASSERT_EQ(static_cast<long double>(maximum[at]), highest) << count << " keys, row " << r;
      ASSERT_TRUE(within(static_cast<double>(sum[at]), static_cast<double>(total),
                         weight_error<T>(limit) * static_cast<double>(total)))
          << count << " keys, row " << r;
    }
  }
}

TYPED_TEST(TileStatsTest, NanShowsEvenBesideNothing) {
  using T = typename TypeParam::scalar;
  for (const T beside : {T(1), -infinity<T>}) {
    std::vector<T> scores(static_cast<std::size_t>(kernel::tile_keys), beside);
    scores[5] = std::numeric_limits<T>::quiet_NaN();
    T maximum = 0, sum = 0;
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::TileStats<T>{scores.data(), 1, 40, nullptr, &maximum, &sum, 1});
    EXPECT_TRUE(std::isnan(sum));
  }
}

TYPED_TEST(TileStatsTest, AddWeightsSumsColumnsOverRows) {
  using T = typename TypeParam::scalar;
  for (const Size count : {1, 5, 31, 128}) {
    Scores<T> x(count);
    const Scores<T> before(count);
    std::vector<T> lse(static_cast<std::size_t>(x.rows), T(8));
    lse[3] = -infinity<T>;
    GuardedArray<T> column(kernel::tile_keys);
    for (T& c : column) c = T(0.25);
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::AddWeights<T>{x.values.data(), x.rows, count, x.limits.data(), lse.data(),
                                 column.data()});
    for (Size j = 0; j < count; ++j) {
      long double total = 0.25L;
      for (Size r = 0; r < x.rows; ++r)
        if (j < x.limits[static_cast<std::size_t>(r)] && r != 3)
          total += std::exp(before.at(r, j) - 8);
      ASSERT_TRUE(within(static_cast<double>(column[j]), static_cast<double>(total),
                         weight_error<T>(x.rows) * static_cast<double>(total)))
          << count << " keys, column " << j;
    }
  }
}

// The product of 1e10 and log2 e is rounded by up to 512: more than an exponent may be off.
TYPED_TEST(TileStatsTest, ScoresOfAnySize) {
  using T = typename TypeParam::scalar;
  constexpr T most = std::numeric_limits<T>::max();
  for (const T size : {T(3e7), T(1e10), T(7e17), T(1e30), most / 2, most})
    for (const T sign : {T(1), T(-1)}) {
      std::vector<T> scores(static_cast<std::size_t>(kernel::tile_keys), sign * size);
      scores[3] = scores[64] = -infinity<T>;
      if (sign > 0) scores[7] = -size;
      const std::vector<T> before = scores;
      T maximum = 0, sum = 0;
      const pare::simd_for<typename TypeParam::arch> backend;
      launch(backend, kernel::TileStats<T>{scores.data(), 1, 100, nullptr, &maximum, &sum, 1});
      EXPECT_EQ(maximum, sign * size);
      // Near ones share the rounding of the shift.
      const double off = size < 2 / std::numeric_limits<T>::epsilon()
                             ? static_cast<double>(size * std::numeric_limits<T>::epsilon())
                             : 0;
      const double keys = sign > 0 ? 97 : 98;
      EXPECT_NEAR(static_cast<double>(sum), keys, keys * off);
      scores = before;
      std::vector<T> column(scores.size(), T(0));
      const T lse = sign * size;
      launch(backend, kernel::AddWeights<T>{scores.data(), 1, 100, nullptr, &lse, column.data()});
      for (std::size_t j = 0; j < 100; ++j)
        EXPECT_NEAR(static_cast<double>(column[j]), before[j] == lse ? 1 : 0, off)
            << size << ' ' << j;
    }
}

// -infinity is not told from what a register is padded with.
TYPED_TEST(TileStatsTest, ARowOfNothingButHiddenKeysHasNoMass) {
  using T = typename TypeParam::scalar;
  for (const Size count : {1, 5, 64, 128}) {
    std::vector<T> scores(static_cast<std::size_t>(kernel::tile_keys), -infinity<T>);
    T maximum = 1, sum = 1;
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::TileStats<T>{scores.data(), 1, count, nullptr, &maximum, &sum, 1});
    EXPECT_EQ(maximum, -infinity<T>);
    EXPECT_EQ(sum, T(0));
  }
}

template <class T>
struct Maximum {
  T maximum = -infinity<T>;
  Size key = -1;
};

/// Scores of few values, so that many are equal.
TYPED_TEST(TileStatsTest, MaximaAreTheFirstOfTheLargestOfAllTiles) {
  using T = typename TypeParam::scalar;
  std::mt19937_64 random(5);
  constexpr Size rows = 9;
  std::vector<Maximum<T>> wanted(rows);
  std::vector<T> maximum(rows, -infinity<T>);
  std::vector<Size> key(rows, -1);
  for (const Size count : {1, 5, 31, 128, 17, 64}) {
    GuardedArray<T> scores(rows * kernel::tile_keys);
    for (T& x : scores) x = static_cast<T>(static_cast<int>(random() % 9) - 4);
    if (count == 1) std::fill_n(&scores[0], rows * kernel::tile_keys, -infinity<T>);
    std::vector<std::int32_t> limits;
    for (Size r = 0; r < rows; ++r)
      limits.push_back(static_cast<std::int32_t>(r * count / (rows - 1)));
    const Size first = 1000 * count;
    for (Size r = 0; r < rows; ++r)
      for (Size j = 0; j < limits[static_cast<std::size_t>(r)]; ++j) {
        Maximum<T>& of = wanted[static_cast<std::size_t>(r)];
        const T score = scores[r * kernel::tile_keys + j];
        if (score > of.maximum) of = {score, first + j};
      }
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::TileMaxima<T>{scores.data(), rows, count, limits.data(), first, maximum.data(),
                                 key.data()});
    for (std::size_t r = 0; r < rows; ++r) {
      ASSERT_EQ(maximum[r], wanted[r].maximum) << count << " keys, row " << r;
      ASSERT_EQ(key[r], wanted[r].key) << count << " keys, row " << r;
    }
  }
}

/// A NaN anywhere that the row sees, be it before or behind a larger score; none behind its limit.
TYPED_TEST(TileStatsTest, ARowThatMetANaNHasNoMaximum) {
  using T = typename TypeParam::scalar;
  const pare::simd_for<typename TypeParam::arch> backend;
  for (const Size at : {0, 7, 8, 39, 40, 127}) {
    std::vector<T> scores(static_cast<std::size_t>(kernel::tile_keys), T(1));
    scores[20] = infinity<T>;
    scores[static_cast<std::size_t>(at)] = std::numeric_limits<T>::quiet_NaN();
    T maximum = -infinity<T>;
    Size key = -1;
    const std::int32_t limit = 40;
    launch(backend, kernel::TileMaxima<T>{scores.data(), 1, 128, &limit, 0, &maximum, &key});
    EXPECT_EQ(std::isnan(maximum), at < 40) << at;
    EXPECT_EQ(key, at < 40 ? -1 : 20) << at;
    std::fill(scores.begin(), scores.end(), infinity<T>);
    launch(backend, kernel::TileMaxima<T>{scores.data(), 1, 128, nullptr, 128, &maximum, &key});
    EXPECT_EQ(key, at < 40 ? -1 : 20) << "neither does a later score help";
  }
}

}  // namespace
}  // namespace kernel_score_tile_test
