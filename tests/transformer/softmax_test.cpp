// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/softmax.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_softmax_test {
namespace {

using pare::Index;
using pare::testing::equal_bits;
using pare::testing::expect_stored;
using pare::testing::Gapped;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::same_bits;
using pare::testing::Tolerance;
using namespace pare::transformer;

template <class Case>
struct SoftmaxTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(SoftmaxTest, pare::testing::RowCases);

constexpr Index dims[] = {1, 2, 7, 16, 17, 100, 577, 9000};

struct RowSum {
  long double largest, log_sum;
};
template <class S>
RowSum sum_of(const Rows<S>& x, Index i, double temperature) {
  RowSum row{x.at(i, 0), 0};
  for (Index j = 0; j < x.cols(); ++j) row.largest = std::max(row.largest, x.at(i, j));
  for (Index j = 0; j < x.cols(); ++j)
    row.log_sum += std::exp((x.at(i, j) - row.largest) / temperature);
  row.log_sum = std::log(row.log_sum);
  return row;
}

/// The exponent d takes a difference, a product and the rounding of a constant, 3 u of it each; the
/// power of 2 has 3 u, the sum 72 u and as much as its terms, in the mean, the rest 3 u.
template <class T>
double weight_bound(double d, double mean_d) {
  return Tolerance<T>::unit_roundoff * (80 + 3 * std::abs(d) + 3 * mean_d);
}

template <class Case>
void expect_softmax(const Rows<typename Case::scalar>& x, double temperature) {
  using S = typename Case::scalar;
  using T = pare::compute_t<S>;
  const Index rows = x.rows(), dim = x.cols();
  Rows<S> y(rows, dim), logs(rows, dim);
  std::vector<T> sums(static_cast<std::size_t>(rows));
  softmax(Case::backend::make(), x.view(), y.view(), {.temperature = temperature});
  log_softmax(Case::backend::make(), x.view(), logs.view(), {.temperature = temperature});
  log_sum_exp(Case::backend::make(), x.view(), sums, {.temperature = temperature});
  // Weights below the smallest power are 0.
  const double smallest = std::is_same_v<T, float> ? 0x1p-126 : 0x1p-1022;
  for (Index i = 0; i < rows; ++i) {
    const RowSum row = sum_of(x, i, temperature);
    // sum w |d| is at most log(dim) + 1 for weights of sum 1.
    const double mean_d = std::log(static_cast<double>(dim)) + 1;
    constexpr double u = Tolerance<T>::unit_roundoff;
    for (Index j = 0; j < dim; ++j) {
      const long double d = (x.at(i, j) - row.largest) / temperature;
      const long double wanted = std::exp(d - row.log_sum);
      expect_stored(y(i, j), wanted,
                    weight_bound<T>(static_cast<double>(d), mean_d) * static_cast<double>(wanted) +
                        1.01 * smallest,
                    i, j);
      const double sum_bound = weight_bound<T>(0, mean_d);
      expect_stored(logs(i, j), d - row.log_sum,
                    sum_bound + u * (4 * std::abs(static_cast<double>(d)) +
                                     2 * std::abs(static_cast<double>(row.log_sum))),
                    i, j);
      ASSERT_NEAR(static_cast<double>(sums[static_cast<std::size_t>(i)]),
                  static_cast<double>(row.largest / temperature + row.log_sum),
                  sum_bound + 2 * u * std::abs(static_cast<double>(row.largest / temperature)) +
                      2 * u * static_cast<double>(row.log_sum));
    }
  }
}

TYPED_TEST(SoftmaxTest, IsTheDefinition) {
  using S = typename TypeParam::scalar;
  for (const Index dim : dims)
    for (const double size : {1.0, 40.0})
      for (const double temperature : {1.0, 0.3, 2.5})
        expect_softmax<TypeParam>(random_rows<S>(2, dim, 1, size), temperature);
  // Far from 0, where no exponential of x itself is a number.
  expect_softmax<TypeParam>(Rows<S>(2, 50, [](Index i, Index j) { return 1000 * (i + 1) + j; }), 1);
}

TYPED_TEST(SoftmaxTest, MinusInfinityHasNoWeightAndARowOfItNone) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  for (const Index dim : {1, 16, 40, 577}) {
    Rows<S> x = random_rows<S>(3, dim, 1);
    for (Index j = 0; j < dim; ++j) {
      x(1, j) = static_cast<S>(-infinity);
      if (j != dim / 2) x(2, j) = static_cast<S>(-infinity);
    }
    Rows<S> y(3, dim), logs(3, dim);
    std::vector<T> sums(3);
    softmax(this->backend(), x.view(), y.view());
    log_softmax(this->backend(), x.view(), logs.view());
    log_sum_exp(this->backend(), x.view(), sums);
    for (Index j = 0; j < dim; ++j) {
      EXPECT_TRUE(same_bits(y(1, j), static_cast<S>(T(0))));
      EXPECT_EQ(logs.at(1, j), -infinity);
      EXPECT_EQ(y.at(2, j), j == dim / 2 ? 1 : 0);
      EXPECT_EQ(logs.at(2, j), j == dim / 2 ? T(0) : -infinity);
    }
    EXPECT_EQ(sums[1], -infinity);
    EXPECT_EQ(sums[2], static_cast<T>(x(2, dim / 2)));
  }
}

