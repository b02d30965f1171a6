// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/factor/covariance.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"
#include "support/tolerance.hpp"

namespace factor_covariance_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::TensorView;
using pare::factor::Covariance;
using pare::factor::CovarianceProducts;

template <class Case>
struct CovarianceTest : testing::Test {};
TYPED_TEST_SUITE(CovarianceTest, AccumulatorCases);

/// Numbers around 0.3, so that a wrong or missing token does not cancel out.
template <class S, int Order = Eigen::RowMajor>
class Tokens {
 public:
  Tokens(Index tokens, Index dim, std::uint64_t seed)
      : values_(static_cast<std::size_t>(tokens * dim)),
        view_{values_.data(),
              {tokens, dim},
              Order == Eigen::RowMajor ? std::array<Index, 2>{dim, 1}
                                       : std::array<Index, 2>{1, tokens}} {
    Engine random(seed);
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < dim; ++i)
        view_(t, i) = static_cast<S>(static_cast<pare::compute_t<S>>(0.3 + normal(random)));
  }
  Tokens(const Tokens&) = delete;
  Tokens& operator=(const Tokens&) = delete;

  TensorView<S, 2> writable() { return view_; }
  TensorView<const S, 2> view() const { return view_; }
  TensorView<const S, 2> rows(Index begin, Index count) const {
    return {&view_(begin, 0), {count, view_.cols()}, view_.stride};
  }
  MatrixXd exact() const {
    MatrixXd m(view_.rows(), view_.cols());
    for (Index t = 0; t < m.rows(); ++t)
      for (Index i = 0; i < m.cols(); ++i)
        m(t, i) = static_cast<double>(static_cast<pare::compute_t<S>>(view_(t, i)));
    return m;
  }

 private:
  std::vector<S> values_;
  TensorView<S, 2> view_;
};

/// The rounding of products of at most 512 tokens in T, where native bf16 products round twice a
/// pair, and of the rest in double.
template <class T>
double relative_bound(Index tokens) {
  return Tolerance<T>::gamma(514) + Tolerance<double>::gamma(static_cast<double>(tokens) + 4);
}

template <class T>
void expect_covariance(const Covariance& covariance, const MatrixXd& x) {
  const auto n = static_cast<double>(x.rows());
  const auto got = covariance.matrix();
  const MatrixXd wanted = x.transpose() * x, size = x.cwiseAbs().transpose() * x.cwiseAbs();
  ASSERT_EQ(got.rows(), x.cols());
  ASSERT_EQ(covariance.count(), x.rows());
  for (Index i = 0; i < x.cols(); ++i)
    for (Index j = 0; j < x.cols(); ++j) {
      ASSERT_TRUE(within(got(i, j), wanted(i, j) / n, relative_bound<T>(x.rows()) * size(i, j) / n))
          << i << ' ' << j;
      ASSERT_TRUE(same_bits(got(i, j), got(j, i))) << i << ' ' << j;
    }
}

struct Size {
  Index tokens, dim;
};

template <class P, int Order>
void expect_definition(const Size& size) {
  using S = typename P::scalar;
  const Tokens<S, Order> x(size.tokens, size.dim, 7);
  SCOPED_TRACE(testing::Message() << size.tokens << " x " << size.dim << ' ' << Order);
  Covariance chunked(size.dim), exact(size.dim, CovarianceProducts::Double);
  chunked.add(P::backend::make(), x.view());
  exact.add(P::backend::make(), x.view());
  expect_covariance<pare::compute_t<S>>(chunked, x.exact());
  expect_covariance<double>(exact, x.exact());
}

TYPED_TEST(CovarianceTest, IsTheMeanOfOuterProducts) {
  // Tiles, panels, chunks and the four of them that are taken at a time, each with a rest.
  for (const Size& size : {Size{1, 1}, Size{2, 5}, Size{7, 64}, Size{3, 65}, Size{257, 100},
                           Size{513, 33}, Size{2050, 130}}) {
    expect_definition<TypeParam, Eigen::RowMajor>(size);
    expect_definition<TypeParam, Eigen::ColMajor>(size);
  }
}

TYPED_TEST(CovarianceTest, MoreFeaturesThanArePackedAtATime) {
  using S = typename TypeParam::scalar;
  const Tokens<S> x(3, 2115, 8);
  Covariance covariance(2115);
  covariance.add(TypeParam::backend::make(), x.view());
  expect_covariance<pare::compute_t<S>>(covariance, x.exact());
}

TYPED_TEST(CovarianceTest, CallsAndMergesAddUp) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const Tokens<S> x(700, 50, 9);
  for (const auto products : {CovarianceProducts::Float, CovarianceProducts::Double}) {
    Covariance whole(50, products), calls(50, products), other(50, products);
    whole.add(backend, x.view());
    calls.add(backend, x.rows(0, 130));
    calls.add(backend, x.rows(130, 1));
    other.add(backend, x.rows(131, 569));
    calls.add(backend, x.rows(0, 0));
    calls.merge(other);
    EXPECT_EQ(calls.count(), 700);
    if (products == CovarianceProducts::Float) {
      expect_covariance<pare::compute_t<S>>(calls, x.exact());
      continue;
    }
    const auto c = whole.matrix();
    EXPECT_LE((calls.matrix() - c).cwiseAbs().maxCoeff(), 1e-12 * c.diagonal().maxCoeff());
  }
}

