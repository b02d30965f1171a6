// SPDX-License-Identifier: Apache-2.0
// Block-diagonal matrices, and layers between two of them.
#include <gtest/gtest.h>

#include <pare/factor/structured/block_diagonal.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/structured/wrapped_linear.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace transformer_structured_wrapped_linear_test {
namespace {

using namespace pare::transformer;
using Eigen::MatrixXd;
using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::factor::BlockDiagonal;
using pare::testing::any_stride_same_bits;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::same_bits_for_any_threads;
using pare::testing::Tolerance;

static_assert(Linear<WrappedLinear<DenseLinear<float>, float>>);
static_assert(Linear<WrappedLinear<WrappedLinear<DenseLinear<bf16>, bf16>, float>>);

template <class S>
BlockDiagonal<S> random_blocks(Index size, Index block, std::uint64_t seed) {
  return BlockDiagonal<S>::from(random_matrix<RowMatrix<float>>(size, block, seed));
}

template <class S>
MatrixXd dense_of(const BlockDiagonal<S>& a) {
  RowMatrix<double> dense(a.size(), a.size());
  a.to_dense(dense);
  return dense;
}

TEST(BlockDiagonalTest, HasItsBlocksOnTheDiagonal) {
  const auto stacked = random_matrix<RowMatrix<float>>(12, 4, 1);
  const auto a = BlockDiagonal<float>::from(stacked);
  const MatrixXd dense = dense_of(a);
  for (Index i = 0; i < 12; ++i)
    for (Index j = 0; j < 12; ++j)
      EXPECT_EQ(dense(i, j), i / 4 == j / 4 ? static_cast<double>(stacked(i, j % 4)) : 0.0);
  EXPECT_EQ(a.blocks(), 3);
  EXPECT_EQ(a.bytes(), 12 * 4 * 4);
  EXPECT_TRUE(dense_of(a.copy()) == dense);
  EXPECT_TRUE(dense_of(BlockDiagonal<bf16>(9, 3)) == MatrixXd::Identity(9, 9));
  EXPECT_EQ(BlockDiagonal<float>().copy().blocks(), 0);
  BlockDiagonal<float> from(9, 3);
  const BlockDiagonal<float> to = std::move(from);
  EXPECT_EQ(to.blocks(), 3);
  EXPECT_EQ(from.copy().size(), 0);  // NOLINT(bugprone-use-after-move): promised
}

TEST(BlockDiagonalTest, RefusesWhatDoesNotFit) {
  const char* const name = "factor::BlockDiagonal";
  refusal([] { BlockDiagonal<float>(8, 0); }, name, "block");
  refusal([] { BlockDiagonal<float>(8, -4); }, name, "block");
  refusal([] { BlockDiagonal<float>(8, 3); }, name, "size");
  refusal([] { BlockDiagonal<float>(0, 3); }, name, "size");
  constexpr Index huge = Index{1} << 40;
  refusal([] { BlockDiagonal<float>(huge, huge); }, name, "size");
  auto a = random_blocks<float>(8, 4, 1);
  RowMatrix<float> x(2, 8), y(2, 8);
  x.setZero();
  y.setZero();
  refuses_and_leaves_alone([&] { a.to_dense(x); }, "factor::BlockDiagonal::to_dense", "out", x);
  auto single = random_blocks<float>(4, 4, 1);
  refusal([&] { single.to_dense(single.own_values()); }, "factor::BlockDiagonal::to_dense", "out");
  const auto products = [&](auto from, auto to, const char* argument) {
    refuses_and_leaves_alone([&] { multiply_blocks(pare::simd, a, as_const(from), to); },
                             "factor::multiply_blocks", argument, x, y);
  };
  products(pare::columns_of(pare::to_view(x), 0, 4), pare::to_view(y), "x");
  products(pare::to_view(x), pare::rows_of(pare::to_view(y), 0, 1), "y");
  products(pare::to_view(x), pare::to_view(x), "y");
  Eigen::MatrixXf by_columns(2, 8);
  products(pare::to_view(by_columns), pare::to_view(y), "x");
  products(pare::to_view(x), pare::to_view(by_columns), "y");
  products(pare::to_view(x), pare::TensorView<float, 2>{a.own_values().data, {2, 8}, {8, 1}}, "y");
}

/// y = x (A C B)^T in double, and what its terms are bounded by.
template <class S, class Backend>
void expect_products(const Backend& backend, Index out, Index in, Index block, Index rows) {
  const auto core = random_matrix<RowMatrix<float>>(out, in, 2);
  const WrappedLinear layer(random_blocks<S>(out, block, 3), DenseLinear<float>::copy_of(core),
                            random_blocks<S>(in, block, 4));
  const auto x = random_matrix<RowMatrix<float>>(rows, in, 5);
  RowMatrix<float> y(rows, out);
  layer.apply(backend, x, y);
  const MatrixXd a = dense_of(layer.left()), b = dense_of(layer.right());
  const MatrixXd c = core.cast<double>(), wide = x.cast<double>();
  const MatrixXd wanted = wide * (a * c * b).transpose();
  const MatrixXd size = wide.cwiseAbs() * (a.cwiseAbs() * c.cwiseAbs() * b.cwiseAbs()).transpose();
  for (Index r = 0; r < rows; ++r)
    for (Index o = 0; o < out; ++o)
      ASSERT_NEAR(static_cast<double>(y(r, o)), wanted(r, o),
                  Tolerance<float>::dot(static_cast<double>(in + 2 * block), size(r, o)))
          << rows << ' ' << r << ' ' << o;
}

TEST(WrappedLinearTest, ProductsAreThoseOfTheThreeMatrices) {
  for (const Index rows : {Index{1}, Index{5}, few_rows, few_rows + 2}) {
    expect_products<float>(pare::simd, 32, 48, 16, rows);
    expect_products<bf16>(pare::simd.threads(2), 21, 35, 7, rows);
  }
  expect_products<bf16>(pare::reference, 21, 35, 7, 3);
}

WrappedLinear<DenseLinear<float>, bf16> some_layer() {
  return {random_blocks<bf16>(24, 8, 3),
          DenseLinear<float>::copy_of(random_matrix<RowMatrix<float>>(24, 40, 2)),
          random_blocks<bf16>(40, 20, 4)};
}

TEST(WrappedLinearTest, GivesTheSameBitsForAnyThreadsAndStrides) {
  const auto layer = some_layer();
  for (const Index rows : {Index{2}, few_rows + 3}) {
    const auto x = random_matrix<RowMatrix<float>>(rows, 40, 5);
    same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      RowMatrix<float> y(rows, 24);
      layer.apply(backend, x, y);
      return y;
    });
    any_stride_same_bits(x, [&](const auto& view) {
      Eigen::MatrixXf y(rows, 24);  // by columns
      layer.apply(view, y);
      return y;
    });
  }
}

