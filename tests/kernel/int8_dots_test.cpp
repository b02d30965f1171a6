// SPDX-License-Identifier: Apache-2.0
// Products of bytes against exact integers, with the least and the largest of bytes, between pages
// that may not be touched.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/kernel/int8_dots.hpp>
#include <pare/kernel/int8_rows.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_int8_dots_test {
namespace {

using pare::AlignedBuffer;
using pare::testing::Guard;
using pare::testing::GuardedArray;
namespace kernel = pare::kernel;
using Listed = kernel::ListedDot<float>;

template <class Arch>
struct Int8DotsTest : testing::Test {};
TYPED_TEST_SUITE(Int8DotsTest, pare::testing::Archs);

constexpr std::ptrdiff_t rows = 45;

/// Rows of bytes with gaps, a query of all bytes from -127 to 127, and powers of 2 as scales, with
/// which products stay exact.
template <class Arch>
struct Case {
  std::ptrdiff_t columns, depth, stride;
  GuardedArray<std::int8_t> codes, queries;
  GuardedArray<float> scales;
  AlignedBuffer<std::int32_t> packed, offsets, products, widened;
  AlignedBuffer<float> factors, thresholds, maxima;
  const pare::simd_for<Arch> backend{};

  Case(std::ptrdiff_t count, std::ptrdiff_t dim, Guard guard)
      : columns(count),
        depth(dim),
        stride(depth + 3),
        codes((rows - 1) * stride + depth, guard),
        queries(columns * depth, guard),
        scales(rows, guard),
        packed(std::size_t((columns + 64) * kernel::int8_row_words(depth))),
        offsets(padded()),
        products(padded() * 12),
        widened(std::size_t(12 * kernel::int8_row_words(depth))),
        factors(padded()),
        thresholds(padded()),
        maxima(padded()) {
    unsigned random = 7;
    const auto byte = [&] { return static_cast<int>((random = random * 1664525u + 1u) >> 24); };
    for (std::int8_t& code : codes) code = static_cast<std::int8_t>(byte() - 128);
    for (std::int8_t& code : queries) code = static_cast<std::int8_t>(std::max(byte() - 128, -127));
    for (std::ptrdiff_t c = 0; c < depth; ++c) {
      codes[c] = -128;
      codes[stride + c] = 127;
      queries[c] = c % 2 == 0 ? -127 : 127;
      queries[(columns - 1) * depth + c] = -127;
    }
    for (std::ptrdiff_t j = 0; j < rows; ++j) scales[j] = j % 3 == 0 ? .25f : 2;
    std::fill_n(factors.data(), padded(), 0.0f);
    for (std::ptrdiff_t i = 0; i < columns; ++i) factors.data()[i] = i % 2 == 0 ? 1 : .5f;
    std::fill_n(thresholds.data(), padded(), std::numeric_limits<float>::quiet_NaN());
  }

