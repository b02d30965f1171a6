// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/signed_columns.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_signed_columns_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace kernel = pare::kernel;

template <class Case>
struct SignedColumnsTest : testing::Test {};
TYPED_TEST_SUITE(SignedColumnsTest, pare::testing::ArchsAndScalars);

/// Columns [first, first + count) of signs, of 0 to `longest` distinct rows each; lists end where
/// their memory does.
template <class Entry>
struct Columns {
  static constexpr int sign_bit = 8 * static_cast<int>(sizeof(Entry)) - 1;
  std::ptrdiff_t first, count;
  std::vector<std::vector<std::pair<std::ptrdiff_t, int>>> wanted;
  std::vector<std::vector<std::uint32_t>> starts;
  std::vector<std::vector<Entry>> entries;
  std::vector<kernel::SignedLists<Entry>> lists;

  Columns(std::ptrdiff_t first_column, std::ptrdiff_t columns, std::ptrdiff_t rows,
          std::size_t longest, std::uint64_t seed, bool alike = false)
      : first(first_column), count(columns) {
    std::mt19937_64 random(seed);
    std::vector<std::ptrdiff_t> order(static_cast<std::size_t>(rows));
    std::iota(order.begin(), order.end(), std::ptrdiff_t{0});
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      if (c % kernel::columns_per_list == 0) {
        starts.push_back({0});
        entries.emplace_back();
      }
      std::shuffle(order.begin(), order.end(), random);
      auto& column = wanted.emplace_back();
      const std::size_t length = alike ? longest : random() % (longest + 1);
      for (std::size_t i = 0; i < length; ++i) {
        column.emplace_back(order[i], random() % 2 == 0 ? 1 : -1);
        const auto sign = static_cast<std::uint64_t>(column.back().second < 0) << sign_bit;
        entries.back().push_back(static_cast<Entry>(static_cast<std::uint64_t>(order[i]) | sign));
      }
      starts.back().push_back(static_cast<std::uint32_t>(entries.back().size()));
    }
    for (auto& list : entries) list.insert(list.end(), 2, Entry{1});
    for (std::size_t i = 0; i < starts.size(); ++i)
      lists.push_back({starts[i].data(), entries[i].data()});
  }
};

template <class Arch, class T, class I, class Entry>
void expect_sums(const Columns<Entry>& columns, std::ptrdiff_t rows, std::ptrdiff_t count,
                 std::ptrdiff_t more, std::uint64_t seed, std::ptrdiff_t nonzeros = 0) {
  std::mt19937_64 random(seed);
  GuardedArray<I> named(count + more);
  GuardedArray<T> values(count), sums(rows);
  std::vector<T> wanted(static_cast<std::size_t>(rows));
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    sums[r] = wanted[static_cast<std::size_t>(r)] = static_cast<T>(r % 5);
  for (std::ptrdiff_t i = 0; i < count + more; ++i) {
    // Behind `count` stands anything: columns of other rows, stored or not.
    const std::uint64_t range = static_cast<std::uint64_t>(columns.count) * (i < count ? 1 : 3);
    named[i] = static_cast<I>(columns.first + static_cast<std::ptrdiff_t>(random() % range));
    if (i >= count) continue;
    values[i] = static_cast<T>(static_cast<int>(random() % 33) - 16);
    for (const auto& [row, sign] : columns.wanted[static_cast<std::size_t>(
             static_cast<std::ptrdiff_t>(named[i]) - columns.first)])
      wanted[static_cast<std::size_t>(row)] += static_cast<T>(sign) * values[i];
  }
  launch(pare::simd_for<Arch>{},
         kernel::AddSignedColumns<T, I, Entry>{
             named.data(), values.data(), count, count + more, columns.lists.data(), columns.first,
             columns.first + columns.count, sums.data(), nonzeros});
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    ASSERT_EQ(sums[r], wanted[static_cast<std::size_t>(r)]) << "row " << r << " of " << rows;
  ASSERT_TRUE(sums.surroundings_untouched());
}

