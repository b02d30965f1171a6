// SPDX-License-Identifier: Apache-2.0
// The factored layer against its definition in double.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>

#include <pare/factor/apply.hpp>

#include "factor/data.hpp"
#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/properties.hpp"

namespace factor_apply_test {
namespace {

using namespace pare::factor;
using pare::Index;
using pare::testing::equal_bits;
using pare::testing::integer_matrix;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::Tolerance;
using Wide = Eigen::MatrixXd;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

template <class M>
Wide wide(const M& m) {
  if constexpr (std::is_same_v<typename M::Scalar, double>)
    return m;
  else
    return m.template cast<float>().template cast<double>();
}

/// Both sums are off by gamma of their lengths, relative to the sum of magnitudes.
template <class T, class L, class R, class X, class Y>
void expect_product(const L& left, const R& right, const X& x, const Y& y) {
  const Wide wanted = (wide(x) * wide(right).transpose()) * wide(left).transpose();
  const Wide terms =
      (wide(x).cwiseAbs() * wide(right).cwiseAbs().transpose()) * wide(left).cwiseAbs().transpose();
  const double gamma = Tolerance<T>::gamma(static_cast<double>(right.cols() + right.rows() + 1));
  ASSERT_EQ(y.rows(), wanted.rows());
  ASSERT_EQ(y.cols(), wanted.cols());
  for (Index i = 0; i < y.rows(); ++i)
    for (Index j = 0; j < y.cols(); ++j)
      ASSERT_PRED3(pare::testing::within, static_cast<double>(y(i, j)), wanted(i, j),
                   gamma * terms(i, j) + 1e-300)
          << i << ' ' << j;
}

template <class P>
class ApplyTest : public testing::Test {
 protected:
  static auto backend() { return P::backend::make(); }
};
TYPED_TEST_SUITE(ApplyTest, pare::testing::BackendsAndScalars);

TYPED_TEST(ApplyTest, IsTheProductWithBothFactors) {
  using T = typename TypeParam::scalar;
  const Index shapes[][4] = {{1, 1, 1, 1},     {3, 5, 2, 4},        {127, 70, 9, 33},
                             {128, 70, 9, 33}, {200, 300, 65, 130}, {260, 65, 300, 17}};
  for (const auto& [tokens, in, rank, out] : shapes) {
    SCOPED_TRACE(testing::Message() << tokens << ' ' << in << ' ' << rank << ' ' << out);
    LowRank<T> factors;
    factors.left = random_matrix<Rows<T>>(out, rank, 1);
    factors.right = random_matrix<Rows<T>>(rank, in, 2);
    const auto check = [&](const auto& x, auto&& y) {
      y.setConstant(std::numeric_limits<T>::quiet_NaN());
      apply(this->backend(), factors, x, y);
      expect_product<T>(factors.left, factors.right, x, y);
    };
    check(random_matrix<Rows<T>>(tokens, in, 3), Rows<T>(tokens, out));
    check(random_matrix<Columns<T>>(tokens, in, 4), Rows<T>(tokens, out));
    check(random_matrix<Rows<T>>(tokens, in, 5), Columns<T>(tokens, out));
    check(random_matrix<Columns<T>>(tokens, in, 6), Columns<T>(tokens, out));
  }
}

TYPED_TEST(ApplyTest, FactorsOfEitherOrderAndPartsOfMatrices) {
  using T = typename TypeParam::scalar;
  const Columns<T> left = random_matrix<Columns<T>>(20, 6, 1),
                   right = random_matrix<Columns<T>>(6, 30, 2);
  for (const Index tokens : {2, 140}) {
    const Rows<T> x = random_matrix<Rows<T>>(tokens + 2, 34, 3);
    Rows<T> y = Rows<T>::Constant(tokens + 2, 25, T(-7));
    apply(this->backend(), left, right, x.block(1, 2, tokens, 30), y.block(1, 3, tokens, 20));
    expect_product<T>(left, right, Rows<T>(x.block(1, 2, tokens, 30)),
                      Rows<T>(y.block(1, 3, tokens, 20)));
    y.block(1, 3, tokens, 20).setConstant(T(-7));
    EXPECT_EQ(y, Rows<T>::Constant(tokens + 2, 25, T(-7))) << "written outside its part";
    // A column of a matrix by rows: the stride of 1 is along an extent of 1.
    Rows<T> narrow = Rows<T>::Constant(tokens, 2, T(-7));
    const Rows<T> one = left.topRows(1);
    apply(this->backend(), one, right, x.block(1, 2, tokens, 30), narrow.col(1));
    expect_product<T>(one, right, Rows<T>(x.block(1, 2, tokens, 30)), Rows<T>(narrow.col(1)));
    EXPECT_EQ(narrow.col(0).sum(), T(-7 * tokens));
  }
}

TYPED_TEST(ApplyTest, IntegersAreExact) {
  using T = typename TypeParam::scalar;
  const Rows<T> left = integer_matrix<Rows<T>>(70, 10, 1),
                right = integer_matrix<Rows<T>>(10, 90, 2);
  for (const Index tokens : {4, 200}) {
    const Rows<T> x = integer_matrix<Rows<T>>(tokens, 90, 3);
    Rows<T> y(tokens, 70);
    apply(this->backend(), left, right, x, y);
    EXPECT_EQ(wide(y), (wide(x) * wide(right).transpose()) * wide(left).transpose());
  }
}

TYPED_TEST(ApplyTest, ANanStaysInItsToken) {
  using T = typename TypeParam::scalar;
  for (const Index tokens : {9, 150}) {
    const Rows<T> left = random_matrix<Rows<T>>(40, 5, 1), right = random_matrix<Rows<T>>(5, 50, 2);
    Rows<T> x = random_matrix<Rows<T>>(tokens, 50, 3), y(tokens, 40);
    x(4, 7) = std::numeric_limits<T>::quiet_NaN();
    apply(this->backend(), left, right, x, y);
    for (Index i = 0; i < tokens; ++i)
      for (Index j = 0; j < 40; ++j) EXPECT_EQ(std::isnan(y(i, j)), i == 4);
  }
}

TYPED_TEST(ApplyTest, EmptyExtents) {
  using T = typename TypeParam::scalar;
  const Rows<T> left = Rows<T>::Ones(4, 3), right = Rows<T>::Ones(3, 5);
  Rows<T> none(0, 4), y = Rows<T>::Constant(2, 4, T(-7));
  apply(this->backend(), left, right, Rows<T>(0, 5), none);
  apply(this->backend(), Rows<T>(4, 0), Rows<T>(0, 5), Rows<T>::Ones(2, 5).eval(), y);
  EXPECT_EQ(y, Rows<T>::Zero(2, 4)) << "rank 0";
  y.setConstant(T(-7));
  apply(this->backend(), left, Rows<T>(3, 0), Rows<T>(2, 0), y);
  EXPECT_EQ(y, Rows<T>::Zero(2, 4)) << "no inputs";
}

TYPED_TEST(ApplyTest, RefusesWhatDoesNotFitAndWritesNothing) {
  using T = typename TypeParam::scalar;
  const Rows<T> left = Rows<T>::Ones(4, 3), right = Rows<T>::Ones(3, 5), x = Rows<T>::Ones(2, 5);
  const Rows<T> untouched = Rows<T>::Constant(2, 4, T(-7));
  Rows<T> y = untouched;
  const auto refused = [&](const char* argument, const auto& l, const auto& r, const auto& from,
                           auto&& to) {
    pare::testing::refuses_and_leaves_alone([&] { apply(this->backend(), l, r, from, to); },
                                            "factor::apply", argument, y);
  };
  refused("right", left, Rows<T>::Ones(2, 5).eval(), x, y);
  refused("right", left, right, Rows<T>::Ones(2, 6).eval(), y);
  refused("y", left, right, Rows<T>::Ones(3, 5).eval(), y);
  refused("y", Rows<T>::Ones(5, 3).eval(), right, x, y);
  using Strided = Eigen::Map<const Rows<T>, 0, Eigen::Stride<Eigen::Dynamic, 2>>;
  const Rows<T> spaced = Rows<T>::Ones(4, 20);
  refused("x", left, right, Strided(spaced.data(), 2, 5, Eigen::Stride<Eigen::Dynamic, 2>(20, 2)),
          y);
  refused("left", Strided(spaced.data(), 4, 3, Eigen::Stride<Eigen::Dynamic, 2>(20, 2)), right, x,
          y);
  refused("right", left, Strided(spaced.data(), 3, 5, Eigen::Stride<Eigen::Dynamic, 2>(20, 2)), x,
          y);
  EXPECT_TRUE(equal_bits(y, untouched));
  Rows<T> both = Rows<T>::Ones(2, 9);
  refused("y", left, right, both.leftCols(5), both.middleCols(4, 4));
  Eigen::Map<Rows<T>, 0, Eigen::OuterStride<>> zero_stride(y.data(), 2, 4, Eigen::OuterStride<>(0));
  refused("y", left, right, x, zero_stride);
  EXPECT_EQ(both, Rows<T>::Ones(2, 9));
  using View = pare::TensorView<const T, 2>;
  refused("x", left, right, View{x.data(), {-1, 5}, {5, 1}},
          pare::TensorView<T, 2>{y.data(), {-1, 4}, {4, 1}});
  refused("x", left, right, View{nullptr, {2, 5}, {5, 1}}, y);
  refused("left", View{nullptr, {4, 3}, {3, 1}}, right, x, y);
  refused("right", left, View{nullptr, {3, 5}, {5, 1}}, x, y);
  refused("y", left, right, x, pare::TensorView<T, 2>{nullptr, {2, 4}, {4, 1}});
  refused("y", left, right, x, pare::TensorView<T, 2>{y.data(), {2, 4}, {1, 1}});
  EXPECT_TRUE(equal_bits(y, untouched));
}

template <class S>
struct ApplyStorage : testing::Test {};
using HalfScalars = testing::Types<Eigen::bfloat16, Eigen::half>;
TYPED_TEST_SUITE(ApplyStorage, HalfScalars);

TYPED_TEST(ApplyStorage, SixteenBitsOnEitherSide) {
  using S = TypeParam;
  const Rows<float> left = random_matrix<Rows<float>>(33, 20, 1);
  const Rows<S> short_left = left.cast<S>();
  for (const auto& [tokens, in] :
       {std::pair<Index, Index>{5, 517}, {130, 517}, {5, 576}, {70, 576}}) {
    const Rows<float> right = random_matrix<Rows<float>>(20, in, 2);
    const Rows<S> short_right = right.cast<S>();
    const Rows<S> x = random_matrix<Rows<float>>(tokens, in, 3).template cast<S>();
    Rows<float> y(tokens, 33);
    apply(pare::simd, left, right, x, y);
    expect_product<float>(left, right, x, y);
    apply(pare::simd, short_left, short_right, x, y);
    expect_product<float>(short_left, short_right, x, y);
    apply(pare::simd_for<pare::arch::scalar>{}, short_left, short_right, x, y);
    expect_product<float>(short_left, short_right, x, y);
    Rows<double> wide_y(tokens, 33);
    const Rows<double> xd = wide(x);
    apply(pare::simd, left, right, xd, wide_y);
    expect_product<double>(left, right, xd, wide_y);
  }
}

/// Those of `total` tokens are those of any `counts` of them.
template <class S>
void expect_same_bits(Index total, std::initializer_list<Index> counts, Index in = 1100) {
  using T = pare::compute_t<pare::scalar_of<Rows<S>>>;
  const Rows<S> left = random_matrix<Rows<S>>(90, 70, 1), right = random_matrix<Rows<S>>(70, in, 2),
                x = random_matrix<Rows<S>>(total, in, 3);
  Rows<T> wanted(total, 90);
  apply(left, right, x, wanted);
  const auto same = [&](const auto& backend, Index begin, Index count) {
    const Rows<S> part = x.middleRows(begin, count);
    const Columns<S> by_columns = part;
    Rows<T> y(count, 90), other(count, 90);
    Rows<S> spaced(count, in + 1);  // an odd number of elements from row to row
    spaced.leftCols(in) = part;
    apply(backend, left, right, part, y);
    apply(backend, left, right, spaced.leftCols(in), other);
    EXPECT_TRUE(equal_bits(other, y)) << begin << ' ' << count;
    EXPECT_TRUE(equal_bits(y, Rows<T>(wanted.middleRows(begin, count)))) << begin << ' ' << count;
    apply(backend, left, right, by_columns, other);
    EXPECT_TRUE(equal_bits(other, y)) << begin << ' ' << count;
    Columns<T> columns(count, 90);
    apply(backend, left, right, part, columns);
    EXPECT_TRUE(equal_bits(Rows<T>(columns), y)) << begin << ' ' << count;
  };
  for (const int threads : {1, 2, 3, 7}) same(pare::simd.threads(threads), 0, total);
  same(pare::simd.on(pare::testing::ReversePool{5}), 0, total);
  for (const Index count : counts) {
    same(pare::simd, total - count, count);
    same(pare::simd.threads(3), (total - count) / 2, count);
  }
}

TEST(Apply, TheSameBitsForEveryExecutorAndNumberOfTokens) {
  expect_same_bits<float>(300, {49, 50, 131});
  expect_same_bits<double>(300, {1, 7, 50, 131});
  expect_same_bits<Eigen::bfloat16>(300, {49, 50, 131});
}

TEST(Apply, FewTokensHaveTheBitsOfOne) {
  expect_same_bits<float>(48, {1, 2, 3, 4, 5, 6, 7, 16, 17, 47});
  expect_same_bits<Eigen::bfloat16>(48, {1, 2, 3, 4, 5, 6, 7, 16, 17, 47});
  expect_same_bits<Eigen::bfloat16>(48, {1, 2, 3, 4, 5, 6, 7, 16, 17, 47}, 1088);
  expect_same_bits<Eigen::half>(48, {1, 2, 6, 7, 33});
}

TEST(Apply, AWorkspaceAllocatesNothingTheSecondTime) {
  const Rows<float> left = random_matrix<Rows<float>>(90, 20, 1),
                    right = random_matrix<Rows<float>>(20, 110, 2);
  for (const Index tokens : {9, 200}) {
    const Rows<float> x = random_matrix<Rows<float>>(tokens, 110, 3);
    Rows<float> y(tokens, 90);
    pare::Workspace workspace;
    apply(pare::simd.with(workspace), left, right, x, y);
    const long before = pare::testing::allocations.load();
    apply(pare::simd.with(workspace), left, right, x, y);
    EXPECT_EQ(pare::testing::allocations.load(), before);
  }
}

}  // namespace
}  // namespace factor_apply_test
