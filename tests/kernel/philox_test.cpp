// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>

#include <pare/core/backend.hpp>
#include <pare/core/random.hpp>
#include <pare/kernel/philox.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_philox_test {
namespace {

using pare::PhiloxCounter;
using pare::PhiloxKey;
using pare::testing::Guard;
using pare::testing::GuardedArray;

template <class Arch>
struct PhiloxKernelTest : testing::Test {};
TYPED_TEST_SUITE(PhiloxKernelTest, pare::testing::Archs);

/// Four arrays that each end (or start) at a forbidden page.
struct Words {
  GuardedArray<std::uint64_t> c0, c1, c2, c3;

  Words(std::ptrdiff_t size, Guard guard)
      : c0(size, guard), c1(size, guard), c2(size, guard), c3(size, guard) {}

  void set(std::ptrdiff_t i, const PhiloxCounter& c) {
    c0[i] = c[0];
    c1[i] = c[1];
    c2[i] = c[2];
    c3[i] = c[3];
  }
  std::array<std::uint64_t, 4> at(std::ptrdiff_t i) const { return {c0[i], c1[i], c2[i], c3[i]}; }

  template <class Arch>
  void run(PhiloxKey key) {
    launch(pare::simd_for<Arch>{}, pare::kernel::PhiloxWords{c0.data(), c1.data(), c2.data(),
                                                             c3.data(), c0.size(), key.k0, key.k1});
  }
};

TYPED_TEST(PhiloxKernelTest, GivesThePublishedAnswersInEveryLane) {
  struct Known {
    PhiloxCounter counter;
    PhiloxKey key;
    std::array<std::uint64_t, 4> words;
  };
  constexpr std::uint32_t ones = 0xffffffff;
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{ones, ones, ones, ones}, {ones, ones}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Known& k : known) {
    Words words(19, Guard::after);
    for (std::ptrdiff_t i = 0; i < 19; ++i) words.set(i, k.counter);
    words.run<TypeParam>(k.key);
    for (std::ptrdiff_t i = 0; i < 19; ++i) ASSERT_EQ(words.at(i), k.words) << "place " << i;
  }
}

TYPED_TEST(PhiloxKernelTest, EqualsTheScalarGeneratorForEveryCount) {
  std::mt19937_64 random(11);
  const auto word = [&random] { return static_cast<std::uint32_t>(random()); };
  for (const Guard guard : {Guard::before, Guard::after})
    for (std::ptrdiff_t count = 0; count <= 40; ++count) {
      Words words(count, guard);
      std::vector<PhiloxCounter> counters;
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        counters.push_back({word(), word(), word(), word()});
        words.set(i, counters.back());
      }
      const PhiloxKey key(word(), word());
      words.run<TypeParam>(key);
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        const PhiloxCounter wanted = pare::philox(counters[static_cast<std::size_t>(i)], key);
        for (std::size_t w = 0; w < 4; ++w)
          ASSERT_EQ(words.at(i)[w], wanted[w]) << "count " << count << " place " << i;
      }
      for (const auto* array : {&words.c0, &words.c1, &words.c2, &words.c3})
        ASSERT_TRUE(array->surroundings_untouched()) << "count " << count;
    }
}

TYPED_TEST(PhiloxKernelTest, IgnoresWhatIsInTheHighHalves) {
  Words clean(17, Guard::after), dirty(17, Guard::after);
  for (std::ptrdiff_t i = 0; i < 17; ++i) {
    const auto u = static_cast<std::uint32_t>(i);
    clean.set(i, {u, 1, 2, 3});
    dirty.set(i, {u, 1, 2, 3});
    for (auto* array : {&dirty.c0, &dirty.c1, &dirty.c2, &dirty.c3})
      (*array)[i] |= std::uint64_t{0xdeadbeef} << 32;
  }
  clean.run<TypeParam>(PhiloxKey{9});
  dirty.run<TypeParam>(PhiloxKey{9});
  for (std::ptrdiff_t i = 0; i < 17; ++i) EXPECT_EQ(clean.at(i), dirty.at(i));
}

}  // namespace
}  // namespace kernel_philox_test