TYPED_TEST(SignedColumnsTest, EqualsBruteForceOnIntegers) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto longest = static_cast<std::size_t>(seed % 20);
    const Columns<std::uint16_t> narrow(7, 2 * kernel::columns_per_list + 5, 40, longest, seed);
    const Columns<std::uint32_t> wide(7, 2 * kernel::columns_per_list + 5, 40, longest, seed);
    for (const std::ptrdiff_t count : {0, 1, 3, 50})
      for (const std::ptrdiff_t more : {0, 40}) {
        expect_sums<Arch, T, std::int32_t>(narrow, 40, count, more, seed);
        expect_sums<Arch, T, std::int64_t>(narrow, 40, count, more, seed);
        expect_sums<Arch, T, std::int32_t>(wide, 40, count, more, seed);
        expect_sums<Arch, T, std::int64_t>(wide, 40, count, more, seed);
      }
  }
}

// Where each column has as many nonzeros, lists need no start.
TYPED_TEST(SignedColumnsTest, ColumnsOfAsManyNonzeros) {
  using T = typename TypeParam::scalar;
  for (const std::size_t each : {1U, 2U, 7U, 8U, 9U, 16U, 19U}) {
    Columns<std::uint16_t> columns(7, kernel::columns_per_list + 5, 40, each, each, true);
    for (auto& lists : columns.lists) lists.start = nullptr;
    for (const std::ptrdiff_t more : {0, 40})
      expect_sums<typename TypeParam::arch, T, std::int32_t>(columns, 40, 50, more, each,
                                                             static_cast<std::ptrdiff_t>(each));
  }
}

TYPED_TEST(SignedColumnsTest, ReachesTheLastRowThatFifteenBitsName) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t rows = 1 << 15;
  const Columns<std::uint16_t> columns(0, 3, rows, rows - 1, 1);
  expect_sums<typename TypeParam::arch, T, std::int32_t>(columns, rows, 9, 0, 2);
}

TYPED_TEST(SignedColumnsTest, ColumnsAreAddedInTheirOrderAndANegativeOneIsSubtracted) {
  using T = typename TypeParam::scalar;
  const std::vector<std::uint32_t> start{0, 9, 18};
  std::vector<std::uint16_t> entry;
  for (std::uint16_t c = 0; c < 2; ++c)
    for (std::uint16_t r = 0; r < 9; ++r)
      entry.push_back(static_cast<std::uint16_t>(r | (c == 1 ? 0x8000 : 0)));
  entry.insert(entry.end(), 2, std::uint16_t{0});
  const kernel::SignedLists<std::uint16_t> lists{start.data(), entry.data()};
  const T big = 2 / std::numeric_limits<T>::epsilon();
  const std::vector<int> columns{0, 0, 1};
  const std::vector<T> values{big, 1, big};  // (big + 1) - big is 0, big - big + 1 would be 1
  std::vector<T> sums(9, T(0));
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::AddSignedColumns<T, int, std::uint16_t>{columns.data(), values.data(), 3, 3,
                                                         &lists, 0, 2, sums.data()});
  for (const T sum : sums) EXPECT_TRUE(same_bits(sum, T(0)));
}

// Where a list has ended, nothing is added, however large the value: not even 0 times it.
TYPED_TEST(SignedColumnsTest, AnInfinityReachesTheRowsOfItsColumnAlone) {
  using T = typename TypeParam::scalar;
  const std::vector<std::uint32_t> start{0, 0, 1, 2};
  const std::vector<std::uint16_t> entry{3, 0x8000 | 2, 1, 0};
  const kernel::SignedLists<std::uint16_t> lists{start.data(), entry.data()};
  const std::vector<int> columns{0, 1};
  const std::vector<T> values(2, std::numeric_limits<T>::infinity());
  std::vector<T> sums(4, T(0));
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::AddSignedColumns<T, int, std::uint16_t>{columns.data(), values.data(), 2, 2,
                                                         &lists, 0, 3, sums.data()});
  EXPECT_EQ(sums, (std::vector<T>{0, 0, 0, values[0]}));
}

}  // namespace
}  // namespace kernel_signed_columns_test
