// SPDX-License-Identifier: Apache-2.0
// Uniformity: the goldens, the definition in long double, finite differences, properties.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/retrieval/objectives/uniformity.hpp>

#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace retrieval_uniformity_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::retrieval::uniformity;
using pare::retrieval::uniformity_gradient;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using Wide = RowMatrix<double>;

/// Both backends and both scalars.
template <class F>
void everywhere(const Wide& x, const F& expect) {
  const RowMatrix<float> narrow = x.cast<float>();
  expect(uniformity(pare::reference, x), 1e-14);
  expect(uniformity(x), 1e-13);
  expect(uniformity(pare::reference, narrow), 1e-6);
  expect(uniformity(narrow), 1e-5);
}

/// Lengths of rows make no difference.
TEST(Uniformity, IsTheGoldenOne) {
  Wide antipodal(2, 3), points(4, 2);
  antipodal << 3, 0, 4, -6, 0, -8;
  points << 1, 0, -5, 0, 0, .1, 0, -2;
  everywhere(antipodal, [](double got, double bound) { EXPECT_NEAR(got, -8, bound); });
  everywhere(Wide::Identity(5, 5), [](double got, double bound) { EXPECT_NEAR(got, -4, bound); });
  everywhere(points, [](double got, double bound) { EXPECT_NEAR(got, -4.39634897, bound + 5e-9); });
  Wide equal(7, 3);
  for (int i = 1; i <= 7; ++i) equal.row(i - 1) << i, 2 * i, 2 * i;
  everywhere(equal, [](double got, double bound) { EXPECT_NEAR(got, 0, bound); });
}

/// By the products of unit rows, in long double.
long double oracle(const Wide& x, double t) {
  long double sum = 0;
  const auto dot = [&](Index i, Index j) {
    long double d = 0;
    for (Index c = 0; c < x.cols(); ++c)
      d += static_cast<long double>(x(i, c)) * static_cast<long double>(x(j, c));
    return d;
  };
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = i + 1; j < x.rows(); ++j)
      sum += std::exp(-2 * static_cast<long double>(t) *
                      (1 - dot(i, j) / std::sqrt(dot(i, i) * dot(j, j))));
  const auto n = static_cast<long double>(x.rows());
  return std::log(sum / (n * (n - 1) / 2));
}

/// A product of unit rows is off by (dim + 4) u at the most, a weight by 2 t times that and 2e-7 of
/// its exponential (4e-16 in double); sums of up to 64 weights in T add 64 u.
template <class T>
double bound_of(Index dim, double t) {
  const double u = std::numeric_limits<T>::epsilon() / 2.0;
  return 2 * t * (static_cast<double>(dim) + 6) * u + 4 * u + 64 * u;
}

/// Odd sizes: rows over several blocks of 192, columns over several tiles of 128, tails of both.
TEST(Uniformity, IsTheDefinitionsAtOddSizes) {
  for (const auto& [rows, dim] : std::vector<std::array<Index, 2>>{{2, 1}, {97, 7}, {431, 33}}) {
    const Wide x = random_matrix<Wide>(rows, dim, 7);
    const RowMatrix<float> narrow = x.cast<float>();
    for (const double t : {.5, 2.0, 20.0}) {
      const auto wanted = static_cast<double>(oracle(x, t));
      EXPECT_NEAR(uniformity(x, {.t = t}), wanted, bound_of<double>(dim, t)) << rows << ' ' << t;
      EXPECT_NEAR(uniformity(narrow, {.t = t}), wanted, bound_of<float>(dim, t)) << rows;
      EXPECT_NEAR(uniformity(pare::reference, x, {.t = t}), wanted, 1e-12);
      Wide gradient(rows, dim);
      EXPECT_NEAR(uniformity_gradient(x, gradient, {.t = t}), wanted, bound_of<double>(dim, t));
    }
  }
}

