// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/core/gumbel.hpp>
#include <pare/kernel/reduce_logits.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_reduce_logits_test {
namespace {

namespace kernel = pare::kernel;
using pare::testing::GuardedArray;

template <class Case>
struct ReduceLogitsTest : testing::Test {};
TYPED_TEST_SUITE(ReduceLogitsTest, pare::testing::ArchsAndScalars);

template <class T>
struct Row {
  kernel::LogitState<T> state;
  std::vector<std::pair<T, std::int32_t>> best;  ///< in order
};

/// All logits of one row, panel by panel, beside those of a row of zeros.
template <class P>
Row<typename P::scalar> reduce(const std::vector<typename P::scalar>& z, std::ptrdiff_t k,
                               double temperature, const std::ptrdiff_t* position,
                               const std::vector<std::int32_t>& ids = {}) {
  using T = typename P::scalar;
  constexpr std::ptrdiff_t width = kernel::head_panel_outputs<T>;
  GuardedArray<T> tile(2 * width), top(2 * k);
  GuardedArray<std::int32_t> top_ids(2 * k);
  GuardedArray<kernel::LogitState<T>> states(2);
  std::fill(states.begin(), states.end(), kernel::LogitState<T>{});
  const std::ptrdiff_t positions[] = {position == nullptr ? 0 : *position, 77};
  const auto size = static_cast<std::ptrdiff_t>(z.size());
  for (std::ptrdiff_t first = 0; first < size; first += width) {
    const std::ptrdiff_t count = std::min(width, size - first);
    std::fill(tile.begin(), tile.end(), T(0));
    std::copy_n(z.begin() + first, count, tile.begin());
    kernel::ReduceLogits<T> a;
    a.logits = tile.data();
    a.rows = 2;
    a.count = count;
    a.first = static_cast<std::int32_t>(first);
    a.ids = ids.empty() ? nullptr : ids.data() + first;
    a.temperature = temperature;
    a.states = states.data();
    a.top = top.data();
    a.top_ids = top_ids.data();
    a.k = k;
    a.positions = position == nullptr ? nullptr : positions;
    a.seed = 9;
    launch(pare::simd_for<typename P::arch>{}, a);
  }
  Row<T> row{states[0], {}};
  for (std::ptrdiff_t i = 0; i < states[0].kept; ++i) row.best.emplace_back(top[i], top_ids[i]);
  std::sort(row.best.begin(), row.best.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  return row;
}

template <class T>
std::vector<T> numbers(std::size_t size, double spread, bool whole, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<T> z(size);
  for (T& x : z) {
    const double u = static_cast<double>(random() >> 11) * 0x1p-53 - 0.5;
    x = static_cast<T>(whole ? std::round(u * spread) : u * spread);
  }
  return z;
}

TYPED_TEST(ReduceLogitsTest, KeepsTheBestWithTies) {
  using T = typename TypeParam::scalar;
  for (const std::size_t size : {1u, 31u, 64u, 65u, 1000u})
    for (const std::ptrdiff_t k : {1, 2, 7, 64, 1000})
      for (const double spread : {3.0, 30.0, 1e4}) {
        const auto z = numbers<T>(size, spread, true, 5);
        std::vector<std::int32_t> order(size);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
          return z[static_cast<std::size_t>(a)] > z[static_cast<std::size_t>(b)];
        });
        const auto row = reduce<TypeParam>(z, k, 1, nullptr);
        ASSERT_EQ(row.best.size(), std::min(size, static_cast<std::size_t>(k)));
        for (std::size_t i = 0; i < row.best.size(); ++i) {
          ASSERT_EQ(row.best[i].second, order[i]) << size << " " << k << " " << spread;
          ASSERT_EQ(row.best[i].first, z[static_cast<std::size_t>(order[i])]);
        }
      }
}

TYPED_TEST(ReduceLogitsTest, KeepsNothingBelowAFloorAndWhatEqualsIt) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t width = kernel::head_panel_outputs<T>;
  // Of a spread of 0 all are the same, and none is above a floor of 0.
  for (const double spread : {0.0, 30.0})
    for (const std::ptrdiff_t k : {1, 4, 64})
      for (const T floor : {T(-100), T(0), T(7), T(15), T(100)}) {
        const auto z = numbers<T>(static_cast<std::size_t>(width), spread, true, 5);
        std::vector<std::int32_t> order;
        for (std::int32_t i = 0; i < width; ++i)
          if (z[static_cast<std::size_t>(i)] >= floor) order.push_back(i);
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
          return z[static_cast<std::size_t>(a)] > z[static_cast<std::size_t>(b)];
        });
        order.resize(std::min(order.size(), static_cast<std::size_t>(k)));
        std::sort(order.begin(), order.end());
        GuardedArray<T> tile(width), top(k);
        GuardedArray<std::int32_t> top_ids(k);
        kernel::LogitState<T> state;
        std::copy(z.begin(), z.end(), tile.begin());
        kernel::ReduceLogits<T> a;
        a.logits = tile.data();
        a.rows = 1;
        a.count = width;
        a.states = &state;
        a.top = top.data();
        a.top_ids = top_ids.data();
        a.k = k;
        a.floors = &floor;
        run_kernel(typename TypeParam::arch{}, a);
        std::vector<std::int32_t> got(top_ids.begin(), top_ids.begin() + state.kept);
        std::sort(got.begin(), got.end());
        EXPECT_EQ(got, order) << k << " from " << floor;
      }
}

