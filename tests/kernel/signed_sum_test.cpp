// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/signed_sum.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_signed_sum_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::same_bits;
namespace kernel = pare::kernel;

template <class Case>
struct SignedSumTest : testing::Test {};
TYPED_TEST_SUITE(SignedSumTest, pare::testing::ArchsAndScalars);

/// Lists of signed columns, some empty, over a panel of `columns` columns and `outputs` sums. A
/// target may be named by two lists.
struct Lists {
  std::vector<std::uint32_t> targets, lengths;
  std::vector<std::uint16_t> entries;

  Lists(std::uint64_t seed, std::uint32_t panel_columns, std::uint32_t outputs,
        std::uint32_t longest) {
    std::mt19937_64 random(seed);
    for (std::uint32_t i = 0; i < 2 * outputs; ++i) {
      if (random() % 4 == 0) continue;
      targets.push_back(i % outputs);
      lengths.push_back(static_cast<std::uint32_t>(random() % (longest + 1)));
      for (std::uint32_t e = 0; e < lengths.back(); ++e)
        entries.push_back(static_cast<std::uint16_t>(random() % panel_columns |
                                                     (random() % 2) * kernel::negative_entry));
    }
  }

  template <class T>
  kernel::SignedSum<T> arguments(const T* panel, T* sums) const {
    return {panel,          sums,           targets.data(),
            lengths.data(), entries.data(), static_cast<std::ptrdiff_t>(targets.size())};
  }

  /// visit(target, column, sign) in list order.
  template <class Visit>
  void for_each(const Visit& visit) const {
    std::size_t next = 0;
    for (std::size_t list = 0; list < targets.size(); ++list)
      for (std::uint32_t i = 0; i < lengths[list]; ++i, ++next)
        visit(targets[list], entries[next] % kernel::negative_entry,
              entries[next] >= kernel::negative_entry ? -1 : 1);
  }
};

template <class Arch, class T>
void expect_sums(const Lists& lists, std::ptrdiff_t columns, std::ptrdiff_t outputs) {
  constexpr std::ptrdiff_t rows = kernel::panel_rows<T>;
  GuardedArray<T> panel(columns * rows), sums(outputs * rows);
  std::vector<T> wanted(static_cast<std::size_t>(outputs * rows));
  for (std::ptrdiff_t i = 0; i < panel.size(); ++i) panel[i] = static_cast<T>(i % 1009 - 500);
  for (std::ptrdiff_t i = 0; i < sums.size(); ++i)
    sums[i] = wanted[static_cast<std::size_t>(i)] = static_cast<T>(i % 17);
  lists.for_each([&](std::ptrdiff_t target, std::ptrdiff_t column, int sign) {
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      wanted[static_cast<std::size_t>(target * rows + r)] +=
          static_cast<T>(sign) * panel[column * rows + r];
  });
  launch(pare::simd_for<Arch>{}, lists.arguments(static_cast<const T*>(panel.data()), sums.data()));
  for (std::ptrdiff_t i = 0; i < sums.size(); ++i)
    ASSERT_EQ(sums[i], wanted[static_cast<std::size_t>(i)]) << "element " << i;
  ASSERT_TRUE(sums.surroundings_untouched());
}

TYPED_TEST(SignedSumTest, EqualsBruteForceOnIntegers) {
  using T = typename TypeParam::scalar;
  for (std::uint64_t seed = 0; seed < 30; ++seed)
    expect_sums<typename TypeParam::arch, T>(
        Lists(seed, 50, 20, static_cast<std::uint32_t>(seed % 13)), 50, 20);
}

TYPED_TEST(SignedSumTest, ReachesTheLastColumnThatFifteenBitsName) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t rows = kernel::panel_rows<T>;
  GuardedArray<T> panel(32768 * rows), sums(rows);
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    panel[32767 * rows + r] = static_cast<T>(r + 1);
    sums[r] = 0;
  }
  const std::uint32_t target = 0, length = 1;
  const std::uint16_t entry = 32767 | kernel::negative_entry;
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::SignedSum<T>{panel.data(), sums.data(), &target, &length, &entry, 1});
  for (std::ptrdiff_t r = 0; r < rows; ++r) EXPECT_EQ(sums[r], static_cast<T>(-r - 1));
}

