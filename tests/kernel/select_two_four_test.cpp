// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <pare/core/backend.hpp>
#include <pare/kernel/select_two_four.hpp>
#include <pare/kernel/streaming.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_select_two_four_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct SelectTwoFourTest : testing::Test {};
TYPED_TEST_SUITE(SelectTwoFourTest, pare::testing::ArchsAndStorages);

/// Small integers, so that most groups hold a tie.
std::ptrdiff_t value_at(std::ptrdiff_t i, std::ptrdiff_t j) { return (i * 31 + j * 7) % 7 - 3; }

/// Of a group the bits of the two largest, of equal ones the lower.
template <class Score>
unsigned two_of(const Score& score) {
  unsigned bits = 0;
  for (int k = 0; k < 4; ++k) {
    int before = 0;
    for (int l = 0; l < 4; ++l) before += score(l) > score(k) || (score(l) == score(k) && l < k);
    bits |= (before < 2 ? 1u : 0u) << k;
  }
  return bits;
}

template <class P>
void expect_selected(std::ptrdiff_t rows, std::ptrdiff_t inputs, Guard guard, bool weighed,
                     bool streaming) {
  using S = typename P::scalar;
  using T = pare::compute_t<S>;
  const std::ptrdiff_t stride = inputs + 3, words = (inputs + 15) / 16;
  GuardedArray<S> w((rows - 1) * stride + inputs, guard), values(rows * 8 * words, guard);
  GuardedArray<T> factors(inputs, guard), marks(rows, guard);
  GuardedArray<std::uint16_t> mask(rows * words, guard);
  const auto factor = [&](std::ptrdiff_t j) { return weighed ? static_cast<T>(1 + j % 3) : T(1); };
  for (std::ptrdiff_t i = 0; i < rows; ++i)
    for (std::ptrdiff_t j = 0; j < inputs; ++j)
      w[i * stride + j] = static_cast<S>(static_cast<T>(value_at(i, j)));
  for (std::ptrdiff_t j = 0; j < inputs; ++j) factors[j] = factor(j);
  // In the last row, so that the guard sees what is written behind 8 values of a word.
  const bool is_nan = rows > 1;
  if (is_nan)
    w[(rows - 1) * stride + inputs - 1] = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  kernel::SelectTwoFour<S> a;
  a.weights = w.data();
  a.weight_stride = stride;
  a.rows = rows;
  a.inputs = inputs;
  a.factors = weighed ? factors.data() : nullptr;
  a.words = mask.data();
  a.word_stride = words;
  a.values = values.data();
  a.value_stride = 8 * words;
  a.marks = marks.data();
  a.streaming = streaming;
  launch(pare::simd_for<typename P::arch>{}, a);
  launch(pare::simd_for<typename P::arch>{}, kernel::FinishStreaming{});
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    if (is_nan && i == rows - 1) {
      EXPECT_TRUE(std::isnan(marks[i]));
      continue;
    }
    EXPECT_EQ(marks[i], T(0));
    for (std::ptrdiff_t word = 0; word < words; ++word) {
      unsigned bits = 0;
      std::ptrdiff_t kept = 8 * (i * words + word);
      for (std::ptrdiff_t g = 16 * word; g < std::min(inputs, 16 * word + 16); g += 4) {
        const unsigned two = two_of(
            [&](int k) { return std::abs(static_cast<T>(value_at(i, g + k))) * factor(g + k); });
        bits |= two << (g - 16 * word);
        for (int k = 0; k < 4; ++k) {
          if ((two >> k & 1u) == 0) continue;
          ASSERT_EQ(static_cast<T>(values[kept++]), static_cast<T>(value_at(i, g + k)));
        }
      }
      ASSERT_EQ(mask[i * words + word], bits) << inputs << ' ' << i << ' ' << word;
      for (; kept < 8 * (i * words + word + 1); ++kept)
        ASSERT_EQ(static_cast<T>(values[kept]), T(0));
    }
  }
  EXPECT_TRUE(values.surroundings_untouched());
  EXPECT_TRUE(mask.surroundings_untouched());
}

TYPED_TEST(SelectTwoFourTest, KeepsTheTwoLargestOfEachFour) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t rows : {1, 3})
      for (const std::ptrdiff_t inputs : {4, 12, 16, 20, 32, 60, 64, 136, 192})
        for (const bool weighed : {false, true})
          for (const bool streaming : {false, true})
            expect_selected<TypeParam>(rows, inputs, guard, weighed, streaming);
}

}  // namespace
}  // namespace kernel_select_two_four_test