/// Central differences, h = 1e-5: off by about h^2 and 1e-15 / h.
TEST(Uniformity, ItsGradientIsThatOfFiniteDifferences) {
  Wide x = random_matrix<Wide>(9, 5, 3);
  x.row(4) = x.row(2) * 2;  // a pair of distance 0
  Wide gradient(9, 5), fast(9, 5);
  uniformity_gradient(pare::reference, x, gradient, {.weight = -3});
  uniformity_gradient(x, fast, {.weight = -3});
  for (Index i = 0; i < 9; ++i)
    for (Index c = 0; c < 5; ++c) {
      const double at = x(i, c), h = 1e-5;
      x(i, c) = at + h;
      const double above = uniformity(pare::reference, x);
      x(i, c) = at - h;
      const double below = uniformity(pare::reference, x);
      x(i, c) = at;
      EXPECT_NEAR(gradient(i, c), -3 * (above - below) / (2 * h), 1e-8);
      EXPECT_NEAR(fast(i, c), gradient(i, c), 1e-12);
    }
}

/// Of many rows, in float: against the reference, whose norm the gradient's error is a part of. A
/// weight is off by bound_of, and so is a sum of them with unit rows; their sum may be larger than
/// what is left of it across the row, at most 1 / Z of all weights times 2 t.
TEST(Uniformity, ItsGradientOfManyRowsIsTheReferences) {
  const RowMatrix<float> x = random_matrix<RowMatrix<float>>(300, 40, 5);
  RowMatrix<float> fast(300, 40), wanted(300, 40);
  uniformity_gradient(x, fast);
  uniformity_gradient(pare::reference, x, wanted);
  for (Index i = 0; i < 300; ++i) {
    const double size = 2 * 2.0 * 2 / 300 / static_cast<double>(x.row(i).norm());
    EXPECT_LT((fast.row(i) - wanted.row(i)).norm(), size * bound_of<float>(40, 2)) << i;
    // Lengths do not matter, so nothing pulls along the row.
    EXPECT_NEAR(fast.row(i).dot(x.row(i)) / x.row(i).norm(), 0, size * bound_of<float>(40, 2));
  }
}

TEST(Uniformity, SameBitsForAnyThreadsAndStride) {
  const RowMatrix<float> x = random_matrix<RowMatrix<float>>(500, 19, 2);
  pare::testing::same_bits_for_any_threads(pare::simd,
                                           [&](const auto& b) { return uniformity(b, x); });
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& b) {
    RowMatrix<float> gradient(500, 19);
    uniformity_gradient(b, x, gradient);
    return gradient;
  });
  pare::testing::any_stride_same_bits(x, [](const auto& view) { return uniformity(view); });
  RowMatrix<float> by_rows(500, 19);
  Eigen::MatrixXf by_columns(500, 19);
  uniformity_gradient(x, by_rows);
  uniformity_gradient(x, by_columns);
  EXPECT_TRUE(pare::testing::bytes_of(by_rows) == pare::testing::bytes_of(by_columns));
}

/// Rows of 16 bits are those that they widen to.
template <class S>
void expect_widened() {
  const RowMatrix<S> x = random_matrix<RowMatrix<S>>(211, 9, 4);
  RowMatrix<float> wide(211, 9), got(211, 9), wanted(211, 9);
  for (Index k = 0; k < x.size(); ++k) wide.data()[k] = static_cast<float>(x.data()[k]);
  EXPECT_EQ(uniformity_gradient(x, got), uniformity_gradient(wide, wanted));
  EXPECT_TRUE(got == wanted);
  EXPECT_EQ(uniformity(x), uniformity(wide));
  EXPECT_EQ(uniformity_gradient(pare::reference, x, got),
            uniformity_gradient(pare::reference, wide, wanted));
  EXPECT_TRUE(got == wanted);
}
TEST(Uniformity, RowsOf16BitsAreWidened) {
  expect_widened<pare::bf16>();
  expect_widened<pare::f16>();
}