template <class S>
struct CovarianceBitsTest : testing::Test {};
using BitsScalars = testing::Types<float, double, pare::bf16>;
TYPED_TEST_SUITE(CovarianceBitsTest, BitsScalars);

TYPED_TEST(CovarianceBitsTest, DoNotDependOnTheExecutor) {
  const Tokens<TypeParam> x(600, 333, 10);
  for (const auto products : {CovarianceProducts::Float, CovarianceProducts::Double}) {
    same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      Covariance covariance(333, products);
      covariance.add(backend, x.view());
      covariance.add(backend, x.view());
      return covariance.matrix();
    });
  }
}

TYPED_TEST(CovarianceTest, DampingAddsAShareOfTheMeanVariance) {
  using S = typename TypeParam::scalar;
  const Tokens<S> x(20, 6, 11);
  Covariance covariance(6);
  covariance.add(TypeParam::backend::make(), x.view());
  const auto c = covariance.matrix(), damped = covariance.damped(0.25);
  EXPECT_TRUE(within(covariance.mean_diagonal(), c.trace() / 6,
                     Tolerance<double>::gamma(10) * c.trace() / 6));
  for (Index i = 0; i < 6; ++i)
    for (Index j = 0; j < 6; ++j)
      EXPECT_TRUE(within(damped(i, j), c(i, j) + (i == j ? 0.25 * c.trace() / 6 : 0.0),
                         Tolerance<double>::gamma(16) * c.trace()));
  EXPECT_TRUE(equal_bits(covariance.damped(0), c));
}

TYPED_TEST(CovarianceTest, ANanReachesItsFeatureAlone) {
  using S = typename TypeParam::scalar;
  Tokens<S> x(9, 70, 12);
  x.writable()(4, 66) = static_cast<S>(std::numeric_limits<pare::compute_t<S>>::quiet_NaN());
  Covariance covariance(70);
  covariance.add(TypeParam::backend::make(), x.view());
  const auto c = covariance.matrix();
  for (Index i = 0; i < 70; ++i)
    for (Index j = 0; j < 70; ++j) EXPECT_EQ(std::isnan(c(i, j)), i == 66 || j == 66);
}

TEST(Covariance, TakesEigenObjects) {
  const auto rows = random_matrix<Eigen::Matrix<Eigen::bfloat16, -1, -1, Eigen::RowMajor>>(9, 5, 1);
  const Eigen::MatrixXf columns = rows.cast<float>();
  Covariance of_rows(5), of_columns(5);
  of_rows.add(rows);
  of_columns.add(columns.topRows(9));
  expect_covariance<float>(of_rows, columns.cast<double>());
  expect_covariance<float>(of_columns, columns.cast<double>());
}

TYPED_TEST(CovarianceTest, BadInputIsRefusedAndAddsNothing) {
  using S = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const std::string name = "factor::Covariance";
  refusal([] { Covariance(0); }, name, "dim");
  for (const int bits : {31, 40, 62}) refusal([=] { Covariance(Index{1} << bits); }, name, "dim");
  for (const int none : {-1, 2})
    refusal([=] { Covariance(2, CovarianceProducts(none)); }, name, "products");
  Covariance covariance(5);
  const Tokens<S> wrong(5, 4, 1), x(6, 5, 2);
  refusal([&] { covariance.add(backend, wrong.view()); }, name + "::add", "x");
  const TensorView<const S, 2> scattered{x.view().data, {2, 5}, {11, 2}};
  refusal([&] { covariance.add(backend, scattered); }, name + "::add", "x");
  const TensorView<const S, 2> negative{x.view().data, {-1, 5}, {5, 1}};
  refusal([&] { covariance.add(backend, negative); }, name + "::add", "x");
  const TensorView<const S, 2> null{nullptr, {2, 5}, {5, 1}};
  refusal([&] { covariance.add(backend, null); }, name + "::add", "x");
  EXPECT_EQ(covariance.count(), 0);
  refusal([&] { covariance.matrix(); }, name + "::matrix", "count");
  refusal([&] { covariance.mean_diagonal(); }, name + "::mean_diagonal", "count");
  refusal([&] { covariance.damped(0.1); }, name + "::damped", "count");
  refusal([&] { covariance.merge(Covariance(4)); }, name + "::merge", "other");
  covariance.add(backend, x.view());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double damping : {-1.0, nan, std::numeric_limits<double>::infinity()})
    refusal([&] { covariance.damped(damping); }, name + "::damped", "damping");
  Covariance many = covariance;
  while (many.count() <= std::numeric_limits<Index>::max() / 2) many.merge(many);
  const Index count = many.count();
  refusal([&] { many.merge(many); }, name + "::merge", "count");
  EXPECT_EQ(many.count(), count);
  expect_covariance<pare::compute_t<S>>(covariance, x.exact());
}

}  // namespace
}  // namespace factor_covariance_test