TYPED_TEST(ReduceLogitsTest, SumsExponentials) {
  using T = typename TypeParam::scalar;
  for (const std::size_t size : {1u, 63u, 64u, 1000u, 5000u})
    for (const double temperature : {0.1, 1.0, 8.0})
      for (const double spread : {1.0, 30.0}) {
        auto z = numbers<T>(size, spread, false, 6);
        std::sort(z.begin(), z.end());  // the maximum moves with each panel
        long double wanted = 0;
        for (const T x : z)
          wanted += std::exp((static_cast<long double>(x) - z.back()) / temperature);
        const auto row = reduce<TypeParam>(z, 1, temperature, nullptr);
        ASSERT_EQ(row.state.maximum, z.back());
        // Arguments of up to spread / temperature are rounded, and so is each exponential.
        const double each = (spread / temperature + 8) * std::numeric_limits<T>::epsilon();
        ASSERT_NEAR(row.state.sum / static_cast<double>(wanted), 1, each);
      }
}

TYPED_TEST(ReduceLogitsTest, DrawsTheLargestNoisyLogit) {
  using T = typename TypeParam::scalar;
  const pare::GumbelNoise noise{9};
  for (const std::size_t size : {1u, 63u, 64u, 65u, 2000u})
    for (const double spread : {0.0, 4.0, 40.0, 4e3})
      for (const double temperature : {0.05, 1.0, 20.0})
        for (const bool mapped : {false, true})
          for (const std::ptrdiff_t position :
               {std::ptrdiff_t{0}, std::ptrdiff_t{3}, std::ptrdiff_t{1} << 40}) {
            const auto z = numbers<T>(size, spread, false, 7 + size);
            std::vector<std::int32_t> ids;
            for (std::size_t i = 0; mapped && i < size; ++i)
              ids.push_back(static_cast<std::int32_t>(3 * i + i % 2));
            double most = -std::numeric_limits<double>::infinity();
            std::int32_t best = -1;
            for (std::size_t i = 0; i < size; ++i) {
              const std::int32_t id = mapped ? ids[i] : static_cast<std::int32_t>(i);
              const double score = static_cast<double>(z[i]) / temperature +
                                   noise.at(position, static_cast<std::uint32_t>(id));
              if (score > most) most = score, best = id;
            }
            const auto row = reduce<TypeParam>(z, 1, temperature, &position, ids);
            ASSERT_EQ(row.state.drawn, best) << size << " " << spread << " " << temperature;
            ASSERT_EQ(row.state.best, most);
          }
}

// Steps of T are as large as noise, and quotients are rounded by as much.
TYPED_TEST(ReduceLogitsTest, DrawsOfFarLogitsAreTheLargestToo) {
  using T = typename TypeParam::scalar;
  const pare::GumbelNoise noise{9};
  const T far = std::is_same_v<T, float> ? T(3e6) : T(3e15);
  for (const T sign : {T(1), T(-1)}) {
    std::vector<T> z(100);
    for (std::size_t i = 0; i < z.size(); ++i)
      z[i] = sign * far + T(0.5) * static_cast<T>(i * 7 % 5);
    for (std::ptrdiff_t position = 0; position < 500; ++position) {
      double most = -std::numeric_limits<double>::infinity();
      std::int32_t best = -1;
      for (std::size_t i = 0; i < z.size(); ++i) {
        const double score =
            static_cast<double>(z[i]) / 0.7 + noise.at(position, static_cast<std::uint32_t>(i));
        if (score > most) most = score, best = static_cast<std::int32_t>(i);
      }
      ASSERT_EQ(reduce<TypeParam>(z, 1, 0.7, &position).state.drawn, best) << position;
    }
  }
}

TYPED_TEST(ReduceLogitsTest, DrawsFollowTheLaw) {
  using T = typename TypeParam::scalar;
  const std::vector<T> z{T(0), T(1), T(2), T(-1)};
  double sum = 0;
  for (const T x : z) sum += std::exp(static_cast<double>(x));
  const std::ptrdiff_t draws = 20000;
  double counts[4] = {};
  for (std::ptrdiff_t p = 0; p < draws; ++p) ++counts[reduce<TypeParam>(z, 1, 1, &p).state.drawn];
  double chi_square = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const double wanted = draws * std::exp(static_cast<double>(z[i])) / sum;
    chi_square += (counts[i] - wanted) * (counts[i] - wanted) / wanted;
  }
  EXPECT_LT(chi_square, 21.1);  // p = 1e-4 of 3 degrees of freedom
}

TYPED_TEST(ReduceLogitsTest, TellsNanAndInfinityAnywhere) {
  using T = typename TypeParam::scalar;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  for (const T bad : {std::numeric_limits<T>::quiet_NaN(), infinity})
    for (std::size_t at = 0; at < 200; at += 7)
      for (const T others : {T(1), -infinity}) {
        std::vector<T> z(200, others);
        z[at] = bad;
        EXPECT_FALSE(pare::is_finite(reduce<TypeParam>(z, 3, 1, nullptr).state.sum)) << at;
      }
  const auto none = reduce<TypeParam>(std::vector<T>(200, -infinity), 3, 1, nullptr);
  EXPECT_EQ(none.state.maximum, -infinity);
  EXPECT_EQ(none.state.sum, 0);
  std::vector<T> one(200, -infinity);
  one[150] = T(5);
  const std::ptrdiff_t position = 3;
  const auto sound = reduce<TypeParam>(one, 3, 1, &position);
  EXPECT_EQ(sound.state.sum, 1);
  EXPECT_EQ(sound.state.drawn, 150);
  EXPECT_EQ(sound.best[0].second, 150);
}

}  // namespace
}  // namespace kernel_reduce_logits_test
