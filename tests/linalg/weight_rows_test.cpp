// SPDX-License-Identifier: Apache-2.0
// A few rows times a weight, against the definition in double.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cstddef>
#include <type_traits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/weight_rows.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace linalg_weight_rows_test {
namespace {

using pare::bf16;
using pare::Index;
using pare::RowMatrix;
using pare::linalg::multiply_weight_pairs;
using pare::linalg::multiply_weight_rows;
using pare::linalg::PairBackend;
using pare::testing::equal_bits;
using pare::testing::random_matrix;
using pare::testing::Tolerance;

/// W with `gap` elements behind each row, x and y.
template <class W>
struct Product {
  Product(Index rows, Index inputs, Index outputs, Index gap)
      : w(random_matrix<RowMatrix<float>>(outputs, inputs + gap, 1)),
        x(random_matrix<RowMatrix<float>>(rows, inputs, 2)),
        stored(static_cast<std::size_t>(w.size())) {
    for (Index i = 0; i < w.size(); ++i) {
      stored[static_cast<std::size_t>(i)] = static_cast<W>(w.data()[i]);
      w.data()[i] = static_cast<float>(stored[static_cast<std::size_t>(i)]);
    }
  }

  template <class B>
  RowMatrix<float> on(const B& backend, Index first, Index rows) const {
    RowMatrix<float> y = RowMatrix<float>::Constant(rows, w.rows(), -7);
    multiply_weight_rows(
        backend, pare::TensorView<const W, 2>{stored.data(), {w.rows(), x.cols()}, {w.cols(), 1}},
        pare::TensorView<const float, 2>{&x(first, 0), {rows, x.cols()}, {x.cols(), 1}},
        pare::to_view(y));
    return y;
  }

  RowMatrix<float> w, x;
  std::vector<W> stored;
};

template <class W>
void expect_products() {
  // One panel of outputs, several, and items that several workers take; inputs of whole steps, with
  // an end, and in parts.
  for (const Index outputs : {1, 5, 16, 33, 700})
    for (const Index inputs : {1, 32, 77, 1600})
      for (const Index rows : {1, 2, 4, 6, 7, 16, 19}) {
        const Product<W> p(rows, inputs, outputs, rows % 3);
        const RowMatrix<float> y = p.on(pare::simd, 0, rows);
        const Eigen::MatrixXd w = p.w.leftCols(inputs).template cast<double>();
        const Eigen::MatrixXd x = p.x.template cast<double>(), wanted = x * w.transpose();
        const Eigen::MatrixXd terms = x.cwiseAbs() * w.cwiseAbs().transpose();
        for (Index r = 0; r < rows; ++r)
          for (Index o = 0; o < outputs; ++o)
            ASSERT_PRED3(pare::testing::within, static_cast<double>(y(r, o)), wanted(r, o),
                         Tolerance<float>::dot(static_cast<double>(inputs), terms(r, o)))
                << outputs << ' ' << inputs << ' ' << r << ' ' << o;
        for (const int threads : {2, 3})
          ASSERT_TRUE(equal_bits(p.on(pare::simd.threads(threads), 0, rows), y));
        ASSERT_TRUE(equal_bits(p.on(pare::simd.on(pare::testing::ReversePool{5}), 0, rows), y));
        ASSERT_TRUE(equal_bits(p.on(pare::simd, rows - 1, 1), RowMatrix<float>(y.bottomRows(1))));
      }
}

TEST(MultiplyWeightRows, AreProductsOfTheSameBitsForAnyRowsAndExecutor) {
  expect_products<float>();
  expect_products<bf16>();
}

/// Rows and a weight of bf16, multiplied in pairs where that is fast. A gap is even. Rows are
/// streamed (up to 7), of one group or several, in L1 at once or not (26 and 48); inputs are of one
/// block or several, and of 1600 and 7 rows in parts; outputs are less than a tile, one panel or
/// several, whose last tile is whole or not.
TEST(MultiplyWeightRows, PairsAreTheSameProducts) {
  for (const Index outputs : {1, 3, 16, 71})
    for (const Index inputs : {64, 832, 1600})
      for (const Index rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 19, 26, 36, 48}) {
        const Product<bf16> p(rows, inputs, outputs, 2 * (rows % 3));
        const pare::TensorView<const bf16, 2> w{
            p.stored.data(), {outputs, inputs}, {p.w.cols(), 1}};
        if (!pare::linalg::multiplies_weight_pairs(pare::simd, w)) GTEST_SKIP();
        std::vector<bf16> stored(static_cast<std::size_t>(rows * (inputs + 2)));
        RowMatrix<float> x(rows, inputs);
        for (Index r = 0; r < rows; ++r)
          for (Index i = 0; i < inputs; ++i) {
            const auto at = static_cast<std::size_t>(r * (inputs + 2) + i);
            stored[at] = static_cast<bf16>(p.x(r, i));
            x(r, i) = static_cast<float>(stored[at]);
          }
        const auto on = [&](const auto& backend, Index first, Index count, Index some) {
          RowMatrix<float> y = RowMatrix<float>::Constant(count, some, -7);
          if constexpr (PairBackend<std::remove_cvref_t<decltype(backend)>>)
            multiply_weight_pairs(
                backend, rows_of(w, outputs - some, some),
                {stored.data() + first * (inputs + 2), {count, inputs}, {inputs + 2, 1}},
                pare::to_view(y));
          return y;
        };
        const RowMatrix<float> y = on(pare::simd, 0, rows, outputs);
        const Eigen::MatrixXd wide_w = p.w.leftCols(inputs).cast<double>(),
                              wide_x = x.cast<double>(), wanted = wide_x * wide_w.transpose();
        const Eigen::MatrixXd terms = wide_x.cwiseAbs() * wide_w.cwiseAbs().transpose();
        for (Index r = 0; r < rows; ++r)
          for (Index o = 0; o < outputs; ++o)
            ASSERT_PRED3(pare::testing::within, static_cast<double>(y(r, o)), wanted(r, o),
                         Tolerance<float>::dot(static_cast<double>(inputs), terms(r, o)))
                << outputs << ' ' << inputs << ' ' << r << ' ' << o;
        ASSERT_TRUE(equal_bits(on(pare::simd.threads(3), 0, rows, outputs), y));
        ASSERT_TRUE(
            equal_bits(on(pare::simd, rows - 1, 1, outputs), RowMatrix<float>(y.bottomRows(1))));
        ASSERT_TRUE(equal_bits(on(pare::simd, 0, rows / 2, outputs),
                               RowMatrix<float>(y.topRows(rows / 2))));
        const RowMatrix<float> last = on(pare::simd, 0, rows, outputs - 1);
        ASSERT_TRUE(equal_bits(last, RowMatrix<float>(y.rightCols(outputs - 1))));
      }
}

