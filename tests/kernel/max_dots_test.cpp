// SPDX-License-Identifier: Apache-2.0
// MaxSim's kernel on whole numbers, whose sums have no rounding, between pages that may not be
// touched.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/max_dots.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_max_dots_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct MaxDotsTest : testing::Test {};
TYPED_TEST_SUITE(MaxDotsTest, pare::testing::ArchsAndStorages);

std::ptrdiff_t value_at(std::ptrdiff_t i, std::ptrdiff_t j) { return (i * 31 + j * 7) % 17 - 8; }

template <class P>
void expect_scores(std::ptrdiff_t queries, std::ptrdiff_t depth, Guard guard) {
  using S = typename P::scalar;
  using T = pare::compute_t<S>;
  const std::vector<std::ptrdiff_t> offsets{1, 1, 2, 7, 20, 21, 21, 45};
  const std::ptrdiff_t stride = depth + 3, columns = kernel::padded_columns<T>(queries);
  GuardedArray<S> rows(44 * stride + depth, guard), q(queries * depth, guard);
  for (std::ptrdiff_t c = 0; c < depth; ++c) {
    for (std::ptrdiff_t j = 0; j < 45; ++j)
      rows[j * stride + c] = static_cast<S>(static_cast<T>(value_at(j, c)));
    for (std::ptrdiff_t i = 0; i < queries; ++i)
      q[i * depth + c] = static_cast<S>(static_cast<T>(value_at(i + 3, 5 * c)));
  }
  std::vector<const S*> pointers;
  for (std::ptrdiff_t i = 0; i < queries; ++i) pointers.push_back(q.data() + i * depth);
  struct alignas(64) Line {
    T numbers[64 / sizeof(T)];
  };
  const auto lines = [](std::ptrdiff_t size) {
    return std::vector<Line>(static_cast<std::size_t>(size) * sizeof(T) / 64 + 1);
  };
  auto panels = lines((queries + 64) * (depth + 2)), memory = lines(columns * 13),
       widened = lines(12 * depth);
  const pare::simd_for<typename P::arch> backend;
  launch(
      backend,
      kernel::PackTransposed<S>{
          pointers.data(), queries, depth, panels.data()->numbers, {}, kernel::PanelWidth::Lanes});
  GuardedArray<T> scores(7, guard);
  T* const maxima = memory.data()->numbers;
  launch(backend, kernel::MaxDots<S>{panels.data()->numbers,
                                     depth,
                                     rows.data(),
                                     stride,
                                     maxima + columns,
                                     widened.data()->numbers,
                                     {offsets.data(), 7, queries, maxima, scores.data(), 1}});
  for (std::size_t d = 0; d < 7; ++d) {
    double wanted = 0;
    for (std::ptrdiff_t i = 0; i < queries; ++i) {
      double best = -std::numeric_limits<double>::infinity();
      for (std::ptrdiff_t j = offsets[d]; j < offsets[d + 1]; ++j) {
        std::ptrdiff_t sum = 0;
        for (std::ptrdiff_t c = 0; c < depth; ++c) sum += value_at(j, c) * value_at(i + 3, 5 * c);
        best = std::max(best, static_cast<double>(sum));
      }
      wanted += best;
    }
    ASSERT_EQ(static_cast<double>(scores[static_cast<std::ptrdiff_t>(d)]), wanted)
        << queries << ' ' << depth << ' ' << d;
  }
  EXPECT_TRUE(scores.surroundings_untouched());
}

TYPED_TEST(MaxDotsTest, AddsUpMaximaOfEveryDocument) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t queries : {1, 15, 16, 17, 32, 50})
      for (const std::ptrdiff_t depth : {1, 2, 31, 64})
        expect_scores<TypeParam>(queries, depth, guard);
}

}  // namespace
}  // namespace kernel_max_dots_test
