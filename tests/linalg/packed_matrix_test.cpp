// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/gapped_matrix.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace linalg_packed_matrix_test {
namespace {

using pare::AlignedBuffer;
using pare::bf16;
using pare::Index;
using pare::TensorView;
using pare::linalg::PackedMatrix;
using pare::testing::allocations;
using pare::testing::GappedMatrix;
using pare::testing::same_bits;
namespace linalg = pare::linalg;

/// Rows of A in storage scalar L times a right factor in R, packed as T.
template <class L, class R, class T, bool Pairs>
struct Case {
  using left = L;
  using right = R;
  using scalar = T;
  using Packed = PackedMatrix<Pairs, T>;
  static constexpr Index depth_block = Pairs ? 2 * linalg::product_depth : linalg::product_depth;
};

template <class C>
struct PackedMatrixTest : testing::Test {};
using Cases = testing::Types<Case<float, float, float, false>, Case<double, float, double, false>,
                             Case<bf16, bf16, float, true>>;
TYPED_TEST_SUITE(PackedMatrixTest, Cases);

/// Small integers: every sum below is exact, in any order.
int left_at(Index i, Index d) { return static_cast<int>((i * 5 + d * 3) % 11) - 5; }
int right_at(Index d, Index j) { return static_cast<int>((d * 7 + j * 2) % 13) - 6; }
/// Numbers whose sums are rounded.
double uneven(Index i, Index j) {
  return std::sin(static_cast<double>(i) * 12.9898 + static_cast<double>(j) * 78.233);
}

template <class C>
void expect_product(Index rows, Index depth, Index columns, bool left_rows, bool right_rows) {
  using T = typename C::scalar;
  SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(depth) + " x " +
               std::to_string(columns) + (left_rows ? " r" : " c") + (right_rows ? "r" : "c"));
  const GappedMatrix<typename C::left> a(rows, depth, left_rows, left_at);
  const GappedMatrix<typename C::right> right(depth, columns, right_rows, right_at);
  GappedMatrix<T> c(rows, columns, true, [](Index, Index) { return 7; });
  AlignedBuffer<std::byte> memory;
  const typename C::Packed packed(pare::simd, as_const(right.view), memory);
  AlignedBuffer<T> left(static_cast<std::size_t>(C::Packed::left_size(rows, depth)));
  packed.multiply(pare::simd, as_const(a.view), c.view, left.data());
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < columns; ++j) {
      double wanted = 0;
      for (Index d = 0; d < depth; ++d) wanted += left_at(i, d) * right_at(d, j);
      ASSERT_EQ(static_cast<double>(c.view(i, j)), wanted) << i << ' ' << j;
    }
    for (Index j = columns; j < c.view.stride[0]; ++j)
      ASSERT_TRUE(std::isnan(c.view.data[i * c.view.stride[0] + j])) << "behind row " << i;
  }
}

TYPED_TEST(PackedMatrixTest, MultipliesBlocksOfRowsOfAnySize) {
  for (const bool left_rows : {false, true})
    for (const bool right_rows : {false, true}) {
      for (const Index rows : {1, 5, 6, 7, 25})
        for (const Index columns : {1, 16, 33, 63, 64, 65, 131})
          for (const Index depth : {1, 2, 35})
            expect_product<TypeParam>(rows, depth, columns, left_rows, right_rows);
      expect_product<TypeParam>(193, TypeParam::depth_block, 65, left_rows, right_rows);
      expect_product<TypeParam>(7, TypeParam::depth_block + 1, 130, left_rows, right_rows);
      expect_product<TypeParam>(13, 2 * TypeParam::depth_block + 9, 67, left_rows, right_rows);
    }
}

TYPED_TEST(PackedMatrixTest, HasTheBitsOfMultiplyWhoeverPacks) {
  using T = typename TypeParam::scalar;
  const Index rows = 29, depth = TypeParam::depth_block + 77, columns = 150;
  const GappedMatrix<typename TypeParam::left> a(rows, depth, true, uneven);
  const GappedMatrix<typename TypeParam::right> right(depth, columns, true, uneven);
  GappedMatrix<T> wanted(rows, columns, true, uneven);
  linalg::multiply(pare::simd, as_const(a.view), as_const(right.view), wanted.view);
  const auto expect_same = [&](const auto& backend) {
    AlignedBuffer<std::byte> memory;
    const typename TypeParam::Packed packed(backend, as_const(right.view), memory);
    AlignedBuffer<T> left(static_cast<std::size_t>(TypeParam::Packed::left_size(rows, depth)));
    GappedMatrix<T> c(rows, columns, true, uneven);
    packed.multiply(pare::simd, as_const(a.view), c.view, left.data());
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j)
        ASSERT_TRUE(same_bits(c.view(i, j), wanted.view(i, j))) << i << ' ' << j;
  };
  expect_same(pare::simd);
  expect_same(pare::simd.threads(3));
  expect_same(pare::simd.on(pare::testing::ReversePool{5}));
}