/// The stride that is fastest: an odd number of cache lines, as many as a block has beyond pages.
TEST(MultiplyWeightRows, RowsOfPairsLieEvenlyInL1) {
  for (const Index inputs : {64, 576, 1536, 4096, 8192}) {
    const Index stride = pare::linalg::weight_pairs_stride(inputs);
    EXPECT_GE(stride, inputs);
    EXPECT_LT(stride, inputs + 2048);
    EXPECT_EQ(stride % 64, 32);
  }
  // 8 blocks of 16 lines, beyond 8 KiB: as few as 6 would not be of one length.
  EXPECT_EQ(pare::linalg::weight_pairs_stride(4096), 4096 + 32 * 17);
  // 2 blocks of 24 lines: 25 beyond a page.
  EXPECT_EQ(pare::linalg::weight_pairs_stride(1536), 2048 + 32 * 25);
}

/// Of inputs that are no multiple of 64, or rows an odd number of elements apart, none are.
TEST(MultiplyWeightRows, PairsNeedWholeStepsAndAnEvenStride) {
  const std::vector<bf16> w(200);
  const auto pairs = [&](Index inputs, Index stride) {
    return pare::linalg::multiplies_weight_pairs(
        pare::simd, pare::TensorView<const bf16, 2>{w.data(), {1, inputs}, {stride, 1}});
  };
  EXPECT_FALSE(pairs(63, 64));
  EXPECT_FALSE(pairs(96, 96));
  EXPECT_FALSE(pairs(64, 65));
  EXPECT_EQ(pairs(64, 66), pare::arch::best::has_bf16_dot && pare::cpu_has_fast_bf16_dot());
}

/// Backends that multiply no pairs are refused by the compiler, where a call would write nothing.
static_assert(!PairBackend<pare::Reference>);
static_assert(PairBackend<decltype(pare::simd)> == pare::arch::best::has_bf16_dot);

TEST(MultiplyWeightRows, OfNoInputsAreZero) {
  const RowMatrix<float> x(19, 0);
  for (const Index rows : {1, 7, 19}) {
    RowMatrix<float> y(rows, 21);
    const auto none = [&]<class W>(W) {
      y.setConstant(-7);
      multiply_weight_rows(pare::simd, pare::TensorView<const W, 2>{nullptr, {21, 0}, {0, 1}},
                           {x.data(), {rows, 0}, {0, 1}}, pare::to_view(y));
      EXPECT_TRUE((y.array() == 0).all()) << rows;
    };
    none(0.0f);
    none(bf16{});
  }
}

/// Rows that are all the same memory are read as any others.
TEST(MultiplyWeightRows, AWeightWithoutStride) {
  const RowMatrix<float> w = random_matrix<RowMatrix<float>>(1, 64, 1),
                         x = random_matrix<RowMatrix<float>>(2, 64, 2);
  RowMatrix<float> y(2, 20);
  multiply_weight_rows(pare::simd, pare::TensorView<const float, 2>{w.data(), {20, 64}, {0, 1}},
                       as_const(pare::to_view(x)), pare::to_view(y));
  for (Index o = 1; o < 20; ++o) EXPECT_EQ(y.col(o), y.col(0));
}

}  // namespace
}  // namespace linalg_weight_rows_test
