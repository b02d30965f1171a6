// SPDX-License-Identifier: Apache-2.0
// The choice of product keys against full sorts, for every k.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/product_key_search.hpp>

#include "kernel/archs.hpp"

namespace kernel_product_key_search_test {
namespace {

namespace kernel = pare::kernel;

template <class Case>
struct ProductKeySearchTest : testing::Test {};
// Networks of each scalar take long to compile: tests/routing/memory_test.cpp has double on the
// best arch.
#if defined(PARE_TEST_EVERY_BACKEND)
using Cases = pare::testing::ArchsAndScalars;
#elif defined(__AVX512F__)
using Cases = testing::Types<pare::testing::ArchAndScalar<pare::arch::best, float>>;
#else
using Cases = testing::Types<pare::testing::ArchAndScalar<pare::arch::best, float>,
                             pare::testing::ArchAndScalar<pare::arch::scalar, double>>;
#endif
TYPED_TEST_SUITE(ProductKeySearchTest, Cases);

constexpr std::ptrdiff_t columns = 37, stride = 48, most_k = kernel::most_largest;

/// A NaN of either sign and any payload: integers of the same bits stand at either end, in any
/// order and far apart.
template <class T>
T nan_of(bool negative, std::ptrdiff_t payload) {
  using U = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const auto bits = std::bit_cast<U>(std::numeric_limits<T>::quiet_NaN());
  const U sign = negative ? U{1} << (8 * sizeof(U) - 1) : U{0};
  return std::bit_cast<T>(static_cast<U>(bits | sign | static_cast<U>(payload % 1021) << 11));
}

enum class Fill {
  near_equal,   ///< whole numbers up to 3, zeros of both signs
  apart,        ///< nearly all different
  one_nan,      ///< numbers, and a NaN at a place of each column's own
  two_nans,     ///< of two payloads; the sign differs by column
  few_numbers,  ///< up to 40 numbers, all else NaN of both signs
  infinite,     ///< infinities of both signs among numbers
  largest,      ///< sums that the scalar does not hold
};
constexpr Fill fills[] = {Fill::near_equal,  Fill::apart,    Fill::one_nan, Fill::two_nans,
                          Fill::few_numbers, Fill::infinite, Fill::largest};

template <class T>
T value_at(Fill fill, std::ptrdiff_t i, std::ptrdiff_t c, std::ptrdiff_t count) {
  const std::ptrdiff_t mixed = (i * 7919 + c * 104729 + i * i * 31) % 10007;
  const T small = static_cast<T>(mixed % 7 - 3);
  switch (fill) {
    case Fill::near_equal:
      return small == 0 && mixed % 2 == 1 ? -T(0) : small;
    case Fill::apart:
      return static_cast<T>(mixed - 5000);
    case Fill::one_nan:
      return i == c % count ? nan_of<T>(c % 2 == 1, 5) : small;
    case Fill::two_nans:
      if (i == c % count || i == (c * 5 + 3) % count) return nan_of<T>(c % 2 == 1, 900 - i);
      return static_cast<T>(mixed);
    case Fill::few_numbers:
      if (mixed % 10007 < (c + 1) * 400 / (count + 1)) return small;
      return nan_of<T>(c % 3 > 0 && (c % 3 == 1 || mixed % 2 == 1), mixed);
    case Fill::infinite:
      if (mixed % 3 != 0) return small;
      return (mixed % 2 == 0 ? T(1) : T(-1)) * std::numeric_limits<T>::infinity();
    case Fill::largest:
      return std::ldexp(small, std::numeric_limits<T>::max_exponent - 3 + 1);
  }
  return 0;
}

/// Larger first, of equal ones the lower id, NaN last.
struct Entry {
  double value;
  std::ptrdiff_t id;

  friend bool operator<(const Entry& a, const Entry& b) {
    const bool a_nan = std::isnan(a.value), b_nan = std::isnan(b.value);
    if (a_nan != b_nan) return b_nan;
    if (!a_nan && a.value != b.value) return a.value > b.value;
    return a.id < b.id;
  }
};

template <class T>
bool same_or_nan(T a, double b) {
  return static_cast<double>(a) == b || (std::isnan(a) && std::isnan(b));
}

template <class Case>
void expect_largest_of_columns(Fill fill, std::ptrdiff_t count, std::ptrdiff_t k) {
  using T = typename Case::scalar;
  std::vector<T> values(static_cast<std::size_t>(count * stride)),
      best(static_cast<std::size_t>(most_k * stride));
  std::vector<std::int32_t> places(best.size());
  for (std::ptrdiff_t i = 0; i < count; ++i)
    for (std::ptrdiff_t c = 0; c < stride; ++c)
      values[static_cast<std::size_t>(i * stride + c)] = value_at<T>(fill, i, c, count);
  launch(pare::simd_for<typename Case::arch>{},
         kernel::LargestOfColumns<T>{values.data(), count, stride, columns, k, best.data(),
                                     places.data()});
  std::vector<Entry> sorted(static_cast<std::size_t>(count));
  for (std::ptrdiff_t c = 0; c < columns; ++c) {
    for (std::ptrdiff_t i = 0; i < count; ++i)
      sorted[static_cast<std::size_t>(i)] = {
          static_cast<double>(values[static_cast<std::size_t>(i * stride + c)]), i};
    std::partial_sort(sorted.begin(), sorted.begin() + k, sorted.end());
    for (std::ptrdiff_t s = 0; s < k; ++s) {
      const Entry& wanted = sorted[static_cast<std::size_t>(s)];
      const auto at = static_cast<std::size_t>(s * stride + c);
      ASSERT_TRUE(places[at] == wanted.id && same_or_nan(best[at], wanted.value))
          << static_cast<int>(fill) << ": of " << count << ", " << k << ", column " << c
          << ", slot " << s << ": " << places[at] << " for " << wanted.id;
    }
  }
}

TYPED_TEST(ProductKeySearchTest, TakesTheLargestOfEachColumn) {
  for (const Fill fill : fills)
    for (std::ptrdiff_t k = 1; k <= most_k; ++k)
      for (const std::ptrdiff_t count : {k, k + 1, std::ptrdiff_t{71}, std::ptrdiff_t{300}})
        if (count < 300 || k % 5 == 1) expect_largest_of_columns<TypeParam>(fill, count, k);
}

TYPED_TEST(ProductKeySearchTest, TakesTheLargestOfAsManyAsThereMayBe) {
  for (const Fill fill : fills)
    for (const std::ptrdiff_t k : {8, 16, 32})
      expect_largest_of_columns<TypeParam>(fill, kernel::most_places, k);
}

/// Two falling lists of each column, [k x stride], and the slots that they make.
template <class T>
struct Lists {
  static constexpr std::ptrdiff_t n = 1000;
  std::vector<T> best[2];
  std::vector<std::int32_t> places[2];