TYPED_TEST(SignedSumTest, NoListsWriteNothing) {
  using T = typename TypeParam::scalar;
  GuardedArray<T> sums(kernel::panel_rows<T>);
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::SignedSum<T>{nullptr, sums.data(), nullptr, nullptr, nullptr, 0});
  for (std::ptrdiff_t i = 0; i < sums.size(); ++i) EXPECT_TRUE(sums.untouched(i));
}

TYPED_TEST(SignedSumTest, RowsDoNotMix) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t rows = kernel::panel_rows<T>;
  const Lists lists(1, 10, 6, 9);
  for (std::ptrdiff_t bad = 0; bad < rows; ++bad) {
    std::vector<T> panel(static_cast<std::size_t>(10 * rows), T(1));
    std::vector<T> sums(static_cast<std::size_t>(6 * rows), T(0));
    for (std::ptrdiff_t c = 0; c < 10; ++c)
      panel[static_cast<std::size_t>(c * rows + bad)] = std::numeric_limits<T>::quiet_NaN();
    launch(pare::simd_for<typename TypeParam::arch>{},
           lists.arguments(static_cast<const T*>(panel.data()), sums.data()));
    for (std::ptrdiff_t i = 0; i < 6 * rows; ++i)
      ASSERT_TRUE(i % rows == bad || !std::isnan(sums[static_cast<std::size_t>(i)])) << i;
  }
}

TYPED_TEST(SignedSumTest, EveryArchGivesTheBitsOfThePlainForm) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t rows = kernel::panel_rows<T>;
  const Lists lists(2, 40, 12, 40);
  std::mt19937_64 random(8);
  std::vector<T> panel(static_cast<std::size_t>(40 * rows));
  for (T& v : panel) v = static_cast<T>(static_cast<double>(random()) * 0x1p-63 - 1);
  std::vector<T> got(static_cast<std::size_t>(12 * rows), T(0)), plain(got);
  launch(pare::simd_for<typename TypeParam::arch>{},
         lists.arguments(static_cast<const T*>(panel.data()), got.data()));
  lists.for_each([&](std::ptrdiff_t target, std::ptrdiff_t column, int sign) {
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      plain[static_cast<std::size_t>(target * rows + r)] +=
          static_cast<T>(sign) * panel[static_cast<std::size_t>(column * rows + r)];
  });
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_TRUE(same_bits(got[i], plain[i])) << i;
}

// What is fetched ahead need not be there.
TYPED_TEST(SignedSumTest, RowsAheadChangeNothing) {
  using T = typename TypeParam::scalar;
  const Lists lists(3, 20, 9, 30);
  GuardedArray<T> panel(20 * kernel::panel_rows<T>), with(9 * kernel::panel_rows<T>),
      without(9 * kernel::panel_rows<T>);
  for (std::ptrdiff_t i = 0; i < panel.size(); ++i) panel[i] = static_cast<T>(i % 31) / 8;
  for (std::ptrdiff_t i = 0; i < with.size(); ++i) with[i] = without[i] = static_cast<T>(i % 7);
  const pare::simd_for<typename TypeParam::arch> backend{};
  launch(backend, lists.arguments<T>(panel.data(), without.data()));
  for (const std::ptrdiff_t rows : {1, 40}) {
    kernel::SignedSum<T> sum = lists.arguments<T>(panel.data(), with.data());
    for (std::ptrdiff_t i = 0; i < with.size(); ++i) with[i] = static_cast<T>(i % 7);
    sum.ahead = {panel.data(), rows, 6000, 1 << 20};
    launch(backend, sum);
    for (std::ptrdiff_t i = 0; i < with.size(); ++i) ASSERT_TRUE(same_bits(with[i], without[i]));
  }
}

}  // namespace
}  // namespace kernel_signed_sum_test