TYPED_TEST(SoftmaxTest, NanAndInfinityStayInTheirRow) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const Rows<S> plain = random_rows<S>(4, 40, 1);
  Rows<S> clean(4, 40), y(4, 40), logs(4, 40);
  softmax(this->backend(), plain.view(), clean.view());
  for (Index place = 0; place < 40; ++place) {
    Rows<S> x = plain;
    for (Index j = 0; j < 40; ++j) x(3, j) = static_cast<S>(-infinity);
    x(1, place) = x(3, place) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
    x(2, place) = static_cast<S>(infinity);
    std::vector<T> sums(4);
    softmax(this->backend(), x.view(), y.view());
    log_softmax(this->backend(), x.view(), logs.view());
    log_sum_exp(this->backend(), x.view(), sums);
    for (Index j = 0; j < 40; ++j) {
      ASSERT_TRUE(same_bits(y(0, j), clean(0, j)));
      for (const Index i : {1, 2, 3})
        ASSERT_TRUE(std::isnan(y.at(i, j)) && std::isnan(logs.at(i, j))) << i << ' ' << place;
    }
    EXPECT_TRUE(std::isnan(sums[1]) && std::isnan(sums[2]) && std::isnan(sums[3]));
  }
}

TYPED_TEST(SoftmaxTest, AnyStrideAndPlaceHasTheSameBits) {
  using S = typename TypeParam::scalar;
  const auto x = random_rows<S>(70, 300, 1, 5);
  Rows<S> wanted(70, 300), logs(70, 300);
  softmax(this->backend(), x.view(), wanted.view());
  log_softmax(this->backend(), x.view(), logs.view());
  pare::testing::any_stride_same_bits(x, [&](const auto& view) {
    std::vector<pare::compute_t<S>> sums(70);
    log_sum_exp(this->backend(), view, sums);
    return sums;
  });
  auto in_place = x;
  softmax(this->backend(), as_const(in_place.view()), in_place.view());
  EXPECT_TRUE(equal_bits(in_place, wanted));
  const Gapped<S> columns(x), more(x);
  softmax(this->backend(), as_const(columns.view()), columns.view());
  log_softmax(this->backend(), as_const(more.view()), more.view());
  EXPECT_TRUE(equal_bits(columns.rows(), wanted) && equal_bits(more.rows(), logs));
  EXPECT_TRUE(columns.gaps_untouched() && more.gaps_untouched());
}

TEST(Softmax, AnyThreadsHaveTheSameBits) {
  const auto x = random_rows<float>(301, 200, 1, 5);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> y(301, 200);
    softmax(backend, x.view(), y.view());
    return y;
  });
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Eigen::VectorXf sums(301);
    log_sum_exp(backend, x.view(), sums);
    return sums;
  });
}

TEST(Softmax, AStepAllocatesNothing) {
  auto x = random_rows<float>(2, 5000, 1);
  const auto step = [&] { softmax(as_const(x.view()), x.view(), {.temperature = 0.7}); };
  step();
  const long before = pare::testing::allocations;
  step();
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TYPED_TEST(SoftmaxTest, WhatDoesNotFitIsRefused) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  const auto b = this->backend();
  Rows<S> x = random_rows<S>(4, 8, 1), y = random_rows<S>(4, 8, 2);
  std::vector<T> sums(4), more(5);
  const auto refused = [&](const auto& call, const char* function, const char* argument) {
    refuses_and_leaves_alone(call, function, argument, x, y, sums);
  };
  const auto cut = [](Rows<S>& m, Index from, Index cols) {
    return pare::TensorView<S, 2>{&m(0, from), {m.rows(), cols}, {m.cols(), 1}};
  };
  constexpr const char* plain = "transformer::softmax";
  constexpr const char* sum = "transformer::log_sum_exp";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double t : {0.0, -1.0, nan, std::numeric_limits<double>::infinity(), 1e-31, 1e31}) {
    refused([&] { softmax(b, x.view(), y.view(), {.temperature = t}); }, plain, "temperature");
    refused([&] { log_softmax(b, x.view(), y.view(), {.temperature = t}); },
            "transformer::log_softmax", "temperature");
    refused([&] { log_sum_exp(b, x.view(), sums, {.temperature = t}); }, sum, "temperature");
  }
  refused([&] { softmax(b, x.view(), cut(y, 0, 7)); }, plain, "y");
  refused([&] { softmax(b, cut(x, 0, 7), cut(x, 1, 7)); }, plain, "y");
  refused([&] { softmax(b, cut(x, 0, 0), cut(y, 0, 0)); }, plain, "x");
  refused([&] { softmax(b, pare::TensorView<S, 2>{nullptr, {4, 8}, {8, 1}}, y.view()); }, plain,
          "x");
  refused([&] { softmax(b, x.view(), pare::TensorView<S, 2>{&y(0, 0), {4, 8}, {0, 1}}); }, plain,
          "y");
  refused([&] { log_sum_exp(b, x.view(), more); }, sum, "out");
  if constexpr (std::is_same_v<S, T>)
    refused([&] { log_sum_exp(b, x.view(), pare::TensorView<T, 1>{&x(0, 0), {4}, {1}}); }, sum,
            "out");
  softmax(b, pare::TensorView<S, 2>{nullptr, {0, 8}, {8, 1}},
          pare::TensorView<S, 2>{nullptr, {0, 8}, {8, 1}});
}

}  // namespace
}  // namespace transformer_softmax_test
