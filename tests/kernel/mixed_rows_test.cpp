// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/mixed_rows.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"

namespace kernel_mixed_rows_test {
namespace {

using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct MixedRowsTest : testing::Test {};
TYPED_TEST_SUITE(MixedRowsTest, pare::testing::ArchsAndScalars);

constexpr std::ptrdiff_t rows = 12, stride = 321;

/// Row v has nonzeros at every third column from v % 3 on, but no more than v * v of them.
template <class T>
std::vector<T> sparse_rows(std::ptrdiff_t columns) {
  std::vector<T> dense(static_cast<std::size_t>(rows * stride), T(0));
  for (std::ptrdiff_t v = 0; v < rows; ++v) {
    std::ptrdiff_t left = v * v;
    for (std::ptrdiff_t c = v % 3; c < columns && left > 0; c += 3, --left)
      dense[static_cast<std::size_t>(v * stride + c)] = static_cast<T>((v + c) % 7 + 1);
  }
  return dense;
}

template <class T>
std::vector<std::int64_t> places(const std::vector<T>& dense, std::ptrdiff_t columns,
                                 std::int64_t more) {
  std::vector<std::int64_t> start{0};
  for (std::ptrdiff_t v = 0; v < rows; ++v) {
    std::int64_t count = 0;
    for (std::ptrdiff_t c = 0; c < columns; ++c)
      count += dense[static_cast<std::size_t>(v * stride + c)] != T(0);
    start.push_back(start.back() + kernel::mixed_row_words(count == 0 ? 0 : count + more, columns));
  }
  return start;
}

/// Packs rows and multiplies them by a matrix of every row length; small integers, so exact.
template <class Arch, class T>
void expect_product(std::ptrdiff_t columns, bool weighted, std::int64_t more) {
  const std::vector<T> dense = sparse_rows<T>(columns);
  const std::vector<std::int64_t> start = places(dense, columns, more);
  GuardedArray<T> words(static_cast<std::ptrdiff_t>(start.back()));
  const pare::simd_for<Arch> backend{};
  launch(backend,
         kernel::PackMixedRows<T>{dense.data(), stride, rows, columns, start.data(), words.data()});
  ASSERT_TRUE(words.surroundings_untouched());
  std::vector<int> outer{0}, inner;
  std::vector<T> values;
  for (int u = 0; u < rows; ++u) {
    for (int e = 0; e < 5 * u; ++e) {
      inner.push_back((u * 7 + e * 5) % static_cast<int>(rows));
      values.push_back(static_cast<T>(e % 5 - 2));
    }
    outer.push_back(static_cast<int>(inner.size()));
  }
  const std::ptrdiff_t first = 2, last = rows;
  GuardedArray<T> out((last - first - 1) * stride + columns), scale(last - first);
  for (std::ptrdiff_t i = 0; i < scale.size(); ++i) scale[i] = static_cast<T>(i % 5) / 2;
  launch(backend, kernel::SpmmMixedRows<T, int>{outer.data(),
                                                nullptr,
                                                inner.data(),
                                                weighted ? values.data() : nullptr,
                                                scale.data(),
                                                {start.data(), words.data(), columns},
                                                out.data(),
                                                stride,
                                                first,
                                                last});
  for (std::ptrdiff_t u = first; u < last; ++u)
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      T wanted = 0;
      for (int e = outer[static_cast<std::size_t>(u)]; e < outer[static_cast<std::size_t>(u) + 1];
           ++e)
        wanted += (weighted ? values[static_cast<std::size_t>(e)] : T(1)) *
                  dense[static_cast<std::size_t>(inner[static_cast<std::size_t>(e)] * stride + c)];
      ASSERT_EQ(out[(u - first) * stride + c], wanted * scale[u - first])
          << "row " << u << " column " << c << " of " << columns;
    }
  ASSERT_TRUE(out.surroundings_untouched());
}

TYPED_TEST(MixedRowsTest, ProductOfListsAndWholeRows) {
  using T = typename TypeParam::scalar;
  for (const std::ptrdiff_t columns : {1, 7, 8, 15, 16, 17, 64, 100, 256, 320})
    for (const bool weighted : {false, true})
      for (const std::int64_t more : {0, 3})
        expect_product<typename TypeParam::arch, T>(columns, weighted, more);
}

// An eighth of the columns is the longest list; NaN is no zero, -0 is one.
TYPED_TEST(MixedRowsTest, ListsEndAtAnEighth) {
  using T = typename TypeParam::scalar;
  constexpr std::ptrdiff_t columns = 64;
  for (const std::uint32_t count : {8u, 9u}) {
    std::vector<T> dense(columns, T(0));
    dense[60] = T(-0.0);
    for (std::uint32_t i = 0; i < count; ++i) dense[5 * i + 1] = T(i + 1);
    dense[1] = std::numeric_limits<T>::quiet_NaN();
    const std::int64_t start[] = {0, kernel::mixed_row_words(count, columns)};
    EXPECT_EQ(start[1], count == 8 ? 17 : 65);
    EXPECT_EQ(kernel::mixed_row_nonzeros(start[1], columns), count == 8 ? 8 : columns);
    GuardedArray<T> words(static_cast<std::ptrdiff_t>(start[1]));
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::PackMixedRows<T>{dense.data(), columns, 1, columns, start, words.data()});
    EXPECT_EQ(kernel::from_word(words[0]), count == 8 ? 8u : kernel::whole_row);
    EXPECT_TRUE(words[count == 8 ? 1 : 2] != words[count == 8 ? 1 : 2]);
    EXPECT_EQ(words[count == 8 ? 3 : 1 + 6], T(2));
    EXPECT_TRUE(words.surroundings_untouched());
  }
}

}  // namespace
}  // namespace kernel_mixed_rows_test
