// SPDX-License-Identifier: Apache-2.0
// Rows rounded to bytes: each number by an oracle, what is not finite, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/linalg/int8_rows.hpp>

#include "support/properties.hpp"

namespace linalg_int8_rows_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::linalg::dequantize_rows;
using pare::linalg::Int8Rows;
using pare::linalg::Int8View;
using pare::linalg::quantize_rows;
using pare::testing::random_matrix;
using pare::testing::refusal;

constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();

RowMatrix<float> decoded(const Int8Rows& rows) {
  RowMatrix<float> out(rows.rows(), rows.dim());
  dequantize_rows(rows, out);
  return out;
}

bool same_rows(const Int8Rows& a, const Int8Rows& b) {
  return a.codes == b.codes && std::ranges::equal(a.scales, b.scales, [](float x, float y) {
           return x == y || (pare::is_nan(x) && pare::is_nan(y));
         });
}

template <class S>
void expect_rounded(Index rows, Index dim) {
  const auto from = random_matrix<RowMatrix<float>>(rows, dim, 3);
  RowMatrix<S> x(rows, dim);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<S>(from.data()[i]);
  const Int8Rows got = quantize_rows(x);
  ASSERT_EQ(got.rows(), rows);
  ASSERT_EQ(got.dim(), dim);
  for (Index r = 0; r < rows; ++r) {
    double largest = 0;
    for (Index c = 0; c < dim; ++c)
      largest = std::max(largest, std::abs(static_cast<double>(static_cast<float>(x(r, c)))));
    const auto scale = static_cast<double>(got.scales[static_cast<std::size_t>(r)]);
    ASSERT_NEAR(scale, largest / 127, largest / 127 * 0x1p-24);
    int most = 0;
    for (Index c = 0; c < dim; ++c) {
      // A quotient that is rounded to float before is at most 127 x 2^-24 off.
      const double quotient = static_cast<double>(static_cast<float>(x(r, c))) / scale;
      ASSERT_LE(std::abs(quotient - got.codes(r, c)), .5 + 127 * 0x1p-24) << r << ' ' << c;
      most = std::max(most, std::abs(int{got.codes(r, c)}));
    }
    ASSERT_EQ(most, 127);
  }
  EXPECT_TRUE(same_rows(got, quantize_rows(pare::reference, x)));
  EXPECT_TRUE(same_rows(got, quantize_rows(pare::simd.threads(2), x)));
}

TEST(Int8Rows, HaveEachNumberInHalfAStepOfTheLargest) {
  expect_rounded<float>(5, 1);
  expect_rounded<float>(3, 15);
  expect_rounded<float>(600, 33);
  expect_rounded<float>(7, 129);
  expect_rounded<bf16>(9, 127);
  expect_rounded<pare::f16>(9, 64);
}

TEST(Int8Rows, RoundHalvesToEvenAndKeepZeroAndSigns) {
  for (const Index shift : {0, 13}) {  // in the tail of a register, too
    RowMatrix<float> x = RowMatrix<float>::Zero(1, 8 + shift);
    const float numbers[] = {127, .5f, 1.5f, -2.5f, -3.5f, 0, -0.0f, -126.5f};
    const int wanted[] = {127, 0, 2, -2, -4, 0, 0, -126};
    for (Index i = 0; i < 8; ++i) x(0, i + shift) = numbers[i];
    const auto expect = [&](const auto& backend) {
      const Int8Rows rows = quantize_rows(backend, x);
      EXPECT_EQ(rows.scales[0], 1);
      for (Index i = 0; i < 8; ++i) EXPECT_EQ(rows.codes(0, i + shift), wanted[i]) << i;
    };
    expect(pare::simd);
    expect(pare::reference);
  }
}

TEST(Int8Rows, HaveCodesOfZeroWhereARowIsZeroTinyOrNotFinite) {
  for (const Index dim : {1, 5, 40}) {
    RowMatrix<float> x = random_matrix<RowMatrix<float>>(7, dim, 3);
    x.row(1).setZero();
    x(2, dim - 1) = nan;
    x(3, dim / 2) = -infinity;
    x.row(4) *= 1e-38f;
    x.row(5) = (x.row(5) / x.row(5).cwiseAbs().maxCoeff()).eval() * 3e38f;
    const auto expect = [&](const auto& backend) {
      const Int8Rows rows = quantize_rows(backend, x);
      for (const Index r : {1, 2, 3, 4}) EXPECT_TRUE((rows.codes.row(r).array() == 0).all()) << r;
      EXPECT_EQ(rows.scales[1], 0);
      EXPECT_EQ(rows.scales[4], 0);
      EXPECT_TRUE(pare::is_nan(rows.scales[2]) && pare::is_nan(rows.scales[3]));
      EXPECT_EQ(rows.codes.row(5).cast<int>().cwiseAbs().maxCoeff(), 127);
      EXPECT_TRUE(pare::is_nan(decoded(rows)(2, 0)));
      EXPECT_EQ(decoded(rows)(1, 0), 0);
    };
    expect(pare::simd);
    expect(pare::reference);
  }
}

TEST(Int8Rows, KeepTheirBitsOnceRounded) {
  const auto x = random_matrix<RowMatrix<float>>(50, 37, 3);
  const Int8Rows rows = quantize_rows(x);
  const Int8Rows again = quantize_rows(decoded(rows));
  EXPECT_EQ(again.codes, rows.codes);
  RowMatrix<float> wide = RowMatrix<float>::Constant(50, 45, nan);
  wide.leftCols(37) = x;
  EXPECT_TRUE(same_rows(quantize_rows(wide.leftCols(37)), rows));
}

TEST(Int8Rows, RefuseWhatDoesNotFit) {
  const auto x = random_matrix<RowMatrix<float>>(4, 6, 3);
  refusal([&] { quantize_rows(RowMatrix<float>(4, 0)); }, "linalg::quantize_rows", "x");
  refusal([&] { quantize_rows(Eigen::MatrixXf(x)); }, "linalg::quantize_rows", "x");
  refusal([&] { quantize_rows(TensorView<const float, 2>{x.data(), {1, 65536}, {0, 1}}); },
          "linalg::quantize_rows", "x");
  refusal([&] { quantize_rows(TensorView<const float, 2>{x.data(), {-1, 6}, {6, 1}}); },
          "linalg::quantize_rows", "x");
  const Index most = std::numeric_limits<Index>::max();
  refusal([&] { quantize_rows(TensorView<const float, 2>{x.data(), {most / 2, 6}, {0, 1}}); },
          "linalg::quantize_rows", "x");
  Int8Rows rows = quantize_rows(x);
  const std::vector<float> before = rows.scales;
  const TensorView<const float, 2> inside{rows.scales.data(), {2, 2}, {2, 1}};
  refusal([&] { quantize_rows(pare::simd, inside, rows); }, "linalg::quantize_rows", "rows");
  EXPECT_EQ(rows.scales, before);
  RowMatrix<float> out = RowMatrix<float>::Constant(4, 5, 7);
  refusal([&] { dequantize_rows(rows, out); }, "linalg::dequantize_rows", "out");
  const Int8View few{pare::to_view(std::as_const(rows.codes)), std::span(rows.scales).first(3)};
  refusal([&] { dequantize_rows(few, out); }, "linalg::dequantize_rows", "rows");
  EXPECT_TRUE((out.array() == 7).all());
  const TensorView<float, 2> there{rows.scales.data(), {4, 6}, {0, 1}};
  refusal([&] { dequantize_rows(rows, there); }, "linalg::dequantize_rows", "out");
}

}  // namespace
}  // namespace linalg_int8_rows_test