TYPED_TEST(PackedMatrixTest, MayStopAfterWholePanels) {
  using T = typename TypeParam::scalar;
  constexpr Index wanted = TypeParam::Packed::panel_columns;
  const Index rows = 7, depth = 40, columns = 2 * wanted + 5;
  const GappedMatrix<typename TypeParam::left> a(rows, depth, true, left_at);
  const GappedMatrix<typename TypeParam::right> right(depth, columns, true, right_at);
  GappedMatrix<T> c(rows, columns, true, [](Index, Index) { return 7; });
  AlignedBuffer<std::byte> memory;
  const typename TypeParam::Packed packed(pare::simd, as_const(right.view), memory);
  AlignedBuffer<T> left(static_cast<std::size_t>(TypeParam::Packed::left_size(rows, depth)));
  packed.multiply(pare::simd, as_const(a.view),
                  TensorView<T, 2>{c.view.data, {rows, wanted}, c.view.stride}, left.data());
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) {
      int sum = 0;
      for (Index d = 0; d < depth; ++d) sum += left_at(i, d) * right_at(d, j);
      ASSERT_EQ(c.view(i, j), static_cast<T>(j < wanted ? sum : 7)) << i << ' ' << j;
    }
  EXPECT_EQ(TypeParam::Packed::whole_panels(1), wanted);
  EXPECT_EQ(TypeParam::Packed::whole_panels(wanted), wanted);
  EXPECT_EQ(TypeParam::Packed::whole_panels(wanted + 1), 2 * wanted);
}

TYPED_TEST(PackedMatrixTest, ShowsEachPackedPartOfTheRowsOnce) {
  using T = typename TypeParam::scalar;
  const Index rows = 5, depth = 2 * TypeParam::depth_block + 9;
  const GappedMatrix<typename TypeParam::left> a(rows, depth, false, left_at);
  const GappedMatrix<typename TypeParam::right> right(depth, 3, true, right_at);
  GappedMatrix<T> c(rows, 3, true, left_at);
  AlignedBuffer<std::byte> memory;
  const typename TypeParam::Packed packed(pare::simd, as_const(right.view), memory);
  AlignedBuffer<T> left(static_cast<std::size_t>(TypeParam::Packed::left_size(rows, depth)));
  std::vector<Index> with_product, without;
  std::vector<T> seen;
  packed.multiply(pare::simd, as_const(a.view), c.view, left.data(),
                  [&](const T* part, Index length) {
                    with_product.push_back(length);
                    seen.push_back(part[0]);
                  });
  TypeParam::Packed::each_left(pare::simd, as_const(a.view), left.data(),
                               [&](const T* part, Index length) {
                                 EXPECT_TRUE(same_bits(part[0], seen[without.size()]));
                                 without.push_back(length);
                               });
  EXPECT_EQ(with_product,
            (std::vector<Index>{TypeParam::depth_block, TypeParam::depth_block, Index{9}}));
  EXPECT_EQ(without, with_product);
}

TYPED_TEST(PackedMatrixTest, AllocatesNothingInMemoryThatIsLargeEnough) {
  using T = typename TypeParam::scalar;
  const Index rows = 9, depth = 600, columns = 70;
  const GappedMatrix<typename TypeParam::left> a(rows, depth, true, left_at);
  const GappedMatrix<typename TypeParam::right> right(depth, columns, true, right_at);
  GappedMatrix<T> c(rows, columns, true, left_at);
  AlignedBuffer<std::byte> memory;
  AlignedBuffer<T> left(static_cast<std::size_t>(TypeParam::Packed::left_size(rows, depth)));
  const auto run = [&] {
    const typename TypeParam::Packed packed(pare::simd, as_const(right.view), memory);
    packed.multiply(pare::simd, as_const(a.view), c.view, left.data());
  };
  const long start = allocations.load();
  run();
  EXPECT_GT(allocations.load(), start) << "the counter counts";
  const long before = allocations.load();
  run();
  EXPECT_EQ(allocations.load(), before);
}

TEST(CheckedLines, KeepsOrFindsAStrideOfOne) {
  float x[64] = {};
  using View = TensorView<float, 2>;
  const auto strides = [](View m) { return linalg::checked_lines("linalg::f", "m", m).stride; };
  using Strides = std::array<Index, 2>;
  EXPECT_EQ(strides({x, {3, 4}, {5, 1}}), (Strides{5, 1}));
  EXPECT_EQ(strides({x, {3, 4}, {1, 5}}), (Strides{1, 5}));
  EXPECT_EQ(strides({x, {1, 4}, {9, 2}}), (Strides{1, 2}));
  EXPECT_EQ(strides({x, {4, 1}, {2, 9}}), (Strides{2, 1}));
}

TEST(CheckedLines, RefusesAMatrixWithoutAStrideOfOne) {
  float x[64] = {};
  pare::testing::refusal(
      [&] { linalg::checked_lines("linalg::f", "m", TensorView<float, 2>{x, {3, 4}, {16, 2}}); },
      "linalg::f", "m");
  pare::testing::refusal(
      [&] {
        linalg::checked_lines("linalg::f", "m", TensorView<float, 2>{nullptr, {3, 4}, {4, 1}});
      },
      "linalg::f", "m");
}

}  // namespace
}  // namespace linalg_packed_matrix_test
