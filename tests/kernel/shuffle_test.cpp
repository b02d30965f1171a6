// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/core/random.hpp>
#include <pare/kernel/shuffle.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_shuffle_test {
namespace {

using pare::PhiloxKey;
using pare::testing::Guard;
using pare::testing::GuardedArray;
using List = std::vector<std::uint32_t>;

template <class Arch>
struct ShuffleTest : testing::Test {
  static void shuffle(PhiloxKey key, bool cycle, std::uint32_t* out, std::ptrdiff_t size) {
    launch(pare::simd_for<Arch>{}, pare::kernel::Shuffle{out, size, key.k0, key.k1, cycle});
  }
};
TYPED_TEST_SUITE(ShuffleTest, pare::testing::Archs);

/// Elements of a list in order change places with one before them.
List definition(PhiloxKey key, bool cycle, std::uint32_t size) {
  List list;
  for (std::uint32_t i = 0; i < size; ++i) {
    list.push_back(i);
    if (i == 0) continue;
    const std::uint32_t word = pare::philox({(i - 1) / 4, 0, 0, 0}, key)[(i - 1) % 4];
    const std::uint64_t range = cycle ? i : i + 1;
    std::swap(list[i], list[static_cast<std::size_t>(word * range >> 32)]);
  }
  return list;
}

TYPED_TEST(ShuffleTest, EqualsTheDefinitionForEverySize) {
  constexpr PhiloxKey key(0x12345678, 0x9abcdef0);
  for (const bool cycle : {false, true})
    for (const Guard guard : {Guard::before, Guard::after})
      for (const std::uint32_t around : {0u, 512u, 1024u, 5000u})
        for (std::uint32_t size = around; size <= around + 40; ++size) {
          GuardedArray<std::uint32_t> out(size, guard);
          TestFixture::shuffle(key, cycle, out.data(), out.size());
          ASSERT_EQ(List(out.begin(), out.end()), definition(key, cycle, size)) << size;
        }
}

TYPED_TEST(ShuffleTest, WritesNothingForNoElements) {
  std::uint32_t canary = 77;
  TestFixture::shuffle({1, 2}, false, &canary, 0);
  EXPECT_EQ(canary, 77u);
}

TYPED_TEST(ShuffleTest, DrawsEachPermutationEquallyOften) {
  constexpr int draws = 24000;
  for (const bool cycle : {false, true}) {
    std::map<List, int> seen;
    for (std::uint32_t k = 0; k < draws; ++k) {
      List out(4);
      TestFixture::shuffle({k, 99}, cycle, out.data(), 4);
      ++seen[out];
    }
    const std::size_t kinds = cycle ? 6 : 24;  // 3! cycles among 4! permutations
    ASSERT_EQ(seen.size(), kinds);
    const double expected = static_cast<double>(draws) / static_cast<double>(kinds);
    double chi_squared = 0;
    for (const auto& [list, count] : seen)
      chi_squared += (count - expected) * (count - expected) / expected;
    EXPECT_LT(chi_squared, cycle ? 20.5 : 49.7) << "the 99.9th percentile";
  }
}

}  // namespace
}  // namespace kernel_shuffle_test