/// Of S: the products of ARMOR's own, but for the rounding of three matrices to S.
template <class S>
void expect_armor(double roundoff) {
  const auto w = random_matrix<RowMatrix<float>>(24, 32, 7);
  const auto f = pare::factor::armor(w, std::vector<double>(32, 1.0), {.block = 8, .sweeps = 1});
  const ArmorLinear<S> layer = armor_linear<S>(f);
  for (const Index rows : {Index{1}, few_rows + 1}) {
    const auto x = random_matrix<RowMatrix<float>>(rows, 32, 8);
    RowMatrix<float> y(rows, 24);
    layer.apply(x, y);
    RowMatrix<double> s(24, 32);
    f.core.to_dense(s);
    const MatrixXd a = dense_of(f.left), b = dense_of(f.right), wide = x.cast<double>();
    const MatrixXd wanted = wide * (a * s * b).transpose();
    const MatrixXd size =
        wide.cwiseAbs() * (a.cwiseAbs() * s.cwiseAbs() * b.cwiseAbs()).transpose();
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < 24; ++o)
        ASSERT_NEAR(static_cast<double>(y(r, o)), wanted(r, o),
                    Tolerance<float>::dot(48, size(r, o)) + 3.1 * roundoff * size(r, o));
  }
}

TEST(ArmorLinearTest, IsTheProductOfItsMatrices) {
  static_assert(Linear<ArmorLinear<bf16>>);
  expect_armor<float>(0);
  expect_armor<bf16>(0x1p-8);
}

TEST(WrappedLinearTest, TheSecondCallWithAWorkspaceAllocatesNothing) {
  const auto layer = some_layer();
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const auto x = random_matrix<RowMatrix<float>>(3, 40, 5);
  RowMatrix<float> y(3, 24);
  layer.apply(backend, x, y);
  const long before = pare::testing::allocations;
  layer.apply(backend, x, y);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(WrappedLinearTest, RefusesWhatDoesNotFit) {
  const auto core = [] {
    return DenseLinear<float>::copy_of(random_matrix<RowMatrix<float>>(24, 40, 2));
  };
  using Layer = WrappedLinear<DenseLinear<float>, float>;
  const char* const name = "transformer::WrappedLinear";
  refusal([&] { Layer(random_blocks<float>(40, 8, 1), core(), random_blocks<float>(40, 8, 1)); },
          name, "left");
  refusal([&] { Layer(random_blocks<float>(24, 8, 1), core(), random_blocks<float>(24, 8, 1)); },
          name, "right");
  const auto layer = some_layer();
  RowMatrix<float> x = random_matrix<RowMatrix<float>>(3, 40, 5), y(3, 24), wrong(3, 25);
  y.setZero();
  wrong.setZero();
  const char* const call = "transformer::WrappedLinear::apply";
  refuses_and_leaves_alone([&] { layer.apply(wrong, y); }, call, "x", y);
  refuses_and_leaves_alone([&] { layer.apply(x, wrong); }, call, "y", wrong);
  const auto overlapping = pare::columns_of(pare::to_view(x), 0, 24);
  refuses_and_leaves_alone([&] { layer.apply(pare::as_const(pare::to_view(x)), overlapping); },
                           call, "y", x);
  const WrappedLinear pruned(
      random_blocks<float>(64, 8, 1),
      TwoFourLinear<float>(pare::factor::TwoFour<float>(pare::factor::TwoFourMask(64, 64))),
      random_blocks<float>(64, 8, 2));
  const auto row = random_matrix<RowMatrix<float>>(1, 64, 5);
  for (const void* memory :
       {static_cast<const void*>(pruned.left().values().data),
        static_cast<const void*>(pruned.right().values().data),
        static_cast<const void*>(pruned.core().two_four().values().data),
        static_cast<const void*>(pruned.core().two_four().mask().words().data)})
    refusal(
        [&] {
          const pare::TensorView<float, 2> inside{
              static_cast<float*>(const_cast<void*>(memory)), {1, 64}, {64, 1}};
          pruned.apply(pare::const_view(row), inside);
        },
        call, "y");
  RowMatrix<float> none(0, 40), nothing(0, 24);
  EXPECT_NO_THROW(layer.apply(none, nothing));
}

}  // namespace
}  // namespace transformer_structured_wrapped_linear_test