TEST(Uniformity, TheSecondCallAllocatesNothing) {
  const RowMatrix<float> x = random_matrix<RowMatrix<float>>(300, 16, 2);
  RowMatrix<float> gradient(300, 16);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  uniformity_gradient(backend, x, gradient);
  const long before = pare::testing::allocations;
  uniformity_gradient(backend, x, gradient);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

/// Rows of any length have directions; one that has none is refused.
TEST(Uniformity, TakesAnyLengthButNone) {
  Wide x = random_matrix<Wide>(6, 4, 9), gradient = Wide::Zero(6, 4);
  const double wanted = uniformity(x);
  x.row(0) *= 1e200;
  x.row(1) *= 1e-200;
  EXPECT_NEAR(uniformity(x), wanted, 1e-13);
  EXPECT_NEAR(uniformity(pare::reference, x), wanted, 1e-13);
  // Squares that are 0, or have few digits left.
  for (const double size : {1e-135, 1e-143, 1e-155, 1e-158, 1e-161, 1e-164}) {
    Wide short_rows = x;
    short_rows.row(2) *= size;
    EXPECT_NEAR(uniformity(short_rows), wanted, 1e-13) << size;
  }
  const double infinity = std::numeric_limits<double>::infinity();
  const auto refused = [&](const Wide& of, const char* argument) {
    refusal([&] { uniformity(of); }, "retrieval::uniformity", argument);
    refuses_and_leaves_alone([&] { uniformity_gradient(of, gradient); },
                             "retrieval::uniformity_gradient", argument, gradient);
  };
  refused(x.topRows(1), "x");
  refused(Wide(3, 0), "x");
  for (const double bad : {std::nan(""), infinity, -infinity}) {
    Wide y = x;
    y(3, 2) = bad;
    refused(y, "x");
  }
  x.row(5).setZero();
  refused(x, "x");
  const RowMatrix<float> tiny = RowMatrix<float>::Constant(2, 1, 1e-42f);
  refusal([&] { uniformity(tiny); }, "retrieval::uniformity", "x");
}

TEST(Uniformity, RefusesOptionsAndGradientsThatDoNotFit) {
  Wide x = random_matrix<Wide>(6, 4, 9), gradient = Wide::Zero(6, 4), other(5, 4);
  for (const double bad : {0.0, -1.0, 20.5, std::nan("")}) {
    refusal([&] { uniformity(x, {.t = bad}); }, "retrieval::uniformity", "t");
    refuses_and_leaves_alone([&] { uniformity_gradient(x, gradient, {.t = bad}); },
                             "retrieval::uniformity_gradient", "t", gradient);
  }
  refuses_and_leaves_alone([&] { uniformity_gradient(x, gradient, {.weight = std::nan("")}); },
                           "retrieval::uniformity_gradient", "weight", gradient);
  refusal([&] { uniformity_gradient(x, other); }, "retrieval::uniformity_gradient", "gradient");
  refusal([&] { uniformity_gradient(x, x); }, "retrieval::uniformity_gradient", "gradient");
}

/// A norm for each row, and rows of a block, would not fit any memory.
TEST(Uniformity, RefusesMoreThanMemoryHas) {
  const double one = 1;
  const Index many = Index{1} << 60;
  Wide gradient = Wide::Zero(6, 4);
  for (const std::array<Index, 2>& extent :
       {std::array<Index, 2>{many, 1}, std::array<Index, 2>{2, many}}) {
    const pare::TensorView<const double, 2> x{&one, extent, {0, 0}};
    refusal([&] { uniformity(x); }, "retrieval::uniformity", "x");
    refusal([&] { uniformity(pare::reference, x); }, "retrieval::uniformity", "x");
    refuses_and_leaves_alone([&] { uniformity_gradient(x, gradient); },
                             "retrieval::uniformity_gradient", "x", gradient);
  }
}

}  // namespace
}  // namespace retrieval_uniformity_test