  std::size_t padded() const {
    return static_cast<std::size_t>(kernel::padded_columns<float>(columns));
  }
  float wanted(std::ptrdiff_t i, std::ptrdiff_t j) const {
    std::int64_t sum = 0;
    for (std::ptrdiff_t c = 0; c < depth; ++c)
      sum += std::int64_t{codes[j * stride + c]} * std::int64_t{queries[i * depth + c]};
    return static_cast<float>(sum) * factors.data()[i] * scales[j];
  }
  kernel::Int8Operands pack(kernel::Int8Order order) {
    launch(backend, kernel::PackInt8Queries{queries.data(), columns, depth, packed.data(),
                                            offsets.data(), order});
    return {packed.data(), offsets.data(), factors.data(), columns,
            depth,         codes.data(),   stride,         scales.data()};
  }
};

template <class Arch>
void expect_maxima(std::ptrdiff_t columns, std::ptrdiff_t depth, Guard guard) {
  Case<Arch> x(columns, depth, guard);
  const std::vector<std::ptrdiff_t> offsets{0, 0, 2, 7, 20, 21, 21, rows};
  GuardedArray<float> scores(7, guard);
  launch(x.backend,
         kernel::MaxInt8Dots{x.pack(kernel::Int8Order::Lanes),
                             x.products.data(),
                             x.widened.data(),
                             {offsets.data(), 7, columns, x.maxima.data(), scores.data(), 1}});
  for (std::size_t d = 0; d < 7; ++d) {
    double wanted = 0;
    for (std::ptrdiff_t i = 0; i < columns; ++i) {
      double best = -std::numeric_limits<double>::infinity();
      for (std::ptrdiff_t j = offsets[d]; j < offsets[d + 1]; ++j)
        best = std::max(best, static_cast<double>(x.wanted(i, j)));
      wanted += best;
    }
    ASSERT_EQ(scores[static_cast<std::ptrdiff_t>(d)], static_cast<float>(wanted))
        << columns << ' ' << depth << ' ' << d;
  }
  EXPECT_TRUE(scores.surroundings_untouched());
}

/// Rows in their order that are not below a threshold: those of the largest product alone, or all
/// where it is NaN, and others.
template <class Arch>
void expect_listed(std::ptrdiff_t columns, std::ptrdiff_t depth, Guard guard, bool few,
                   bool largest) {
  Case<Arch> x(columns, depth, guard);
  for (std::ptrdiff_t i = largest ? 0 : 1; i < columns; ++i) {
    float& threshold = x.thresholds.data()[i] = x.wanted(i, i % rows);
    for (std::ptrdiff_t j = 0; j < rows && largest; ++j)
      threshold = std::max(threshold, x.wanted(i, j));
  }
  GuardedArray<Listed> entries(columns * rows, guard);
  std::vector<std::ptrdiff_t> counts(static_cast<std::size_t>(columns));
  const kernel::DotLists<float> lists{x.thresholds.data(), entries.data(), rows, counts.data()};
  const auto operands = x.pack(few ? kernel::Int8Order::Depth : kernel::Int8Order::Lanes);
  if (few)
    launch(x.backend, kernel::SelectFewInt8Dots{operands, rows, 100, lists});
  else
    launch(x.backend,
           kernel::SelectInt8Dots{operands, rows, 100, x.products.data(), x.widened.data(), lists});
  for (std::ptrdiff_t i = 0; i < columns; ++i) {
    std::ptrdiff_t count = 0;
    for (std::ptrdiff_t j = 0; j < rows; ++j) {
      if (x.wanted(i, j) < x.thresholds.data()[i]) continue;
      const Listed& got = entries[i * rows + count++];
      ASSERT_EQ(got.row, static_cast<std::uint32_t>(100 + j))
          << columns << ' ' << depth << ' ' << i;
      ASSERT_EQ(got.score, x.wanted(i, j)) << columns << ' ' << depth << ' ' << i;
    }
    ASSERT_EQ(counts[static_cast<std::size_t>(i)], count) << columns << ' ' << depth << ' ' << i;
  }
}

TYPED_TEST(Int8DotsTest, AddsUpMaximaOfEveryDocument) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : {1, 16, 17, 50})
      for (const std::ptrdiff_t depth : {1, 3, 64, 127, 129})
        expect_maxima<TypeParam>(columns, depth, guard);
}

TYPED_TEST(Int8DotsTest, ListsRowsThatReachAThreshold) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t depth : {1, 3, 64, 127, 129}) {
      for (const std::ptrdiff_t columns : {1, 2, 5, 16, 50})
        for (const bool largest : {false, true})
          expect_listed<TypeParam>(columns, depth, guard, columns < 5, largest);
    }
}

TYPED_TEST(Int8DotsTest, DoesNotOverflowAtTheLongestRow) {
  expect_listed<TypeParam>(2, kernel::most_int8_dim, Guard::after, true, false);
  expect_maxima<TypeParam>(2, kernel::most_int8_dim, Guard::after);
}

}  // namespace
}  // namespace kernel_int8_dots_test