  Lists(Fill fill, std::ptrdiff_t k) {
    for (std::size_t which = 0; which < 2; ++which) {
      best[which].resize(static_cast<std::size_t>(k * stride));
      places[which].resize(best[which].size());
      std::vector<Entry> sorted(static_cast<std::size_t>(k));
      for (std::ptrdiff_t c = 0; c < stride; ++c) {
        const auto value = [&](std::ptrdiff_t i) {
          return value_at<T>(fill, i, c + 12 * static_cast<std::ptrdiff_t>(which), k);
        };
        for (std::ptrdiff_t i = 0; i < k; ++i)
          sorted[static_cast<std::size_t>(i)] = {static_cast<double>(value(i)), i};
        std::sort(sorted.begin(), sorted.end());
        for (std::size_t i = 0; i < sorted.size(); ++i) {
          const std::size_t at = i * stride + static_cast<std::size_t>(c);
          best[which][at] = value(sorted[i].id);
          places[which][at] = static_cast<std::int32_t>(3 * sorted[i].id + c % 3);
        }
      }
    }
  }
  Entry pair(std::ptrdiff_t c, std::ptrdiff_t a, std::ptrdiff_t b) const {
    const auto i = static_cast<std::size_t>(a * stride + c),
               j = static_cast<std::size_t>(b * stride + c);
    return {static_cast<double>(best[0][i]) + static_cast<double>(best[1][j]),
            places[0][i] * n + places[1][j]};
  }
};

/// The k best of the pairs with (a + 1) (b + 1) <= most.
template <class T>
std::vector<Entry> best_pairs(const Lists<T>& lists, std::ptrdiff_t c, std::ptrdiff_t k,
                              std::ptrdiff_t most) {
  std::vector<Entry> pairs;
  for (std::ptrdiff_t a = 0; a < k; ++a)
    for (std::ptrdiff_t b = 0; b < k; ++b)
      if ((a + 1) * (b + 1) <= most) pairs.push_back(lists.pair(c, a, b));
  std::partial_sort(pairs.begin(), pairs.begin() + k, pairs.end());
  pairs.resize(static_cast<std::size_t>(k));
  return pairs;
}

/// Whether no sum of two is NaN, and none equals another one for a rounding or an infinity.
template <class T>
bool has_exact_sums(const Lists<T>& lists, std::ptrdiff_t c, std::ptrdiff_t k) {
  bool finite = true;
  for (std::ptrdiff_t a = 0; a < k; ++a)
    for (std::ptrdiff_t b = 0; b < k; ++b) finite &= std::isfinite(lists.pair(c, a, b).value);
  return finite;
}

template <class Case>
void expect_largest_pairs(Fill fill, std::ptrdiff_t k) {
  using T = typename Case::scalar;
  const Lists<T> lists(fill, k);
  const std::ptrdiff_t ids_stride = k + 1, scores_stride = k + 2;
  std::vector<std::ptrdiff_t> ids(static_cast<std::size_t>(columns * ids_stride), -7);
  std::vector<T> scores(static_cast<std::size_t>(columns * scores_stride), T(-7));
  launch(pare::simd_for<typename Case::arch>{},
         kernel::LargestPairs<T>{lists.best[0].data(), lists.best[1].data(), lists.places[0].data(),
                                 lists.places[1].data(), stride, columns, k, Lists<T>::n,
                                 ids.data(), scores.data(), ids_stride, scores_stride});
  for (std::ptrdiff_t c = 0; c < columns; ++c) {
    const std::ptrdiff_t most = has_exact_sums(lists, c, k) ? k * k : k;
    const std::vector<Entry> wanted = best_pairs(lists, c, k, most);
    const auto* const id = ids.data() + c * ids_stride;
    const auto* const score = scores.data() + c * scores_stride;
    for (std::ptrdiff_t s = 0; s < k; ++s) {
      const Entry& entry = wanted[static_cast<std::size_t>(s)];
      const auto value = static_cast<double>(static_cast<T>(entry.value));
      ASSERT_TRUE(id[s] == entry.id && same_or_nan(score[s], value))
          << static_cast<int>(fill) << ": of " << k << ", column " << c << ", slot " << s << ": "
          << id[s] << " for " << entry.id;
    }
    EXPECT_TRUE(id[k] == -7 && score[k] == T(-7) && score[k + 1] == T(-7));
  }
}

TYPED_TEST(ProductKeySearchTest, TakesTheLargestPairs) {
  for (const Fill fill : fills)
    for (std::ptrdiff_t k = 1; k <= most_k; ++k) expect_largest_pairs<TypeParam>(fill, k);
}

}  // namespace
}  // namespace kernel_product_key_search_test
