// SPDX-License-Identifier: Apache-2.0
// Linear layers called and made with Eigen objects.
#include <gtest/gtest.h>

#include <pare/core/matrix.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <Eigen/Core>

#include <cstdint>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel/quantized_oracle.hpp"
#include "support/properties.hpp"

namespace transformer_linear_calls_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::kernel::Q4_1;
using pare::testing::equal_bits;
using pare::testing::refusal;
using namespace pare::transformer;
using Rows = pare::RowMatrix<float>;

Rows random_matrix(Index rows, Index cols, unsigned seed) {
  std::mt19937 random(seed);
  return Rows::NullaryExpr(rows, cols,
                           [&] { return static_cast<float>(random() % 4001) / 2000.0f - 1.0f; });
}

/// x and y of both orders, as a block, on backends and on none: the bits of views.
template <class L>
void expect_the_same_of_eigen_objects(const L& layer, Index rows) {
  const Rows x = random_matrix(rows, layer.inputs(), 3);
  Rows wanted(rows, layer.outputs()), y = wanted, threads = wanted, wide(rows, y.cols() + 3);
  layer.apply(pare::simd, pare::const_view(x), pare::to_view(wanted));
  layer.apply(x, y);
  layer.apply(pare::simd.threads(2), x, threads);
  layer.apply(pare::simd, x, wide.rightCols(y.cols()));
  const Eigen::MatrixXf x_by_columns = x;
  Eigen::MatrixXf y_by_columns(rows, layer.outputs());
  layer.apply(x_by_columns, y_by_columns);
  EXPECT_TRUE(equal_bits(y, wanted));
  EXPECT_TRUE(equal_bits(threads, wanted));
  EXPECT_TRUE(equal_bits(Rows(wide.rightCols(y.cols())), wanted));
  EXPECT_TRUE(equal_bits(Rows(y_by_columns), wanted));
}

TEST(LinearCalls, TakeEigenObjectsWithAndWithoutABackend) {
  const Rows w = random_matrix(19, 64, 1);
  const DenseLinear<float> dense(w);
  std::mt19937_64 random(2);
  std::vector<Q4_1> blocks(19 * 2);
  for (Q4_1& block : blocks) {
    block = pare::testing::random_block<Q4_1>(random);
    block.d.high = block.m.high = 0x28;
  }
  const QuantizedLinear<Q4_1> small(blocks, 19, 64);
  pare::factor::LowRank<float> factors;
  factors.left = random_matrix(19, 5, 4);
  factors.right = random_matrix(5, 64, 5);
  const LowRankLinear<float> thin(factors);
  for (const Index rows : {Index{1}, Index{7}, few_rows + 1}) {
    expect_the_same_of_eigen_objects(dense, rows);
    expect_the_same_of_eigen_objects(small, rows);
    expect_the_same_of_eigen_objects(thin, rows);
  }
}

TEST(LinearCalls, OneRowIsARowVector) {
  const Rows w = random_matrix(3, 20, 1);
  const Eigen::RowVectorXf x = random_matrix(1, 20, 2);
  Eigen::RowVectorXf y(3);
  DenseLinear<float>(w).apply(x, y);
  EXPECT_TRUE(y.isApprox(x * w.transpose(), 1e-5f));
  Eigen::VectorXf column = x.transpose();
  refusal([&] { DenseLinear<float>(w).apply(column, y); }, "transformer::DenseLinear::apply", "x");
}

TEST(LinearCalls, WrongTypesAreNoCalls) {
  const auto takes = [](const auto& layer, auto& x, auto& y) {
    return requires { layer.apply(x, y); };
  };
  const Rows w = random_matrix(3, 4, 1);
  const DenseLinear<float> dense(w);
  Rows x(2, 4), y(2, 3);
  Eigen::MatrixXd wide(2, 4), wide_y(2, 3);
  EXPECT_TRUE(takes(dense, x, y));
  EXPECT_FALSE(takes(dense, wide, y));
  EXPECT_FALSE(takes(dense, x, wide_y));
  EXPECT_FALSE(takes(dense, x, std::as_const(y)));
}

TEST(DenseLinear, ViewsAnEigenObject) {
  const Rows w = random_matrix(5, 7, 6);
  const DenseLinear<float> viewed(w);
  EXPECT_EQ(viewed.weights().data, w.data());
  EXPECT_EQ(DenseLinear<float>(w.topRows(2)).outputs(), 2);
  static_assert(!std::is_constructible_v<DenseLinear<float>, Rows>);  // would be gone
  static_assert(!std::is_constructible_v<DenseLinear<bf16>, const Rows&>);
  const Eigen::MatrixXf by_columns = w;
  refusal([&] { DenseLinear<float> layer(by_columns); }, "transformer::DenseLinear", "weights");
}

TEST(DenseLinear, CopiesAnyMatrix) {
  const Rows w = random_matrix(5, 7, 6);
  const Eigen::MatrixXd wide = w.cast<double>();  // by columns
  const auto narrow = DenseLinear<bf16>::copy_of(wide);
  const auto of_temporary = DenseLinear<double>::copy_of(Rows(2 * w));
  for (Index o = 0; o < 5; ++o)
    for (Index i = 0; i < 7; ++i) {
      EXPECT_EQ(narrow.weights()(o, i).bits, bf16(w(o, i)).bits);
      EXPECT_EQ(of_temporary.weights()(o, i), 2.0 * wide(o, i));
    }
  refusal([] { DenseLinear<float>::copy_of(Rows(0, 3)); }, "transformer::DenseLinear", "outputs");
  refusal([&] { DenseLinear<float>::copy_of(w, {.round_inputs = true}); },
          "transformer::DenseLinear", "round_inputs");
}

}  // namespace
}  // namespace transformer_linear_calls_test
